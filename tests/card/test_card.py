"""The data card: numbers checked by hand, from arrays, from a small data set and from a folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from data import Split, _folder_pool, _progress, image_hashes, near_pairs
from engine.card.__main__ import main
from engine.card.card import Card, card_of
from engine.card.files import FileFacts
from engine.card.seed_noise import seed_noise
from engine.card.text import facts, markdown
from engine.config.load import load, load_run_config
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.resolution import (
    HalfWidth,
    class_half_widths,
    effective_number,
    half_width,
    mean_half_width,
    overall_half_width,
    seeds_needed,
)
from engine.report.shape import shape_of
from engine.training.build import data_source
from engine.training.repeats import find_repeats
from engine.training.setup import load_dataset
from tests._full_disk import full_at
from tests._runs import small_run
from tests.data._files import write_folder, write_image


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Card:
    root = tmp_path_factory.mktemp("runs")
    return card_of(load(overrides=["data=digits", f"track.root={root}"]))


def test_the_gini_coefficient_is_that_of_all_pairs() -> None:
    counts = np.array([30, 5, 1, 12])
    pairs = np.abs(counts[:, None] - counts).mean()
    assert shape_of(counts).gini == pytest.approx(pairs / (2 * counts.mean()))
    assert shape_of(np.array([4, 4, 4])).gini == 0


def test_the_half_width_is_wilsons() -> None:
    from scipy.stats import binomtest

    low, high = binomtest(22, 44).proportion_ci(method="wilson")
    assert half_width(44) == pytest.approx((high - low) / 2)
    assert half_width(1) < 0.5


def test_groups_of_equal_outcomes_are_worth_one_image_each() -> None:
    assert effective_number(np.array([7, 7])) == 2
    (width,) = class_half_widths(np.zeros(14, int), np.arange(14) // 7, num_classes=1)
    assert width is not None
    assert (width.images, width.groups) == (half_width(14), half_width(2))


def test_the_half_width_of_a_mean_of_equally_many_images_is_that_of_all_of_them() -> None:
    mean = mean_half_width(np.arange(40) % 4, None, classes=np.arange(5) < 5)
    assert mean == HalfWidth(pytest.approx(half_width(40)), None)
    assert mean_half_width(np.arange(40) % 4, None, classes=np.arange(5) == 4) is None


@pytest.mark.parametrize("counts", [[2] * 10, [15, 10, 10, 10]])
def test_the_half_width_of_a_mean_covers_what_it_promises(counts: list[int]) -> None:
    draws = np.random.default_rng(0).binomial(counts, 0.5, size=(100_000, len(counts)))
    targets = np.repeat(np.arange(len(counts)), counts)
    mean = mean_half_width(targets, None, classes=np.ones(len(counts), dtype=bool))
    assert mean is not None
    covered = np.abs((draws / counts).mean(axis=1) - 0.5) <= mean.images
    assert 0.94 < covered.mean() < 0.97


def test_by_group_means_that_all_images_of_a_group_are_right_or_wrong_together() -> None:
    """The standard error of each mean is that of draws of whole groups, whatever their classes."""
    random = np.random.default_rng(0)
    targets, groups = random.integers(0, 3, 300), random.integers(0, 60, 300)
    is_right = random.integers(0, 2, (20_000, 60))[:, groups]
    recalls = np.stack([is_right[:, targets == label].mean(axis=1) for label in range(3)])
    every = np.ones(3, dtype=bool)
    pairs = [
        (overall_half_width(groups, num=300), is_right.mean(axis=1)),
        (mean_half_width(targets, groups, classes=every), recalls.mean(axis=0)),
        (mean_half_width(targets, groups, classes=np.arange(3) > 0), recalls[1:].mean(axis=0)),
        *zip(class_half_widths(targets, groups, num_classes=3), recalls, strict=True),
    ]
    for width, drawn in pairs:
        assert width is not None
        num = 0.25 / drawn.var()
        assert width.groups == pytest.approx(half_width(num), rel=0.02)


@pytest.mark.parametrize("std", [0.006, 0.01, 0.03])
def test_the_seeds_that_are_needed_are_the_fewest_that_find_a_point_four_times_in_five(
    std: float,
) -> None:
    from scipy.stats import nct, t

    def power(n: int) -> float:
        centre = 0.01 / (math.sqrt(2) * std / math.sqrt(n))
        return float(nct.sf(t.ppf(0.975, n - 1), n - 1, centre))

    n = seeds_needed(std, difference=0.01)
    assert n is not None
    assert power(n) >= 0.8 > power(n - 1)


def test_so_many_seeds_find_a_point_in_four_of_five_simulated_comparisons() -> None:
    from scipy.stats import ttest_rel

    n = seeds_needed(0.01, difference=0.01)
    assert n is not None
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.81, 0.01, (20_000, n)), random.normal(0.8, 0.01, (20_000, n))
    interval = ttest_rel(ours, theirs, axis=1).confidence_interval(0.95)
    assert np.mean(interval.low > 0) == pytest.approx(0.81, abs=0.01)


def test_noise_that_no_number_of_seeds_overcomes_has_none() -> None:
    assert seeds_needed(1.0, difference=0.001) is None


def test_no_fewer_seeds_are_advised_than_tables_take_for_a_claim() -> None:
    assert [seeds_needed(std, difference=0.01) for std in (0.0, 1e-9, 0.001)] == [5, 5, 5]


def test_digits_have_the_numbers_that_are_counted_by_hand(digits: Card) -> None:
    assert digits.totals == {"train": 326, "val": 200, "test": 500}
    assert digits.shape.factor == 54
    assert digits.shape.head == pytest.approx((108 + 80) / 326)
    assert digits.shape.tail == pytest.approx((3 + 2) / 326)
    assert digits.group_sizes == {"many": 1, "medium": 4, "few": 5}
    assert digits.files is None
    assert digits.noise is None
    width = digits.means["balanced accuracy"]
    assert width is not None
    assert width.images == pytest.approx(half_width(500))


def test_groups_are_those_of_the_configs_limits(tmp_path: Path) -> None:
    limits = ("evaluate.many_above=50", "evaluate.few_below=5")
    found = card_of(load(overrides=["data=digits", f"track.root={tmp_path}", *limits]))
    counts = [row.counts["train"] for row in found.classes]
    many, few = sum(count > 50 for count in counts), sum(count < 5 for count in counts)
    assert found.group_sizes == {"many": many, "medium": 10 - many - few, "few": few}
    assert "many > 50, medium 5 to 50, few < 5" in found.notes[-1]


def test_the_page_has_a_row_a_class_and_the_notes_of_the_run(digits: Card) -> None:
    page = markdown(digits, picture="card.png")
    assert "| zero | many | 108 | 20 | 50 | 13.4 |" in page
    assert "- note: zero keeps 108 of 124 images: 16 went to validation" in page
    assert "(card.png)" in page


def split_of(images: torch.Tensor, *contents: int) -> Split:
    index = torch.arange(len(images))
    numbers = np.array(contents) if contents else None
    return Split(images, torch.zeros_like(index), index, contents=numbers)


def test_repeats_within_and_across_splits_are_counted() -> None:
    images = torch.zeros(4, 1, 9, 9, dtype=torch.uint8)
    found = find_repeats(
        {"train": split_of(images, 0, 7, 7, 2), "test": split_of(images, 2, 3, 2, 9)}
    )
    assert found is not None
    assert found.within == {"train": 1, "test": 1}
    assert found.across == {("train", "test"): 2}
    assert found.near is None


def test_a_brighter_and_larger_copy_looks_alike_and_another_image_does_not() -> None:
    scenes = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 200
    known = interpolate(scenes, (24, 24), mode="bilinear").to(torch.uint8)
    planted = (interpolate(scenes[1:2], (60, 60), mode="bilinear") + 20).to(torch.uint8)
    first = image_hashes(known)
    found = near_pairs(first, image_hashes(planted), most_bits=2)
    assert (found.first.tolist(), found.second.tolist()) == ([1], [0])
    assert len(near_pairs(first[:1], image_hashes(planted), most_bits=2).second) == 0


def test_near_duplicates_of_two_splits_are_found_on_request() -> None:
    generator = torch.Generator().manual_seed(1)
    train = torch.randint(0, 200, (4, 3, 18, 18), generator=generator)
    test = torch.cat([train[2:3] + 9, torch.randint(0, 200, (2, 3, 18, 18), generator=generator)])
    splits = {
        "train": split_of(train.to(torch.uint8), 0, 1, 2, 3),
        "test": split_of(test.to(torch.uint8), 4, 5, 6),
    }
    found = find_repeats(splits, most_bits=1)
    assert found is not None
    assert found.near == {("train", "test"): 1}


def test_of_splits_that_nobody_compared_no_repeats_are_known() -> None:
    images = torch.zeros(2, 1, 9, 9, dtype=torch.uint8)
    assert find_repeats({"train": split_of(images, 0, 0), "test": split_of(images)}) is None


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pets"
    counts = {"train": {"cat": 6, "dog": 3}, "test": {"cat": 2, "dog": 2}}
    return write_folder(folder, counts)


def words(pets: Path) -> list[str]:
    return [
        *("data=image_folder", f"data.path={pets}", "data.validation.fraction=null"),
        f"track.root={pets.parent / 'runs'}",
    ]


def test_a_folder_prints_formats_sizes_and_repeats_and_writes_a_page_with_a_picture(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    shutil.copy(copy / "train/cat/000.png", copy / "train/cat/copy.png")
    assert main([*words(copy), "--out", str(tmp_path / "card")]) == 0
    printed = capsys.readouterr().out
    assert "14 PNG RGB; 14 of 6x6" in printed
    assert "images that are there more than once: 1 within train" in printed
    assert {file.name for file in (tmp_path / "card").iterdir()} == {
        "card.md",
        "card.png",
        "card.pdf",
    }


@pytest.mark.parametrize(("name", "said"), [("card.md", "/card.md"), ("card.png", "")])
def test_a_card_that_cannot_be_written_is_one_line(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    said: str,
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = tmp_path / "card"
    full_at(folder / name)
    assert main([*words(pets), "--out", str(folder)]) == 1
    line = f"{folder}{said}: cannot be written: No space left on device"
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert not any(file.name.startswith(".") for file in folder.iterdir())


def test_every_broken_file_is_named_and_the_rest_is_described(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    for name in ("train/cat/001.png", "test/dog/000.png"):
        (copy / name).write_bytes((copy / name).read_bytes()[:60])
    assert main([*words(copy), "--out", str(tmp_path / "card")]) == 1
    printed = capsys.readouterr().out
    assert "8 training, 3 test" in printed
    assert "2 of 13 cannot be read, and are left out here" in printed
    faults = printed.partition("train.py refuses these data:\n")[2].splitlines()[:2]
    assert "train/cat/001.png cannot be read as an image" in faults[0]
    assert "test/dog/000.png cannot be read as an image" in faults[1]
    assert faults[0].strip() in (tmp_path / "card/card.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as an image"):
        load_dataset(load(overrides=words(copy)))


def test_more_broken_files_than_are_named_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = write_folder(tmp_path / "pets", {s: {"cat": 30, "dog": 3} for s in ("train", "test")})
    for number in range(25):
        (folder / f"train/cat/{number:03}.png").write_bytes(b"no image")
    card = card_of(load(overrides=words(folder)))
    assert (len(card.faults), card.faults[-1]) == (21, "... and 5 more files")
    assert card.totals == {"train": 8, "test": 33}


def test_a_folder_with_a_leak_is_described_and_a_run_refuses_it(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    shutil.copy(copy / "test/cat/000.png", copy / "train/dog/000.png")
    given = [*words(copy), "data.group_by=^(00.)"]
    assert main(given) == 1
    printed = capsys.readouterr().out
    assert f"  data.path: {copy} has the same images in two splits: test images" in printed
    assert f"  data.group_by=^(00.): {copy} has images of one group in two splits" in printed
    assert "images that are there more than once: 1 of test in train, too" in printed
    with pytest.raises(ConfigError, match="has the same images in two splits"):
        load_dataset(load(overrides=given))


def test_groups_in_two_splits_are_described_where_too_few_are_left_for_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a key that has no effect without validation: the user did not leave it out."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = tmp_path / "scans"
    for number in range(16):
        place = f"{'train' if number < 8 else 'test'}/{'ab'[number % 2]}/p{number // 4 % 2}"
        write_image(folder / place / f"{number}.png")
    given = [f"data.path={folder}", "data.group_by=folder", "schedule.patience=3"]
    config = load(overrides=["data=image_folder", *given, f"track.root={tmp_path / 'runs'}"])
    card = card_of(config)
    shared, lacking = card.faults
    assert "has images of one group in two splits: groups of test that are in train" in shared
    assert lacking == (
        "data.validation.fraction=0.1 leaves the validation split empty: no group can be spared; "
        "set it higher or to null (described without validation)"
    )
    assert card.totals == {"train": 8, "test": 8}


def test_numbers_of_copies_are_those_of_the_notes(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder goes by bytes: an image that was written anew is no copy on card, page or note."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    shutil.copy(copy / "train/cat/000.png", copy / "train/cat/copy.png")
    with Image.open(copy / "train/cat/001.png") as image:
        image.save(copy / "test/cat/anew.png", compress_level=0)
    disk = ["data.cache_gb=0", "data.size=6", "data.normalize=imagenet"]
    for keys in ([], disk):
        config = load(overrides=[*words(copy), *keys])
        card = card_of(config)
        assert [note for note in card.notes if "repeat another" in note or "too" in note] == [
            "train images that repeat another: 1 of 10 (train/cat/copy.png = train/cat/000.png)"
        ]
        assert card.repeats == find_repeats(load_dataset(config).splits)
        assert card.repeats is not None
        assert card.repeats.within == {"train": 1, "test": 0}
        assert card.repeats.across == {("train", "test"): 0}


def test_the_card_looks_for_copies_in_lists_of_too_many_images_for_a_run_to_look(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(_folder_pool, "_MOST_LOOKED_AT", 0)
    monkeypatch.setattr(_progress, "_MANY", 4)  # files from which on progress is shown
    copy = shutil.copytree(pets, tmp_path / "pets")
    shutil.copy(copy / "train/cat/000.png", copy / "test/cat/000.png")
    for split in ("train", "test"):
        files = sorted((copy / split).glob("*/*.png"))
        lines = [f"{file.relative_to(copy)} {file.parent.name}\n" for file in files]
        (copy / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    given = ["data=image_list", f"data.root={copy}", "data.cache_gb=0", "data.size=6"]
    given += ["data.train=train.txt", "data.test=test.txt", "data.validation.fraction=null"]
    config = load(overrides=[*given, f"track.root={tmp_path}"])
    card = card_of(config)
    told = capsys.readouterr().err
    assert f"looking at files: {sum(card.totals.values())} images" in told
    assert "comparing files: " in told
    assert card.repeats is not None
    assert card.repeats.across == {("train", "test"): 1}
    said = "test images that are in train, too: 1 of 4 (test/cat/000.png = train/cat/000.png)"
    assert said in card.notes
    assert not any("not looked for" in note for note in card.notes)
    assert find_repeats(load_dataset(config).splits) is None


def test_lists_that_a_run_refuses_are_described(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    train = [f"train/cat/00{n}.png,cat,p{n}" for n in range(6)] + ["train/dog/000.png,dog,p9"]
    test = ["test/cat/000.png,cat,p1", "train/cat/000.png,cat,q", "gone.png,dog,r"]
    for name, lines in (("train", train), ("test", test)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["file,class,patient", *lines]))
    given = [
        *("data=image_list", f"data.root={pets}", "data.columns=[file,class,patient]"),
        *(f"data.{split}={tmp_path / split}.csv" for split in ("train", "test")),
        *("data.validation.fraction=null", f"track.root={tmp_path}"),
    ]
    assert main(given) == 1
    printed = capsys.readouterr().out
    assert "7 training, 2 test" in printed
    assert "train/cat/000.png is in train.csv, line 2, too" in printed
    assert "data.test: group p1 is in train.csv, too" in printed
    assert f"data.test: 1 of 3 files of test.csv are not in {pets}: gone.png" in printed
    with pytest.raises(ConfigError, match="is in train"):
        load_dataset(load(overrides=given))


def test_a_card_that_cannot_be_made_names_the_broken_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = write_folder(tmp_path / "pets", {s: {"cat": 1, "dog": 1} for s in ("train", "test")})
    for name in ("cat", "dog"):
        (folder / f"test/{name}/000.png").write_bytes(b"no image")
    with pytest.raises(ConfigError) as caught:
        card_of(load(overrides=words(folder)))
    broken, _, mistake = caught.value.mistakes
    assert "test/cat/000.png cannot be read as an image" in broken
    assert mistake == f"{folder}: no test image can be read"


def write_unreadable(folder: Path, name: str) -> list[str]:
    """Write a data set without one image that can be read; return what asks for it."""
    files = {
        "image_folder": ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"],
        "infrared_solar": ["images/0.jpg", "images/1.jpg"],
        "chula_rbc12": ["Dataset/1.jpg", "Dataset/2.jpg"],
        "image_list": [],
    }
    for file in files[name]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"no image")
    if name == "image_list":
        (folder / "wrong").mkdir(parents=True)
        (folder / "all.txt").write_text("".join(f"{n}.png {n % 2}\n" for n in range(6)))
        lists = [f"data.train={folder}/all.txt", "data.test_fraction=0.5"]
        return [f"data={name}", f"data.root={folder}/wrong", *lists]
    if name == "infrared_solar":
        rows = {
            str(n): {"image_filepath": f"images/{n}.jpg", "anomaly_class": "Cell"} for n in range(2)
        }
        (folder / "module_metadata.json").write_text(json.dumps(rows))
    if name == "chula_rbc12":
        (folder / "Label").mkdir()
        for number in (1, 2):
            (folder / f"Label/{number}.txt").write_text("20 20 0")
    return [f"data={name}", f"data.path={folder}"]


@pytest.mark.parametrize(
    ("name", "num_faults"),
    [("image_folder", 4), ("image_list", 1), ("infrared_solar", 2), ("chula_rbc12", 2)],
)
def test_data_without_one_readable_image_are_told_fault_by_fault(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    num_faults: int,
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    assert main(write_unreadable(tmp_path / "set", name)) == 2
    *faults, last = capsys.readouterr().err.splitlines()
    said = "files of all.txt are not in" if name == "image_list" else "cannot be read as an image"
    assert len(faults) == num_faults
    assert all(said in fault for fault in faults)
    assert last.endswith(" image can be read")


def test_the_faults_of_a_data_set_that_cannot_leave_files_out_are_said_once(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    (copy / "train/cat/001.png").write_bytes(b"no image")

    class Plain:
        """The folder, read by one that has no method ``describe``."""

        def __init__(self, config: Config) -> None:
            whole = data_source(config)
            self.files, self.load = whole.files, whole.load

    monkeypatch.setattr("engine.card.card.data_source", Plain)
    with pytest.raises(ConfigError) as caught:
        card_of(load(overrides=words(copy)))
    (mistake,) = caught.value.mistakes
    assert "train/cat/001.png cannot be read as an image" in mistake


def test_a_grey_value_beyond_the_bits_of_the_config_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    folder = tmp_path / "scans"
    for number, place in enumerate(("train/a/0", "train/b/0", "train/b/1", "test/a/0", "test/b/0")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        values = np.full((6, 6), 5000 if place == "train/b/1" else 4000 + number, dtype=np.uint16)
        Image.fromarray(values).save(folder / f"{place}.png")
    card = card_of(load(overrides=[*words(folder), "data.grey_bits=12"]))
    (fault,) = card.faults
    assert "train/b/1.png has the grey value 5000, beyond data.grey_bits=12" in fault
    assert card.totals == {"train": 2, "test": 2}


def test_copies_that_cannot_be_read_do_not_make_their_key_one_without_effect(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    copy = shutil.copytree(pets, tmp_path / "pets")
    for name in ("train/cat/001.png", "test/cat/001.png"):
        (copy / name).write_bytes(b"no image")
    card = card_of(load(overrides=[*words(copy), "data.allow_overlap=true"]))
    assert card.totals == {"train": 8, "test": 3}


def test_images_that_lists_name_are_looked_at_too(
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    for split in ("train", "test"):
        files = sorted((pets / split).glob("*/*.png"))
        lines = [f"{file.relative_to(pets)} {int(file.parent.name == 'dog')}\n" for file in files]
        (tmp_path / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    lists = [f"data.{split}={tmp_path / split}.txt" for split in ("train", "test")]
    given = ["data=image_list", f"data.root={pets}", *lists, "data.validation.fraction=null"]
    assert main([*given, f"track.root={tmp_path}", "--out", str(tmp_path / "card")]) == 0
    assert "13 PNG RGB; 13 of 6x6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (["--nea", "2"], "--nea: unknown option (did you mean --near?)"),
        (["--near", "99"], "--near 99: expected 0 to 16 bits"),
        (["data=digts"], "data.name=digts"),
    ],
)
def test_a_mistake_is_one_line(
    word: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(word) == 2
    assert capsys.readouterr().err.startswith(expected)


def test_the_noise_of_seeds_is_pooled_over_earlier_runs(tmp_path: Path) -> None:
    short = ("schedule.epochs=1", "model=cifar_resnet8")
    summaries = [small_run(tmp_path, *short, f"seed={seed}") for seed in range(2)]
    small_run(tmp_path, *short, "seed=2", "data.imbalance.seed=1")  # of another subset
    config = load_run_config(next((tmp_path / "synthetic").glob("*")))
    found = seed_noise(tmp_path / "synthetic", config)
    values = [summary.result.test["balanced_accuracy"] for summary in summaries]
    assert found is not None
    assert (found.num_configs, found.num_runs) == (1, 2)
    assert found.std == pytest.approx(np.std(np.array(values, dtype=float), ddof=1))
    section = config.data.model_copy(update={"one_vs_rest": "0"})
    other = config.model_copy(update={"data": section})
    assert seed_noise(tmp_path / "synthetic", other) is None


def test_the_formats_and_sizes_that_are_not_named_are_counted(digits: Card) -> None:
    from dataclasses import replace

    kinds = [("JPEG RGB", 9), ("JPEG L", 5), ("PNG P", 4), ("PNG LA", 3), ("MPO RGB", 2), ("X", 1)]
    sizes = [((w, 7), 20 - w) for w in range(5)]
    found = FileFacts(24, 2_000_000, tuple(kinds), tuple(sizes), {})
    assert dict(facts(replace(digits, files=found)))["files"] == (
        "9 JPEG RGB, 5 JPEG L, 4 PNG P, 3 PNG LA, 3 in 2 other kinds; 20 of 0x7, 19 of 1x7, "
        "18 of 2x7, 17 of 3x7, 16 in 1 other size; 2.0 MB; all can be read"
    )


def test_a_card_with_noise_says_how_many_seeds_a_point_needs(digits: Card) -> None:
    from dataclasses import replace

    from engine.card.seed_noise import SeedNoise

    said = dict(facts(replace(digits, noise=SeedNoise(0.01, 2, 10))))
    assert said["seeds"].startswith("noise 1.0 points of balanced accuracy (10 runs of 2 configs)")
    assert "of one point between two methods four times in five takes 18 seeds" in said["seeds"]


def test_noise_of_fewer_than_five_runs_gives_no_number_of_seeds(digits: Card) -> None:
    from dataclasses import replace

    from engine.card.seed_noise import SeedNoise

    said = dict(facts(replace(digits, noise=SeedNoise(0.01, 2, 4))))
    assert said["seeds"] == (
        "noise 1.0 points of balanced accuracy (4 runs of 2 configs); from 5 runs on it is said "
        "how many seeds a difference of one point takes"
    )
