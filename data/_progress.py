"""Progress of a long preparation on stderr."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_CHUNK = 256  # files given to threads at a time
_MANY = 1_000  # files that take long enough for a bar
_Found = TypeVar("_Found")


def of_files(
    function: Callable[[Path], _Found],
    paths: Iterable[Path],
    *,
    total: int,
    doing: str,
    least: int | None = None,
) -> Iterator[_Found]:
    """Yield what a function finds of each file, in their order, by threads and with progress.

    Args:
        function: Of a file; it spends its time outside Python, in reading or decoding.
        paths: The files; of a million they are best made one after the other.
        total: How many.
        doing: What is done, for the bar.
        least: Files from how many on the bar is shown; None is a thousand.
    """
    least = _MANY if least is None else least
    rest = iter(paths)
    with progress(doing, total=total, least=least) as advance, ThreadPoolExecutor() as pool:
        while chunk := list(itertools.islice(rest, _CHUNK)):
            yield from pool.map(function, chunk)
            advance(len(chunk))


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
