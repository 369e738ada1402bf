"""Device, threads, precision and randomness: the only module that touches global torch state."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn

from engine.config.mistakes import ConfigError

Precision = Literal["float32", "bfloat16", "float16"]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """Choose the device; ``auto`` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the named device is not there, there are fewer than processes, or they would
            share it.
    """
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if name.startswith("cuda:") and here > 1:
        raise ConfigError(
            [
                f"runtime.device={name}: {here} processes on this machine would share it; "
                "runtime.device=cuda gives each its own"
            ]
        )
    if name == "cuda" and (process := os.environ.get("LOCAL_RANK")) is not None:
        # torchrun's: one device a process. All of them refuse what one of them could not do.
        devices = torch.cuda.device_count()
        if 0 < devices < here:
            raise ConfigError(
                [
                    f"runtime.device=cuda: {here} processes on this machine, and CUDA devices for "
                    f"{devices}; use --nproc-per-node={devices} or runtime.device=cpu"
                ]
            )
        name = f"cuda:{process}"
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


def device_name(device: torch.device) -> str:
    """Return the device's name and, for CUDA, the card's: what a number was made on.

    >>> device_name(torch.device("cpu"))
    'cpu'
    """
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def process_backend(device: torch.device) -> str:
    """Choose what joins processes: NCCL for tensors on CUDA devices, gloo for all others.

    CUDA's current device becomes ``device``, which NCCL goes by.
    """
    if device.type != "cuda":
        return "gloo"
    torch.cuda.set_device(device)
    return "cpu:gloo,cuda:nccl"


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from named parts, the same everywhere.

    >>> derive_seed(0, "model") == derive_seed(0, "model") != derive_seed(1, "model")
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_global(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # That keeps a list of what to do once there is a GPU, which takes longer than the rest.
        torch.default_generator.manual_seed(seed)


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


def keep_freed_memory() -> None:
    """Let glibc keep what is freed from here on, for the next step; elsewhere do nothing.

    By its own measure it gives the memory of activations back to the system in every step, and the
    system hands it out again page by page, each filled with zeros. What was freed before goes back,
    and is no part of the memory of the run that begins.
    """
    if os.name != "posix":
        return
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return
    # Older ones take 32 MiB at most. The second call alone would fix the threshold of the first at
    # 128 KiB, which else grows with what is freed.
    if any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.malloc_trim(0)


@contextlib.contextmanager
def determinism(*, is_on: bool) -> Iterator[None]:
    """Let torch use algorithms without races only, and raise where it has none.

    It matters on GPUs, where some backward passes add up in whatever order threads finish. Without
    it cuDNN tries its algorithms and takes the fastest, which need not be the same one every time.
    """
    if not is_on:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
        return
    # cuBLAS reads it when it is first used; one of the two values that torch accepts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def choose_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Choose the precision; ``auto`` is bfloat16 if native, else float16 on CUDA, else float32."""
    if name != "auto":
        return name
    if has_bfloat16(device):
        return "bfloat16"
    return "float16" if device.type == "cuda" else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions; without, it is several times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86 oneDNN also takes bfloat16 where AVX-512 has to emulate it.
    found = torch.cpu.get_capabilities()
    return not found.get("avx2") or any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))


def precision_note(precision: Precision, device: torch.device) -> str | None:
    """Return what a user should know about the chosen precision on this device, in one line."""
    if precision != "float32" and device.type == "cpu":
        if precision == "bfloat16" and has_bfloat16(device):
            return None
        return (
            f"note: this CPU has no instructions for {precision}, which makes it several times "
            "slower than float32"
        )
    return None


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode inside the block, and back as it was however the block is left."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def autocast(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Return the context in which the model runs forward; float32 needs none."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
