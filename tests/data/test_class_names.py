"""Names of classes beside their numbers, from a file or from the folders of the images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import DataError
from tests.data._files import write_image
from tests.data._lists import TEST, TRAIN, Shelf, new_shelf

WNIDS = ("n00000002", "n00000001")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path / "shelf")


def imagenet(shelf: Shelf) -> Shelf:
    """The same lists in folders called as ImageNet's, label 0 in the first of ``WNIDS``."""
    for name, lines in (("train.txt", TRAIN), ("test.txt", TEST)):
        renamed = [
            line.replace("a/", f"train/{WNIDS[0]}/").replace("b/", f"train/{WNIDS[1]}/")
            for line in lines
        ]
        for line in renamed:
            write_image(shelf.path / line.split()[0])
        shelf.write(name, *renamed)
    return shelf


def test_a_class_bears_the_name_of_the_folder_that_holds_it_alone(shelf: Shelf) -> None:
    assert shelf.load().class_names == ("a", "b")
    assert imagenet(shelf).load().class_names == WNIDS


def test_classes_that_share_a_folder_are_called_by_their_labels(shelf: Shelf) -> None:
    shelf.write("train.txt", *TRAIN[:4], "a/7.png 1")
    shelf.write("test.txt", TEST[1])
    assert shelf.load().class_names == ("0", "1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classnames.txt", "cat\n\nwild dog\n"),
        ("categories_places365.txt", "/d/wild dog 1\n/c/cat 0\n"),
        ("names.json", '["cat", "wild dog"]'),
        ("categories.json", '[{"id": 1, "name": "wild dog"}, {"id": 0, "name": "cat"}]'),
        ("labels.json", '{"1": "wild dog", "0": "cat"}'),
        ("class_to_idx.json", '{"wild dog": 1, "cat": 0}'),
        ("imagenet_class_index.json", '{"0": ["n1", "cat"], "1": ["n2", "wild dog"]}'),
        ("a_keyed.txt", "b wild dog\na cat\n"),
    ],
)
def test_a_file_names_classes_by_number_or_by_folder(shelf: Shelf, name: str, content: str) -> None:
    (shelf.path / name).write_text(content)
    assert shelf.load(class_names=name).class_names == ("cat", "wild dog")


def test_words_of_imagenet_go_by_wnid_whatever_the_order_of_the_file(shelf: Shelf) -> None:
    lines = (f"{WNIDS[1]} crane, a bird", f"{WNIDS[0]} crane", "n00000003 tench, Tinca tinca")
    shelf.write("LOC_synset_mapping.txt", *lines)
    pool = imagenet(shelf).load(class_names="LOC_synset_mapping.txt")
    assert pool.class_names == ("crane (0)", "crane (1)")  # two synsets of ImageNet are so called


def test_closed_up_labels_keep_the_names_of_the_lists_numbers(shelf: Shelf) -> None:
    shelf.write("train.txt", *(line.replace(" 1", " 3") for line in TRAIN))
    shelf.write("test.txt", TEST[0])
    (shelf.path / "names.json").write_text(json.dumps(["cat", "cow", "dog", "emu"]))
    assert shelf.load(class_names="names.json").class_names == ("cat", "emu")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("names.txt", "cat\n", "has no name for label 1: it has 1 names, of labels 0 to 0"),
        ("names.txt", "", "names no classes"),
        ("names.json", "[", "cannot be read as UTF-8 text or JSON"),
        ("names.json", '[{"id": 0}, {"id": 1}]', "names no classes"),
        ("names.json", "3", "names no classes"),
        ("names.json", '{"cat": true, "dog": 1}', "names no classes"),
        ("names.json", '{"cat": 0, "dog": 0}', "names no classes"),
        ("names.json", '[{"id": -1, "name": "cat"}]', "names no classes"),
        ("names.json", '{"\u00b2": "cat"}', "names no classes"),
    ],
)
def test_a_file_that_does_not_name_the_classes_is_refused(
    shelf: Shelf, name: str, content: str, says: str
) -> None:
    (shelf.path / name).write_text(content)
    with pytest.raises(DataError, match=r"data\.class_names: ") as caught:
        shelf.load(class_names=name)
    assert says in str(caught.value)


def test_a_file_of_names_has_no_effect_on_labels_that_are_names(shelf: Shelf) -> None:
    shelf.write("train.txt", *(line.replace(" 0", " cat").replace(" 1", " dog") for line in TRAIN))
    shelf.write("test.txt", "a/7.png cat")
    shelf.write("names.txt", "x", "y")
    with pytest.raises(DataError, match="has no effect, the labels of the lists are names"):
        shelf.load(class_names="names.txt")
