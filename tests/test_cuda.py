"""What holds on the CPU holds on a CUDA device: losses, precisions, resume, memory, NCCL.

Its tests are marked `cuda`; `make test-cuda` runs them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import losses
import train
from benchmarks import loss_ways
from benchmarks.losses import Case
from engine.config.components import ROOT
from engine.training.epoch_totals import EpochTotals
from engine.training.processes import Processes
from engine.training.train_loop import Trainer
from losses.conformance import find_subject, own_subjects
from losses.conformance._range import EXTREMES, PRECISIONS
from losses.conformance._subject import Batch, kinds_of_targets, random_batch
from tests._runs import assert_same_run, folder_of, rows_of, small_run, small_words

pytestmark = [
    pytest.mark.cuda,
    # Said by torch of its own doings.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method"),
]
CUDA = "cuda"
ON_CUDA = ("runtime.device=cuda", "schedule.epochs=4")


def on_cuda(batch: Batch) -> Batch:
    return Batch(*(part.to(CUDA) for part in batch))


def ways_of_losses(batch: loss_ways.Batch | None = None) -> dict[str, loss_ways.Scalar]:
    """Return those ways of losses that kernels compute on a device."""
    batch = batch or loss_ways.drawn((2, 2), torch.device("cpu"))
    shape = tuple(batch.logits.shape)
    found = loss_ways.ways(Case("softmax", shape), batch)
    found |= loss_ways.ways(Case("sigmoid", shape), batch)
    names = (
        *("cross_entropy", "softmax_focal", "balanced", "logit", "ldam", "influence_balanced"),
        "sigmoid_focal",
    )
    return {name: way for name, way in found.items() if name.startswith(names)}


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [s.name for s in own_subjects() if not s.fact("draws")])
def test_a_loss_and_its_gradient_are_those_of_the_cpu(name: str) -> None:
    subject = find_subject(name)
    for keys in subject.gammas():
        loss = subject.weighed(keys)
        there = subject.weighed(keys).to(CUDA)
        for dtype in PRECISIONS:
            for batch in kinds_of_targets(subject, random_batch(64).to(dtype)):
                value, gradient = subject.slope(loss, batch)
                found = subject.slope(there, on_cuda(batch))
                torch.testing.assert_close(found[0].cpu(), value, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(found[1].cpu(), gradient)


@pytest.mark.parametrize("name", losses.names())
def test_a_loss_is_finite_at_large_logits(name: str) -> None:
    subject = find_subject(name)
    pairs = torch.cartesian_prod(torch.tensor(EXTREMES), torch.tensor(EXTREMES))
    batch = random_batch(len(pairs))
    batch.logits.zero_()[:, :2] = pairs
    for keys in subject.gammas():
        loss = subject.build(keys).to(CUDA)
        for dtype in PRECISIONS:
            value, gradient = subject.slope(loss, on_cuda(batch.to(dtype)))
            assert torch.isfinite(value)
            assert torch.isfinite(gradient).all()


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", losses.names())
def test_a_loss_never_waits_for_the_device(name: str) -> None:
    """A value read in Python, or a mask that selects, would stall every training step."""
    subject = find_subject(name)
    loss, batch = subject.weighed().to(CUDA), on_cuda(random_batch(64))
    expected = subject.slope(loss, batch)  # cuBLAS and the allocator start here
    with waiting_is_an_error():
        found = subject.slope(loss, batch)
    if not subject.fact("draws"):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("way", [name for name in ways_of_losses() if "composed" not in name])
def test_a_kernel_computes_what_the_composition_does(way: str) -> None:
    batch = loss_ways.drawn((256, 8142), torch.device(CUDA))
    value = ways_of_losses(batch)[way](batch.logits)
    assert loss_ways.is_by_kernel(value)
    (gradient,) = torch.autograd.grad(value, batch.logits)
    double = batch._replace(logits=batch.logits.detach().double().requires_grad_())
    expected = ways_of_losses(double)[way](double.logits)
    assert not loss_ways.is_by_kernel(expected)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(expected, double.logits)
    torch.testing.assert_close(
        gradient.double(), slope, rtol=1e-4, atol=1e-6 * slope.abs().max().item()
    )


def test_a_label_out_of_range_stops_the_device() -> None:
    """In a process of its own, which has no use for the device any more."""
    program = (
        "import torch; from losses.cross_entropy import cross_entropy_loss as loss; "
        "x = torch.zeros(4, 9, device='cuda'); y = torch.tensor([0, 9, 1, 2], device='cuda'); "
        "print(loss(x, y).item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "device-side assert" in done.stderr


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "tolerance"),
    [
        ("runtime.precision=float32", 0.02),
        ("runtime.precision=bfloat16", 0.05),
        # The first steps are left out, until the scale of the loss is small enough.
        ("runtime.precision=float16", 1.0),
    ],
)
def test_a_run_learns_what_it_learns_on_the_cpu(tmp_path: Path, way: str, tolerance: float) -> None:
    """Closely, at a rate and with a normalisation under which rounding does not grow."""
    calm = ("optim.lr=0.005", "model.norm=group", "schedule.epochs=4")
    there, here = ("runtime.device=cuda", *calm, way), ("runtime.device=cpu", *calm)
    small_run(tmp_path, *there)
    small_run(tmp_path / "cpu", *here)
    found, usual = rows_of(folder_of(tmp_path, *there)), rows_of(folder_of(tmp_path / "cpu", *here))
    assert found[-1]["train/loss"] == pytest.approx(usual[-1]["train/loss"], abs=tolerance)
    assert found[-1]["train/loss"] < found[0]["train/loss"]


@pytest.mark.parametrize(
    ("asked", "way"),
    [
        ("true", ()),
        ("cuda_graphs", ()),
        ("cuda_graphs", ("optim.sam=0.05",)),
        ("cuda_graphs", ("optim.accumulate=2",)),
    ],
)
def test_a_compiled_run_learns_what_an_uncompiled_one_does(
    tmp_path: Path, asked: str, way: tuple[str, ...]
) -> None:
    calm = ("optim.lr=0.005", "model.norm=group", "schedule.epochs=4", "runtime.device=cuda", *way)
    small_run(tmp_path, *calm, f"runtime.compile={asked}")
    small_run(tmp_path / "plain", *calm)
    folder = folder_of(tmp_path, *calm)
    environment = json.loads((folder / "environment.json").read_text())
    assert "training" in environment["segments"][-1]["compiled"]
    found, usual = rows_of(folder), rows_of(folder_of(tmp_path / "plain", *calm))
    assert found[-1]["train/loss"] == pytest.approx(usual[-1]["train/loss"], abs=0.02)
    assert found[-1]["train/loss"] < found[0]["train/loss"]


def test_a_step_is_queued_without_waiting_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loader, augmentation, model, loss and optimizer; looks at the sums are between."""
    queued: list[int] = []

    def watched(
        self: Trainer, batches: Iterable[Any], *, epoch: int, totals: EpochTotals, **options: Any
    ) -> EpochTotals:
        if epoch == 0:  # cuBLAS, cuDNN and the optimizer's state start here
            return train_epoch(self, batches, epoch=epoch, totals=totals, **options)
        drawn = iter(batches)
        first = next(drawn)
        with waiting_is_an_error():
            for batch in (first, *itertools.islice(drawn, 4)):
                self._step(batch)
                queued.append(epoch)
        return train_epoch(self, drawn, epoch=epoch, totals=totals, **options)

    train_epoch = Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", watched)
    small_run(tmp_path, *ON_CUDA, "data.augment.crop=1", "reweight=inverse", "model.ema=0.9")
    assert queued == [epoch for epoch in (1, 2, 3) for _ in range(5)]


def test_auto_precision_is_one_that_the_device_has_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = small_words(tmp_path, *ON_CUDA, "runtime.precision=auto")
    assert train.main(words) == 0
    expected = "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"
    assert f"runtime.precision=auto: {expected} on this cuda device" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_killed_deterministic_run_equals_one_that_never_was(
    tmp_path: Path, precision: str
) -> None:
    """float16's scale is part of what resumes."""
    words = (
        *ON_CUDA,
        "runtime.deterministic=true",
        f"runtime.precision={precision}",
        "data.augment.crop=1",
        "model.ema=0.9",
    )
    small_run(tmp_path / "whole", *words)
    folder, each = folder_of(tmp_path, *words), "runtime.checkpoint_epoch_seconds=0"
    process = subprocess.Popen(
        [sys.executable, "train.py", *small_words(tmp_path, *words, each)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "".join(said)
    assert not (folder / "summary.json").exists()
    small_run(tmp_path, *words)
    assert_same_run(folder, folder_of(tmp_path / "whole", *words))


def test_a_cuda_run_loads_without_cuda(tmp_path: Path) -> None:
    small_run(tmp_path, *ON_CUDA)
    folder = folder_of(tmp_path, *ON_CUDA)
    code = (
        "import sys; from engine.training.trained import load_run; "
        "model = load_run(sys.argv[1]).model; "
        "print(sorted({p.device.type for p in model.parameters()}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == "['cpu']", found.stderr


def test_a_device_without_memory_is_one_line_that_says_which_batch_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The allocator's own refusal, at a limit instead of the card's end; half of it then fits."""
    words = [
        *("data.size=128", "optim.batch_size=64", "schedule.epochs=1"),
        *("runtime.device=cuda", "model=cifar_resnet32"),
    ]
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 0.7 * 2**30 / total))
    try:
        assert train.main(small_words(tmp_path, *words)) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("out of GPU memory with optim.batch_size=64 in 1 piece(s): ")
        assert "optim.accumulate=2 keeps the batch" in line
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


# --- processes ------------------------------------------------------------------------------------


def test_more_processes_than_devices_are_one_line(tmp_path: Path) -> None:
    count = torch.cuda.device_count() + 1
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    found = subprocess.run(
        [*command, "train.py", *small_words(tmp_path, "runtime.device=cuda")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode != 0
    said = [line for line in found.stderr.splitlines() if line.startswith("runtime.device=cuda: ")]
    assert len(said) == 1, found.stderr
    assert (
        'engine/training/runtime.py", line' not in found.stderr
    )  # torchrun's own traceback is all
    assert not list(tmp_path.iterdir())


class OneOfMany(int):
    """A world of one that passes for a larger one, so that it exchanges all the same."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def test_nccl_and_gloo_carry_what_processes_exchange(tmp_path: Path) -> None:
    """All exchanges of a run, by NCCL for tensors of the device, in a world of one."""
    from engine.training.runtime import process_backend

    dist.init_process_group(
        process_backend(torch.device("cuda:0")),
        store=dist.FileStore(str(tmp_path / "store"), 1),
        rank=0,
        world_size=1,
        timeout=timedelta(seconds=60),
    )
    try:
        assert "nccl" in dist.get_backend(None) or "nccl" in str(dist.get_backend_config())
        processes = Processes(0, OneOfMany(1))
        rows = torch.arange(6.0, device=CUDA).view(3, 2)
        assert processes.on_main(lambda: {"answer": 42}) == {"answer": 42}
        assert processes.largest(3, 1) == (3, 1)
        assert processes.gathered("word") == ["word"]
        torch.testing.assert_close(processes.total(rows), rows)
        torch.testing.assert_close(processes.total(rows.cpu()), rows.cpu())
        joined = processes.joined_shares(processes.share(rows), num_rows=3)
        torch.testing.assert_close(joined.to(CUDA), rows)
        model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4)).to(CUDA)
        alone = [p.detach().clone() for p in model.parameters()]
        shared = processes.sharing_gradients(model)
        assert isinstance(shared, torch.nn.parallel.DistributedDataParallel)
        processes.scaled_for_mean(shared(rows).square().mean()).backward()
        processes.copy_buffers(model)
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        model.train()(rows).square().mean().backward()
        for shared_one, own in zip(gradients, model.parameters(), strict=True):
            torch.testing.assert_close(shared_one, own.grad)
        for before, after in zip(alone, model.parameters(), strict=True):
            torch.testing.assert_close(before, after.detach())
    finally:
        dist.destroy_process_group()


def test_a_launched_run_of_one_process_equals_one_that_was_not(tmp_path: Path) -> None:
    words = (*ON_CUDA, "runtime.deterministic=true")
    small_run(tmp_path / "alone", *words)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1"),
            *("train.py", *small_words(tmp_path, *words)),
        ],
        cwd=ROOT,
        check=True,
        timeout=240,
        stdout=subprocess.DEVNULL,
    )
    assert_same_run(folder_of(tmp_path, *words), folder_of(tmp_path / "alone", *words))
    segments = json.loads((folder_of(tmp_path, *words) / "environment.json").read_text())
    assert segments["segments"][0]["device"].startswith("cuda")
