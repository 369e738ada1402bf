"""The command line and the report."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from . import _cards
from ._outcomes import Outcome, examine
from ._subject import Subject, SubjectError, find_subject, own_subjects
from ._suite import CHECKS, SLOW_CHECKS, Check

MARKS = {"pass": ".", "fail": "F", "exception": "e", "n/a": "-"}
GROUP = 5  # columns between two spaces
WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Report on the losses named and return 0, 1 if a check fails, 2 if a loss is not found."""
    parser = argparse.ArgumentParser(
        prog="python -m losses.conformance", description="What a loss has to keep, check by check."
    )
    parser.add_argument(
        "losses",
        nargs="*",
        metavar="LOSS",
        help="softmax_focal, or module:Class for one of your own; default: all of this package",
    )
    parser.add_argument(
        "--slow", action="store_true", help="also compile with inductor (needs a C++ compiler)"
    )
    parser.add_argument(
        "--cards", action="store_true", help="bring the method cards of losses/README.md up to date"
    )
    given = parser.parse_args(argv)
    if given.cards:
        try:
            _cards.write()
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    checks = CHECKS | SLOW_CHECKS if given.slow else CHECKS
    try:
        subjects = [find_subject(text) for text in given.losses] or list(own_subjects())
    except SubjectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcomes = report(subjects, checks)
    return 1 if any(outcome.kind == "fail" for outcome in outcomes) else 0


def report(subjects: Sequence[Subject], checks: dict[str, Check]) -> list[Outcome]:
    """Examine every loss and print a row for each as it is done, then every reason once."""
    print("Checks:")
    for number, (name, check) in enumerate(checks.items(), start=1):
        head = f"{number:>4}  {name:26}"
        text = " ".join((check.__doc__ or "").split())
        print(textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * 32))
    width = max(len(subject.name) for subject in subjects) + 2
    print("\n. pass   F fail   e stated exception   - not applicable\n")
    for digits in zip(*(f"{number:>2}" for number in range(1, len(checks) + 1)), strict=True):
        print(" " * width + _grouped(digits))
    outcomes: list[Outcome] = []
    for subject in subjects:
        row = [examine(subject, check) for check in checks.values()]
        print(f"{subject.name:{width}}" + _grouped([MARKS[o.kind] for o in row]), flush=True)
        outcomes += row
    for kind, title in (
        ("fail", "Failures"),
        ("exception", "Stated exceptions"),
        ("n/a", "Not applicable"),
    ):
        _print_reasons(title, [o for o in outcomes if o.kind == kind], names_check=kind != "n/a")
    counts = Counter(outcome.kind for outcome in outcomes)
    print(
        f"\n{len(subjects)} losses, {len(outcomes)} results: {counts['pass']} pass, "
        f"{counts['fail']} fail, {counts['exception']} stated exceptions, {counts['n/a']} not "
        "applicable"
    )
    return outcomes


def _grouped(marks: Iterable[str]) -> str:
    text = "".join(marks)
    return " ".join(text[at : at + GROUP] for at in range(0, len(text), GROUP))


def _print_reasons(title: str, outcomes: list[Outcome], *, names_check: bool) -> None:
    """Print each reason once, with the losses and the check that it is given for."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        losses = grouped.setdefault((outcome.check, outcome.reason), [])
        losses.append(outcome.subject)
    if grouped:
        print(f"\n{title}:")
    for (check, reason), losses in grouped.items():
        head = (
            f"{', '.join(losses)}: {check}: {reason}"
            if names_check
            else f"{check}: {reason} ({', '.join(losses)})"
        )
        print(textwrap.fill(head, WIDTH, initial_indent="  ", subsequent_indent="      "))
