"""The command line of ``train.py``: files, ``key=value`` words, a few options, and ``--help``."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config import components, glossary
from engine.config.choices import CHOICES
from engine.config.hints import PACKAGES
from engine.config.layers import full_key
from engine.config.messages import allowed, shown
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import (
    DEFAULT_DATA,
    DEFAULT_LOSS,
    SELECTORS,
    Config,
    DataConfig,
    LossConfig,
    TrackConfig,
    tracker_fields,
    tree,
)
from engine.config.validation import keys

INTRODUCTION = """\
usage: python train.py [FILE.yaml ...] [key=value ...] [options]

Train one long-tailed classifier and write a run folder that explains itself. Without arguments:
cross-entropy on long-tailed digits, under a minute on a laptop.

  python train.py                                            the embedded digits
  python train.py experiments/cifar10_lt.yaml seed=1         a file, then a change
  python train.py loss=softmax_focal loss.gamma=1            loss=NAME is short for loss.name=NAME
  python train.py reweight=effective_number reweight.start=0.8 --seeds 5
  python train.py experiments/photographs/small.yaml data.path=photos

Precedence: defaults < files, left to right < key=value. The same command resumes an interrupted run
and prints the table of a finished one.

options:
  --seeds N         run N seeds, from the key seed upwards; print mean, std and n
  --submit FILE     hand the seeds to a cluster, a job each; FILE says what a job gets, such as
                    experiments/clusters/slurm.yaml; a job that has to make room resumes by itself
  --fresh           run again although the run folder exists; the old folder is kept aside
  --print-config    print the resolved YAML and stop
  --print-classes   print the classes in label order, each with its images, and stop: the order of
                    reweight.weights and of every other list with a number a class
  --print-groups    print which parameters are trained, with which factor on the rate and which
                    weight decay, and stop
  -h, --help [WORD] this text; with WORD only what has it in a key or its meaning (--help drw);
                    --help methods lists the ready-made methods and their papers, --help recipes
                    those of training, for photographs too
"""


OPTIONS = (
    "--seeds",
    "--submit",
    "--fresh",
    "--print-config",
    "--print-classes",
    "--print-groups",
    "--help",
)
LARGEST_SEED = 2**32


class Arguments(argparse.Namespace):
    """The parsed command line."""

    files: list[Path]
    overrides: list[str]
    seeds: int | None
    submit: Path | None
    fresh: bool
    print_config: bool
    print_classes: bool
    print_groups: bool
    help: str | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python train.py --help"])


def parse(argv: Sequence[str]) -> Arguments:
    """Split the command line into files, ``key=value`` words and options.

    Raises:
        ConfigError: an option that does not exist, or a word that is neither file nor key=value.
    """
    if any(word.startswith("-") for word in argv):
        known, rest = _parser().parse_known_intermixed_args(argv, Arguments())
        split = {*known.words, *rest}
        words = [word for word in argv if word in split]
    else:  # as of every row of a table
        known, rest, words = Arguments(**vars(_without_options())), [], list(argv)
    mistakes = []
    for word in [word for word in rest if word.startswith("-")]:
        position = words.index(word)
        words.remove(word)
        value = words[position] if position < len(words) else ""
        if "=" in value or value.startswith("-") or _is_file(value):
            value = ""
        elif value:
            words.remove(value)
        mistakes.append(_unknown_option(word, value))
    known.files = [Path(w) for w in words if _is_file(w)]
    known.overrides = [w for w in words if not _is_file(w)]
    if known.seeds is not None and known.seeds < 1:
        mistakes.append(f"--seeds {known.seeds}: expected a whole number >= 1")
    if mistakes:
        raise ConfigError(mistakes)
    return known


@cache
def _without_options() -> Arguments:
    return _parser().parse_args([], Arguments())


@cache
def _parser() -> _Parser:
    # Without a usage of its own, which nobody sees, it would write one for each command line.
    parser = _Parser(add_help=False, allow_abbrev=False, usage="")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--submit", type=Path)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--print-config", action="store_true")
    parser.add_argument("--print-classes", action="store_true")
    parser.add_argument("--print-groups", action="store_true")
    parser.add_argument("-h", "--help", nargs="?", const="")
    return parser


def seeds(config: Config, arguments: Arguments) -> range:
    """Return the seeds to run.

    Raises:
        ConfigError: they go beyond the largest that there is.
    """
    found = range(config.seed, config.seed + (arguments.seeds or 1))
    if found[-1] >= LARGEST_SEED:
        raise ConfigError(
            [
                f"--seeds {len(found)}: from seed={config.seed} upwards, the seed may be at most "
                f"{LARGEST_SEED - 1}"
            ]
        )
    return found


def _unknown_option(option: str, value: str) -> str:
    name, _, given = option.partition("=")
    value = given or value
    word = name.lstrip("-").replace("-", "_")
    if word == "resume":
        return f"{option}: unknown option; the same command resumes an interrupted run by itself"
    every = keys(tree(DEFAULT_DATA, DEFAULT_LOSS))
    same = [key for key in every if word in (key, key.rpartition(".")[2])]
    same += [f"{word}.{SELECTORS[word]}"] if word in SELECTORS else []
    if same and word != "seed":
        key = word if word in SELECTORS else same[0]
        return f"{option}: unknown option; write {key}={value or 'VALUE'}"
    if instead := glossary.advice(word):
        return f"{option}: unknown option; write {instead}"
    return f"{option}: unknown option{nearest(option, OPTIONS)}"


def help_text(word: str = "", *, data: str = DEFAULT_DATA, loss: str = DEFAULT_LOSS) -> str:
    """List every key with what it takes, its default and its meaning; ``word`` narrows the list.

    A word is looked for in any case, at the beginning of the words of keys, of headings and of what
    keys mean, and in the glossary.

    Raises:
        ConfigError: nothing has the word.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    blocks = [INTRODUCTION] if not word else []
    if word.lower() in glossary.LISTS:
        return _files_of(word.lower(), width=width)
    instead = glossary.advice(word)
    if instead:
        blocks.append(f"{word}: write {instead}\n")
    advised = {full_key(part.partition("=")[0]) for part in instead.split()}
    for title, rows in _sections(data, loss):
        # All of a section or component that is called so, else what speaks of it.
        is_named = _has(title.partition(":")[0], word)
        chosen = [
            row for row in rows if is_named or row.key in advised or _has(" ".join(row), word)
        ]
        if chosen or _has(title, word):
            lines = [title, *(_lines(row, width=width) for row in chosen)]
            blocks.append("\n".join(lines) + "\n")
    if not blocks:
        raise ConfigError([f"--help {word}: no key or meaning has {word!r}"])
    if broken := _broken_files():
        blocks.append("\n".join(["not shown, as they cannot be read:", *broken]) + "\n")
    return "\n".join(blocks)


def _broken_files() -> list[str]:
    packages = [*PACKAGES.values(), *(choice.package for choice in CHOICES)]
    found = [error for package in packages for error in components.read_all(package).mistakes]
    return [f"  {error}" for error in (*found, *components.model_mistakes())]


def _has(text: str, word: str) -> bool:
    """Return whether a word of ``text`` begins with ``word``: amp does not find sampler."""
    return re.search(rf"(?<![^\W_]){re.escape(word)}", text, flags=re.IGNORECASE) is not None


def _files_of(kind: str, *, width: int) -> str:
    """List the ready-made files of a kind, each with its own first comment."""
    blocks = [f"{kind}, each a file to put before key=value words:"]
    for file, meaning in glossary.files_of(kind).items():
        body = textwrap.wrap(meaning, max(width - 6, 30), break_on_hyphens=False)
        blocks.append("\n".join([f"  {file}", *("      " + line for line in body)]))
    return "\n".join(blocks) + "\n"


def _is_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) and ("=" not in word or Path(word).exists())


class Row(NamedTuple):
    """A line of help."""

    key: str
    head: str  # the key with its default, or one of its values
    meaning: str


def _sections(data: str, loss: str) -> Iterator[tuple[str, list[Row]]]:
    config = tree(data, loss)
    leaves = {k: v for k, v in keys(config).items() if not _is_component_key(k)}
    yield "run", [_row(k, v) for k, v in leaves.items() if "." not in k]
    for section, info in Config.model_fields.items():
        rows = [_row(k, v) for k, v in leaves.items() if k.startswith(f"{section}.")]
        if not rows:  # seed, which is a key and not a section
            continue
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        note = f" (defaults shown for data={data})" if section == "data" else ""
        yield f"{section}: {_first_line(model)}{note}", [*rows, *_files(section)]
        for name in _readable(section):
            yield _component(section, name)


def _files(section: str) -> Iterator[Row]:
    """Yield a row for each file that a key of the section can choose."""
    for choice in CHOICES:
        if choice.section == section:
            main = f"{section}.{SELECTORS[section]}" == choice.selector
            short = section if main else choice.selector
            for name, component in choice.components.items():
                yield Row(choice.selector, f"{short}={name}", component.summary)
    if section == "model":
        for name, model in components.registered_models().items():
            yield Row("model.name", f"model={name}", model.summary)


def _readable(section: str) -> Iterable[str]:
    return components.read_all(PACKAGES[section]).components if section in PACKAGES else ()


def _component(section: str, name: str) -> tuple[str, list[Row]]:
    component = components.read(PACKAGES[section], name)
    is_tracker = section == "track"
    fields = tracker_fields(name) if is_tracker else components.pydantic_fields(component)
    # Not tree(): one pydantic model for each component would be most of the time --help takes.
    rows = [
        _row(f"{section}.{key}", FieldInfo.from_annotated_attribute(annotation, info))
        for key, (annotation, info) in fields.items()
    ]
    title = f"{'track.to' if is_tracker else section}={name}: {component.summary}"
    shared = component.class_facts.get("shared_defaults")
    if section == "data" and shared:
        title += f"\n    sets {', '.join(f'data.{k}={shown(v)}' for k, v in shared.items())}"
    return title, rows


def _is_component_key(key: str) -> bool:
    section, _, leaf = key.partition(".")
    bases: dict[str, type[BaseModel]] = {
        "data": DataConfig,
        "loss": LossConfig,
        "track": TrackConfig,
    }
    shared = bases.get(section)
    return shared is not None and leaf.split(".")[0] not in shared.model_fields


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").splitlines()[0].rstrip(".").lower() if model.__doc__ else ""


def _row(key: str, info: FieldInfo) -> Row:
    default: Any = info.get_default(call_default_factory=True)
    meaning = f"{info.description} ({allowed(info)})"
    section, _, leaf = key.partition(".")
    if section in ("data", "loss") and leaf == "name":
        meaning = f"one of {' | '.join(_readable(section))}; keys of each below"
    return Row(key, f"{key}={shown(default)}", meaning)


def _lines(row: Row, *, width: int) -> str:
    head = f"  {row.head}"
    body = textwrap.wrap(row.meaning, max(width - 38, 30), break_on_hyphens=False)
    if len(head) > 36:
        return "\n".join([head, *(" " * 38 + line for line in body)])
    return "\n".join([f"{head:<38}{body[0]}", *(" " * 38 + line for line in body[1:])])
