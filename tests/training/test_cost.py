"""What a run says it has cost: images and passes counted, time and energy read off the machine."""

from __future__ import annotations

import json
import mmap
import signal
import time
from pathlib import Path

import pytest
import torch

from engine.training import cost
from engine.training.checkpointer import Checkpointer
from engine.training.cost import Meter, cost_of
from engine.training.epoch_totals import EpochTotals, Lap, Peaks
from engine.training.run_folder import RunFolder
from engine.training.signals import Interrupted
from tests._runs import folder_of, small_run

WORDS = (
    "model=cifar_resnet8",
    "schedule.epochs=2",
    "data.num_train_per_class=24",
    "data.validation.per_class=4",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain run, one with sharpness-aware steps in two pieces, one of the head alone."""
    root = tmp_path_factory.mktemp("runs")
    small_run(root, *WORDS)
    plain = folder_of(root, *WORDS)
    words = {
        "sam": (*WORDS, "optim.sam=0.05", "optim.accumulate=2"),
        "head": (*WORDS, "model.tune=head", f"model.init_from={plain}"),
    }
    for kind in words.values():
        small_run(root, *kind)
    return {"plain": plain} | {name: folder_of(root, *kind) for name, kind in words.items()}


def cost_in(folder: Path) -> dict[str, float | None]:
    content: dict[str, dict[str, float | None]] = json.loads((folder / "summary.json").read_text())
    return content["cost"]


def test_every_image_goes_forward_and_back_once_in_a_plain_run(folders: dict[str, Path]) -> None:
    rows = RunFolder(folders["plain"]).rows()
    drawn = sum(sum(row["train/class_histogram"]) for row in rows)
    found = cost_in(folders["plain"])
    assert found["images"] == found["forward"] == found["backward"] == drawn > 0


def test_sharpness_aware_steps_go_forward_and_back_twice_however_many_pieces(
    folders: dict[str, Path],
) -> None:
    plain, sam = cost_in(folders["plain"]), cost_in(folders["sam"])
    assert sam["images"] == plain["images"]
    assert plain["images"] is not None
    assert sam["forward"] == sam["backward"] == 2 * plain["images"]


def test_trained_parameters_are_those_of_the_optimizer(folders: dict[str, Path]) -> None:
    assert cost_in(folders["head"])["trained_parameters"] == 64 * 4 + 4


def test_time_and_memory_are_those_of_this_process(folders: dict[str, Path]) -> None:
    found = cost_in(folders["plain"])
    assert found["seconds"] is not None and found["cpu_seconds"] is not None
    assert 0 < found["cpu_seconds"] <= time.process_time()
    assert found["memory"] is not None and 50 * 2**20 < found["memory"] < 2**40
    assert found["gpu_seconds"] is found["gpu_memory"] is None


def test_a_run_without_a_line_of_one_epochs_cost_does_not_know_its_own() -> None:
    whole = {"train/images": 10, "train/forward": 20, "time/cpu_seconds": 1.5, "time/memory": 7}
    older = {"time/epoch_seconds": 1.0}
    found = cost_of([whole, {**whole, "time/memory": 9}], trained_parameters=5)
    assert (found.images, found.forward, found.cpu_seconds, found.memory) == (20, 40, 3.0, 9)
    assert found.backward is found.energy is None
    assert cost_of([older, whole], trained_parameters=5).images is None


def test_sums_of_an_epoch_go_on_from_those_of_its_checkpoint() -> None:
    totals = EpochTotals()
    totals.spend(Lap(2.0, 3.0, None, 5.0))
    totals.reach(Peaks(80, 0))
    totals = EpochTotals(**vars(totals))
    totals.spend(Lap(1.0, 1.0, None, None))
    totals.reach(Peaks(70, 0))
    assert (totals.seconds, totals.cpu_seconds, totals.memory) == (3.0, 4.0, 80)
    assert totals.gpu_seconds is totals.energy is None
    assert not {"time/energy", "time/gpu_seconds", "time/gpu_memory"} & totals.timing().keys()


def test_what_a_checkpoint_of_older_code_lacks_of_a_begun_epoch_is_unknown() -> None:
    older = {"loss": 1.0, "correct": 2.0, "images": 8, "steps": 1, "seconds": 0.5, "grad_norm": 1.0}
    totals = EpochTotals.of(older)
    totals.spend(Lap(1.0, 1.0, None, None))
    totals.pass_through(forward=8, backward=8)
    totals.reach(Peaks(70, 0))
    row = totals.row(0, steps=2, rate=0.1) | totals.timing()
    assert (row["train/images"], row["time/epoch_seconds"]) == (8, 1.5)
    unknown = {"train/forward", "train/backward", "time/cpu_seconds", "time/memory"}
    assert not unknown & row.keys()
    assert EpochTotals.of({**older, "steps": 0}).forward == 0  # an epoch that has not begun


def test_a_signal_inside_an_epoch_keeps_the_peak_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = Checkpointer.poll

    def poll_after_a_signal(self: Checkpointer) -> None:
        self.interruption.signal_number = signal.SIGTERM
        poll(self)

    monkeypatch.setattr(Checkpointer, "poll", poll_after_a_signal)
    with pytest.raises(Interrupted):
        small_run(tmp_path, *WORDS, "optim.batch_size=8")
    file = folder_of(tmp_path, *WORDS, "optim.batch_size=8") / "checkpoints" / "last.pt"
    assert torch.load(file, weights_only=True)["totals"]["memory"] > 50 * 2**20


def test_memory_that_was_given_back_before_a_lap_is_no_part_of_its_peak() -> None:
    meter = Meter(torch.device("cpu"))
    # Not of malloc's, which may keep what is freed.
    with mmap.mmap(-1, 2**28) as passing:
        passing.write(bytes(2**20) * 2**8)
        before = meter.peaks().memory
    meter.start()
    assert meter.peaks().memory < before - 2**27


def test_work_takes_cpu_seconds_and_waiting_takes_none() -> None:
    meter = Meter(torch.device("cpu"))
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert 0.05 <= meter.lap().cpu_seconds < 5
    meter.start()
    assert meter.lap().cpu_seconds < 0.05


def test_energy_of_cpu_packages_is_read_over_the_wrap_of_its_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "psys")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("9999999\n")
        (tmp_path / zone / "energy_uj").write_text("9000000\n")
    (tmp_path / "intel-rapl:2").mkdir()  # one that this user may not read has no files for it
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    meter = Meter(torch.device("cpu"))
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (tmp_path / zone / "energy_uj").write_text("500000\n")
    assert meter.lap().energy == pytest.approx(1.5)
    assert meter.lap().energy == 0.0


def test_a_machine_that_counts_no_energy_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    assert Meter(torch.device("cpu")).lap().energy is None
