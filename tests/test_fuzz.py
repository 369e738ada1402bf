"""Whatever is typed or written into a YAML file ends in a config or in one line a mistake."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import train
from engine.config.components import names
from engine.config.schema import tree
from engine.config.validation import keys

KEYS = sorted(
    {key for d in names("data") for loss in names("losses") for key in keys(tree(d, loss))}
)
SECTIONS = sorted({key.rpartition(".")[0] for key in KEYS} - {""})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["digits", "softmax_focal", "inverse", "1e-3", ".nan", "-.inf", "off", "0x1f"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.one_of(st.sampled_from(KEYS + SECTIONS), st.text(max_size=15))
WORDS = st.one_of(
    st.builds(lambda key, value: f"{key}={value}", NAMES, SCALARS),
    st.builds(lambda key, value: f"{key}={yaml.safe_dump(value)}", NAMES, VALUES),
    st.text(max_size=20),
    st.sampled_from(["--seeds", "--help", "-h", "--fresh", "--", "-", "--seeds=0", "missing.yaml"]),
)


def outcome(words: list[str]) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of ``train.py <words> --print-config``."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = train.main([*words, "--print-config"])
    return code, errors.getvalue().splitlines()


def check(words: list[str]) -> None:
    code, lines = outcome(words)
    assert code in (0, 2)
    assert (code == 2) == bool(lines)
    assert all(line.strip() for line in lines)


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=4))
@example(["seed=\n"])
@example(["seed={a: 1}", "seed=[1]"])
@example(["=", "a=b=c", "loss={name: {}}"])
@example(["loss={name: softmax_focal, gamma: {}}"])
@example(["track.name=a/b", "data.path=\x00"])
@example(["seed=&a [*a]"])
@example(["? =1"])
def test_any_command_line_ends_in_a_config_or_in_a_line_a_mistake(words: list[str]) -> None:
    check(words)
    assert os.listdir() == []  # noqa: PTH208 - nothing was written here


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.dictionaries(NAMES, VALUES, max_size=4).map(lambda d: yaml.safe_dump(d).encode()),
        st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
        st.binary(max_size=60),
    )
)
@example(b"1: 2\n")
@example(b"? [a]\n: 1\n")
@example(b"? {a: 1}\n: 1\n")
@example(b"a: &a [*a]\n")
@example(b"<<: 3\n")
@example(b"seed: 12:30:45\n")
@example(b"seed: 0o17\n---\nseed: 2\n")
@example(b"data: [digits]\nloss: {name: [softmax_focal]}\n")
def test_any_yaml_file_ends_in_a_config_or_in_a_line_a_mistake(content: bytes) -> None:
    path = Path("file.yaml")
    path.write_bytes(content)
    check([str(path)])
    assert os.listdir() == ["file.yaml"]  # noqa: PTH208 - nothing else was written here
