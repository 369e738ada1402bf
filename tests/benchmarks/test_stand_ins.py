"""Stand-ins have the sizes of the published lists, and train as they would."""

from pathlib import Path

import numpy as np
import pytest

import train
from benchmarks import stand_ins
from engine.config.load import load
from tests._runs import quiet_screen


def test_counts_are_those_published_of_imagenet_lt() -> None:
    counts = stand_ins.imagenet_lt_counts()
    assert (len(counts), counts.sum(), counts.max(), counts.min()) == (1000, 115_846, 1280, 5)
    groups = [(counts > 100).sum(), ((counts <= 100) & (counts >= 20)).sum(), (counts < 20).sum()]
    assert groups == [385, 479, 136]
    assert (np.diff(counts) <= 0).all()


def test_a_run_on_stand_ins_has_their_counts_and_groups(tmp_path: Path) -> None:
    folder, train_counts = tmp_path / "stand_ins", np.array([6, 105, 40, 9, 21])
    counts = {"train": train_counts, "val": np.full(5, 2), "test": np.full(5, 3)}
    lines = stand_ins.write_lists(folder, counts, files=2, side=16)
    assert lines == {"train": 181, "val": 10, "test": 15}
    assert len(list((folder / "drawn").iterdir())) == 10
    lists = [f"data.{split}={split}.txt" for split in counts]
    run = ["schedule.epochs=1", "optim.lr=0.05", f"track.root={tmp_path}", "track.figures=false"]
    words = ["data=image_list", f"data.root={folder}", *lists, "data.size=8", *run]
    config = load(overrides=[*words, "model=cifar_resnet8", "track.to=[]", "runtime.threads=1"])
    summary = train.run(config, screen=quiet_screen())
    assert list(summary.class_counts) == train_counts.tolist()
    assert summary.group_sizes == {"many": 1, "medium": 2, "few": 2}
    assert sum(row.support for row in summary.result.classes) == 15


def test_an_epoch_tells_what_it_has_measured_wherever_it_is_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = {"train": [105, 40, 9, 21], "val": [1] * 4, "test": [2] * 4}
    arrays = {split: np.array(own) for split, own in counts.items()}
    stand_ins.write_lists(Path("stand_ins"), arrays, files=1, side=8)
    assert stand_ins.train_epoch(Path("stand_ins")) == 0
    assert (
        "175 training images, 8 test images, 4 classes, 1 / 2 / 1 of them many / medium / few; "
    ) in capfd.readouterr().out


@pytest.mark.parametrize("taken", ["a file", "a full folder", "below a file"])
def test_a_folder_that_cannot_be_filled_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    (tmp_path / "file").touch()
    names = {"a file": "file", "a full folder": ".", "below a file": "file/new"}
    with pytest.raises(SystemExit, match="2"):
        stand_ins.main([str(tmp_path / names[taken])])
    assert "name a new" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--like", "even"], "--train goes with --like even"),
        (["--train", "2000"], "--train goes with --like even"),
        (["--like", "even", "--train", "5"], "--train is at least 1000"),
        (["--files", "0"], "--files is at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        stand_ins.main([str(tmp_path / "new"), *words])
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
