"""Compiling the model for batches of one shape: where it pays, and never at the price of a run."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from engine.training.compile_costs import (
    MIN_CALLS,
    Cost,
    compilation_key,
    expected,
    record,
    recorded,
)
from engine.training.processes import Processes

TRAINING, EVALUATION = "training", "evaluation"
# Models that one process may compile; torch goes on without compiling above its own limit of 8,
# which a worker that makes a table would reach.
MODELS = 256
TIMED = 2  # calls that are timed, after one that is not

Forward = Callable[[Tensor], Any]


class ForOneShape:
    """A model that is compiled for images of one shape; all others go through it as it is.

    An epoch's last batch is often smaller, and to compile it, too, would cost as much again for one
    step an epoch. Models that are built alike share what is compiled: inside a process, and by
    inductor's cache on disk between processes.

    Args:
        model: images to ``(logits, features)``.
        shape: (B, C, H, W).
        is_replayed: capture what a CUDA device does with such a batch, and replay it as one.
        backend: that of ``torch.compile``.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        *,
        is_replayed: bool = False,
        backend: Any = "inductor",
    ) -> None:
        self._model, self._shape, self._is_replayed = model, torch.Size(shape), is_replayed
        mode = "reduce-overhead" if is_replayed else None
        self._compiled = torch.compile(model, dynamic=False, backend=backend, mode=mode)

    def __call__(self, images: Tensor) -> Any:
        """Return what the model says about images (N, C, H, W)."""
        if images.shape != self._shape:
            return self._model(images)
        if not self._is_replayed:
            return self._compiled(images.contiguous())
        torch.compiler.cudagraph_mark_step_begin()
        logits, features = self._compiled(images.contiguous())
        # The next call writes to the same memory.
        return logits.clone(), features.clone()


@dataclass(frozen=True)
class Part:
    """The model as training or evaluation calls it.

    Attributes:
        name: ``training`` or ``evaluation``.
        model: that is called.
        shape: (B, C, H, W) of all of its batches but the last of an epoch.
        calls: batches of that shape to come.
        rehearse: calls what it is given as one batch would, and leaves everything as it was.
        use: what is to be called in the place of the model.
        facts: what else decides what the compiler makes: the precision, the way of calling.
    """

    name: str
    model: nn.Module
    shape: tuple[int, ...]
    calls: int
    rehearse: Callable[[Forward], None]
    use: Callable[[Forward], None]
    facts: str

    @property
    def key(self) -> str:
        """What another part has that the compiler makes the same of."""
        return compilation_key(self.model, of=f"{self.name} {self.shape} {self.facts}")


class Compiler:
    """Compiles the parts of a run.

    Args:
        asked: ``runtime.compile``: False for none, True for training and for evaluation where it
            pays, ``auto`` for either where it pays, ``cuda_graphs`` as True.
        device: of the model.
        processes: that must all compile, or none.
        backend: that of ``torch.compile``.

    Attributes:
        compiled: names of the parts that are compiled, or were until nothing of them was left.
    """

    def __init__(
        self,
        asked: bool | Literal["auto", "cuda_graphs"],  # noqa: FBT001
        *,
        device: torch.device,
        processes: Processes,
        backend: Any = "inductor",
    ) -> None:
        self._is_replayed = asked == "cuda_graphs"
        self._asked = True if self._is_replayed else asked
        self._key = f"runtime.compile={'true' if asked is True else asked}"
        self._device, self._processes = device, processes
        self._backend = backend
        self.compiled: tuple[str, ...] = ()

    def compile(self, part: Part, *, past: Collection[str] | None = None) -> Iterator[str]:
        """Compile a part where it is asked for; yield what a user should know of it.

        Args:
            part: to be compiled.
            past: the parts that were compiled when an earlier stretch of the run was trained, since
                a resumed run computes as it began; None at its beginning.
        """
        is_training = part.name == TRAINING
        if not part.calls:
            # Its batches are behind: what they were computed with does not change any more.
            self.compiled += (part.name,) if part.name in (past or ()) else ()
            return
        if self._asked is False:
            return
        if self._asked is True and is_training:
            yield from self._kept(part)
        elif past is not None:
            yield from self._kept(part) if part.name in past else ()
        elif found := self._too_dear(part):
            # Nobody asked for evaluation by name.
            yield from [f"{self._key}: {part.name} as it is: {found}"] * is_training
        else:
            yield from self._kept(part, is_compared=True)

    def _too_dear(self, part: Part) -> str | None:
        """Return why compiling a part would not pay, or None where it would.

        The main process decides for all, whose batches may differ by an image.
        """
        if (calls := self._processes.on_main(lambda: part.calls)) < MIN_CALLS:
            return f"{calls:,} batches are to come, and {MIN_CALLS} are the fewest that pay for it"
        eager = self._timed(part, part.model)

        def decide() -> str | None:
            known = recorded(part.key) or expected(part.model, seconds=eager.wall)
            if known.pays(calls):
                return None
            return (
                f"compiling takes as long as some {known.calls:,.0f} batches, and would save some "
                f"{max(known.saved(calls), 0):,.0f} of the {calls:,} to come"
            )

        return self._processes.on_main(decide)

    def _kept(self, part: Part, *, is_compared: bool = False) -> Iterator[str]:
        """Compile a part; keep it unless it fails or, if compared, is no faster."""
        model = ForOneShape(
            part.model, part.shape, is_replayed=self._is_replayed, backend=self._backend
        )
        yield f"compiling {part.name} for batches of {part.shape[0]}"
        began, failure = time.perf_counter(), ""
        try:
            # Where one process fails, no other may wait for its gradients.
            with settings(self._device), self._processes.apart(part.model):
                # A CUDA graph is warmed up, recorded, replayed; none of it may end a run later.
                for _ in range(3 if self._is_replayed else 1):
                    part.rehearse(model)
        except (RuntimeError, OSError, ImportError) as error:
            failure = " ".join(str(error).split())[:200] or type(error).__name__
        seconds = time.perf_counter() - began
        if failures := [text for text in self._processes.gathered(failure) if text]:
            yield (
                f"runtime.compile: cannot compile {part.name}, which goes on as it is: "
                f"{failures[0]}"
            )
            return
        text = ""
        if is_compared:
            eager, now = self._timed(part, part.model), self._timed(part, model)
            cost = self._processes.on_main(lambda: Cost(seconds / eager.wall, now.own / eager.own))
            text = f", and a batch takes {cost.share:.2f} of its time"
            if self._processes.is_main:
                record(part.key, cost)
            if cost.share >= 1:
                yield f"{self._key}: {part.name} as it is: compiling took {seconds:.1f} s{text}"
                return
        self.compiled += (part.name,)
        part.use(model)
        yield f"compiling {part.name}: done in {seconds:.1f} s{text}"

    def _timed(self, part: Part, model: Forward) -> Seconds:
        """Return how long a batch takes, the fastest of some."""
        part.rehearse(model)
        found = []
        for _ in range(TIMED):
            self._wait()
            wall, own = time.perf_counter(), time.process_time()
            part.rehearse(model)
            self._wait()
            wall, own = time.perf_counter() - wall, time.process_time() - own
            found.append(Seconds(wall, own if self._device.type == "cpu" else wall))
        return min(found, key=lambda seconds: seconds.own)

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


class Seconds(NamedTuple):
    """How long a call takes: by the clock, and by the device's own time, where it is the CPU."""

    wall: float
    own: float


@contextlib.contextmanager
def settings(device: torch.device) -> Iterator[None]:
    """Let torch compile in the block, many models in one process, without a word on CUDA."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    if device.type == "cpu":
        # Inductor imports it, and it then warns that there is no GPU for the toolkit it has found.
        logger.setLevel(logging.ERROR)
    try:
        with torch._dynamo.config.patch(recompile_limit=MODELS):
            yield
    finally:
        logger.setLevel(before)
