import pytest
import torch

from data.synthetic import Synthetic


def nearest_mean_accuracy(source: Synthetic) -> float:
    pool = source.load()
    train, test = pool.train.images.float(), pool.test.images.float()  # type: ignore[union-attr]
    means = torch.stack(
        [train[pool.train.targets == c].mean(0) for c in range(len(pool.class_names))]
    )
    nearest = torch.cdist(test.flatten(1), means.flatten(1)).argmin(1)
    return (nearest == pool.test.targets).double().mean().item()


def test_sizes_are_those_asked_for() -> None:
    pool = Synthetic(
        num_classes=12, num_train_per_class=5, num_test_per_class=3, size=7, channels=2
    ).load()
    assert tuple(pool.train.images.shape) == (60, 2, 7, 7)
    assert torch.bincount(pool.train.targets).tolist() == [5] * 12
    assert torch.bincount(pool.test.targets).tolist() == [3] * 12
    assert pool.class_names[:2] == ("class00", "class01")


def test_train_and_test_share_classes_that_can_be_learned() -> None:
    assert nearest_mean_accuracy(Synthetic(noise=0.7)) > 0.9


def test_noise_makes_it_harder_up_to_chance() -> None:
    assert nearest_mean_accuracy(Synthetic(noise=1.0, num_test_per_class=100)) < 0.2


def test_without_noise_a_class_is_one_image() -> None:
    pool = Synthetic(noise=0.0, num_classes=3).load()
    assert len(torch.unique(pool.train.images, dim=0)) == 3


def test_images_are_the_stated_blend() -> None:
    noiseless, half, noise_alone = (
        Synthetic(noise=share).load().train.images for share in (0.0, 0.5, 1.0)
    )
    blend = (noiseless.long() + noise_alone.long()) // 2  # type: ignore[union-attr]
    assert torch.equal(half.long(), blend)  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_changes_the_images_and_nothing_else_does(seed: int) -> None:
    first = Synthetic().load().train.images
    torch.manual_seed(seed)
    assert torch.equal(Synthetic().load().train.images, first)  # type: ignore[arg-type]
    assert not torch.equal(Synthetic(seed=seed).load().train.images, first)  # type: ignore[arg-type]


def test_train_and_test_hold_different_images() -> None:
    pool = Synthetic(num_test_per_class=200).load()
    assert not torch.equal(pool.train.images, pool.test.images)  # type: ignore[arg-type]
