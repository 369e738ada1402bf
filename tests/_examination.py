"""One random config, run and read back: what ends otherwise than it should is a problem."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import data
import train
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.config.schema import SELECTORS, Config, tree
from engine.config.validation import keys
from engine.report.terminal import Terminal
from engine.training.divergence import DivergenceError
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset
from engine.training.trained import load_run
from tests._random_configs import (
    ALWAYS,
    FOLDER_CLASSES,
    SMALL,
    Case,
    Values,
    words,
)
from tests.data._files import write_folder

ROOT = Path(__file__).resolve().parents[1]
NAMES_A_KEY = re.compile(r"^'?([\w-]+(\.[\w-]+)*)'?(=|:| )")
FOR_PROGRAMMERS = re.compile(
    r"Traceback|\w+Error\b|NoneType|object has no|<class|<function|tensor\(|dtype|site-packages"
    r"|\bself\b|np\.\w+\(|\.py\b"
)
NOT_A_NUMBER = re.compile(r"\b(nan|inf|None)\b")
PROTECTED = {"data.name", "data.path", *ALWAYS}


class _StopError(Exception):
    """What a caller's report may raise between two epochs."""


def make_folder(path: Path) -> Path:
    """Write the image folder that cases train on."""
    counts = {"train": dict.fromkeys(FOLDER_CLASSES, 12), "test": dict.fromkeys(FOLDER_CLASSES, 4)}
    counts["train"][FOLDER_CLASSES[-1]] = 5
    return write_folder(path, counts)


@dataclass
class Findings:
    """How a case ended, and what is wrong with it, by cause."""

    outcomes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # cause, details

    def add(self, cause: str, details: object = "") -> None:
        """Note a problem."""
        self.problems.append((cause, str(details)))


def examine(case: Case, root: Path, *, number: int = 0) -> Findings:
    """Run a case below the folder ``root`` and return what was found.

    Args:
        case: what to run.
        root: an empty folder.
        number: of the case; every fourth run of several epochs is interrupted and resumed.
    """
    found = Findings()
    values: Values = {**case.values, "track.root": str(root)}
    if case.parent is not None and case.parent_key is not None:
        run = _run({**case.parent, "track.root": str(root / "parent")}, found, retries=8)
        if run is None:
            return found
        values[case.parent_key] = str(run)
    _run(values, found, retries=12, resumes=number % 4 == 0)
    return found


def _run(values: Values, found: Findings, *, retries: int, resumes: bool = False) -> Path | None:
    """Run a config, without the keys that its mistakes name; return its folder if it finished."""
    for _ in range(retries):
        try:
            with _same_process(found):
                return _once(values, found, resumes=resumes)
        except ConfigError as error:
            _check_mistakes(error, values, found)
            found.outcomes.append("refused")
            rest = _without(values, error.mistakes)
            if rest == values:
                return None
            values = rest
        except DivergenceError as error:
            found.outcomes.append("diverged")
            if not str(error).strip():
                found.add("a divergence without a name", type(error).__name__)
            return None
        except Exception as error:  # noqa: BLE001 - that there is none is what is tested
            found.outcomes.append("crashed")
            found.add(_cause(error), traceback.format_exc())
            return None
    return None


def _once(values: Values, found: Findings, *, resumes: bool) -> Path | None:
    config = load(overrides=words(values))
    screen = io.StringIO()
    options: dict[str, Any] = {"screen": Terminal(Console(file=screen, width=200))}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        dataset = load_dataset(config)
        if resumes and config.schedule.epochs > 1:
            with contextlib.suppress(_StopError):
                train.run(config, dataset=dataset, report=_interrupt, **options)
        summary = train.run(config, dataset=dataset, **options)
        again = train.run(config, dataset=dataset, **options)
    found.outcomes.append("finished")
    for warning in warned:
        found.add(f"warning: {str(warning.message)[:90]}", warning.filename)
    if again != summary:
        found.add("the summary of a finished run is another one when it is read")
    if match := NOT_A_NUMBER.search(screen.getvalue()):
        found.add(f"{match.group()} on the screen", _line_of(screen.getvalue(), match))
    folder = _folder(config)
    _check_folder(folder, config, found)
    _check_predictions(folder, dataset, found)
    if resumes and config.schedule.epochs > 1:
        _check_resumed(folder, config, dataset, found)
    return folder


def _interrupt(epoch: int, row: Mapping[str, Any]) -> None:
    raise _StopError(epoch, row)


def _folder(config: Config) -> Path:
    return RunFolder.of(config).path


@contextlib.contextmanager
def _same_process(found: Findings) -> Iterator[None]:
    """Check that a run leaves the generators and torch's settings as they were."""

    def state() -> list[str]:
        return [
            str(torch.get_rng_state().sum()),
            str(np.random.get_state()),  # noqa: NPY002 - it is to stay as it is
            str(hash(random.getstate())),
            str(torch.get_num_threads()),
            str(torch.get_default_dtype()),
            str(torch.is_grad_enabled()),
            str(torch.are_deterministic_algorithms_enabled()),
        ]

    before = state()
    try:
        yield
    finally:
        names = ("torch's generator", "NumPy's", "Python's", "threads", "dtype", "grad", "determ.")
        for name, old, new in zip(names, before, state(), strict=True):
            if old != new:
                found.add(f"a run changes a global state: {name}")


def _check_mistakes(error: ConfigError, values: Values, found: Findings) -> None:
    if not error.mistakes:
        found.add("a refusal without a line")
    known = {*keys(tree("synthetic", "cross_entropy")), *values, "loss", "data", *SELECTORS}
    for line in error.mistakes:
        match = NAMES_A_KEY.match(line)
        is_first = match is not None and (match.group(1) in known or "." in match.group(1))
        if not is_first and not any(key in line for key in known):
            found.add("a mistake that names no key", line)
        if FOR_PROGRAMMERS.search(line):
            found.add("a mistake in a programmer's words", line)
        if "\n" in line:
            found.add("a mistake of several lines", line)
    root = Path(values["track.root"]) if "track.root" in values else None
    folders = [] if root is None else root.glob("*/*/")
    left = [p for p in folders if re.fullmatch(r"[0-9a-f]{12}", p.name)]
    left = [p for p in left if not (p / "summary.json").exists()]
    if left:
        found.add("a refused run leaves a folder", (left[0].name, error.mistakes[0]))


def _without(values: Values, mistakes: Sequence[str]) -> Values:
    """Leave out the keys that the mistakes name, or all of their sections."""
    kept, lasting = dict(values), PROTECTED | SMALL.keys()
    for line in mistakes:
        match = NAMES_A_KEY.match(line)
        key = match.group(1) if match else ""
        selector = f"{key}.{SELECTORS[key]}" if key in SELECTORS else key
        if selector in SMALL and kept.get(selector) != SMALL[selector]:
            kept[selector] = SMALL[selector]
        elif selector in kept and selector not in PROTECTED:
            del kept[selector]
        else:
            section = f"{key.rpartition('.')[0] or key}."
            kept = {k: v for k, v in kept.items() if not k.startswith(section) or k in lasting}
        if selector == "loss.name":
            kept = {k: v for k, v in kept.items() if not k.startswith("loss.")}
    return kept


def _cause(error: BaseException) -> str:
    """Where our code was when it crashed, and on what."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/tests/" not in f.filename]
    where = "outside"
    if ours:
        where = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].name}"
    text = re.sub(r"\d+", "0", str(error).splitlines()[0] if str(error) else "")[:90]
    return f"{type(error).__name__} in {where}: {text}"


def _line_of(text: str, match: re.Match[str]) -> str:
    begin = text.rfind("\n", 0, match.start()) + 1
    return text[begin : text.find("\n", match.end())].strip()


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _check_folder(folder: Path, config: Config, found: Findings) -> None:
    reloaded = load([folder / "config.yaml"])
    if reloaded != config:
        found.add("config.yaml loads to another config", folder)
    if fingerprint(reloaded) != folder.name:
        found.add("config.yaml has another fingerprint", folder)
    text = (folder / "metrics.jsonl").read_text()
    try:
        rows = [json.loads(line, parse_constant=_no_constant) for line in text.splitlines()]
        json.loads((folder / "summary.json").read_text(), parse_constant=_no_constant)
    except ValueError as error:
        found.add(f"a file holds {error}", text[:400])
        return
    if len(rows) != config.schedule.epochs and not hasattr(config.schedule, "patience"):
        found.add("metrics.jsonl has not one line an epoch", text)


def _check_predictions(folder: Path, dataset: data.LongTailed, found: Findings) -> None:
    """Compare what was stored with what the loaded model says."""
    run = load_run(folder)
    headline = json.loads((folder / "summary.json").read_text())["headline"]
    stored = np.load(folder / "predictions" / f"test.{headline}.npz")
    if not np.isfinite(stored["logits"]).all():
        found.add("stored logits are not finite", folder)
    if stored["targets"].tolist() != dataset.test.targets.tolist():
        found.add("stored targets are not those of test", folder)
    images = dataset.test.images
    if run.config.runtime.precision != "float32" or isinstance(images, data.DiskImages):
        return
    logits = torch.from_numpy(stored["logits"]).double()
    num_outputs = run.model.head.weight.shape[0] if hasattr(run.model.head, "weight") else 0
    kept = run.readout.predict(logits[:, 1:] if num_outputs == 1 else logits)
    difference = (run.predict(images) - kept).abs().max().item()
    if not difference <= 1e-4 * max(1.0, logits.abs().max().item()):
        found.add("the loaded model predicts otherwise than stored", difference)


def _check_resumed(folder: Path, config: Config, dataset: data.LongTailed, found: Findings) -> None:
    """Compare the weights of an interrupted run with those of a run in one go."""
    resumed = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]
    screen = Terminal(Console(file=io.StringIO(), width=200))
    train.run(config, dataset=dataset, fresh=True, screen=screen)
    whole = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]
    if any(not torch.equal(resumed[key], whole[key]) for key in whole):
        found.add("a resumed run is another one", config.optim.name)
