"""The command line of ``sweep.py`` and its help text."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from engine.config.metrics import selectable
from engine.config.mistakes import ConfigError, nearest
from engine.tuning.search import Search
from engine.tuning.search.methods import leading, methods
from engine.tuning.search.reader import read_search_file

COLUMN = 39  # of the remarks on a search file


def _indented(text: str) -> str:
    indent = " " * COLUMN
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)


HELP = f"""\
usage: python sweep.py [FILE.yaml ...] [key=value ...] --search FILE.yaml [options]

Tune any keys of train.py with Optuna, then train the best settings again on fresh seeds and say
whether they are distinguishable from the default. Files and key=value words are those of train.py.

  python sweep.py experiments/digits_lt.yaml --search experiments/search/softmax_focal.yaml
  python sweep.py experiments/digits_lt.yaml --search experiments/search/methods.yaml --workers 2
  python sweep.py ... storage=postgresql://me@host/studies          the same study on many machines
  python sweep.py ... storage=postgresql://me@host/studies --join   one more worker, from anywhere

Run the same command to resume a sweep that was stopped or killed. Everything is in runs/<study>/:
study.db, trials.csv, best.yaml, figures/, and the run folders of the trials in trials/.

options:
  --search FILE     the search file, see below
  --compare FILE ...  methods, each a search file, or a config searched over the space of --search:
                    the same trials and epochs for each, then the best of each on fresh seeds
  --study NAME      name of the study and its folder; default <data>-<search file>
  --workers N       N processes on this machine, each with its share of the threads, or its GPU
  --join            be one more worker of a study, and nothing else
  --submit FILE     hand the work to a cluster, as jobs that share the study; FILE says how many
                    and what each gets, such as experiments/clusters/slurm.yaml
  --trials N        instead of budget.trials
  -h, --help        this text

storage=URL         where the study lives: sqlite:///FILE, or postgresql://USER@HOST/DATABASE for
                    many machines; default runs/<study>/study.db. Also read from SWEEP_STORAGE. Keep
                    passwords in PGPASSWORD or ~/.pgpass, where no list of processes shows them.

search file:
  metric: val/balanced_accuracy        or a list of two: the Pareto front. One of val/...
{_indented(", ".join(selectable()))}
  budget: {{trials: 40, epochs: 15}}     timeout: 3600 begins no trial after an hour
  sampler: tpe                         random, grid, gp (no where); {{name: tpe, seed: 1}}; no
                                       parameter set is tried twice
  pruner: median                       none, hyperband, wilcoxon (with seeds: 5);
                                       {{name: median, warmup: 0.25}}
  set: {{loss: softmax_focal}}           keys of every trial, not of the default it is compared with
  space:
    loss.gamma: {{float: [0, 5]}}        both ends included; step: 0.5, or log: true
    optim.batch_size: {{int: [16, 64], step: 16}}
    model.head: {{choice: [linear, cosine]}}
    reweight: {{choice: [none, power]}}
    reweight.power: {{float: [0, 2], where: {{reweight: power}}}}     exists only there
  enqueue:
    - {{loss.gamma: 0}}                  tried first
  seeds: 1                             seeds a trial is trained with; its value is their mean
  confirm: {{top: 3, seeds: 5}}          the best three and the default, again, on five fresh seeds
"""

OPTIONS = (
    "--search",
    "--compare",
    "--study",
    "--workers",
    "--join",
    "--submit",
    "--trials",
    "--help",
)
LONGEST_NAME = 100  # of a study that nobody named
YAML = (".yaml", ".yml")
STORAGE = "SWEEP_STORAGE"  # environment variable


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    search: Search
    methods: tuple[Search, ...]  # of --compare, else none
    storage: str | None
    workers: int
    join: bool
    submit: Path | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python sweep.py --help"])


def is_help(argv: Sequence[str]) -> bool:
    """Return whether only the help text is asked for."""
    return bool({"-h", "--help"} & set(argv))


def parse(argv: Sequence[str]) -> Arguments:
    """Return what the command line, the search file and the base config ask for.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    known, unknown = _read(argv)
    mistakes = [
        f"{word}: unknown option{nearest(word, OPTIONS)}" for word in unknown if word[0] == "-"
    ]
    if known.search is None and not known.compare:
        mistakes.append("--search FILE: is missing; experiments/search/ has ready-made ones")
    for name in ("workers", "trials"):
        value = getattr(known, name)
        if value is not None and value < 1:
            mistakes.append(f"--{name} {value}: expected a whole number >= 1")
    if known.join and known.workers > 1:
        mistakes.append("--workers: cannot go with --join, which is one worker")
    if known.study is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", known.study):
        mistakes.append(f"--study {known.study}: expected letters, digits and . _ - only")
    if mistakes:
        raise ConfigError(mistakes)
    words = [word for word in known.words if not word.startswith("storage=")]
    urls = [word.removeprefix("storage=") for word in known.words if word.startswith("storage=")]
    path = known.search or leading(known.compare)
    file = read_search_file(path)
    if known.trials is not None:
        budget = file.budget.model_copy(update={"trials": known.trials})
        file = file.model_copy(update={"budget": budget})
    files = tuple(Path(word) for word in words if _is_file(word))
    search = Search(
        file=file,
        path=path,
        files=files,
        overrides=tuple(word for word in words if not _is_file(word)),
        study=known.study or "",
    )
    if not search.study:
        stems = [path.stem] if not known.compare else ["compare", *(p.stem for p in known.compare)]
        search = search.named("-".join([search.base.data.name, *stems])[:LONGEST_NAME])
    storage = urls[-1] if urls else os.environ.get(STORAGE) or None
    compared = methods(known.compare, lead=search, is_shared=known.search is not None)
    return Arguments(search, compared, storage, known.workers, known.join, known.submit)


def _read(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and words of a command line, and what is unknown in it."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--search", type=Path)
    parser.add_argument("--study")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--join", action="store_true")
    parser.add_argument("--submit", type=Path)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--compare", nargs="+", default=[])
    known, unknown = parser.parse_known_intermixed_args(argv)
    # A key=value word behind the files of --compare is none of them.
    overrides = [word for word in known.compare if "=" in word and not word.endswith(YAML)]
    if len(overrides) == len(known.compare):  # then one is taken for a file, which is not there
        overrides = []
    known.words += overrides
    known.compare = [Path(word) for word in known.compare if word not in overrides]
    return known, unknown


def for_another_process(argv: Sequence[str], *, join: bool) -> list[str]:
    """Return the command line as another process gets it: without ``--submit``.

    Files and key=value words come first: what stood behind an option that is left out would else
    become one more file of ``--compare``.

    Args:
        argv: a command line that :func:`parse` takes.
        join: whether the other process joins the study, as one worker.
    """
    known, _ = _read(argv)
    words: list[str] = [*known.words]
    for option in ("search", "study", "trials"):
        if (value := getattr(known, option)) is not None:
            words += [f"--{option}", str(value)]
    if known.compare:
        words += ["--compare", *map(str, known.compare)]
    if join or known.join:
        return [*words, "--join"]
    return [*words, "--workers", str(known.workers)] if known.workers > 1 else words


def without_storage(argv: Sequence[str]) -> list[str]:
    """Return the command line as it may be written down: a storage URL may hold a password."""
    return [word for word in argv if not word.startswith("storage=")]


def _is_file(word: str) -> bool:
    return word.endswith(YAML) and "=" not in word
