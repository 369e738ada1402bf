"""What compiling a model costs and gives, as measured on this machine or as can be expected."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from engine.training.files import write_text

# Below this many calls nothing is measured: no compiler is done in the time they could save.
MIN_CALLS = 100
# Compile where it saves so many times what it costs: both numbers are estimates.
MARGIN = 2.0
# Expected of a model that was never compiled here, from CIFAR ResNets on a CPU: seconds for each
# module with parameters, and a compiled call's time as a share of one of the model as it is.
SECONDS_A_MODULE = 1.5
SHARE = 0.8
# What the cache on disk leaves of the compiler's time to the next process.
CACHED = 0.25


@dataclass(frozen=True)
class Cost:
    """What compiling a model costs and gives.

    Attributes:
        calls: the time it takes in calls of the model as it is, since other work on a machine
            slows down both.
        share: a compiled call's time over that of the model as it is.
    """

    calls: float
    share: float

    def saved(self, calls: int) -> float:
        """Return what ``calls`` to come would save, in calls of the model as it is."""
        return calls * (1 - self.share)

    def pays(self, calls: int) -> bool:
        """Return whether it pays for ``calls`` to come."""
        return self.saved(calls) > MARGIN * self.calls


def expected(model: nn.Module, *, seconds: float) -> Cost:
    """Return what to expect of a model whose call takes ``seconds`` as it is."""
    modules = sum(any(True for _ in m.parameters(recurse=False)) for m in model.modules())
    return Cost(SECONDS_A_MODULE * modules / seconds, SHARE)


def compilation_key(model: nn.Module, *, of: str) -> str:
    """Return what is the same for two compilations that share their results.

    Args:
        model: its modules count, its weights do not.
        of: what else decides: how it is called, on which shape, device and precision.
    """
    trained = "".join(str(int(p.requires_grad)) for p in model.parameters())
    text = "\n".join((torch.__version__, of, trained, repr(model)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(key: str) -> Cost | None:
    """Return what an earlier compilation with the same key has cost and given, if it is known.

    Its results are then in the cache beside the record.
    """
    try:
        return Cost(**json.loads(_record(key).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def record(key: str, cost: Cost) -> None:
    """Keep what a compilation has cost and given, beside inductor's cache.

    What the first one costs is mostly the compiler's time, which its cache spares the next.
    """
    past = recorded(key)
    calls = CACHED * cost.calls if past is None else cost.calls
    with contextlib.suppress(OSError):  # the cache's folder may be read-only; a run goes on
        _record(key).parent.mkdir(parents=True, exist_ok=True)
        write_text(_record(key), json.dumps(asdict(Cost(calls, cost.share))))


def _record(key: str) -> Path:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "tailfocus" / f"{key}.json"
