import json
from pathlib import Path

import pytest
import torch

from benchmarks import long_run
from benchmarks.long_run import Cost, Found, Turn
from benchmarks.steps import Bench
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
