"""The command line of ``python -m engine.tables``: which table, in which form."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError, nearest
from engine.config.selection_rules import catalogue
from engine.tables.command_line import Parser

INDENT = " " * 22
MORE = textwrap.fill(
    ", ".join(name for name, metric in metrics().items() if not metric.column),
    width=100,
    initial_indent=INDENT,
    subsequent_indent=INDENT,
)

USAGE = f"""\
usage: python -m engine.tables RESULTS.jsonl | TABLE.yaml [options]

Print a table from the lines that reproduce.py wrote: a row for each method, a block for
each setting, and under it what a reader has to know.

  python -m engine.tables experiments/papers/digits_lt.yaml
  python -m engine.tables experiments/results/digits_lt.jsonl --rule last --format latex
  python -m engine.tables experiments/papers/digits_lt.yaml --columns accuracy,macro_f1,auroc
  python -m engine.tables experiments/results/digits_lt.jsonl --command ldam_drw/"factor 50"
  python -m engine.tables experiments/results/digits_lt.jsonl --figure digits_lt.pdf
  python -m engine.tables experiments/papers/digits_lt.yaml --figure cost.pdf --against cpu_seconds
  python -m engine.tables --readme

How to read it:
  mean ± std   over runs that differ in their seeds alone; std with n - 1
  difference   to the baseline row, paired by seed and subset, and its 95 % interval: the wider of
               Student's t and the studentized bootstrap, which keeps its promise at n = 5
  bold         that interval excludes 0 and n >= 5; n counts subsets where there are five, else
               seeds, since runs on one subset share its luck
  oracle       the best test epoch, which most public code reports; shown only next to the results
  †            a published number that is not of the same experiment; the note says why
  –            undefined: an empty group of classes, no run, no such rule

A line of experiments/results/<table>.jsonl is one run:
  table, method, setting              where it stands
  words                               python train.py <words> is this run
  fingerprint, group                  the run; the same without its seeds
  split_fingerprint                   of the images that trained, validated and tested
  former_fingerprints                 what earlier versions called that split, if they did otherwise
  seed, subset_seed                   the keys seed and data.imbalance.seed
  code_hash, commit, dirty            of the files that make its numbers; of the checkout
  title, class_counts, group_sizes    the data set; training images a class; classes a group
  verified                            the published data set whose lists it read, checked by line
  epochs, model                       length of training; the network
  headline                            the rule whose numbers stand for the run: last or val
  rules                               by rule: epoch, val and test (metric: value), recall by class
  oracle                              the best test epoch: metric, value, epoch; never a result
  notes, seconds, hardware, versions  what the run said; of training; of the last segment
  cost                                of training: trained parameters, images, passes, seconds ...
  trained_as                          fingerprint of the run that had its training, if another
  shared_epochs, shared_seconds       so many epochs of it, and their seconds, where not all

A run folder's predictions/<split>.<rule>.npz, split val or test, for NumPy:
  logits (N, C) float32, before any adjustment
  targets (N,) int64, the class of each image
  index (N,) int64, its position in the data set's own list: of a folder of images, its files by
               class and then by name; engine.tables.predictions.files_of(run, split) names them
  Logits of more than 64 MB are in <split>.<rule>.logits.npy beside it, uncompressed, which
  np.load(..., mmap_mode="r") reads without filling the memory.

options:
  --rule R            selection rule of evaluate.rules (default: the table's, else the runs'
                      headline)
  --baseline ROW      row to compare with (default: the table's, else cross_entropy)
  --metric M          this metric alone, settings side by side; accuracies have published numbers
                      in brackets
  --columns M,M       these metrics; the difference to the baseline is that of the first;
                      of the others there are
{MORE}
  --per-class         the mean recall of every class instead
  --percent           in percent, but for what is not a share (NLL, Brier score, MCC)
  --best              the best mean of a column is bold and the second underlined
  --cost              columns for what training has cost, first stages included: trained
                      parameters, images, passes through the network, seconds, memory, energy
  --variance          what the metric's variance over all runs comes from: setting, row, subset and
                      seed (of --columns the first); every cell needs as many runs
  --format F          terminal, markdown, latex or csv (default: terminal)
  --command ROW[/S]   print the commands that make this row's runs again (in setting S), and stop
  --figure FILE       draw balanced accuracy, head and tail of every row: .png or .pdf
  --against MEASURE   with --figure: draw the metric (of --columns the first) against this cost
                      instead, with the rows that no other beats at equal cost by the means, whose
                      differences may be noise: cpu_seconds, gpu_seconds, seconds, images, forward,
                      backward, memory, gpu_memory, energy or trained_parameters
  --readme            write the tables of all committed results into docs/results.md, and six rows
                      of one into README.md
  -h, --help          this text
"""
OPTIONS = tuple(re.findall(r"--[a-z-]+", USAGE.partition("options:")[2]))
FORMATS = ("terminal", "markdown", "latex", "csv")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Split the command line.

    Raises:
        ConfigError: an option that does not exist, has no effect, or does not take this value.
    """
    parser = Parser("python -m engine.tables")
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--rule")
    parser.add_argument("--baseline")
    parser.add_argument("--metric")
    parser.add_argument("--format")
    parser.add_argument("--columns", type=_words)
    parser.add_argument("--per-class", action="store_true")
    parser.add_argument("--percent", action="store_true")
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--variance", action="store_true")
    parser.add_argument("--command")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--against")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    given, unknown = parser.parse_known_args(argv)
    if given.help:
        return given
    if mistakes := [*_unknown(unknown), *_mistakes(given)]:
        raise ConfigError(mistakes)
    given.format = given.format or "terminal"
    return given


def _unknown(words: Sequence[str]) -> list[str]:
    return [
        f"{word}: unknown option{nearest(word, OPTIONS)}"
        if word.startswith("-")
        else f"{word}: one table at a time"
        for word in words
    ]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _mistakes(given: argparse.Namespace) -> list[str]:
    found = []
    if given.source is None and not given.readme:
        found.append("expected results, such as experiments/results/digits_lt.jsonl")
    elif given.source is not None and given.source.suffix not in (".jsonl", ".yaml", ".yml"):
        found.append(f"{given.source}: expected a .jsonl file of results or the .yaml of a table")
    if given.rule == "oracle":
        found.append(
            "--rule oracle: it chooses by the test set, and is only shown beside; "
            + " | ".join(catalogue())
        )
    elif given.rule is not None and given.rule not in catalogue():
        hint = nearest(given.rule, catalogue())
        found.append(f"--rule {given.rule}: unknown{hint}; one of {' | '.join(catalogue())}")
    if given.format is not None and given.format not in FORMATS:
        found.append(f"--format {given.format}: one of {' | '.join(FORMATS)}")
    if given.figure is not None and given.figure.suffix not in (".png", ".pdf"):
        found.append(f"--figure {given.figure}: expected a name that ends in .png or .pdf")
    if given.against is not None and given.figure is None:
        found.append(f"--against {given.against}: has no effect without --figure")
    return [*found, *_without_effect(given)]


# What each way of asking leaves to be chosen; a table without them takes every option.
MODES = {
    "readme": (),
    "command": ("source",),
    "variance": ("source", "rule", "format", "columns"),
    "against": ("source", "rule", "baseline", "figure", "columns"),
    "figure": ("source", "rule", "baseline"),
    "per_class": ("source", "rule", "baseline", "format", "percent", "best"),
    "metric": ("source", "rule", "baseline", "format", "percent", "best"),
}
CSV = ("metric", "per_class", "percent", "best", "cost", "variance")
"""What a file with every number in full has no use for."""


def _without_effect(given: argparse.Namespace) -> list[str]:
    values = {key: value for key, value in vars(given).items() if value and key != "help"}
    modes = [mode for mode in MODES if mode in values]
    if modes:
        idle = [key for key in values if key != modes[0] and key not in MODES[modes[0]]]
        if given.format == "csv" and modes[0] in CSV:
            idle.append("format")
        return [
            f"{_spelled(key, values[key])}: has no effect with {_flag(modes[0])}" for key in idle
        ]
    if given.format == "csv":
        idle = [key for key in values if key in CSV]
        return [
            f"{_spelled(key, values[key])}: has no effect with --format csv, which has all in full"
            for key in idle
        ]
    return []


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _spelled(key: str, value: object) -> str:
    if key == "source":
        return f"source {value}"
    if isinstance(value, tuple):
        value = ",".join(value)
    return _flag(key) if value is True else f"{_flag(key)} {value}"
