"""Device, threads, precision and randomness: the only module that touches global torch state."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from engine.config import ConfigError


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the named device is not there.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    device = torch.device(name)
    missing = (
        (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count())
        or (device.type == "mps" and not torch.backends.mps.is_available())
    )  # fmt: skip
    if missing:
        raise ConfigError(
            [
                f"runtime.device={name}: not on this machine ({torch.cuda.device_count()} CUDA "
                "devices); use runtime.device=auto"
            ]
        )
    return device


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from named parts: the same parts give the same seed, everywhere.

    >>> derive_seed(0, "model") == derive_seed(0, "model") != derive_seed(1, "model")
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_global(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def preserved_randomness(seed: int | None = None) -> Iterator[None]:
    """Run a block on its own global generators, seeded if asked, and put the old states back.

    timm and torch draw initial weights, dropout masks and mixup from global generators; inside this
    block they may, and the caller never notices.
    """
    cuda = torch.cuda.is_initialized()
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    cuda_states = torch.cuda.get_rng_state_all() if cuda else []
    try:
        if seed is not None:
            seed_global(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[int]:
    """Use ``count`` CPU threads inside the block (None: as it is); yields the number in use."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def autocast(
    device: torch.device, precision: Literal["float32", "bfloat16"]
) -> contextlib.AbstractContextManager[object]:
    """The context in which the model runs forward; float32 is no context at all."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
