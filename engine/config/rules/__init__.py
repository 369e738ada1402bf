"""An option that has no effect is an error: the rules, each with its sentence.

A rule takes the whole config and yields one line per mistake; each is in the file of what it is
about. What only the data or timm can know is checked right after they are loaded, in the same form.
"""

from __future__ import annotations

from engine.config.rules import data, evaluation, loss, model, needs, training
from engine.config.schema import Config

RULES = (
    *needs.RULES,
    *data.RULES,
    *model.RULES,
    *loss.RULES,
    *training.RULES,
    *evaluation.RULES,
)


def check(config: Config) -> list[str]:
    """Return every mistake in how the keys go together, one line each."""
    return [line for rule in RULES for line in rule(config)]
