"""Some classes are trained on and some tested, in the label space of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data import DataError, Imbalance, LongTailed, Validation, build
from data.image_folder import ImageFolder
from tests.data._pools import PoolOf

SOURCE = PoolOf([30, 20, 20, 10], class_names=("cat", "dog", "bird", "fish"))
LONG_TAILED: dict[str, Any] = {
    "imbalance": Imbalance(factor=4, head=8),
    "validation": Validation(per_class=2),
}


def built(source: PoolOf = SOURCE, **keys: Any) -> LongTailed:
    return build(source, **{**LONG_TAILED, **keys})


@pytest.mark.parametrize("wanted", [("bird", "cat"), (2, 0), ("2", "cat")])
def test_classes_are_named_or_numbered_in_any_order(wanted: tuple[int | str, ...]) -> None:
    dataset = built(classes=wanted)
    assert dataset.classes.trained == dataset.classes.tested == (0, 2)
    assert dataset.class_counts.tolist() == [8, 0, 3, 0]
    assert dataset.val is not None
    assert torch.bincount(dataset.val.targets, minlength=4).tolist() == [2, 0, 2, 0]
    assert torch.bincount(dataset.test.targets, minlength=4).tolist() == [2, 0, 2, 0]


def test_the_images_are_those_that_all_classes_together_draw() -> None:
    whole, some = built(), built(classes=["dog", "fish"])
    for split in ("train", "val", "test"):
        one, two = getattr(whole, split), getattr(some, split)
        kept = torch.isin(one.targets, torch.tensor([1, 3]))
        assert torch.equal(two.index, one.index[kept])
        assert torch.equal(two.targets, one.targets[kept])
        assert torch.equal(two.images, one.images[kept])


def test_labels_names_and_normalisation_stay_those_of_all_classes() -> None:
    whole, some = built(), built(classes=["dog", "fish"])
    assert some.num_classes == 4
    assert some.class_names == whole.class_names
    assert (some.mean, some.std) == (whole.mean, whole.std)


def test_a_split_of_some_classes_has_its_own_fingerprint_and_that_of_the_whole() -> None:
    whole, some, other = built(), built(classes=[1, 3]), built(classes=[1, 3], test_classes=[1])
    assert whole.split_fingerprint == whole.whole_fingerprint
    assert some.whole_fingerprint == other.whole_fingerprint == whole.split_fingerprint
    assert len({d.split_fingerprint for d in (whole, some, other)}) == 3


def test_what_a_teacher_knows_is_tested_too_unless_test_classes_says_otherwise() -> None:
    classes = built(classes=["bird", "fish"], taught=["dog", "cat"]).classes
    assert (classes.taught, classes.tested, classes.old) == ((0, 1), (0, 1, 2, 3), (0, 1))
    assert classes.known == classes.predicted == (0, 1, 2, 3)
    classes = built(classes=["bird", "fish"], taught=["cat"], test_classes=["dog"]).classes
    assert (classes.tested, classes.old) == ((1,), (0,))
    assert classes.known == (0, 2, 3)
    assert classes.predicted == (0, 1, 2, 3)


def test_without_a_teacher_the_old_classes_are_those_tested_but_not_trained() -> None:
    assert built(classes=[2, 3], test_classes=[0, 1, 2]).classes.old == (0, 1)
    assert built(classes=[2, 3]).classes.old == built().classes.old == ()


def test_notes_and_title_say_which_classes() -> None:
    dataset = built(classes=["bird", "fish"], taught=["cat", "dog"])
    assert dataset.title == "Test set (trained on 2 of 4 classes, tested on 4)"
    assert "trained on 2 of 4 classes: bird, fish" in dataset.notes
    assert "the teacher knows 2 of 4 classes: cat, dog" in dataset.notes
    assert "validation uses 4 labels (2 of each class)" in dataset.notes
    assert dataset.val_is_balanced
    assert built().title == "Test set"
    assert not any("classes" in note for note in built().notes)


def test_notes_speak_of_no_image_that_a_class_out_of_training_gave_up() -> None:
    keys = {"imbalance": Imbalance(factor=1, head=10), "validation": Validation(per_class=5)}
    assert any("fish keeps 5 of 10" in note for note in built(**keys).notes)
    assert not any("fish keeps" in note for note in built(**keys, classes=["cat", "dog"]).notes)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"classes": ["cat", "brid"]}, r"data\.classes='brid' .* did you mean 'bird'\?"),
        ({"classes": ["cat", 4]}, r"data\.classes='4' .* a label from 0 to 3"),
        ({"test_classes": ["fsh"]}, r"data\.test_classes='fsh' .* did you mean 'fish'\?"),
        ({"classes": ["cat", 0]}, r"data\.classes: names class 'cat' \(0\) twice"),
        ({"classes": ["cat"]}, "one class only: classification needs at least 2"),
        ({"test_classes": []}, r"data\.test_classes: names no class"),
        ({"classes": [0, 1, 2, 3]}, r"data\.classes: has no effect, it names all 4"),
        ({"taught": ["horse"]}, r"teacher: it knows the class 'horse'"),
    ],
)
def test_a_mistake_in_the_classes_is_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        built(**keys)
    assert "\n" not in str(caught.value)


def test_a_validation_list_without_the_classes_is_refused() -> None:
    source = PoolOf([9] * 3, val=[0, 0, 4])
    with pytest.raises(DataError, match=r"data\.classes: .* no validation image of these classes"):
        built(source, imbalance=Imbalance("none"), classes=[0, 1])
    with pytest.raises(DataError, match=r"^Test set has no validation image$"):
        built(PoolOf([9] * 3, val=[0, 0, 0]), imbalance=Imbalance("none"))
    dataset = built(source, imbalance=Imbalance("none"), classes=[1, 2])
    assert dataset.val is not None
    assert (len(dataset.val), dataset.val_is_balanced) == (4, False)


def test_images_on_disk_are_left_out_alike(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee", "cow"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    source = ImageFolder(tmp_path, path=str(tmp_path), size=4, cache_gb=0.0, normalize="imagenet")
    dataset = build(
        source,
        imbalance=Imbalance("none"),
        validation=Validation(per_class=1),
        classes=["ant", "cow"],
    )
    assert dataset.class_counts.tolist() == [2, 0, 2]
    assert len(dataset.train.images) == 4
    assert set(dataset.test.targets.tolist()) == {0, 2}
