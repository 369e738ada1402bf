"""Lists of images: what they say is what is loaded, and every mistake in them is one line."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import DataError, DiskImages, Imbalance, Validation, build
from data.image_folder import ImageFolder
from data.image_list import ImageList
from tests.data._files import stored_pixels, write_folder, write_image
from tests.data._lists import TEST, TRAIN, Shelf, Spoil, new_shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path / "shelf")


def refused(shelf: Shelf, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        shelf.load(**keys)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(shelf.path), "SHELF")


# --- what is loaded -------------------------------------------------------------------------------


def test_images_and_labels_are_those_of_the_lines_in_their_order(shelf: Shelf) -> None:
    shelf.write("train.txt", *reversed(TRAIN))
    pool = shelf.load()
    assert pool.train.targets.tolist() == [1, 1, 0, 0, 0]
    assert pool.test.targets.tolist() == [0, 1]
    assert pool.val is None
    expected = stored_pixels(shelf.path, [line.split()[0] for line in reversed(TRAIN)])
    assert np.array_equal(np.asarray(pool.train.images), expected)


def test_a_val_list_is_the_validation_split(shelf: Shelf) -> None:
    write_image(shelf.path / "b/9.png")
    shelf.write("val.txt", "b/9.png 1")
    pool = shelf.load(val="val.txt")
    assert pool.val is not None
    assert pool.val.targets.tolist() == [1]


def test_without_a_val_list_validation_is_drawn_from_train(shelf: Shelf) -> None:
    source = shelf.source()
    drawn = build(source, imbalance=Imbalance("none"), validation=Validation(None, 0.4))
    assert drawn.val is not None
    assert sorted([*drawn.train.index.tolist(), *drawn.val.index.tolist()]) == [0, 1, 2, 3, 4]


def test_images_beyond_the_cache_stay_on_disk_in_arrays(shelf: Shelf) -> None:
    images = shelf.load(cache_gb=0, size=6).train.images
    assert isinstance(images, DiskImages)
    assert images.names.tolist() == [line.split()[0].encode() for line in TRAIN]
    assert images.names.nbytes == len(TRAIN) * len(b"a/0.png")


def test_an_image_that_changes_is_decoded_anew_from_a_list_too(shelf: Shelf) -> None:
    before = np.asarray(shelf.load().train.images).copy()
    write_image(shelf.path / "a/0.png", seed=7)
    after = np.asarray(shelf.load().train.images)
    assert (before[0] != after[0]).any()
    assert (before[1:] == after[1:]).all()


def test_repeated_lines_that_just_exceed_the_cache_leave_no_entry_without_dates(
    shelf: Shelf,
) -> None:
    shelf.write("train.txt", *TRAIN, *TRAIN)
    room = (len(TRAIN) + len(TEST) + 1) * 3 * 6 * 6 / 1e9  # for the images, not for the lines
    assert isinstance(shelf.load(cache_gb=room, size=6).train.images, DiskImages)
    assert not list(shelf.path.glob("raw/cache/image_folder/*"))


def test_checking_lists_opens_no_image_and_asks_nothing_of_a_single_file(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data._base import refuse
    from data._list_file import read_list
    from data._lists import check_lists

    for path in shelf.path.rglob("*.png"):
        path.write_bytes(b"no image")

    asked: list[str] = []

    def recorded(of: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            asked.append(os.fsdecode(path))
            return of(path, *rest, **options)

        return call

    lists = {
        split: read_list(shelf.path / f"{split}.txt", key=f"data.{split}", columns=None)
        for split in ("train", "test")
    }
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", recorded(os.stat))
        patched.setattr(io, "open", recorded(io.open))
        found = check_lists(
            lists,
            shelf.path,
            class_names=None,
            test_fraction=None,
            with_facts=False,
            refuse=refuse,
        )
    assert any(path.endswith("train.txt") for path in asked)
    assert not [path for path in asked if path.endswith(".png")]
    assert {name: len(files) for name, files in found.listing.splits.items()} == {
        "train": 5,
        "test": 2,
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", " \t\n"])
def test_line_ends_and_blank_lines_change_nothing_and_are_said(shelf: Shelf, end: str) -> None:
    shelf.write("train.txt", TRAIN[0], "", *TRAIN[1:], "  ", end=end)
    pool = shelf.load()
    assert pool.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert pool.notes == ("train.txt: 2 blank lines are left out",)


def test_a_mark_of_utf_8_and_a_missing_last_line_end_change_nothing(shelf: Shelf) -> None:
    (shelf.path / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(TRAIN).encode())
    assert shelf.load().train.targets.tolist() == [0, 0, 0, 1, 1]


def test_spaces_and_other_bytes_in_a_path_are_part_of_it(shelf: Shelf) -> None:
    write_image(shelf.path / "a b/ü 1.png")
    shelf.write("train.txt", *TRAIN, "a b/ü 1.png\t1")
    assert shelf.load(cache_gb=0).train.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_repeated_line_counts_once_and_is_said(shelf: Shelf) -> None:
    shelf.write("train.txt", *TRAIN, TRAIN[1], "a/./2.png 0")
    pool = shelf.load()
    assert len(pool.train) == 5
    assert pool.notes == ("train.txt: 2 lines repeat another (6 = 2): each image counts once",)


def test_absolute_paths_into_the_folder_are_taken_and_said(shelf: Shelf) -> None:
    shelf.write("train.txt", f"{shelf.path}/a/0.png 0", *TRAIN[1:])
    pool = shelf.load()
    assert len(pool.train) == 5
    assert "1 paths are absolute and lead into" in pool.notes[0]


def test_labels_with_gaps_are_closed_up_and_said(shelf: Shelf) -> None:
    shelf.write("train.txt", *(line.replace(" 1", " 5").replace(" 0", " 2") for line in TRAIN))
    shelf.write("test.txt", "a/7.png 2", "b/7.png 5")
    pool = shelf.load()
    assert pool.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert pool.test.targets.tolist() == [0, 1]
    assert pool.notes == (
        "train.txt: 4 of the labels 0 to 5 have no training image (0, 1, 3, 4): the 2 classes are "
        "numbered 0 to 1 here, without gaps",
    )


def test_a_list_is_found_here_then_in_the_folder_then_in_the_raw_data(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = shelf.path / "raw"
    raw.mkdir()
    shutil.move(shelf.path / "test.txt", raw / "test.txt")
    assert len(shelf.load().test) == 2
    monkeypatch.chdir(shelf.path.parent)
    (shelf.path.parent / "test.txt").write_text(TEST[0])
    assert len(shelf.load().test) == 1


# --- tables and JSON ------------------------------------------------------------------------------


def as_table(*lines: str, delimiter: str = ",") -> list[str]:
    return [delimiter.join(["id", "file", "class"])] + [
        delimiter.join([str(number), *line.split()]) for number, line in enumerate(lines)
    ]


def as_json(*lines: str) -> str:
    pairs = [line.split() for line in lines]
    return json.dumps({str(n): {"file": p, "class": int(y)} for n, (p, y) in enumerate(pairs)})


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolons", "json", "rows", "mapping"])
def test_tables_and_json_say_the_same_as_lines(shelf: Shelf, kind: str) -> None:
    pairs = dict(line.split() for line in TRAIN)
    texts = {
        "csv": ("train.csv", "\r\n".join(as_table(*TRAIN))),
        "tsv": ("train.tsv", "\n".join(as_table(*TRAIN, delimiter="\t"))),
        "semicolons": ("train.csv", "\n".join(as_table(*TRAIN, delimiter=";"))),
        "json": ("train.json", as_json(*TRAIN)),
        "rows": ("train.json", json.dumps(list(json.loads(as_json(*TRAIN)).values()))),
        "mapping": ("train.json", json.dumps({p: int(y) for p, y in pairs.items()})),
    }
    name, text = texts[kind]
    (shelf.path / name).write_text(text)
    pool = shelf.load(train=name)
    assert pool.train.targets.tolist() == shelf.load().train.targets.tolist()
    assert np.array_equal(np.asarray(pool.train.images), np.asarray(shelf.load().train.images))


def test_labels_that_are_names_become_classes_in_their_order(shelf: Shelf) -> None:
    shelf.write("train.csv", "path,label", "b/0.png,emu", "a/0.png,cat", 'a/1.png,"dog, wild"')
    shelf.write("test.csv", "path,label", "a/7.png,emu")
    pool = shelf.load(train="train.csv", test="test.csv")
    assert pool.class_names == ("cat", "dog, wild", "emu")
    assert pool.train.targets.tolist() == [2, 0, 1]
    assert pool.test.targets.tolist() == [2]


def test_columns_are_named_where_their_names_are_unusual(shelf: Shelf) -> None:
    table = as_table(*TRAIN)
    shelf.write(
        "train.csv", table[0].replace("file", "slide").replace("class", "grade"), *table[1:]
    )
    assert "has id, slide, grade; name them in data.columns" in refused(shelf, train="train.csv")
    assert len(shelf.load(train="train.csv", columns=("slide", "grade")).train) == 5
    wrong = refused(shelf, train="train.csv", columns=("slide", "grades"))
    assert "has no column 'grades' (data.columns); it has id, slide, grade" in wrong


def test_a_group_in_two_splits_is_refused(shelf: Shelf) -> None:
    columns = ("path", "label", "patient")
    rows = [f"{line.replace(' ', ',')},p{n // 2}" for n, line in enumerate(TRAIN)]
    shelf.write("train.csv", ",".join(columns), *rows)
    shelf.write("test.csv", ",".join(columns), "a/7.png,0,p8", "b/7.png,1,p9")
    lists = {"train": "train.csv", "test": "test.csv", "columns": columns}
    assert len(shelf.load(**lists).train) == 5
    shelf.write("test.csv", ",".join(columns), "a/7.png,0,p8", "b/7.png,1,p1")
    assert "data.test: group p1 is in train.csv, too; 1 groups are in both" in refused(
        shelf, **lists
    )


def tables(shelf: Shelf, names: str) -> dict[str, str]:
    """Write both lists as tables with a value of each further column; return their keys."""
    more = "," * names.count(",") + "p" if names else ""
    for split, lines in (("train", TRAIN), ("test", TEST)):
        rows = [f"{line.replace(' ', ',')},{more}" for line in lines]
        shelf.write(f"{split}.csv", f"file,label,{names}", *rows)
    return {"train": "train.csv", "test": "test.csv"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("patient", "column patient is not used; data.columns=[file,label,patient] makes it the"),
        ("PatientID", "column PatientID is not used; data.columns=[file,label,PatientID] makes"),
        ("Case No", 'not used; data.columns=[file,label,"Case No"] makes it the group'),
        (
            "age,slide_id,site",
            "columns age, slide_id, site are not used; data.columns=[file,label,",
        ),
        ("age,slide_id", "slide_id] makes slide_id the group, which is kept in one split"),
    ],
)
def test_a_column_that_is_called_like_groups_and_not_used_is_named_with_the_key(
    shelf: Shelf, names: str, said: str
) -> None:
    (note,) = shelf.load(**tables(shelf, names)).notes
    assert note.startswith("train.csv, test.csv: column")
    assert said in note


def test_any_other_column_that_is_not_used_is_named_alone(shelf: Shelf) -> None:
    """Nor is a second group offered where there is one, or an index without a name spoken of."""
    lists = tables(shelf, "age,,grouped")
    said = "train.csv, test.csv: columns age, grouped are not used"
    assert shelf.load(**lists).notes == (said,)
    lists = {"train": tables(shelf, "patient,site")["train"], "test_fraction": 0.4}
    rows = [f"{line.replace(' ', ',')},p{n},x" for n, line in enumerate(TRAIN)]
    shelf.write("train.csv", "file,label,patient,site", *rows)
    notes = shelf.load(**lists, columns=("file", "label", "patient")).notes
    assert "train.csv: column site is not used" in notes


def test_a_column_that_is_not_used_is_named_in_one_line_of_plain_text(shelf: Shelf) -> None:
    (shelf.path / "train.csv").write_bytes(b'file,label,"a\nb\xe9\x1b"\na/0.png,0,1\nb/0.png,1,1\n')
    said = r"train.csv: column a\nb\udce9\x1b is not used"
    assert said in shelf.load(train="train.csv").notes


def test_a_key_of_json_that_is_not_used_is_named(shelf: Shelf) -> None:
    rows = [dict(zip(("file", "label"), line.split(), strict=True), track=7) for line in TRAIN]
    (shelf.path / "train.json").write_text(json.dumps(rows))
    (note,) = shelf.load(train="train.json").notes
    assert note.startswith("train.json: column track is not used; data.columns=[file,label,track]")


@pytest.mark.parametrize("keys", [{}, {"cache_gb": 0}])
def test_a_copy_under_another_name_is_left_out_of_training_on_request(
    shelf: Shelf, keys: dict[str, Any]
) -> None:
    shutil.copy(shelf.path / "b/7.png", shelf.path / "a/1.png")
    plain, left = (
        build(
            shelf.source(**keys),
            imbalance=Imbalance("none"),
            validation=Validation(None),
            drop_duplicates=drop,
        )
        for drop in (False, True)
    )
    assert plain.train.index.tolist() == [0, 1, 2, 3, 4]
    assert left.train.index.tolist() == [0, 2, 3, 4]
    assert len(left.test) == 2
    assert left.split_fingerprint != plain.split_fingerprint


def test_test_is_drawn_by_whole_paths_and_not_by_the_names_that_all_folders_share(
    tmp_path: Path,
) -> None:
    shelf = new_shelf(tmp_path / "shelf")
    names = [f"p{n // 5}/slices/{n % 5}.png" for n in range(60)]
    for name in names:
        write_image(shelf.path / name)
    shelf.write("scans.txt", *(f"{name} {n // 5 % 2}" for n, name in enumerate(names)))
    test = shelf.load(train="scans.txt", test_fraction=0.2).test
    assert test.names is not None
    assert len(test) == 12
    assert len({name.rpartition(b"/")[2] for name in test.names.tolist()}) > 2
    assert len({name.partition(b"/")[0] for name in test.names.tolist()}) < 12


def test_test_of_paths_of_a_class_and_a_name_is_that_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {"train": {"cat": 9, "dog": 9}})
    from_folder = ImageFolder(tmp_path, path=str(folder), test_fraction=0.3).load().test.names
    paths = sorted(path.relative_to(folder / "train") for path in folder.glob("train/*/*"))
    (tmp_path / "all.txt").write_text("".join(f"{p} {p.parent}\n" for p in paths))
    source = ImageList(
        tmp_path, root=str(folder / "train"), train=str(tmp_path / "all.txt"), test_fraction=0.3
    )
    from_list = source.load().test.names
    assert from_list is not None and from_folder is not None
    assert [b"train/" + name for name in from_list.tolist()] == from_folder.tolist()


def test_a_list_without_the_groups_that_columns_name_is_refused(shelf: Shelf) -> None:
    columns = ("path", "label", "patient")
    rows = [f"{line.replace(' ', ',')},p{n}" for n, line in enumerate(TRAIN)]
    shelf.write("train.csv", ",".join(columns), *rows)
    says = "data.test: SHELF/test.txt has no column of groups 'patient' (data.columns)"
    assert says in refused(shelf, train="train.csv", columns=columns)


def test_an_image_in_two_groups_is_refused(shelf: Shelf) -> None:
    shelf.write("train.csv", "file,label,patient", "a/1.png,0,p0", "b/1.png,1,p2", "a/1.png,0,p1")
    keys = {"train": "train.csv", "columns": ("file", "label", "patient"), "test_fraction": 0.5}
    says = "data.train: train.csv, line 4: a/1.png is in the group p1, and p0 in line 2: keep one"
    assert says in refused(shelf, **keys)
    rows = [{"file": "a/1.png", "label": 0, "patient": f"p{n}"} for n in range(2)]
    (shelf.path / "train.json").write_text(json.dumps(rows))
    says = "data.train: train.json, entry 2: a/1.png is in the group p1, and p0 in entry 1: keep"
    assert says in refused(shelf, **keys | {"train": "train.json"})


def test_columns_have_no_effect_on_a_json_of_paths_and_labels(shelf: Shelf) -> None:
    (shelf.path / "train.json").write_text(json.dumps(dict(line.split() for line in TRAIN)))
    said = refused(shelf, train="train.json", columns=("path", "label"))
    assert "train.json is {path: label}, where data.columns has no effect: leave it out" in said


def test_a_drawn_test_split_takes_whole_groups_and_leaves_every_class_an_image(
    tmp_path: Path,
) -> None:
    shelf = new_shelf(tmp_path / "shelf")
    rows = [(f"c/{n}.png", n % 2, f"g{n // 4}") for n in range(40)]
    for path, _, _ in rows:
        write_image(shelf.path / path)
    shelf.write("all.csv", "path,label,group", *(f"{p},{y},{g}" for p, y, g in rows))
    pool = shelf.load(train="all.csv", test_fraction=0.3, columns=("path", "label", "group"))
    assert (len(pool.train), len(pool.test)) == (28, 12)
    assert "as nearly as whole groups allow: 12 images" in pool.notes[0]
    assert pool.group_kind == "group"
    assert pool.train.groups is not None
    assert len(np.unique(pool.train.groups)) == 7
    groups = dict(
        zip(map(bytes, stored_pixels(shelf.path, [r[0] for r in rows])), rows, strict=True)
    )
    of = [
        {groups[bytes(np.asarray(image))][2] for image in part.images}
        for part in (pool.train, pool.test)
    ]
    assert not of[0] & of[1]


# --- mistakes -------------------------------------------------------------------------------------


MISTAKES: dict[str, tuple[Spoil, str]] = {
    "a path that climbs out": (
        lambda s: s.write("train.txt", *TRAIN, "a/../../x.png 0"),
        "data.train: train.txt, line 6: a/../../x.png leads out of data.root (SHELF)",
    ),
    "an absolute path": (
        lambda s: s.write("train.txt", *TRAIN, "/elsewhere/x.png 0"),
        "data.train: train.txt, line 6: /elsewhere/x.png is absolute; paths start from data.root",
    ),
    "a path of Windows": (
        lambda s: s.write("train.txt", *TRAIN, "C:\\x.png 0"),
        "line 6: C:\\x.png is absolute",
    ),
    "folders of Windows": (
        lambda s: s.write("train.txt", *(line.replace("/", "\\") for line in TRAIN)),
        "folders are separated by / in a list",
    ),
    "missing files": (
        lambda s: s.write("train.txt", *TRAIN, "", *(f"a/x{n}.png 0" for n in range(7))),
        "data.train: 7 of 12 files of train.txt are not in SHELF: a/x0.png, a/x1.png, a/x2.png, "
        "a/x3.png, a/x4.png, ...",
    ),
    "a folder in place of a file": (
        lambda s: (s.path / "b/8.png").mkdir() or s.write("test.txt", *TEST, "b/8.png 1"),
        "data.test: 1 of 3 files of test.txt are not in SHELF: b/8.png",
    ),
    "a dangling link": (
        lambda s: (s.path / "b/8.png").symlink_to("none") or s.write("test.txt", "b/8.png 1"),
        "data.test: 1 of 1 files of test.txt are not in SHELF: b/8.png",
    ),
    "one image under two labels": (
        lambda s: s.write("train.txt", *TRAIN, "a/1.png 1"),
        "data.train: train.txt, line 6: a/1.png has the label 1, and 0 in line 2: keep one",
    ),
    "one image in two splits": (
        lambda s: s.write("test.txt", *TEST, "b//1.png 1"),
        "data.test: test.txt, line 3: b/1.png is in train.txt, line 5, too; 1 of 3 images are in "
        "both splits: remove them from one",
    ),
    "a class that train lacks": (
        lambda s: s.write("test.txt", *TEST[:1], "b/7.png 2"),
        "data.test: test.txt, line 2: class 2 is not in train.txt: every class needs training",
    ),
    "a word among numbers": (
        lambda s: s.write("train.txt", *TRAIN[1:], "a/0.png -1"),
        "data.train: train.txt, line 5: the label '-1' is no number from 0, as the others are",
    ),
    "labels with a fraction": (
        lambda s: s.write("train.txt", *(f"{line}.0" for line in TRAIN)),
        "data.train: train.txt, line 1: the label '0.0' is written with a fraction, as pandas does",
    ),
    "labels before paths": (
        lambda s: s.write("train.txt", *(" ".join(line.split()[::-1]) for line in TRAIN)),
        "data.train: SHELF/train.txt: every path is a number and no label is: expected the path",
    ),
    "other capitals": (
        lambda s: s.write("train.txt", *TRAIN[1:], "A/0.PNG 0"),
        "1 of 5 files of train.txt are not in SHELF: A/0.PNG; there is a/0.png: capitals and small",
    ),
    "a slash at the end": (
        lambda s: s.write("train.txt", *TRAIN[1:], "a/0.png/ 0"),
        "are not in SHELF: a/0.png/; the path of a file does not end in /",
    ),
    "quotes": (
        lambda s: s.write("train.txt", *TRAIN[1:], '"a/0 .png" 0'),
        "paths in lines of text take no quotes, even where they hold spaces",
    ),
    "a path longer than a file can have": (
        lambda s: s.write("train.txt", *TRAIN[1:], f"a/{'x' * 5000}.png 0"),
        f"are not in SHELF: a/{'x' * 198}...; see train.txt, line 5",
    ),
    "a folder longer than one can be": (
        lambda s: s.write("train.txt", *TRAIN[1:], f"{'x' * 5000}/0.png 0"),
        f"1 of 5 files of train.txt are not in SHELF: {'x' * 200}...; see train.txt, line 5",
    ),
    "an endless number": (
        lambda s: s.write("train.txt", *TRAIN[1:], "a/0.png 12345678901234567890"),
        "line 5: the label 12345678901234567890 has more than 9 digits",
    ),
    "a line without a label": (
        lambda s: s.write("train.txt", *TRAIN, "", "a/0.png"),
        "data.train: SHELF/train.txt, line 7: 'a/0.png' has no label after the path",
    ),
    "no line at all": (
        lambda s: s.write("train.txt", "", " "),
        "data.train: SHELF/train.txt has no image",
    ),
    "an image for a list": (
        lambda s: Image.new("RGB", (9, 9)).save(s.path / "train.txt", format="png"),
        "data.train: SHELF/train.txt is not a list in UTF-8 text",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_list_is_one_line_that_says_where(shelf: Shelf, name: str) -> None:
    spoil, says = MISTAKES[name]
    spoil(shelf)
    assert says in refused(shelf)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "path,label\na/0.png\n", "t.csv, line 2: has 1 values for 2 columns"),
        ("t.csv", "path,label\na/0.png,\n", "t.csv, line 2: has no label"),
        ("t.csv", 'path,label\n"a/0.png,0\n', "t.csv, line 2: unexpected end of data"),
        (
            "t.csv",
            "a/0.png,0\na/1.png,0\n",
            "label? Its first line, which names them, has a/0.png",
        ),
        ("t.json", "{", "t.json is not JSON"),
        ("t.json", "[1, 2]", "expected {image: {path: ..., label: ...}}, a list of such objects"),
        ("t.json", "{}", "t.json has no image"),
        ("t.json", "[{}]", "t.json: which columns hold path and label? It has none; name them"),
        ("t.json", '{"\\ud800": 0}', r"t.json, entry 1: '\ud800' is no UTF-8 text"),
        ("t.json", '{"a/0.png": 0, "a/0.png": 1}', "t.json has the key 'a/0.png' twice"),
        ("t.json", '[{"path": "a/0.png", "label": null}]', "t.json, entry 1: has no label"),
        ("t.json", '[{"path": "a/0.png", "label": 0.0}]', "the label '0.0' is no number from 0"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_that_says_where(
    shelf: Shelf, name: str, text: str, says: str
) -> None:
    (shelf.path / name).write_text(text)
    assert says in refused(shelf, train=name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path,label\n'a/0.png',0\nb/1.png,1\n"),
        ("t.json", '{"\'a/0.png\'": 0, "b/1.png": 1}'),
    ],
)
def test_quotes_that_a_table_has_within_a_path_are_not_laid_to_lines_of_text(
    shelf: Shelf, name: str, text: str
) -> None:
    (shelf.path / name).write_text(text)
    assert refused(shelf, train=name).endswith("are not in SHELF: 'a/0.png'")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"root": None}, "data.root is missing"),
        ({"root": "nowhere"}, "data.root=nowhere is not a folder: looked for"),
        ({"train": None}, "data.train is missing"),
        ({"train": "tran.txt"}, "data.train=tran.txt is not a file: looked for"),
        ({"test": None}, "data.test is missing: give a list of test images, or data.test_fraction"),
        ({"test": "test.txt", "test_fraction": 0.5}, "data.test_fraction: has no effect"),
        ({"columns": ("path", "label")}, "data.columns: has no effect, no list is a table"),
        ({"columns": ("path",)}, "data.columns: takes two or three names"),
        ({"class_names": "none.txt"}, "data.class_names=none.txt is not a file"),
    ],
)
def test_a_key_that_is_missing_or_idle_is_named(
    shelf: Shelf, keys: dict[str, Any], says: str
) -> None:
    assert says in refused(shelf, **keys)


def test_files_that_are_one_folder_off_are_found_for_the_user(shelf: Shelf) -> None:
    inside = shelf.path / "images"
    inside.mkdir()
    for name in ("a", "b"):
        shutil.move(shelf.path / name, inside / name)
    assert refused(shelf).endswith("; they are in SHELF/images: set data.root to it")
