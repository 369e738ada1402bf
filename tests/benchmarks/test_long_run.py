import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import long_run
from benchmarks.long_run import Found, Turn
from benchmarks.steps import Bench
from benchmarks.timing import Cost
from engine.config.load import load
from engine.training import build


def turn(*, first: float, epoch: float, speed: float) -> Turn:
    """A command whose two epochs after the first take as long."""
    return Turn(Cost(first, first), [Cost(epoch, epoch)] * 2, [Cost(speed, speed)] * 2)


def test_ratios_are_taken_within_a_round() -> None:
    found = Found(
        commands=[turn(first=50, epoch=10, speed=380), turn(first=30, epoch=20, speed=190)],
        plain=[Cost(30, 30), Cost(60, 60)],
        bare=[Cost(0.32, 0.32), Cost(0.64, 0.64)],
    )
    lines = list(long_run.report(found, batch_size=128))
    (epochs,) = (line for line in lines if line.startswith("train.py's epochs an hour"))
    (steps,) = (line for line in lines if line.startswith("train.py's training to bare"))
    assert epochs.count("3.00 (3.00 to 3.00)") == 2
    assert steps.count("0.95 (0.95 to 0.95)") == 2
    assert lines[-1].startswith("a first epoch of 50.0 s: ahead of plain from epoch 2 on")


def test_a_run_that_is_slower_than_the_plain_loop_is_never_ahead() -> None:
    assert "never ahead" in long_run.break_even(100.0, epoch=10.0, plain=5.0)


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "cifar" / "0123456789ab"
    folder.mkdir(parents=True)
    assert long_run._rows(tmp_path) == []
    whole = json.dumps({"epoch": 1}) + "\n"
    (folder / "metrics.jsonl").write_text(whole + '{"epoch": 2')
    assert long_run._rows(tmp_path) == [{"epoch": 1}]


def test_the_words_of_the_command_line_replace_those_of_the_recipe() -> None:
    words = long_run.recipe(long_run.arguments(["--images", "256", "runtime.compile=false"]))
    asked = {word.partition("=")[0]: word.partition("=")[2] for word in words[1:]}
    assert words.count("runtime.compile=false") == 1
    assert "runtime.compile=auto" not in words
    assert asked["runtime.precision"] == "auto"
    assert asked["sampler.length"] == "256"
    assert asked["schedule.epochs"] == "200"


@pytest.mark.parametrize(
    "word", ["schedule.epochs=3", "data.path=elsewhere", "runtime.threads=4", "track.root=runs"]
)
def test_a_word_that_the_benchmark_sets_is_refused(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        long_run.arguments([word])
    assert f"{word.partition('=')[0]} is set by the benchmark" in capsys.readouterr().err


def test_a_folder_is_looked_up_where_the_benchmark_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert long_run.arguments(["--folder", "copy"]).folder == str(tmp_path / "copy")
    assert long_run.arguments(["--folder", "cifar10-jpeg"]).folder == "cifar10-jpeg"


def test_the_cpu_time_of_a_process_has_that_of_what_it_has_started() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = long_run._cpu_of(process.pid)
        process.communicate(b"\n")
    assert used >= 0.48  # its clock ticks every 0.01 s


# Its worker processes are forks of a process with threads.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_plain_loop_trains_float32_weights_laid_out_as_torch_does() -> None:
    config = load(
        overrides=[
            *("data=synthetic", "data.channels=3", "data.size=8", "data.num_classes=2"),
            *("data.num_train_per_class=3", "data.num_test_per_class=2", "optim.batch_size=4"),
            *("data.imbalance.kind=none", "data.validation.per_class=null"),
            *("model=cifar_resnet8", "data.augment.crop=1", "runtime.precision=bfloat16"),
        ]
    )
    bench = Bench(config, build.build_dataset(config), torch.device("cpu"))
    loop = long_run.plain_loop(bench, length=None)
    weight = next(loop.model.parameters())
    before = weight.detach().clone()
    loop.epoch()
    assert weight.dtype == torch.float32
    assert weight.is_contiguous()
    assert not torch.equal(weight, before)


def test_a_command_that_refuses_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_model"):
        long_run.run_command(["model=no_such_model", "track.wandb=disabled"], epochs=2)
