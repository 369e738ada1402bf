"""What losses cost: time and memory of a forward and backward pass, against PyTorch's own.

    python -m benchmarks.losses                     every case; some forty minutes
    python -m benchmarks.losses --quick             small cases, few rounds; a minute
    python -m benchmarks.losses --cases 256x8142 sigmoid:8x80x128x128 --threads 2

A case is a shape of logits. Its floor is F.cross_entropy or F.binary_cross_entropy_with_logits; its
other ways are the losses of this repository, the forms that most code uses, and other packages. A
way and the floor take turns in a process of their own, in random order. A line of the table gives

  ms        of one pass, median and quartiles over rounds; CPU time with one thread, else wall time
  ratio     to the floor's pass in the same round, median and quartiles: what to compare, for other
            programs on the machine slow both
  memory    the most that tensors held during a pass beyond what was there before, in units of the
            logits' size: the gradient itself is 1.0

Memory above some 16 MB comes from the system and goes back to it at every step, and its pages cost
more than most arithmetic. `--allocator tuned` measures with glibc told to keep it
(MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ in the environment of the measuring process).

With two threads and more, every operation ends when the slowest of them has done its share. Where
other programs want the processor too, that is milliseconds for threads that wait as OpenMP's do by
default, busily; `--wait passive` has them sleep (OMP_WAIT_POLICY).

`--device cuda` measures there: wall time until the device is done, one setting of all of the above.
Which losses kernels of Triton made is said in the table; the same "composed" are without them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.command_line import Parser, at_least

ROOT = Path(__file__).resolve().parents[1]


class Case(NamedTuple):
    """Logits of one shape, and what they go through."""

    activation: Literal["softmax", "sigmoid"]
    shape: tuple[int, ...]


class Table(NamedTuple):
    """A case under one setting, and what `loss_costs` printed of each of its ways."""

    case: str
    threads: int
    allocator: str
    wait: str
    rounds: int
    ways: list[dict[str, Any]]
    device: str = "cpu"


CASES = {
    "128x10": Case("softmax", (128, 10)),
    "1024x10": Case("softmax", (1024, 10)),
    "128x1000": Case("softmax", (128, 1000)),
    "256x8142": Case("softmax", (256, 8142)),
    "4096x1000": Case("softmax", (4096, 1000)),
    "8x21x256x256": Case("softmax", (8, 21, 256, 256)),
    "sigmoid:128x1000": Case("sigmoid", (128, 1000)),
    "sigmoid:8x80x128x128": Case("sigmoid", (8, 80, 128, 128)),
}
QUICK_CASES = ("128x10", "128x1000", "256x8142", "sigmoid:128x1000")
ALLOCATORS = {
    "default": {},
    "tuned": {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)},
}


WAITS: dict[str, dict[str, str]] = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.losses", __doc__)
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)} (all)"
    )
    parser.add_argument(
        "--threads", nargs="+", type=at_least(1), metavar="N", help="CPU threads of torch (1 2)"
    )
    parser.add_argument(
        "--allocator", nargs="+", choices=ALLOCATORS, help="how memory is kept (default tuned)"
    )
    parser.add_argument(
        "--wait", choices=WAITS, default="default", help="how threads wait for each other (default)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    parser.add_argument("--rounds", type=at_least(1), metavar="N", help="turns of each way (15)")
    parser.add_argument(
        "--quick", action="store_true", help="without the large cases, 5 rounds, 1 thread"
    )
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="write all costs there")
    parser.add_argument("--markdown", type=_new_file, metavar="FILE", help="write the tables there")
    given = parser.parse_args(argv)
    given.cases = given.cases or list(QUICK_CASES if given.quick else CASES)
    is_short = given.quick or given.device != "cpu"
    given.threads = given.threads or ([1] if is_short else [1, 2])
    given.allocator = given.allocator or (["default"] if is_short else list(ALLOCATORS))
    given.rounds = given.rounds or (5 if given.quick else 15)
    return given


def _new_file(text: str) -> Path:
    """Refuse, before anything is measured, a file that cannot be written afterwards."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} is not a file that can be written")
    return path


def measured(given: argparse.Namespace) -> Iterator[Table]:
    """Yield every case when all of its ways are measured, under a progress bar on the terminal."""
    from rich.console import Console
    from rich.progress import Progress

    settings = list(itertools.product(given.threads, given.allocator))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(settings) * len(given.cases))
        for threads, allocator in settings:
            spec = {"threads": threads, "rounds": given.rounds, "cases": given.cases}
            spec["device"] = given.device
            environment = ALLOCATORS[allocator] | WAITS[given.wait]
            found = _in_another_process(spec, environment=environment)
            for case, ways in itertools.groupby(found, key=lambda way: way["case"]):
                table = Table(case, threads, allocator, given.wait, given.rounds, [], given.device)
                for way in ways:
                    table.ways.append(way)
                    label = f"{_threads(threads)}, {allocator} allocator: {case} {way['way']}"
                    progress.update(task, description=label)
                progress.advance(task)
                yield table


def _in_another_process(
    spec: dict[str, Any], *, environment: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield what the measuring process prints.

    Raises:
        RuntimeError: It failed; the message is what it wrote to standard error.
    """
    command = [sys.executable, "-m", "benchmarks.loss_costs", json.dumps(spec)]
    # Both read once, when the process starts.
    environment = os.environ | {"OMP_NUM_THREADS": str(spec["threads"])} | environment
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield from map(json.loads, process.stdout)
        except BaseException:
            process.kill()
            raise
        if process.wait():
            said.seek(0)
            raise RuntimeError(said.read())


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _clock(table: Table) -> str:
    """Name the clock: CPU time leaves other programs out, but says nothing about a device."""
    return "cpu" if table.threads == 1 and table.device == "cpu" else "wall"


def title(table: Table) -> str:
    """Return the title of a table: what was measured."""
    case, clock = CASES[table.case], "CPU" if _clock(table) == "cpu" else "wall"
    if table.device != "cpu":
        return f"{case.activation} {case.shape}, {table.device} (wall time), {table.rounds} rounds"
    return (
        f"{case.activation} {case.shape}, {_threads(table.threads)} ({clock} time), "
        f"{table.allocator} allocator, {table.wait} waiting, {table.rounds} rounds"
    )


def rows(table: Table) -> Iterator[list[str]]:
    """Yield the rows of a table as cells, its head first."""
    yield ["", "ms", "quartiles", "ratio", "quartiles", "memory"]
    clock = _clock(table)
    for way in table.ways:
        milliseconds = _quartiles([1e3 * seconds for seconds in way[clock]["way"]])
        pairs = zip(way[clock]["way"], way[clock]["floor"], strict=True)
        ratios = _quartiles([seconds / floor for seconds, floor in pairs])
        yield [
            f"{way['way']} (kernel)" if way["is_by_kernel"] else way["way"],
            _digits(milliseconds[1]),
            f"{_digits(milliseconds[0])} to {_digits(milliseconds[2])}",
            f"{ratios[1]:.2f}",
            f"{ratios[0]:.2f} to {ratios[2]:.2f}",
            f"{way['memory']:.2f}",
        ]


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, method="inclusive") if len(values) > 1 else 3 * values


def plain(cells: list[str]) -> str:
    """Return one line of a table for the terminal."""
    way, *numbers = cells
    widths = (8, 18, 7, 15, 8)
    return f"{way:31}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, widths, strict=True))


def markdown(table: Table) -> Iterator[str]:
    """Yield the lines of one table in Markdown."""
    head, *others = rows(table)
    yield from (title(table), "")
    yield f"| {' | '.join(head)} |"
    yield f"|---{'|--:' * (len(head) - 1)}|"
    yield from (f"| {' | '.join(cells)} |" for cells in others)
    yield ""


def main(argv: Sequence[str]) -> int:
    """Measure; print tables and what they were measured on; return the exit code."""
    given = arguments(argv)
    tables = []
    try:
        for table in measured(given):
            tables.append(table)
            print(title(table), *map(plain, rows(table)), "", sep="\n", flush=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    import torch

    from engine.training.files import write_json, write_text
    from engine.training.provenance import describe_segment
    from engine.training.runtime import device_name

    ran = describe_segment(
        command=["python", "-m", "benchmarks.losses", *argv],
        device=device_name(torch.device(given.device)),
        precision="float32",
        threads=max(given.threads),
        code="",
    )
    print(json.dumps(ran))
    if given.json:
        write_json(given.json, {"ran": ran, "tables": [table._asdict() for table in tables]})
    if given.markdown:
        lines = [line for table in tables for line in markdown(table)]
        write_text(given.markdown, "\n".join([*lines, f"    {json.dumps(ran)}", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
