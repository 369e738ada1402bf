"""The method card of every loss, from its code: class facts, signature and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ._subject import Subject, own_subjects

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- `python -m losses.conformance --cards` writes what follows; edits are lost. -->"
END = "<!-- The end of what it writes. -->"
PRIORS = {
    "natural": "the training data's: scores alone end at the natural prior",
    "uniform": "equal classes: scores alone end at equal shares",
    "none": "neither the training data's nor equal classes",
}
COLUMNS = ("loss", "aims at", "prior", "needs", "soft", "dense", "at test time")


def cards() -> str:
    """Return a table of all losses and a card for each, as Markdown.

    Raises:
        ValueError: If a loss does not say what a card is made of.
    """
    subjects = list(own_subjects())
    for subject in subjects:
        _check_facts(subject)
    rows = [f"| {' | '.join(COLUMNS)} |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    for subject in subjects:
        cells = (
            f"[{subject.name}](#{subject.name})",
            subject.fact("aims_at"),
            {"none": "neither"}.get(point := subject.fact_here("fixed_point"), point),
            ", ".join(_needs(subject)) or "–",
            "yes" if subject.fact("takes_soft_targets") else "no",
            "yes" if subject.fact("dense") else "no",
            _at_test_time(subject),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n\n".join(["\n".join(rows), *(_card(subject) for subject in subjects)])


def with_cards(text: str) -> str:
    """Return a README with the cards of today between the two markers.

    Raises:
        ValueError: If it has not both markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name} needs the line {BEGIN}, and below it {END}")
    return f"{before}{BEGIN}\n\n{cards()}\n\n{END}{after}"


def write() -> None:
    """Bring losses/README.md up to date.

    Raises:
        ValueError: If it has not both markers, or a loss does not say what a card is made of.
    """
    README.write_text(with_cards(README.read_text(encoding="utf-8")), encoding="utf-8")


def _check_facts(subject: Subject) -> None:
    stated = {
        "the class fact aims_at": subject.fact("aims_at"),
        "the class fact fixed_point": subject.fact("fixed_point") != "unstated",
        f"the function {subject.name}_loss": _function(subject),
    }
    missing = [what for what, is_stated in stated.items() if not is_stated]
    if missing:
        raise ValueError(f"{subject.name}.py: a card needs {' and '.join(missing)}")


def _function(subject: Subject) -> object:
    """Return the function beside a loss, None where there is none."""
    return getattr(sys.modules[subject.component.__module__], f"{subject.name}_loss", None)


def _needs(subject: Subject) -> list[str]:
    """Return what a loss has to be told besides logits and targets."""
    stated = {
        "class counts": "class_counts" in subject.parameters,
        "cosines": subject.fact("for_cosines"),
        "features": subject.fact("needs_features"),
        "a teacher": subject.fact("needs_teacher"),
        "a start": "start" in subject.parameters,
    }
    return [what for what, is_needed in stated.items() if is_needed]


def _at_test_time(subject: Subject) -> str:
    """Say how predictions are made of logits."""
    if "predict" in vars(subject.component):
        doc = inspect.getdoc(vars(subject.component)["predict"]) or ""
        return _first_sentence(doc.removeprefix("Return the "))
    if subject.fact("activation") == "sigmoid":
        return "sigmoids of the logits over their sum"
    return "softmax of the logits"


def _card(subject: Subject) -> str:
    """Return the card of one loss."""
    doc = _markdown((inspect.getdoc(_function(subject)) or "").split("\nArgs:")[0])
    formula, _, prose = doc.partition("\n\n")
    facts = {
        "prior": "; ".join(_priors(subject)),
        "needs": ", ".join(_needs(subject)) or "logits and targets alone",
        "takes": _takes(subject),
        "equals": "; ".join(_limits(subject)),
        "keys without effect": "; ".join(_idle(subject)),
        "in parts": _in_parts(subject),
        "does not keep": "; ".join(f"`{k}`: {v}" for k, v in subject.fact("breaks").items()),
    }
    summary = _markdown((inspect.getdoc(subject.component) or "").partition("\n\n")[0])
    lines = [f"### {subject.name}", "", summary, ""]
    lines += [f"- **{name}**: {text}" for name, text in facts.items() if text]
    lines += ["", f"**Computes** {formula.removeprefix('Return ')}"]
    if prose.strip():
        lines += ["", prose.strip()]
    return "\n".join(lines)


def _priors(subject: Subject) -> list[str]:
    """Say where a loss ends at its default keys, and at those where it states something else."""
    here = subject.fact_here("fixed_point")
    found = [PRIORS[here]] if here in PRIORS else []
    for keys, facts in subject.fact("facts_at"):
        if facts.get("fixed_point", here) != here:
            found.append(f"{PRIORS[facts['fixed_point']].split(':')[0]} at {_at(keys)}")
    if subject.fact("fixed_point") != here:
        found.append(f"{PRIORS[subject.fact('fixed_point')]} elsewhere")
    return found


def _in_parts(subject: Subject) -> str:
    """Say of a loss that is no mean over samples where it is one."""
    if subject.fact("is_mean_over_samples"):
        return ""
    text = "a batch is compared as a whole: its loss is not made of that of its parts"
    where = [k for k, facts in subject.fact("facts_at") if facts.get("is_mean_over_samples")]
    return text + "".join(f", but at {_at(keys)}" for keys in where)


def _at(keys: Mapping[str, object]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in keys.items())


def _takes(subject: Subject) -> str:
    """List the kinds of input that a loss takes."""
    kinds = {
        "labels": True,
        "soft targets": subject.fact("takes_soft_targets"),
        "dense logits (N, C, ...)": subject.fact("dense"),
        "class weights": subject.takes_weight,
        "one output for two classes": subject.fact("activation") == "sigmoid",
    }
    return ", ".join(kind for kind, is_taken in kinds.items() if is_taken)


def _limits(subject: Subject) -> list[str]:
    """Say what a loss equals, and at which keys of its own and of the other loss."""
    found = []
    for keys, other, other_keys in subject.fact("equals"):
        own = ", ".join(f"`{key}={value}`" for key, value in keys.items())
        theirs = ", ".join(f"`{key}={value}`" for key, value in other_keys.items())
        text = f"`{other}`" + (f" with {theirs}" if theirs else "")
        found.append(text + (f" at {own}" if own else ""))
    return found


def _idle(subject: Subject) -> list[str]:
    """Say which keys change nothing, and where."""
    texts = {"weight": "no class weights", "targets": "labels", "dense": "logits (N, C)"}
    found = []
    for conditions, keys in subject.fact("idle"):
        where = " and ".join(texts.get(k, f"`{k}={v}`") for k, v in conditions.items())
        found.append(f"{', '.join(f'`{key}`' for key in keys)} at {where}")
    return found


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def _markdown(text: str) -> str:
    """Return a docstring's prose as Markdown: paragraphs on a line, code in single backticks."""
    paragraphs = (
        part if part.lstrip().startswith("*") else " ".join(part.split())
        for part in text.strip().split("\n\n")
    )
    return re.sub(r"``([^`]+)``", r"`\1`", "\n\n".join(paragraphs)).replace("|", "\\|")
