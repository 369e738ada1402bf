"""Two processes that share every batch: the numbers of one, one writer, and an end together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config.components import ROOT
from engine.training.processes import Processes
from engine.training.setup import load_dataset
from engine.training.trained import load_run
from losses.cross_entropy import CrossEntropy
from losses.sigmoid_focal import SigmoidFocal
from losses.softmax_focal import SoftmaxFocal
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    small_words,
)

# No BatchNorm, whose statistics are of a process's own images.
COMPARABLE = (
    *("model.norm=group", "optim.lr=0.01", "reweight=inverse", "loss.normalize=weights"),
    "schedule.epochs=2",
)

SHARED = (*COMPARABLE, "evaluate.store_features=true")


def environment(rank: int, *, world: int, port: int) -> dict[str, str]:
    """What torchrun sets, and one thread each."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


@contextlib.contextmanager
def two(command: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a command as two processes of one run; neither outlives the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with contextlib.ExitStack() as stack:
        processes = []
        for rank in range(2):
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment(rank, world=2, port=port),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def finished(processes: list[subprocess.Popen[str]], *, seconds: float = 240) -> list[str]:
    """Wait for both; what each has printed."""
    return [process.communicate(timeout=seconds)[0] for process in processes]


# --- the same numbers -----------------------------------------------------------------------------

STEPS = """
import json, sys
import torch
import data
from engine.training import build
from engine.config.load import load
from engine.training.processes import joined
from engine.training.epoch_totals import EpochTotals

out, *words = sys.argv[1:]
config = load(overrides=words)
with joined("cpu") as processes:
    torch.set_num_threads(1)
    dataset = build.build_dataset(config)
    trainer = build.build_trainer(config, dataset, device=torch.device("cpu"))
    weights = build.build_class_weights(config, dataset)
    trainer.loss.set_weight(weights)
    loader = data.Loader(
        dataset.train, batch_size=config.optim.batch_size, mean=dataset.mean, std=dataset.std,
        device=torch.device("cpu"), seed=0, augment=build.augmentation(config),
        rank=processes.rank, world=processes.world,
    )
    positions = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))
    indices, losses = [], []

    def recorded(batches):
        for batch in batches:
            indices.append([] if batch.is_spare else batch.index.tolist())
            yield batch

    sums = [0.0]
    def note(step):
        sums.append(step.totals.loss)
        losses.append((sums[-1] - sums[-2], step.totals.images))

    steps = loader.num_batches(len(positions))
    totals = EpochTotals()
    trainer.train_epoch(recorded(loader.epoch(positions, epoch=0)), epoch=0, steps=steps,
                        totals=totals, after_step=note)
    end = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    content = {"indices": indices, "losses": losses, "weights": end[:2000].tolist()}
    open(f"{out}.{processes.rank}", "w").write(json.dumps(content))
"""
BATCH = 33  # not to be halved, and 326 images leave a last batch of 29
DIGITS = (
    *("data=digits", "model.norm=group", f"optim.batch_size={BATCH}"),
    "data.augment.crop=1",
)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ("optim.lr=0.01", "reweight=inverse", "loss.normalize=weights"), marks=pytest.mark.slow
        ),
        pytest.param(
            ("optim.lr=0.01", "reweight=inverse", "loss=softmax_focal"), marks=pytest.mark.slow
        ),
        # Divided by positives, ten outputs a sample are ten times as steep: at 0.01 the last bit of
        # a sum grows to 1e-4 within ten steps on some processors.
        ("optim.lr=0.001", "loss=sigmoid_focal", "loss.normalize=positives", "optim.accumulate=3"),
    ],
    ids=["cross_entropy", "softmax_focal", "sigmoid_focal"],
)
def test_two_processes_make_the_steps_of_one(tmp_path: Path, words: tuple[str, ...]) -> None:
    command = ["-c", STEPS, str(tmp_path / "two"), *DIGITS, *words]
    with two(command) as processes:
        printed = finished(processes)
    assert [process.returncode for process in processes] == [0, 0], printed
    alone = environment(0, world=1, port=0)
    command[2] = str(tmp_path / "one")
    subprocess.run([sys.executable, *command], cwd=ROOT, env=alone, check=True, timeout=240)
    one = json.loads((tmp_path / "one.0").read_text())
    shared = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in range(2)]
    for rank, found in enumerate(shared):
        assert found["indices"] == [row[rank::2] for row in one["indices"]]
    assert shared[0]["losses"] == shared[1]["losses"]
    assert [images for _, images in shared[0]["losses"]] == [i for _, i in one["losses"]]
    loss = [np.array([value for value, _ in found["losses"]]) for found in (one, shared[0])]
    np.testing.assert_allclose(loss[1][:10] / BATCH, loss[0][:10] / BATCH, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(shared[0]["weights"], shared[1]["weights"])
    np.testing.assert_allclose(shared[0]["weights"], one["weights"], atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that two processes made."""
    root = tmp_path_factory.mktemp("shared")
    with two(["train.py", *small_words(root, *SHARED)]) as processes:
        printed = finished(processes)
    assert [process.returncode for process in processes] == [0, 0], printed
    (root / "printed.json").write_text(json.dumps(printed))
    return root


def test_metrics_of_two_processes_are_those_of_one(tmp_path: Path, shared_run: Path) -> None:
    small_run(tmp_path, *COMPARABLE)
    one = rows_of(folder_of(tmp_path, *COMPARABLE))[0]
    two = rows_of(folder_of(shared_run, *SHARED))[0]
    assert one.keys() == two.keys()
    assert two["train/class_histogram"] == one["train/class_histogram"]
    for key in one:
        assert two[key] == pytest.approx(one[key], abs=1e-4), key


def test_only_the_main_process_writes_and_speaks(shared_run: Path) -> None:
    first, second = json.loads((shared_run / "printed.json").read_text())
    assert "run folder:" in first
    assert second == ""
    (folder,) = shared_run.glob("*/*")
    assert folder == folder_of(shared_run, *SHARED)
    (segment,) = json.loads((folder / "environment.json").read_text())["segments"]
    assert segment["processes"] == 2
    predictions = np.load(folder / "predictions" / "test.last.npz")
    assert len(predictions["targets"]) == 40


def test_features_of_two_processes_are_in_the_order_of_the_images(shared_run: Path) -> None:
    folder = folder_of(shared_run, *SHARED)
    dataset = load_dataset(small_config(shared_run, *SHARED))
    run = load_run(folder, rule="last")
    stored = np.load(folder / "predictions/classifier.last.npz")
    for split in ("val", "test"):
        features = np.load(folder / f"predictions/{split}.last.features.npy")
        logits = np.load(folder / f"predictions/{split}.last.npz")["logits"]
        np.testing.assert_allclose(
            features @ stored["weight"].T + stored["bias"], logits, atol=1e-4
        )
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (run.mean, run.std))
    with torch.no_grad():
        features = run.model((dataset.train.images.float() / 255 - mean) / std).features.numpy()
    for label, found in enumerate(stored["means"]):
        own = features[dataset.train.targets.numpy() == label].mean(axis=0)
        np.testing.assert_allclose(found, own, atol=1e-4)


@pytest.mark.slow
def test_a_finished_run_is_shown_by_the_main_process(shared_run: Path) -> None:
    with two(["train.py", *small_words(shared_run, *SHARED)]) as processes:
        first, second = finished(processes)
    assert first.startswith("this run is finished")
    assert (second, [process.returncode for process in processes]) == ("", [0, 0])


@pytest.mark.slow
def test_two_processes_that_end_early_end_with_the_same_epoch(tmp_path: Path) -> None:
    words = ("model.norm=group", "optim.lr=1e-12", "schedule.epochs=5", "schedule.patience=2")
    with two(["train.py", *small_words(tmp_path, *words)]) as processes:
        first, second = finished(processes)
    assert [process.returncode for process in processes] == [0, 0], first + second
    assert "note: stopped after epoch 3 of 5" in first
    assert len(rows_of(folder_of(tmp_path, *words))) == 3


@pytest.mark.slow
def test_two_processes_with_a_teacher_make_the_numbers_of_one(tmp_path: Path) -> None:
    first = ("model.norm=group", "schedule.epochs=1", "data.classes=[0, 1]")
    small_run(tmp_path, *first)
    words = (
        *("model.norm=group", "optim.lr=0.01", "schedule.epochs=2", "data.classes=[2, 3]"),
        *("loss=distillation", f"teacher={folder_of(tmp_path, *first)}", "optim.batch_size=7"),
    )
    with two(["train.py", *small_words(tmp_path / "two", *words)]) as processes:
        printed = finished(processes)
    assert [process.returncode for process in processes] == [0, 0], printed
    small_run(tmp_path / "one", *words)
    one, two_ = (rows_of(folder_of(tmp_path / root, *words))[-1] for root in ("one", "two"))
    assert one.keys() == two_.keys()
    for key in one:
        assert two_[key] == pytest.approx(one[key], abs=1e-4), key


# --- an end together ------------------------------------------------------------------------------

LONG = ("schedule.epochs=200", "data.num_train_per_class=80", "runtime.checkpoint_seconds=1")


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("epoch") and line.split()[1].startswith(f"{epoch}/"):
            return
    pytest.fail("".join(seen))


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_is_killed_the_other_ends_soon_with_one_line(tmp_path: Path, victim: int) -> None:
    with two(["train.py", *small_words(tmp_path, *LONG)]) as processes:
        wait_for_epoch(processes[0], 2)
        processes[victim].kill()
        began = time.monotonic()
        left = processes[1 - victim]
        printed, _ = left.communicate(timeout=30)
        assert time.monotonic() - began < 30
    assert left.returncode == 1
    (line,) = (line for line in printed.splitlines() if not line.startswith("epoch "))
    assert line.startswith(f"process {1 - victim} of 2: another one has ended")


@pytest.mark.parametrize("asked", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_both_after_a_checkpoint(tmp_path: Path, asked: int) -> None:
    with two(["train.py", *small_words(tmp_path, *LONG)]) as processes:
        wait_for_epoch(processes[0], 2)
        processes[asked].send_signal(signal.SIGTERM)
        printed = finished(processes, seconds=30)
    assert [process.returncode for process in processes] == [143, 143], printed
    assert printed[0].splitlines()[-1] == "stopped by SIGTERM; run the same command to resume"
    assert (folder_of(tmp_path, *LONG) / "checkpoints" / "last.pt").exists()


SPOILT = """
import sys
import train
from engine.training.train_loop import Trainer

check_weights = Trainer.check_weights

def check(trainer):
    if trainer.seed == 0 and trainer.processes.rank == 1:
        state = trainer.model.state_dict()
        next(state[name] for name in state if name.endswith("running_mean")).fill_(float("nan"))
    check_weights(trainer)

Trainer.check_weights = check
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_divergence_that_one_sees_within_an_epoch_ends_the_seed_of_both(tmp_path: Path) -> None:
    words = ("model.norm=batch", "schedule.epochs=1", "runtime.checkpoint_seconds=1e-9")
    command = ["-c", SPOILT, *small_words(tmp_path, *words), "--seeds", "2"]
    with two(command) as processes:
        first, second = finished(processes)
    assert [process.returncode for process in processes] == [1, 1], first + second
    assert second == ""
    (line,) = (line for line in first.splitlines() if line.startswith("seed="))
    assert line.startswith("seed=0; epoch 1, step 1: ")
    assert "running_mean is not finite; no checkpoint was made" in line
    assert "n = 1 of 2: left out, as it diverged: seed 0" in first


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    with two(["train.py", "optim.lrr=1"]) as processes:
        printed = finished(processes)
    assert [process.returncode for process in processes] == [2, 2]
    assert [text.count("\n") for text in printed] == [1, 0]


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_refused_by_both(tmp_path: Path) -> None:
    from engine.training.run_folder import RunFolder

    with RunFolder(folder_of(tmp_path)).owned(), two(["train.py", *small_words(tmp_path)]) as both:
        first, second = finished(both)
    assert [process.returncode for process in both] == [2, 2]
    assert "is writing this run; wait for it" in first
    assert second == ""


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_process_was_killed(tmp_path: Path) -> None:
    words = ("schedule.epochs=12", "data.num_train_per_class=80", "mixup.mixup=0.2")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    def started(root: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *torchrun, "--max-restarts=1", "train.py", *small_words(root, *words)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with started(tmp_path / "whole") as process:
        printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    with started(tmp_path / "killed") as process:
        wait_for_epoch(process, 3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    assert "resuming at epoch" in printed
    assert_same_run(folder_of(tmp_path / "killed", *words), folder_of(tmp_path / "whole", *words))


# --- alone ----------------------------------------------------------------------------------------


def test_shares_put_together_are_the_whole() -> None:
    rows = torch.arange(11)
    shares = [Processes(rank, 4).share(rows) for rank in range(4)]
    assert {len(share) for share in shares} == {3}
    assert torch.stack(shares).T.flatten()[:11].tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("loss", "soft"),
    [
        (CrossEntropy(), False),
        (CrossEntropy(normalize="weights"), False),
        (CrossEntropy(normalize="weights"), True),
        (SoftmaxFocal(5, normalize="weights"), False),
        (SigmoidFocal(), True),
        (SigmoidFocal(normalize="batch"), False),
        (SigmoidFocal(normalize="positives"), False),
        (SigmoidFocal(normalize="positives"), True),
    ],
)
def test_a_mean_is_the_sum_of_its_parts_means_by_their_divisors(
    loss: CrossEntropy | SoftmaxFocal | SigmoidFocal, *, soft: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(5, (13,), generator=generator)
    if soft:
        targets = torch.rand(13, 5, generator=generator, dtype=torch.float64)
        targets = targets / targets.sum(1, keepdim=True)
    loss.set_weight(torch.tensor([0.5, 2.0, 1.0, 3.0, 0.25]))
    parts = [slice(0, 6), slice(6, 7), slice(7, 13)]
    normalizers = torch.stack([loss.normalizer(targets[part], num_outputs=5) for part in parts])
    shares = loss.divisor(normalizers) / loss.divisor(normalizers.sum())
    means = torch.stack([loss(logits[part], targets[part]) for part in parts])
    assert (shares * means).sum().item() == pytest.approx(loss(logits, targets).item(), rel=1e-6)


def test_parts_without_a_positive_count_for_nothing_in_the_whole() -> None:
    loss = SigmoidFocal(normalize="positives")
    logits = torch.randn(4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([0, 0, 1, 1])
    parts = [slice(0, 2), slice(2, 4)]
    normalizers = torch.stack([loss.normalizer(targets[part], num_outputs=1) for part in parts])
    assert normalizers.tolist() == [0, 2]
    shares = loss.divisor(normalizers) / loss.divisor(normalizers.sum())
    means = torch.stack([loss(logits[part], targets[part]) for part in parts])
    assert (shares * means).sum().item() == pytest.approx(loss(logits, targets).item(), rel=1e-6)
