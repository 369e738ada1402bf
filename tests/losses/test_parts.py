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


def of_every_normalisation() -> list[tuple[str, dict[str, str]]]:
    """Name every loss that is a mean, with the keys of each of its normalisations."""
    found: list[tuple[str, dict[str, str]]] = []
    for name in losses.names():
        loss = losses.build(name, class_counts=COUNTS)
        if loss.is_mean_over_samples and name not in DRAWN:
            ways = NORMALISATIONS.get(getattr(loss, "normalize", ""), ())
            found += [(name, {"normalize": way}) for way in ways] or [(name, {})]
    return found


def of_parts_and_whole(loss: losses.Loss, logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the loss of a batch as that of its parts gives it, and as it is."""
    num_outputs = logits.shape[1]
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(len(logits), 3, generator=generator, dtype=torch.float64)

    def of(part: slice) -> Tensor:
        extras = {"features": features[part], "teacher_logits": logits[part].flip(1)}
        return loss(logits[part], targets[part], **extras)

    normalizers = torch.stack([loss.normalizer(targets[p], num_outputs=num_outputs) for p in PARTS])
    shares = loss.divisor(normalizers) / loss.divisor(normalizers.sum())
    means = torch.stack([of(part) for part in PARTS])
    return (shares * means).sum().item(), of(slice(None)).item()


def batch(*, soft: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(13, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (13,), generator=generator)
    if not soft:
        return logits, labels
    targets = torch.rand(13, 5, generator=generator, dtype=torch.float64)
    return logits, targets / targets.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("name", "keys"), of_every_normalisation(), ids=lambda x: x if isinstance(x, str) else str(x)
)
@pytest.mark.parametrize("kind", ["labels", "ignored", "soft", "dense"])
def test_a_mean_is_the_sum_of_its_parts_means_by_their_divisors(
    name: str, keys: dict[str, str], kind: str
) -> None:
    loss = losses.build(name, keys, class_counts=COUNTS)
    loss.set_progress(9, 10)
    loss.set_weight(WEIGHT)
    logits, targets = batch(soft=kind == "soft" and loss.takes_soft_targets)
    if kind == "dense" and loss.dense:
        logits, targets = torch.stack([logits, -logits], 2), torch.stack([targets, targets], 1)
        targets[:4, 1] = -100
    elif kind == "ignored":
        targets[[0, 2, 6, 9]] = -100  # of a part that has others, and of one that has none
    found, expected = of_parts_and_whole(loss, logits, targets)
    assert found == pytest.approx(expected, rel=1e-6)


ONE_A_CLASS = sorted(
    name
    for name in losses.names()
    if losses.build(name, class_counts=COUNTS).activation == "sigmoid"
)


@pytest.mark.parametrize("normalize", NORMALISATIONS["elements"])
@pytest.mark.parametrize("name", ONE_A_CLASS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16])
def test_targets_of_several_labels_count_their_positives(
    name: str, normalize: str, dtype: torch.dtype
) -> None:
    loss = losses.build(name, {"normalize": normalize}, class_counts=COUNTS)
    logits, _ = batch(soft=False)
    found, expected = of_parts_and_whole(loss, logits, (logits > 0.3).to(dtype))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ONE_A_CLASS)
@pytest.mark.parametrize("normalize", NORMALISATIONS["elements"])
@pytest.mark.parametrize("is_soft", [False, True])
def test_a_single_output_counts_its_positives(name: str, normalize: str, *, is_soft: bool) -> None:
    loss = losses.build(name, {"normalize": normalize}, class_counts=[30, 8])
    logits, labels = batch(soft=False)
    labels = labels.clamp_max(1)
    targets = torch.nn.functional.one_hot(labels, 2).double() if is_soft else labels
    found, expected = of_parts_and_whole(loss, logits[:, :1], targets)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("normalize", ["batch", "positives"])
def test_every_label_counts_once_whatever_its_type_and_the_size_of_the_image(
    normalize: str,
) -> None:
    """uint8 has no -100, and 5 rows of pixels are not 5 outputs."""
    loss = losses.build("binary_cross_entropy", {"normalize": normalize}, class_counts=[1] * 200)
    assert loss.normalizer(torch.arange(200).to(torch.uint8), num_outputs=200) == 200
    pixels = torch.randint(5, (4, 5, 6), generator=torch.Generator().manual_seed(0))
    assert loss.normalizer(pixels, num_outputs=5) == pixels.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_samples_of_soft_targets_of_16_bits_are_counted_exactly(dtype: torch.dtype) -> None:
    """float16 ends at 65504, and bfloat16 counts to 256."""
    pixels = torch.zeros(3, 5, 301, 97, dtype=dtype)
    for name in losses.names():
        loss = losses.build(name, {}, class_counts=COUNTS)
        if loss.takes_soft_targets and loss.dense and loss.is_mean_over_samples:
            assert loss.normalizer(pixels, num_outputs=5) == 3 * 301 * 97, name
