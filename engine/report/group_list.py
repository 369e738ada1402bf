"""Which parameters are trained, in which groups, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from engine.config.messages import counted

WIDTH = 100


def group_list(parameters: Mapping[str, Any]) -> list[str]:
    """Return a line on the model, and for each group its factors, its size and its members.

    Args:
        parameters: the content of a run folder's parameters.json.
    """
    total, trained = parameters["total"], parameters["trained"]
    lines = [f"trained: {trained:,} of {counted(total, 'parameter')} ({trained / total:.2%})"]
    for number, group in enumerate(parameters["groups"], start=1):
        lines += [
            "",
            f"group {number}: rate x {group['lr_scale']:.4g}, weight decay "
            f"{group['weight_decay']:g}, {counted(group['parameters'], 'parameter')} in "
            f"{counted(len(group['names']), 'tensor')}",
            *textwrap.wrap(
                ", ".join(group["names"]),
                WIDTH,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            ),
        ]
    return lines
