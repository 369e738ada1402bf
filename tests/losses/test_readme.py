"""losses/README.md: its code works as written, and its cards are those of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import losses
from losses.conformance import Subject, _cards, _command
from tests._source_tree import ROOT

README = (ROOT / "losses/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def test_the_cards_are_those_of_the_code() -> None:
    """If not: python -m losses.conformance --cards."""
    assert _cards.with_cards(README) == README


def test_every_loss_has_a_row_and_a_card_with_its_source() -> None:
    for name in losses.names():
        assert f"| [{name}](#{name}) | " in README
        (card,) = re.findall(
            rf"^### {name}\n(.*?)(?=^### |\Z|^<!-- )", README, re.DOTALL | re.MULTILINE
        )
        assert "**Computes**" in card


def test_what_is_shown_of_a_loss_runs() -> None:
    source = next(text for _, text in BLOCKS if text.startswith("import torch\n"))
    assert "assert" in source
    exec(source, {})


def test_the_pictures_are_there() -> None:
    paths = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert paths
    assert [path for path in paths if not (ROOT / "losses" / path).exists()] == []


@pytest.mark.slow
def test_the_loss_of_ones_own_keeps_what_every_loss_keeps(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "losses", tmp_path / "losses", ignore=ignored)
    source = next(text for _, text in BLOCKS if text.startswith("# losses/"))
    assert len(source.partition("class ")[2].splitlines()) <= 20
    (tmp_path / source.splitlines()[0].removeprefix("# ")).write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "losses.conformance", "brier"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 fail, 1 stated exception" in done.stdout
    subprocess.run(
        [sys.executable, "-m", "losses.conformance", "--cards"], cwd=tmp_path, check=True
    )
    written = (tmp_path / "losses/README.md").read_text(encoding="utf-8")
    assert "### brier\n" in written
    assert "**Computes** sum_c (p_c - t_c)^2" in written


def test_a_loss_without_what_a_card_is_made_of_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_cards, "own_subjects", lambda: [Subject("bare", Bare)])
    assert _command.main(["--cards"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "bare.py: a card needs the class fact aims_at and the class fact fixed_point" in shown
    assert "and the function bare_loss" in shown
    assert (ROOT / "losses/README.md").read_text(encoding="utf-8") == README


class Bare(losses.Loss):
    """Says nothing of itself."""


def test_cards_are_written_between_the_markers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    monkeypatch.setattr(_cards, "README", readme)
    readme.write_text(f"Above\n{_cards.BEGIN}\nold\n{_cards.END}\nbelow\n")
    assert _command.main(["--cards"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"Above\n{_cards.BEGIN}\n\n| loss |")
    assert text.endswith(f"{_cards.END}\nbelow\n")
    assert "old" not in text.splitlines()
    readme.write_text("no markers\n")
    assert _command.main(["--cards"]) == 2
    assert "README.md needs the line" in capsys.readouterr().err
    assert readme.read_text() == "no markers\n"
