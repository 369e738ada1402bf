"""The command line of ``analyze.py``: which runs, or which table, and what is asked of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from engine.config.mistakes import ConfigError, nearest
from engine.config.selection_rules import catalogue

USAGE = """\
usage: python analyze.py RUN [RUN ...] [options]
   or: python analyze.py TABLE.yaml [options]
   or: python analyze.py --diff RUN RUN

Analyze finished runs from the predictions that they stored; nothing is trained. What is chosen or
fitted is so on the validation split, and shown on test once; a run without validation gets no
choice, and the curve over tau is that of test, an oracle.

  python analyze.py runs/digits/0123456789ab
  python analyze.py runs/digits/0123456789ab --alpha 0.05 --out analysis
  python analyze.py runs/digits/0123456789ab runs/digits/ba9876543210
  python analyze.py experiments/papers/digits_small.yaml
  python analyze.py --diff runs/digits/0123456789ab runs/digits/ba9876543210

For each run: logit adjustment (many, medium, few against tau), calibration (ECE by group, three
scalings), decision thresholds, accuracy under other test priors, label-shift correction, conformal
prediction sets, confusions of the tail with the head. Tables on the screen; all numbers in
the folder analysis of the run (analysis.json), figures beside them.

Several runs on the same test images are compared with the first: balanced accuracy with an interval
over images, accuracy with McNemar's test; where the data set knows which images belong together,
both with intervals over groups of images. Runs of the same seeds of two configs are also paired by
seed. These numbers are in comparison.json, in the folder analysis of the first run or in --out.

A table is one of reproduce.py: a line for each method over its finished runs, and the paired
difference to its baseline, as it is and with tau chosen on validation.

--diff names what two runs differ in: keys, data, code, versions, hardware, and how far the results
are apart.

options:
  --rule RULE   whose predictions: last (the final weights) or val (the best validation epoch);
                default val where the run has it; a table has its own
  --alpha A     share of images whose prediction set may miss the true class, 0.001 to 0.5
                (default 0.1)
  --out FOLDER  where the files go, in a folder a run if there are several; for a table its
                analysis.json; default RUN/analysis, and for a table no file
  --superclasses FILE
                CSV with the columns class and superclass: also how many mistakes stay within one
  --html        also write report.html, one page of all of it with the images of mistakes; beside
                the other files, for a run into its folder
  --no-figures  numbers alone
  --diff        name the causes of a difference between two runs
  -h, --help    this text

Exit code: 0; 1 if a file cannot be written; 2 for a mistake in the command, or a run that cannot
be read, and then nothing is.
"""
OPTIONS = tuple(re.findall(r"^  (?:-h, )?(--[a-z-]+)", USAGE, flags=re.MULTILINE))
TABLE_ENDINGS = (".yaml", ".yml")

LEAST_ALPHA, MOST_ALPHA = 0.001, 0.5
"""To miss less takes thousands of held-out images a class; sets that miss more promise little."""


class Arguments(argparse.Namespace):
    """The parsed command line."""

    words: list[Path]
    rule: str | None
    alpha: float | None
    out: Path | None
    superclasses: Path | None
    html: bool
    no_figures: bool
    diff: bool
    help: bool

    @property
    def is_table(self) -> bool:
        """Whether a table is analyzed, and not runs."""
        return bool(self.words) and self.words[0].suffix.lower() in TABLE_ENDINGS

    def folder_of(self, run: Path) -> Path:
        """Return where the files of a run go."""
        if self.out is None:
            return run / "analysis"
        out = self.out.expanduser()
        return out if len(self.words) == 1 else out / run.name

    @property
    def comparison_file(self) -> Path:
        """Where the comparison of several runs goes: beside their folders, or with the first."""
        folder = self.folder_of(self.words[0]) if self.out is None else self.out.expanduser()
        return folder / "comparison.json"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python analyze.py --help"])


def parse(argv: Sequence[str]) -> Arguments:
    """Read the command line, and check all that needs no run.

    Raises:
        ConfigError: with every mistake in it.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*", type=Path)
    parser.add_argument("--rule")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--superclasses", type=Path)
    parser.add_argument("--html", action="store_true")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--diff", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    given, unknown = parser.parse_known_intermixed_args(argv, Arguments())
    options = [word for word in unknown if word.startswith("-")]
    mistakes = [f"{word}: unknown option{nearest(word, OPTIONS)}" for word in options]
    if not given.help:
        given.words = [path.expanduser() for path in given.words]
        mistakes += _mistakes(given)
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _mistakes(given: Arguments) -> Iterator[str]:
    words = given.words
    if not words:
        yield "expected a run folder or a table, as in: python analyze.py runs/digits/0123456789ab"
        return
    if given.diff and len(words) != 2:
        yield f"--diff: expected two run folders, not {len(words)}"
    tables = [word for word in words if word.suffix.lower() in TABLE_ENDINGS]
    if tables and len(words) > 1:
        yield f"{tables[0]}: a table is analyzed alone"
    yield from _mistakes_of_table(given) if given.is_table else _mistakes_of_runs(words)
    if given.rule is not None and given.rule not in catalogue():
        hint = nearest(given.rule, catalogue())
        yield f"--rule {given.rule}: expected one of {' | '.join(catalogue())}{hint}"
    if given.alpha is not None and not LEAST_ALPHA <= given.alpha <= MOST_ALPHA:
        yield f"--alpha {given.alpha:g}: expected a number from {LEAST_ALPHA:g} to {MOST_ALPHA:g}"
    yield from _mistakes_of_difference(given) if given.diff else ()
    if given.superclasses is not None and not given.superclasses.expanduser().is_file():
        yield f"--superclasses {given.superclasses}: no such file"
    if given.out is not None:
        yield from _mistakes_of_output(given.out, words)


def _mistakes_of_difference(given: Arguments) -> Iterator[str]:
    for option in ("alpha", "out", "rule", "superclasses"):
        if getattr(given, option) is not None:
            yield f"--{option} {getattr(given, option)}: has no effect with --diff"
    for option in ("no_figures", "html"):
        if getattr(given, option):
            yield f"--{option.replace('_', '-')}: has no effect with --diff"


def _mistakes_of_output(out: Path, words: Sequence[Path]) -> Iterator[str]:
    if out.expanduser().is_file():
        yield f"--out {out}: is a file; expected a folder"
    if len({word.name for word in words}) < len({word.resolve() for word in words}):
        yield f"--out {out}: two of the runs have folders of one name; analyze them apart"


def _mistakes_of_table(given: Arguments) -> Iterator[str]:
    if not given.words[0].is_file():
        yield f"{given.words[0]}: no such file"
    of_runs = {"--rule": given.rule, "--no-figures": given.no_figures}
    for option, value in {**of_runs, "--superclasses": given.superclasses}.items():
        if value:
            word = option if value is True else f"{option} {value}"
            yield f"{word}: has no effect on a table"
    if given.html and given.out is None:
        yield "--html: with a table needs --out FOLDER, where the page goes"


def _mistakes_of_runs(words: Sequence[Path]) -> Iterator[str]:
    for number, run in enumerate(words):
        if not run.is_dir():
            yield f"{run}: no such folder"
        elif not (run / "config.yaml").is_file():
            runs = sorted(path.parent for path in run.glob("*/config.yaml"))
            hint = f"; the runs in it are folders, such as {runs[0]}" if runs else ""
            yield f"{run}: no run folder, which has a config.yaml{hint}"
        elif run.resolve() in {other.resolve() for other in words[:number]}:
            yield f"{run}: named twice"
