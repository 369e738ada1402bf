"""The published lists: what is stored of them, and how a copy of one is told from it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import data._known_lists as known_module
from data import DataError
from data._known_lists import (
    KnownList,
    Recognised,
    git_blob,
    known_lists,
    line_hashes,
    recognise,
)
from data._list_file import ListFile, read_list
from engine.training.metrics import few_shot_groups
from tests.data._lists import Shelf, new_shelf

NUM = 3000
LINES = [f"train/{n % 30}/{n}.jpg {n % 30}" for n in range(NUM)]


def by_name(name: str) -> KnownList:
    return next(known for known in known_lists() if known.name == name)


def test_every_list_of_the_three_data_sets_is_known_by_content() -> None:
    assert {(k.name, k.num_lines, k.num_classes) for k in known_lists()} == {
        ("ImageNet-LT train", 115_846, 1000),
        ("ImageNet-LT val", 20_000, 1000),
        ("ImageNet-LT test", 50_000, 1000),
        ("Places-LT train", 62_500, 365),
        ("Places-LT val", 7_300, 365),
        ("Places-LT test", 36_500, 365),
        ("iNaturalist 2018 train", 437_513, 8142),
        ("iNaturalist 2018 val", 24_426, 8142),
    }
    assert len({known.git_blob for known in known_lists()}) == 8


def test_counts_of_a_list_add_up_to_its_lines() -> None:
    counted = [known for known in known_lists() if known.counts]
    assert len(counted) == 6
    for known in counted:
        assert (sum(known.counts), len(known.counts)) == (known.num_lines, known.num_classes)
        assert list(known.sketch) == sorted(set(known.sketch))


def test_many_medium_and_few_of_places_lt_are_as_published() -> None:
    counts = np.array(by_name("Places-LT train").counts)
    assert (counts.max(), counts.min()) == (4980, 5)
    sizes = {name: int(mask.sum()) for name, mask in few_shot_groups(counts).items()}
    assert sizes == {"many": 131, "medium": 163, "few": 71}


def test_a_blob_is_what_git_says() -> None:
    content = b"a/0.jpg 0\n"
    expected = hashlib.sha1(b"blob 10\0" + content).hexdigest()
    assert git_blob(content) == expected


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of 3,000 lines that is known, and one that is known by its blob alone."""
    file = tmp_path / "published.txt"
    file.write_text("".join(f"{line}\n" for line in LINES))
    hashes = line_hashes(read_list(file, key="data.train", columns=None))
    whole = KnownList(
        data_set="Ten-LT",
        split="train",
        name="Ten-LT train",
        source="a paper",
        git_blob=git_blob(file.read_bytes()),
        num_lines=NUM,
        num_classes=30,
        checksum=int(hashes.sum(dtype=np.uint64)),
        sketch=tuple(np.unique(hashes)[: known_module.SKETCH].tolist()),
        counts=(NUM // 30,) * 30,
    )
    bare = replace(
        whole,
        name="Bare-LT train",
        num_lines=500,
        checksum=None,
        sketch=(),
        counts=(),
        git_blob="f",
    )
    monkeypatch.setattr(known_module, "known_lists", lambda: (whole, bare))
    return file


def said_of(file: Path) -> tuple[bool, str] | None:
    found = recognise(read_list(file, key="data.train", columns=None))
    return None if found is None else (found.is_verified, found.sentence)


def test_a_published_list_is_named_with_its_size_and_source(published: Path) -> None:
    sentence = "published.txt is Ten-LT train, 3,000 images, as in a paper"
    assert said_of(published) == (True, sentence)


@pytest.mark.parametrize(
    ("lines", "end", "how"),
    [
        (LINES, "\r\n", "with other line ends"),
        ([*LINES, "", ""], "\n", "with other line ends"),
        (LINES[::-1], "\n", "in another order or form"),
        ([line.replace(" ", "   ") for line in LINES], "\n", "in another order or form"),
    ],
)
def test_the_same_lines_in_another_form_are_the_list(
    published: Path, lines: list[str], end: str, how: str
) -> None:
    copy = published.with_name("copy.txt")
    copy.write_bytes("".join(line + end for line in lines).encode())
    verdict = said_of(copy)
    assert verdict is not None
    assert verdict[0]
    assert verdict[1].endswith(f"as in a paper, {how}")


def test_an_edited_copy_says_how_far_it_is_from_the_list(published: Path) -> None:
    edited = published.with_name("edited.txt")
    edited.write_text("\n".join([*LINES[:-30], "train/0/new.jpg 0"]))
    verdict = said_of(edited)
    assert verdict is not None
    is_verified, sentence = verdict
    assert not is_verified
    assert "edited.txt is an edited copy of Ten-LT train, as in a paper: 2,971 lines" in sentence
    # The last thirty lines are one of each class; class 0 has another in return.
    assert sentence.endswith("29 classes have other numbers of images (0 more, 29 fewer)")
    share = int(sentence.split("about ")[1].partition("%")[0])
    assert abs(share - 99) <= 3  # 128 hashes know a share of 99 % to 0.9 points


@pytest.mark.parametrize("label", ["4000000000", "99999999999999999999", "999999999", "cat"])
def test_labels_that_the_published_list_has_not_are_counted_apart(
    published: Path, label: str
) -> None:
    edited = published.with_name("edited.txt")
    edited.write_text("\n".join([*LINES, f"train/0/new.jpg {label}"]))
    verdict = said_of(edited)
    assert verdict is not None
    assert verdict[1].endswith("; 1 lines have another label than 0 to 29")


def test_changed_labels_with_the_same_counts_are_not_the_list(published: Path) -> None:
    swapped = published.with_name("swapped.txt")
    first, second = "train/0/0.jpg 1", "train/1/1.jpg 0"
    swapped.write_text("\n".join([first, second, *LINES[2:]]))
    verdict = said_of(swapped)
    assert verdict is not None
    assert not verdict[0]
    assert verdict[1].endswith("every class has as many images, so that paths or labels differ")


def test_a_list_known_by_its_blob_alone_is_compared_by_its_length(published: Path) -> None:
    other = published.with_name("other.txt")
    other.write_text("\n".join(f"elsewhere/{n}.jpg {n % 30}" for n in range(498)))
    verdict = said_of(other)
    assert verdict is not None
    assert not verdict[0]
    said = "other.txt is not Bare-LT train byte for byte as in a paper: 498 lines for 500, "
    assert verdict[1].startswith(said + "the same number of classes, other content")


def test_a_list_known_by_its_blob_alone_may_be_in_another_order(published: Path) -> None:
    other = published.with_name("other.txt")
    other.write_text("\n".join(f"elsewhere/{n}.jpg {n % 30}" for n in range(500)))
    verdict = said_of(other)
    assert verdict is not None
    assert not verdict[0]
    assert "it may be edited, or the same in another order or form" in verdict[1]
    assert "other content" not in verdict[1]


def test_a_list_of_ones_own_is_near_none(published: Path) -> None:
    own = published.with_name("own.txt")
    own.write_text("\n".join(f"mine/{n}.jpg {n % 7}" for n in range(2500)))
    assert said_of(own) is None


# --- through the data set -------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A shelf whose two lists are published."""
    shelf = new_shelf(tmp_path / "shelf")
    usual = known_lists()[0]
    published = [
        replace(
            usual,
            data_set="Two-LT",
            split=split,
            name=f"Two-LT {split}",
            git_blob=git_blob((shelf.path / f"{split}.txt").read_bytes()),
        )
        for split in ("train", "test")
    ]
    kept = (*published, *(known for known in known_lists() if known.sketch))
    monkeypatch.setattr(known_module, "known_lists", lambda: kept)
    return shelf


def test_both_lists_verify_a_data_set_and_give_it_its_title(shelf: Shelf) -> None:
    pool = shelf.load()
    assert (pool.verified, pool.title) == ("Two-LT", "Two-LT")
    assert [note.partition(",")[0] for note in pool.notes] == [
        "train.txt is Two-LT train",
        "test.txt is Two-LT test",
    ]


def test_one_list_alone_or_in_the_place_of_the_other_verifies_nothing(shelf: Shelf) -> None:
    assert shelf.load(train="test.txt", test="train.txt").verified == ""
    with (shelf.path / "test.txt").open("a") as file:
        file.write("a/2.png 0\n")
    with pytest.raises(DataError, match="in both splits"):
        shelf.load()
    shelf.write("test.txt", "a/7.png 0")
    assert shelf.load().verified == ""


def test_a_genuine_train_list_does_not_vouch_for_an_edited_test_list(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognised_test(listed: ListFile) -> Recognised | None:
        found = recognise(listed)
        is_edited = found is not None and found.known.split == "test"
        return found._replace(is_verified=False) if found and is_edited else found

    monkeypatch.setattr("data._lists.recognise", recognised_test)
    assert shelf.load().verified == ""


def test_the_published_val_list_in_the_place_of_test_verifies_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_module.known_lists()
    kept = [replace(own, split="val") if own.name == "Two-LT test" else own for own in known]
    monkeypatch.setattr(known_module, "known_lists", lambda: kept)
    assert shelf.load().verified == ""
