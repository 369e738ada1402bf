"""Progress of a long preparation on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, *, total: int, least: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, two plain lines elsewhere; yield what takes each advance.

    Args:
        description: What is done.
        total: Number of images.
        least: From how many on anything is shown.
    """
    if total < least:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        start = time.monotonic()
        console.print(f"{description}: {total} images", markup=False, highlight=False)
        yield lambda _: None
        took = time.monotonic() - start
        console.print(f"{description}: done in {took:.1f} s", markup=False, highlight=False)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
