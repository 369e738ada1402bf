"""What docs/from_other_libraries.md says of this project, where no other test says it already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import losses
from data import ClassIndex, class_histogram
from data._folder import list_folder
from data.samplers.class_balanced import ClassBalanced
from engine.training.metrics import evaluate
from engine.training.metrics.calibration import reliability
from tests.data._files import write_folder


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("softmax_focal", {}),
        *((name, {"ratio": 0.5, "gamma": 2.0}) for name in ("dice", "tversky")),
    ],
)
def test_a_constant_on_all_logits_changes_no_focal_or_overlap_loss(
    name: str, keys: dict[str, object]
) -> None:
    """Half of it on sigmoids would change."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(5, (64,), generator=generator)
    loss = losses.build(name, keys, class_counts=torch.tensor([60, 30, 9, 4, 2]))
    assert loss(logits + 3, targets).item() == pytest.approx(loss(logits, targets).item(), rel=1e-9)


def test_a_class_called_train_keeps_its_test_images_out_of_training(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "pets",
        {"train": {"train": 3, "test": 2, "cat": 2}, "test": {"train": 4, "test": 1, "cat": 1}},
    )
    splits = list_folder(folder).splits
    assert {name: len(files) for name, files in splits.items()} == {"train": 7, "test": 6}
    for name, files in splits.items():
        assert all(path.startswith(f"{name}/".encode()) for path in files.names)


def test_a_class_without_validation_images_moves_the_label_of_no_other(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "pets",
        {
            "train": {"ant": 2, "bee": 2, "cat": 2},
            "val": {"ant": 1, "cat": 1},
            "test": {"ant": 1, "bee": 1, "cat": 1},
        },
    )
    listing = list_folder(folder)
    validation = listing.splits["val"]
    assert listing.class_names == ("ant", "bee", "cat")
    assert [name.split(b"/")[1] for name in validation.names] == [b"ant", b"cat"]
    assert validation.targets.tolist() == [0, 2]


def test_a_large_head_class_after_many_rare_ones_is_drawn_as_often_as_they() -> None:
    """Weights of 1/n added up in float32 would lose it."""
    counts = torch.tensor([10] * 999 + [200_000])
    targets = torch.repeat_interleave(torch.arange(1000), counts)
    index = ClassIndex.from_targets(targets, num_classes=1000)
    positions = ClassBalanced().draw(index, seed=0, epoch=0, progress=0.0)
    drawn = class_histogram(positions, targets, 1000)
    expected = len(targets) / 1000
    assert abs(drawn[-1].item() - expected) < 5 * expected**0.5
    assert (drawn > 0).all()


def test_calibration_of_two_classes_of_ten_is_that_of_the_predicted_class() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(10), size=500)
    for labels in ([3, 7], [3, 7, 8]):
        targets = generator.choice(labels, size=500)
        found = reliability(probabilities, targets)
        confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
        ece = 0.0
        for low, high in zip(found.edges[:-1], found.edges[1:], strict=True):
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert found.ece == pytest.approx(ece)


def test_the_calibration_error_of_millions_of_samples_does_not_grow() -> None:
    """Two million float32 confidences in one bin, of which exactly the stated share is right."""
    num, confidence = 2_000_000, np.float32(0.9375)
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (num, 1))
    targets = (np.arange(num) % 16 == 0).astype(np.int64)
    assert reliability(probabilities, targets).ece == pytest.approx(0, abs=1e-9)


def test_one_prediction_of_a_class_without_test_images_leaves_the_geometric_mean() -> None:
    targets = np.repeat([0, 1], 500)
    probabilities = np.eye(3)[targets]
    probabilities[0] = [0.0, 0.0, 1.0]
    scores = evaluate(probabilities, targets, np.array([50, 50, 50])).scalars
    assert scores["geometric_mean"] == pytest.approx(0.998**0.5)
    assert scores["balanced_accuracy"] == pytest.approx(0.999)


def test_weighed_smoothed_labels_of_a_head_image_still_ask_for_the_head() -> None:
    """Smoothing weighed class by class would ask for the rarest class."""
    counts = torch.tensor([100, 10, 1])
    loss = losses.build("cross_entropy", {"label_smoothing": 0.1}, class_counts=counts)
    loss.set_weight(1 / counts.double())
    smoothed = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]], dtype=torch.float64)
    logits = smoothed.log().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([0])), logits)
    assert gradient.abs().max() < 1e-9
