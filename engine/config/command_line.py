"""The command line of ``train.py``: files, ``key=value`` words, a few options, and ``--help``."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config import components
from engine.config.load import keys
from engine.config.messages import allowed, shown
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import (
    DEFAULT_DATA,
    DEFAULT_LOSS,
    TRACKERS,
    Config,
    DataConfig,
    LossConfig,
    TrackConfig,
    tracker_fields,
    tree,
)

# Sections whose choices are components: a package, one file a choice.
PACKAGES = {"data": "data", "loss": "losses", "track": TRACKERS}

INTRODUCTION = """\
usage: python train.py [FILE.yaml ...] [key=value ...] [options]

Train one long-tailed classifier and write a run folder that explains itself. Without arguments:
cross-entropy on long-tailed digits, under a minute on a laptop.

  python train.py                                            the embedded digits
  python train.py experiments/cifar10_lt.yaml seed=1         a file, then a change
  python train.py loss=softmax_focal loss.gamma=1            loss=NAME is short for loss.name=NAME
  python train.py reweight=effective_number reweight.start=0.8 --seeds 5

Precedence: defaults < files, left to right < key=value. The same command resumes an interrupted run
and prints the table of a finished one.

options:
  --seeds N         run N seeds, from the key seed upwards; print mean, std and n
  --fresh           run again although the run folder exists; the old folder is kept aside
  --print-config    print the resolved YAML and stop
  -h, --help [WORD] this text; with WORD only the keys that contain it (--help reweight)
"""


class Arguments(argparse.Namespace):
    """The parsed command line."""

    files: list[Path]
    overrides: list[str]
    seeds: int | None
    fresh: bool
    print_config: bool
    help: str | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python train.py --help"])


def parse(argv: Sequence[str]) -> Arguments:
    """Split the command line into files, ``key=value`` words and options.

    Raises:
        ConfigError: an option that does not exist, or a word that is neither file nor key=value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--print-config", action="store_true")
    parser.add_argument("-h", "--help", nargs="?", const="")
    known, unknown = parser.parse_known_intermixed_args(argv, Arguments())
    options = ("--seeds", "--fresh", "--print-config", "--help")
    mistakes = [f"{word}: unknown option{nearest(word, options)}" for word in unknown]
    words: list[str] = known.words
    known.files = [Path(w) for w in words if _is_file(w)]
    known.overrides = [w for w in words if not _is_file(w)]
    if known.seeds is not None and known.seeds < 1:
        mistakes.append(f"--seeds {known.seeds}: expected a whole number >= 1")
    if mistakes:
        raise ConfigError(mistakes)
    return known


def help_text(word: str = "", *, data: str = DEFAULT_DATA, loss: str = DEFAULT_LOSS) -> str:
    """Every key with what it takes, its default and its meaning; ``word`` narrows the list."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    blocks = [INTRODUCTION] if not word else []
    for title, rows in _sections(data, loss):
        chosen = [row for row in rows if word in row[0] or word in title]
        if chosen or (not rows and word in title):
            lines = [title, *(_row(*row, width=width) for row in chosen)]
            blocks.append("\n".join(lines) + "\n")
    if not blocks:
        raise ConfigError([f"--help {word}: no key contains {word!r}"])
    return "\n".join(blocks)


def _is_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) and ("=" not in word or Path(word).exists())


Row = tuple[str, FieldInfo]


def _sections(data: str, loss: str) -> Iterator[tuple[str, list[Row]]]:
    config = tree(data, loss)
    leaves = {k: v for k, v in keys(config).items() if not _is_component_key(k)}
    yield "run", [(k, v) for k, v in leaves.items() if "." not in k]
    for section, info in Config.model_fields.items():
        rows = [(k, v) for k, v in leaves.items() if k.startswith(f"{section}.")]
        if not rows:  # seed, which is a key and not a section
            continue
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        note = f" (defaults shown for data={data})" if section == "data" else ""
        yield f"{section}: {_first_line(model)}{note}", rows
        for name in components.names(PACKAGES[section]) if section in PACKAGES else ():
            yield _component(section, name)


def _component(section: str, name: str) -> tuple[str, list[Row]]:
    component = components.read(PACKAGES[section], name)
    is_tracker = section == "track"
    fields = tracker_fields(name) if is_tracker else components.pydantic_fields(component)
    # Not tree(): one pydantic model for each component would be most of the time --help takes.
    rows = [
        (f"{section}.{key}", FieldInfo.from_annotated_attribute(annotation, info))
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


def _row(key: str, info: FieldInfo, *, width: int) -> str:
    default: Any = info.get_default(call_default_factory=True)
    head = f"  {key}={shown(default)}"
    meaning = f"{info.description} ({allowed(info)})"
    section, _, leaf = key.partition(".")
    if section in ("data", "loss") and leaf == "name":
        meaning = f"one of {' | '.join(components.names(PACKAGES[section]))}; keys of each below"
    body = textwrap.wrap(meaning, max(width - 38, 30), break_on_hyphens=False)
    if len(head) > 36:
        return "\n".join([head, *(" " * 38 + line for line in body)])
    return "\n".join([f"{head:<38}{body[0]}", *(" " * 38 + line for line in body[1:])])
