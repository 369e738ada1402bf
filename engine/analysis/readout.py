"""From stored logits to log-probabilities, as the run's loss reads them.

Most losses read a softmax, which NumPy does: importing torch takes longer than analyzing a small
run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.analysis.blocks import Doubles, Floats
from engine.config import components
from engine.config.schema import Config, component_keys

Readout = Callable[[Floats], Doubles]
"""From logits (n, C) to log-probabilities (n, C), finite, in double precision."""


def readout_of(config: Config, facts: Mapping[str, Any]) -> Readout:
    """Return how a run's loss turns logits into log-probabilities, without the run's own tau.

    Args:
        config: of the run.
        facts: what it recorded of its data; a model of one output x is stored as (0, x).
    """
    if facts["num_outputs"] > 1 and _is_plain_softmax(config.loss.name):
        return log_softmax
    return _by_the_loss(config, facts)


def log_softmax(logits: Floats) -> Doubles:
    """Return the logarithm of the softmax of each row, (n, C) float64.

    >>> log_softmax(np.array([[0.0, 0.0], [1000.0, 0.0]])).round(3).tolist()
    [[-0.693, -0.693], [0.0, -1000.0]]
    """
    found = logits.astype(np.float64)
    found -= found.max(axis=1, keepdims=True)
    found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
    return found


def _is_plain_softmax(loss: str) -> bool:
    """Return whether a loss has nothing of its own between logits and probabilities.

    Its file is read, not imported. Only a class that takes all it inherits from losses/_base.py
    is taken for one.
    """
    if components.read("losses", loss).class_facts["activation"] != "softmax":
        return False
    tree = components.parsed(components.folder("losses") / f"{loss}.py")
    from_base = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] == "_base"
        for alias in node.names
    }
    return all(
        all(isinstance(base, ast.Name) and base.id in from_base for base in node.bases)
        and not any(
            isinstance(part, ast.FunctionDef) and part.name == "predict" for part in node.body
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )


def _by_the_loss(config: Config, facts: Mapping[str, Any]) -> Readout:
    import torch

    import losses

    loss = losses.build(
        config.loss.name,
        component_keys(config.loss),
        class_counts=torch.tensor(facts["class_counts"]),
        old_classes=facts["taught_classes"] or None,
    )
    is_single = facts["num_outputs"] == 1

    def read(logits: Floats) -> Doubles:
        block = torch.from_numpy(np.asarray(logits)).double()
        probabilities = loss.predict(block[:, 1:] if is_single else block).numpy()
        # What underflowed is raised to the smallest normal number: logarithms stay finite.
        return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))

    return read
