"""A batch in pieces: every loss whose mean is of samples or elements says what each part counts."""

import pytest
import torch
from torch import Tensor

import losses

COUNTS = torch.tensor([100, 40, 20, 5, 7])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.25])
PARTS = [slice(0, 6), slice(6, 7), slice(7, 13)]
# What is drawn for a part is drawn anew.
DRAWN = {"gaussian_clouded"}


NORMALISATIONS = {
    "samples": ("samples", "weights"),
    "elements": ("elements", "batch", "positives"),
}


def of_every_normalisation() -> list[losses.Loss]:
    facts = {n: losses.build(n, class_counts=COUNTS).is_mean_over_samples for n in losses.names()}
    names = sorted(name for name, is_mean in facts.items() if is_mean and name not in DRAWN)
    defaults = {n: getattr(losses.build(n, class_counts=COUNTS), "normalize", None) for n in names}
    return [
        losses.build(name, {"normalize": normalize}, class_counts=COUNTS)
        for name in names
        for normalize in NORMALISATIONS.get(str(defaults[name]), ())
    ]


def batch(*, soft: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (13,), generator=generator)
    if not soft:
        return logits, labels
    targets = torch.rand(13, 5, generator=generator, dtype=torch.float64)
    return logits, targets / targets.sum(1, keepdim=True)


@pytest.mark.parametrize(
    "loss", of_every_normalisation(), ids=lambda x: f"{type(x).__name__}-{x.normalize}"
)
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "soft"])
def test_a_mean_is_the_sum_of_its_parts_means_by_their_divisors(
    loss: losses.Loss, *, soft: bool
) -> None:
    logits, targets = batch(soft=soft and loss.takes_soft_targets)
    loss.set_weight(WEIGHT)
    normalizers = torch.stack([loss.normalizer(targets[part], num_outputs=5) for part in PARTS])
    shares = loss.divisor(normalizers) / loss.divisor(normalizers.sum())
    means = torch.stack([loss(logits[part], targets[part]) for part in PARTS])
    assert (shares * means).sum().item() == pytest.approx(loss(logits, targets).item(), rel=1e-6)
