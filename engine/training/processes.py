"""The processes of one run: their ranks, and the collectives between them.

``torchrun --nproc-per-node N train.py ...`` starts N of them. Each has the whole model and a share
of every batch; process 0, the main one, alone writes files and the terminal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from engine.config.mistakes import ConfigError
from engine.training.runtime import choose_device, process_backend

T = TypeVar("T")


class LostProcessError(RuntimeError):
    """Another process of the run has ended or cannot be reached; this one cannot go on."""


class Processes:
    """This process among the ``world`` of its run; with a world of 1 nothing is exchanged.

    Args:
        rank: which one this is, 0 to world - 1.
        world: how many there are.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @classmethod
    def current(cls) -> Processes:
        """Return the processes that :func:`joined` has joined, or this one alone."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and the terminal."""
        return self.rank == 0

    def on_main(self, do: Callable[[], T]) -> T:
        """Let the main process do something and give what it returns to all.

        Raises:
            ConfigError: in all when it does in the main one; only that one has something to say.
        """
        if self.world == 1:
            return do()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = do()
            except ConfigError as error:
                outcome[1] = error.mistakes
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise ConfigError(outcome[1] if self.is_main else [])
        result: T = outcome[0]
        return result

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest of each number over the processes."""
        if self.world == 1:
            return numbers
        found = torch.tensor(numbers)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes, elementwise."""
        if self.world == 1:
            return values
        found = values.detach().clone()
        dist.all_reduce(found)
        return found

    def gathered(self, values: Any) -> list[Any]:
        """Return one value of each process, in the order of ranks."""
        if self.world == 1:
            return [values]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, values)
        return found

    def share(self, rows: Tensor) -> Tensor:
        """Return rows rank, rank + world ... of ``rows`` (M, ...), the last again where one lacks.

        All shares are then equally long; :meth:`joined_shares` undoes it.
        """
        missing = -len(rows) % self.world
        return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])[
            self.rank :: self.world
        ]

    def joined_shares(self, share: Tensor, *, num_rows: int) -> Tensor:
        """Return the (num_rows, ...) rows whose :meth:`share` each process holds, on the CPU."""
        if self.world == 1:
            return share
        shares = torch.stack([torch.empty_like(share) for _ in range(self.world)])
        dist.all_gather(list(shares.unbind()), share.contiguous())
        return shares.transpose(0, 1).flatten(0, 1)[:num_rows]

    def sharing_gradients(self, model: nn.Module) -> nn.Module:
        """Wrap the model so that its backward pass averages gradients over the processes."""
        if self.world == 1:
            return model
        # Buffers are copied once an epoch: in training BatchNorm uses the batch's own statistics.
        return DistributedDataParallel(model, forward_sync_buffers=False)

    def apart(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Let no backward pass of a :meth:`sharing_gradients` model wait for other processes."""
        if isinstance(model, DistributedDataParallel):
            return model.no_sync()
        return contextlib.nullcontext()

    def scaled_for_mean(self, loss: Tensor) -> Tensor:
        """Scale a share of the loss so that the average of gradients becomes their sum."""
        return loss if self.world == 1 else loss * self.world

    def copy_buffers(self, *modules: nn.Module) -> None:
        """Give all processes the main one's BatchNorm statistics and other buffers."""
        if self.world == 1:
            return
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    @contextlib.contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Let one process of each machine do the block before the others, which find its caches."""
        is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
        if self.world > 1 and not is_first:
            dist.barrier()
        yield
        if self.world > 1 and is_first:
            dist.barrier()


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun, or another launcher that sets its variables, has started.

    Without RANK, WORLD_SIZE and MASTER_ADDR in the environment this process is alone.

    Args:
        device: ``runtime.device``.

    Raises:
        ConfigError: this process's device is not there.
        LostProcessError: another process has ended before this one could finish.
    """
    is_launched = os.environ.keys() >= {"RANK", "WORLD_SIZE", "MASTER_ADDR"}
    if not dist.is_available() or not is_launched or os.environ["WORLD_SIZE"] == "1":
        yield Processes()
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = process_backend(choose_device(device))  # a mistake here waits for nobody
    try:
        store, *_ = next(rendezvous("env://", rank, world))
        # torchrun's store outlives its restarts, with the addresses of processes that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            backend,
            store=PrefixStore(f"attempt-{attempt}", store),
            rank=rank,
            world_size=world,
        )
        yield Processes.current()
    except RuntimeError as error:
        if not _is_of_the_connection(error):
            raise
        raise LostProcessError(
            f"process {rank} of {world}: another one has ended or cannot be "
            "reached, so this one ends too; run the same command to resume from the last checkpoint"
        ) from error
    finally:
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _is_of_the_connection(error: RuntimeError) -> bool:
    """Return whether the error is gloo's bare RuntimeError for a peer that is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
