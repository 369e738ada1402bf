"""Outcomes of a check on a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ._subject import NotApplicable, Subject, in_one_line
from ._suite import Check


@dataclass(frozen=True)
class Outcome:
    """What came of a check: of a failure, exception or inapplicability also the reason."""

    subject: str
    check: str
    kind: Literal["pass", "fail", "exception", "n/a"]
    reason: str = ""


def examine(subject: Subject, check: Check) -> Outcome:
    """Run a check on a loss.

    A loss that breaks the property for a stated reason (its class fact ``breaks``) passes as an
    exception, and fails once it no longer breaks it: the statement is then out of date.
    """
    name = check.__name__
    stated = subject.fact("breaks").get(name)
    try:
        check(subject)
    except NotApplicable as reason:
        if stated is None:
            return Outcome(subject.name, name, "n/a", str(reason))
        return Outcome(subject.name, name, "fail", f"states an exception, but {reason}")
    except Exception as error:  # noqa: BLE001 - whatever a loss raises is its failure
        if stated is not None:
            return Outcome(subject.name, name, "exception", stated)
        return Outcome(subject.name, name, "fail", in_one_line(error))
    if stated is not None:
        return Outcome(subject.name, name, "fail", f"no longer breaks it: {stated}")
    return Outcome(subject.name, name, "pass")
