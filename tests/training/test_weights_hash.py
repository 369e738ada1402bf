"""Twelve digits over weights."""

from __future__ import annotations

import hashlib

import torch

from engine.training.weights_hash import weights_hash


def test_the_digits_are_over_names_and_the_bytes_of_numpy() -> None:
    """They are in the records of runs that exist."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "turned": torch.randn(3, 4, generator=generator).T,
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "half": torch.ones(2, dtype=torch.float16),
    }
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + b"\0" + value.numpy().tobytes())
    assert weights_hash(state) == digest.hexdigest()[:12]


def test_weights_in_bfloat16_have_digits() -> None:
    one, two = (torch.full((2,), n, dtype=torch.bfloat16) for n in (1.0, 2.0))
    assert weights_hash({"weight": one}) == weights_hash({"weight": one.clone()})
    assert weights_hash({"weight": one}) != weights_hash({"weight": two})
