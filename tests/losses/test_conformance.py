"""What every loss keeps, whichever it is: a new file in losses/ is tested here as it appears."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import losses
from losses import FixedPoint, Loss
from losses.conformance import (
    CHECKS,
    SLOW_CHECKS,
    Check,
    Failed,
    Subject,
    _command,
    examine,
    find_subject,
    own_subjects,
)
from losses.conformance._module import GRAPH_BREAKS
from losses.conformance._subject import expect_close
from losses.cross_entropy import CrossEntropy
from tests._source_tree import ROOT

SUBJECTS = list(own_subjects())
NAMES = [subject.name for subject in SUBJECTS]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("subject", SUBJECTS, ids=NAMES)
def test_a_loss_keeps_what_every_loss_keeps(subject: Subject, check: Check) -> None:
    outcome = examine(subject, check)
    assert outcome.kind != "fail", outcome.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax_focal", "sigmoid_focal"])
def test_inductor_gives_the_same(name: str) -> None:
    outcome = examine(find_subject(name), SLOW_CHECKS["compiled_by_inductor"])
    assert outcome.kind == "pass", outcome.reason


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=NAMES)
def test_inductor_gives_the_same_for_every_loss(subject: Subject) -> None:
    outcome = examine(subject, SLOW_CHECKS["compiled_by_inductor"])
    assert outcome.kind in {"pass", "exception"}, outcome.reason


# --- what this package asks of its own losses on top ----------------------------------------------


def test_the_three_losses_of_the_foundation_are_found() -> None:
    assert {"cross_entropy", "softmax_focal", "sigmoid_focal"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_pure_function_stands_beside_every_loss(name: str) -> None:
    assert callable(getattr(importlib.import_module(f"losses.{name}"), f"{name}_loss"))


@pytest.mark.parametrize("subject", SUBJECTS, ids=NAMES)
def test_a_loss_states_what_it_is_for_and_has_an_oracle(subject: Subject) -> None:
    assert subject.fact("aims_at")
    assert subject.fact("fixed_point") != "unstated"
    assert examine(subject, CHECKS["slow_loop"]).kind == "pass"


# --- the suite -----------------------------------------------------------------------------------


def test_the_folder_of_the_suite_is_no_loss() -> None:
    assert (ROOT / "losses/conformance/__init__.py").exists()
    assert "conformance" not in losses.names()


def test_a_check_says_in_one_sentence_what_it_would_catch() -> None:
    for name, check in (CHECKS | SLOW_CHECKS).items():
        assert check.__name__ == name
        assert (check.__doc__ or "").strip().endswith(".")
        assert "\n\n" not in (check.__doc__ or "")


def test_numbers_that_differ_are_shown_with_digits_that_differ() -> None:
    with pytest.raises(Failed, match=r"the loss is 1\.00000003, not 1$"):
        expect_close(
            torch.tensor(1 + 3e-8, dtype=torch.float64),
            torch.tensor(1.0, dtype=torch.float64),
            what="the loss",
            tolerance=1e-9,
        )


class Rescaled(CrossEntropy):
    """Ten times too large."""

    def oracle(self, rows: object) -> float:
        del rows
        return 1.0


class MisspeltException(CrossEntropy):
    breaks: ClassVar[Mapping[str, str]] = {"emty_batch": "a mean over nothing is NaN"}


class InapplicableException(CrossEntropy):
    breaks: ClassVar[Mapping[str, str]] = {"extreme_counts": "cannot take a million"}


class NoFactAtKeys(CrossEntropy):
    facts_at: ClassVar[tuple] = (({"tau": 1.0}, {"fixed_point": "uniform"}),)


class NoSuchKey(CrossEntropy):
    breaks: ClassVar[Mapping[str, str]] = {"doubled_weights at gamma": "there is no gamma"}


class OutdatedExceptionAtAKey(CrossEntropy):
    breaks: ClassVar[Mapping[str, str]] = {"doubled_weights at normalize": "long repaired"}


class NoSuchIdleKey(CrossEntropy):
    idle: ClassVar[tuple] = (({"gamma": 0.0}, ("label_smoothing",)),)


class NoSuchLimit(CrossEntropy):
    equals: ClassVar[tuple] = (({"gamma": 0.0}, "cross_entropy", {}),)


class NoSuchPoint(CrossEntropy):
    fixed_point: ClassVar[str] = "balanced"


@pytest.mark.parametrize(
    ("component", "check", "reason"),
    [
        (Rescaled, "slow_loop", "the loss is .*, not 1$"),
        (MisspeltException, "stated_facts", "breaks names 'emty_batch', which is not a check"),
        (InapplicableException, "extreme_counts", "an exception, but does not know class counts"),
        (NoFactAtKeys, "stated_facts", r"facts_at names \['tau'\], which is not a key"),
        (NoSuchKey, "stated_facts", "names 'doubled_weights at gamma', which is not a check"),
        (OutdatedExceptionAtAKey, "doubled_weights", "no longer breaks it at normalize: long"),
        (NoSuchIdleKey, "stated_facts", r"idle names \['gamma'\], which is not a key"),
        (NoSuchLimit, "stated_facts", r"equals names \['gamma'\]"),
        (NoSuchPoint, "stated_facts", "fixed_point is 'balanced': choose from"),
    ],
)
def test_a_wrong_statement_is_a_failure(
    component: type[CrossEntropy], check: str, reason: str
) -> None:
    outcome = examine(Subject("stated", component), CHECKS[check])
    assert outcome.kind == "fail"
    assert re.search(reason, outcome.reason), outcome.reason


def test_a_module_that_knows_nothing_of_the_package_is_examined_as_it_is() -> None:
    torch_loss = find_subject("torch.nn:CrossEntropyLoss")
    outcomes = {name: examine(torch_loss, check) for name, check in CHECKS.items()}
    failed = {name for name, outcome in outcomes.items() if outcome.kind == "fail"}
    # A mean over nothing is NaN there, and half precision stays half precision.
    assert failed == {"empty_batch", "all_ignored", "half_precision", "extreme_logits"}
    assert outcomes["doubled_weights"].reason == "has no set_weight"


# --- the command line -----------------------------------------------------------------------------


def test_a_loss_that_keeps_everything_is_reported_and_exits_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _command.main(["cross_entropy"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^cross_entropy +[.-]{5} ", shown, flags=re.MULTILINE)
    assert "stated_limits: states none (cross_entropy)" in shown
    assert f"1 loss, {len(CHECKS)} results: " in shown
    assert ", 0 fail, " in shown
    assert "Checks:" not in shown


class LandsElsewhere(Loss):
    """Balanced softmax that states to land on the natural prior, and branches on a value."""

    fixed_point: ClassVar[FixedPoint] = "natural"

    def __init__(self, class_counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_prior", torch.as_tensor(class_counts).log(), persistent=False)

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        adjusted = logits + self.get_buffer("log_prior").to(logits)
        value = F.cross_entropy(adjusted, targets, weight=self.weight)
        return value if value.item() >= 0 else -value


def reason_of(check: str) -> str:
    outcome = examine(Subject("elsewhere", LandsElsewhere), CHECKS[check])
    assert outcome.kind == "fail"
    return outcome.reason


def test_another_fixed_point_than_stated_says_what_to_state() -> None:
    assert reason_of("fixed_point").endswith('; if that is meant, state fixed_point = "uniform"')


def test_what_does_not_compile_says_what_to_look_for_and_is_cut_between_words() -> None:
    reason, _, advice = reason_of("compiled").partition(" ...; ")
    assert advice == GRAPH_BREAKS
    assert len(reason) <= 200


def test_the_list_of_checks_has_a_space_behind_every_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("large_batch", "stated_limits_of_soft_targets")
    monkeypatch.setattr(_command, "CHECKS", {name: CHECKS[name] for name in names})
    assert _command.main(["cross_entropy", "--list"]) == 0
    shown = capsys.readouterr().out
    for number, name in enumerate(names, start=1):
        assert re.search(rf"^ +{number}  {name} +[A-Z]", shown, re.MULTILINE)


def test_of_the_checks_those_that_failed_are_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {name: CHECKS[name] for name in ("large_batch", "fixed_point")}
    monkeypatch.setattr(_command, "CHECKS", checks)
    assert _command.main([f"{__name__}:LandsElsewhere"]) == 1
    shown = capsys.readouterr().out
    assert "   2  fixed_point  Catch a prior of the wrong sign" in shown
    assert "   1  large_batch" not in shown


def test_without_a_name_every_loss_is_reported_with_its_exceptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {name: CHECKS[name] for name in ("large_batch", "worst_mistakes")}
    monkeypatch.setattr(_command, "CHECKS", checks)
    assert _command.main([]) == 0
    shown = capsys.readouterr().out
    assert [
        name for name in NAMES if re.search(rf"^{name} +[.e]{{2}}$", shown, re.MULTILINE)
    ] == NAMES
    assert "dice, tversky: large_batch: smooth weighs less" in shown


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("softmax_focl", "no loss is called 'softmax_focl': choose from asymmetric, "),
        ("no.such.module:Loss", "cannot import 'no.such.module'"),
        ("losses.cross_entropy:Entropy", "losses.cross_entropy has no 'Entropy'"),
        ("losses.cross_entropy:cross_entropy_loss", "not a class of torch.nn.Module"),
        ("torch.nn:Linear", "cannot be built"),
        (":Loss", "cannot import ''"),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_exit_code_2(
    word: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command.main(["cross_entropy", word]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert complaint in shown.err
    assert shown.err.count("\n") == 1


WRONG_LOSS = """
import torch
from torch import nn


class Wrong(nn.Module):
    def forward(self, logits, targets):
        return torch.log(logits.softmax(1)[range(len(targets)), targets] + 1e-5).mean()
"""


@pytest.mark.slow
def test_the_copied_folder_examines_a_loss_of_another_project_and_exits_1(tmp_path: Path) -> None:
    """Under another name, as a part of another package, without the rest of this project."""
    project = tmp_path / "theirs"
    project.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "losses", project / "imbalance", ignore=ignored)
    (project / "wrong.py").write_text(WRONG_LOSS)
    done = subprocess.run(
        [sys.executable, "-m", "theirs.imbalance.conformance", "theirs.wrong:Wrong"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "theirs.wrong:Wrong: descent: a step against the gradient makes the true" in done.stdout
