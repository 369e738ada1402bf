"""Superclasses: images that stay within one, and every mistake in the file as one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.analysis.superclasses import read_superclasses, superclass_counts, within
from engine.config.components import ROOT
from engine.config.mistakes import ConfigError

NAMES = ("cat", "dog", "car")
COUNTS = np.array([[6, 3, 1], [2, 7, 1], [0, 4, 6]])


def test_shares_are_those_counted_image_by_image() -> None:
    images = [(t, p) for t in range(3) for p in range(3) for _ in range(COUNTS[t, p])]
    group = np.array([0, 0, 1])
    for classes in ([True, True, False], [False, False, True], [True] * 3):
        own = [(t, p) for t, p in images if classes[t]]
        found = within(COUNTS, group, classes=np.array(classes))
        assert found is not None
        assert found.right == pytest.approx(np.mean([t == p for t, p in own]))
        inside = [t != p and group[t] == group[p] for t, p in own]
        assert found.inside == pytest.approx(np.mean(inside))
        assert sum(found) == pytest.approx(1)
    assert superclass_counts(COUNTS, group).tolist() == [[18, 2], [4, 6]]


def test_classes_without_images_have_no_shares() -> None:
    assert within(np.zeros((3, 3), int), np.array([0, 0, 1]), classes=np.ones(3, bool)) is None


def test_a_file_is_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("superclass,class\nmachine,car\nanimal, dog\nanimal,cat\n", encoding="utf-8")
    found = read_superclasses(file, NAMES)
    assert found.names == ("machine", "animal") and found.of.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class,group\ncat,a\n", "needs the columns class and superclass; has class, group"),
        ("", "needs the columns class and superclass; has nothing"),
        ("class,superclass\ncat,a\ndog,a\n", "car of the run's classes: has no line"),
        ("class,superclass\ncat,a\ndgo,a\ncar,b\n", "dgo: no class of the run (did you mean dog?)"),
        ("class,superclass\ncat,a\ncat,b\n", "cat is in a and in b"),
        ("class,superclass\ncat,\n", "line 2 is not whole"),
        ("class,superclass\ncat,a\ndog,a\ncar,a\n", "all classes are in one superclass"),
        ("class,superclass\ncat\udcff,a\n", "cannot be read as a CSV file"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "groups.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_superclasses(file, NAMES)
    assert any(says in line for line in caught.value.mistakes)
    assert all(line.startswith(str(file)) for line in caught.value.mistakes)


def test_the_superclasses_of_cifar100_are_twenty_of_five() -> None:
    text = (ROOT / "experiments/superclasses/cifar100.csv").read_text(encoding="utf-8")
    pairs = [line.split(",") for line in text.splitlines()[1:]]
    names = [name for name, _ in pairs]
    assert len(set(names)) == 100 and names == sorted(names)
    groups = [group for _, group in pairs]
    assert {groups.count(group) for group in groups} == {5} and len(set(groups)) == 20
