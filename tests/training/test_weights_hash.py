"""Sixteen digits over weights."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from engine.training.weights_hash import former_hash, is_former, weights_hash


def test_the_digits_are_over_names_types_shapes_and_the_bytes_of_numpy() -> None:
    """They are in the records of runs that exist."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "turned": torch.randn(3, 4, generator=generator).T,
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "half": torch.ones(2, dtype=torch.float16),
    }
    digest = hashlib.sha256()
    for name, kind in (
        ("empty", "torch.float32\0(0, 2)"),
        ("half", "torch.float16\0(2,)"),
        ("number", "torch.int64\0()"),
        ("turned", "torch.float32\0(4, 3)"),
    ):
        digest.update(f"{name}\0{kind}\0".encode() + state[name].numpy().tobytes())
    assert weights_hash(state) == digest.hexdigest()[:16]


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"other": ONES},
        {"weight": ONES.view(3, 2)},
        {"weight": ONES.flatten()},
        {"weight": ONES.view(torch.int32)},
        {"weight": ONES + 2**-23},
        {"weight": ONES, "more": torch.ones(0)},
    ],
    ids=["name", "shape", "dimensions", "type", "last bit", "one more"],
)
def test_whatever_differs_gives_other_digits(other: dict[str, Tensor]) -> None:
    assert weights_hash(other) != weights_hash({"weight": ONES})


def test_the_order_of_the_names_gives_the_same_digits() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    assert weights_hash({"a": one, "b": two}) == weights_hash({"b": two, "a": one})


def test_weights_in_bfloat16_have_digits() -> None:
    one, two = (torch.full((2,), n, dtype=torch.bfloat16) for n in (1.0, 2.0))
    assert weights_hash({"weight": one}) == weights_hash({"weight": one.clone()})
    assert weights_hash({"weight": one}) != weights_hash({"weight": two})


def test_records_of_before_are_told_from_those_of_today() -> None:
    today = weights_hash({"weight": ONES})
    assert not is_former(today) and not is_former(f"{today}+{today}")
    former = former_hash({"weight": ONES})
    assert is_former(former) and is_former(f"{former}+{former}")


def test_records_of_before_are_over_names_and_bytes_in_their_order() -> None:
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3)}
    joined = b"".join(
        key.encode() + b"\0" + value.numpy().tobytes() for key, value in state.items()
    )
    assert former_hash(state) == hashlib.sha256(joined).hexdigest()[:12]
