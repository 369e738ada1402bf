"""Seeds, generators, threads, devices: global state is used and put back."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config.components import ROOT
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.training.named_precision import settled
from engine.training.runtime import (
    autocast,
    choose_device,
    choose_precision,
    cpu_threads,
    derive_seed,
    determinism,
    has_bfloat16,
    keep_freed_memory,
    precision_note,
    preserved_randomness,
    process_backend,
    seed_global,
)

DRAWS: dict[str, Callable[[], float]] = {
    "Python": random.random,
    "NumPy": np.random.random,
    "torch": lambda: torch.rand(()).item(),
}


def draws() -> dict[str, float]:
    return {name: draw() for name, draw in DRAWS.items()}


# --- seeds ----------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(), st.sampled_from(["model", "loader"])), min_size=1))
def test_a_derived_seed_is_63_bits_and_the_same_for_the_same_parts(parts: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63
    assert derive_seed(*parts) == derive_seed(*parts)


def test_different_parts_give_different_seeds() -> None:
    parts = [(seed, name, epoch) for seed in range(20) for name in "ab" for epoch in range(50)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    """Half of the first 8 bytes of the SHA-256 of "0/model", by sha256sum."""
    assert derive_seed(0, "model") == int.from_bytes(bytes.fromhex(MODEL_DIGEST), "little") // 2


MODEL_DIGEST = "9a442434db582459"


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1])
def test_one_seed_sets_all_three_global_generators(seed: int) -> None:
    with preserved_randomness():
        seed_global(seed)
        first = draws()
        seed_global(seed)
        assert draws() == first


# --- generators -----------------------------------------------------------------------------------


def test_a_preserved_block_leaves_the_generators_as_they_were() -> None:
    with preserved_randomness(7):
        undisturbed = draws()
    with preserved_randomness(7):
        with preserved_randomness(1):
            inside = draws()
        after = draws()
    assert after == undisturbed
    assert inside != undisturbed


def test_the_generators_come_back_after_an_error_too() -> None:
    with preserved_randomness(7):
        undisturbed = draws()
    with preserved_randomness(7):
        with pytest.raises(ZeroDivisionError), preserved_randomness(1):
            raise ZeroDivisionError
        assert draws() == undisturbed


def test_a_block_without_a_seed_goes_on_from_the_callers_state() -> None:
    with preserved_randomness(3):
        with preserved_randomness():
            inside = draws()
        assert draws() == inside


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_decides_what_a_block_draws(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        with preserved_randomness(seed):
            found.append(draws()[name])
    assert found[0] == found[1] != found[2]


# --- threads --------------------------------------------------------------------------------------


def test_threads_are_set_inside_the_block_and_put_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


FREED = """\
from pathlib import Path
import torch
from engine.training.runtime import keep_freed_memory
{call}
maps = torch.ones(2**25)
del maps
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""


def test_memory_that_a_step_frees_is_kept_for_the_next_one() -> None:
    usual, kept = (
        int(subprocess.check_output([sys.executable, "-c", FREED.format(call=call)], cwd=ROOT))
        for call in ("", "keep_freed_memory()")
    )
    assert kept - usual > 0.9 * 2**27


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (2**30, [(-3, 2**30), (-1, 2**31 - 1)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]),
        (0, [(-3, 2**30), (-3, 2**25)]),
    ],
)
def test_a_threshold_that_an_older_glibc_refuses_is_not_half_set(
    monkeypatch: pytest.MonkeyPatch, most: int, expected: list[tuple[int, int]]
) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(parameter == -1 or value <= most)

    libc = SimpleNamespace(mallopt=mallopt, malloc_trim=lambda _: 1)
    monkeypatch.setattr("engine.training.runtime.ctypes.CDLL", lambda _: libc)
    keep_freed_memory()
    assert asked == expected


def test_threads_are_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), cpu_threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_without_a_number_the_threads_stay() -> None:
    before = torch.get_num_threads()
    with cpu_threads(None) as count:
        assert count == torch.get_num_threads() == before


# --- device and precision -------------------------------------------------------------------------


def with_cuda(patch: pytest.MonkeyPatch, devices: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    patch.setattr(torch.cuda, "device_count", lambda: devices)


def with_mps(patch: pytest.MonkeyPatch, *, there: bool) -> None:
    patch.setattr(torch.backends.mps, "is_available", lambda: there)


@pytest.mark.parametrize(
    ("there", "expected"), [({"cuda", "mps"}, "cuda"), ({"mps"}, "mps"), (set(), "cpu")]
)
def test_auto_is_cuda_then_mps_then_cpu(
    monkeypatch: pytest.MonkeyPatch, there: set[str], expected: str
) -> None:
    with_cuda(monkeypatch, int("cuda" in there))
    with_mps(monkeypatch, there="mps" in there)
    assert choose_device("auto") == torch.device(expected)


def test_a_named_device_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with_cuda(monkeypatch, 1 if name == "cuda:1" else 0)
    with_mps(monkeypatch, there=False)
    with pytest.raises(ConfigError) as caught:
        choose_device(name)
    (line,) = caught.value.mistakes
    assert line.startswith(f"runtime.device={name}: not on this machine")
    assert line.endswith("use runtime.device=auto")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_precision_is_that_of_matrix_products(precision: str, dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):  # type: ignore[arg-type]
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
        ("cuda", True, "bfloat16"),
        ("cuda", False, "float16"),
        ("mps", False, "float32"),
    ],
)
def test_auto_precision_is_the_fastest_that_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, device: str, *, has_bfloat16: bool, expected: str
) -> None:
    monkeypatch.setattr("engine.training.runtime.has_bfloat16", lambda device: has_bfloat16)
    where = torch.device(device)
    assert choose_precision("auto", where) == expected
    assert choose_precision("float16", where) == "float16"


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "is_slow"),
    [
        ("float32", False, False),
        ("bfloat16", True, False),
        ("bfloat16", False, True),
        ("float16", True, True),
    ],
)
def test_a_precision_that_this_cpu_has_no_instructions_for_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, precision: str, *, has_bfloat16: bool, is_slow: bool
) -> None:
    monkeypatch.setattr("engine.training.runtime.has_bfloat16", lambda device: has_bfloat16)
    note = precision_note(precision, torch.device("cpu"))  # type: ignore[arg-type]
    assert (note is not None and f"no instructions for {precision}" in note) == is_slow


def test_determinism_is_inside_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism(is_on=False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark
    with determinism(is_on=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


def test_each_process_of_a_machine_takes_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_cuda(monkeypatch, 4)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:3")
    assert process_backend(choose_device("auto")) == "cpu:gloo,cuda:nccl"
    assert chosen == [torch.device("cuda:3")]
    assert process_backend(torch.device("cpu")) == "gloo"


@pytest.mark.parametrize("rank", [0, 1])
def test_more_processes_than_devices_are_refused_by_each_of_them(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Rank 0 has a device, but it alone prints."""
    with_cuda(monkeypatch, 1)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"use --nproc-per-node=1 or runtime\.device=cpu"):
        choose_device("auto")
    assert choose_device("cpu") == torch.device("cpu")


def test_processes_of_one_machine_do_not_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"cuda:1: 2 processes on this machine would share it"):
        choose_device("cuda:1")


def test_a_settled_config_names_what_auto_is_here_and_is_the_same_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.training.runtime.has_bfloat16", lambda device: True)
    said: list[str] = []
    words = ["runtime.device=cpu", "runtime.precision="]
    found = settled(load(overrides=[words[0], f"{words[1]}auto"]), say=said.append)
    named = load(overrides=[words[0], f"{words[1]}bfloat16"])
    assert found == named == settled(named, say=said.append)
    assert fingerprint(found) == fingerprint(named)
    assert said == ["runtime.precision=auto: bfloat16 on this cpu device"]


@pytest.mark.parametrize(
    ("capabilities", "is_fast"),
    [
        ({"avx2": True, "amx_bf16": True}, True),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"avx2": True, "avx512_f": True}, False),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_a_processor_that_has_to_emulate_bfloat16_is_not_said_to_have_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], *, is_fast: bool
) -> None:
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert has_bfloat16(torch.device("cpu")) is is_fast
