"""The weights of a run as a file under the names of timm."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.config.mistakes import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from engine.training.trained import LoadedRun

USAGE = """\
Write the weights of a run under the names of timm, with low-rank products merged into the weights
that they are added to. model.pretrained=FILE and timm.create_model(..., checkpoint_path=FILE) take
the file. A linear head becomes the classifier; class names are in the metadata of the file.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python -m engine.prediction.export --help"])


def main(argv: Sequence[str] | None = None) -> int:
    """Export one run and return 0, 1 where the file cannot be written, or 2 for a mistake."""
    from engine.training.files import WriteError

    parser = _Parser(prog="python -m engine.prediction.export", description=USAGE)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("file", type=Path, help="where to write, as .safetensors")
    parser.add_argument("--rule", help="whose weights: last or val; default val where there is one")
    try:
        given = parser.parse_args(argv)
        _check(given.file)
        print(*_export(given.run, given.file, rule=given.rule), sep="\n")
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _check(file: Path) -> None:
    if file.suffix != ".safetensors":
        raise ConfigError([f"{file}: expected a name that ends in .safetensors"])
    if file.exists() or not file.absolute().parent.is_dir():
        raise ConfigError([f"{file}: expected a new file in a folder that is there"])


def _export(folder: Path, file: Path, *, rule: str | None) -> list[str]:
    """Write the file, all or nothing; return what to say of it."""
    from safetensors.torch import save

    from engine.training.files import write_bytes, writing
    from engine.training.trained import load_run

    run = load_run(folder, rule=rule)
    state = plain_state(run)
    names = json.dumps(run.class_names)
    with writing(file):
        write_bytes(file, save(state, metadata={"format": "pt", "class_names": names}))
    line = f"{file}: {len(state)} tensors of {run.config.model.name}, rule {run.rule}"
    return [line, *_left_out(run, state)]


def _left_out(run: LoadedRun, state: Mapping[str, Tensor]) -> list[str]:
    """Return why the head is not among the tensors, where it is not."""
    head, classifier = run.config.model.head, _classifier(run)
    if isinstance(classifier, str):
        if any(key.startswith(f"{classifier}.") for key in state):
            return []
    elif classifier:
        return [f"the model has two classifiers ({', '.join(classifier)}): the head is left out"]
    return [f"the head ({head}) is no classifier of timm: left out"]


def _classifier(run: LoadedRun) -> str | Sequence[str] | None:
    """Return where timm's model has its classifier; models trained by distillation have two."""
    found: str | Sequence[str] | None = getattr(run.model.backbone, "pretrained_cfg", {}).get(
        "classifier"
    )
    return found


def plain_state(run: LoadedRun) -> dict[str, Tensor]:
    """Return the weights of a run under the names of timm.

    Raises:
        ConfigError: its backbone has parts that timm's has not.
    """
    import models

    state, section = run.model.state_dict(), run.config.model
    if section.tune == "lora":
        state = models.merged(state, scale=section.lora_alpha / section.lora_rank)
    if any(models.is_added(key) for key in state):
        raise ConfigError(
            [f"model.tune={section.tune}: its added parts have no place in timm's {section.name}"]
        )
    classifier = _classifier(run)
    found = {}
    for key, value in state.items():
        part, _, name = key.partition(".")
        if part == "backbone":
            found[name] = value.contiguous()
        elif section.head == "linear" and isinstance(classifier, str):
            found[f"{classifier}.{name}"] = value.contiguous()
    return found


if __name__ == "__main__":
    sys.exit(main())
