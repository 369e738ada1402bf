"""What made a run: the code, the machine, the splits, and the stretches it was trained in."""

from __future__ import annotations

import functools
import os
import platform
import secrets
import string
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from engine.config.components import ROOT
from engine.config.load import CONFIG_VERSION
from engine.config.mistakes import ConfigError
from engine.training.files import read_json, write_json
from engine.training.run_folder import RunFolder
from engine.training.summary import Summary
from engine.training.weights_hash import Hashes

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "wandb")
# A change of these is reported and kept in the summary: it can change a number.
WATCHED = ("code_hash", "precision", "threads", "compiled", "features", "processes", "device")
# Facts of a run: hashes of the weights of other runs, and of the files, that it is made with.
NAMED = {
    "teacher_weights": "its teacher",
    "start_weights": "the run that model.init_from names",
    "pretrained_file": "the file that model.pretrained names",
    "text_file": "the file that model.text_encoder names",
}
# What makes a checkout differ from its commit: anything but the results that runs add to it.
CODE_PATHS = (".", ":(exclude)experiments/results")


class Position(NamedTuple):
    """Where in training a segment begins: whole epochs done, and steps of the next."""

    epoch: int = 0
    step: int = 0


def new_run_id(fingerprint: str) -> str:
    """Draw a run's name, once per run folder: the fingerprint and six random characters."""
    alphabet = string.ascii_lowercase + string.digits
    return f"{fingerprint}-{''.join(secrets.choice(alphabet) for _ in range(6))}"


def check_split(
    folder: RunFolder, split_fingerprint: str, *, is_same: Callable[[str], bool] = lambda _: False
) -> None:
    """Refuse to resume or show a run that was made on another split.

    Args:
        folder: the run folder.
        split_fingerprint: of the split as it is now.
        is_same: says of another fingerprint whether it is of that split, too, as an earlier version
            made it.

    Raises:
        ConfigError: the data or the drawn subset have changed, or there is no record of them.
    """
    past = _environment(folder)
    if past is None or past["split_fingerprint"] == split_fingerprint:
        return
    if not is_same(past["split_fingerprint"]):
        raise ConfigError(
            [
                f"{folder.path}: was made on split {past['split_fingerprint']}, the data now give "
                f"{split_fingerprint}; put the old data back, or use --fresh"
            ]
        )


def check_weights(
    folder: RunFolder, weights: Hashes, *, held: Collection[str] = ()
) -> tuple[str, ...]:
    """Refuse to go on with, or to show, a run that began with other weights than it would today.

    Args:
        folder: the run folder.
        weights: their hashes today, by the names of ``NAMED``; a file that is not there any more
            is not compared.
        held: those that the run's checkpoint holds, so that it goes on whatever they are today.

    Returns:
        A line for the user on each that was not recorded when the run began, and on each that is
        held and has changed.

    Raises:
        ConfigError: a run that it names was made again, and came out differently, or a file has
            changed.
    """
    past = _environment(folder)
    facts = {} if past is None else past.get("facts", {})
    lines = []
    for key, today in weights.today.items():
        if past is None or facts.get(key) in (today, weights.former.get(key, today)):
            continue
        if key not in facts:
            lines.append(f"note: with which weights of {NAMED[key]} it began is not recorded")
            continue
        changed, old = "was made again", "run"
        if key.endswith("_file"):
            changed, old = "has changed", "file"
        if key in held:
            lines.append(
                f"note: {NAMED[key]} {changed} since the run began, which goes on with what it "
                f"began with; --fresh begins with the new {old}"
            )
            continue
        raise ConfigError(
            [
                f"{folder.path}: began with other weights of {NAMED[key]}, which {changed} since; "
                f"put the old {old} back, or use --fresh"
            ]
        )
    return tuple(lines)


def finished_summary(folder: RunFolder, *, test: bool = True) -> Summary | None:
    """Return the summary of a finished run, or None.

    Args:
        folder: the run folder.
        test: whether the run must have looked at test; without, validation.json will do.

    Raises:
        ConfigError: the file is there but damaged.
    """
    path = folder.summary
    content = read_json(path)
    if content is None and not test:
        path = folder.validation
        content = read_json(path)
    if content is None:
        return None
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        raise ConfigError([f"{path}: not a summary of this version; use --fresh"]) from error


def add_segment(
    folder: RunFolder,
    segment: Mapping[str, Any],
    *,
    position: Position,
    facts: Mapping[str, Any],
    identity: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Record in environment.json that a stretch of the run begins; return the file's content.

    Earlier ones whose steps are all made again, since no checkpoint came after them, are no part of
    the run any more: they go from ``segments`` to ``lost_segments``, which nothing reads.

    Args:
        folder: the run folder.
        segment: from :func:`engine.training.provenance.describe_segment`.
        position: where the stretch begins.
        facts: what loading the run again needs to know about its data.
        identity: ``fingerprint``, ``group`` and ``split_fingerprint`` of the run.
        say: called with a line when code, precision or the machine differ from those of the steps
            before.
    """
    environment = _environment(folder) or {
        **identity,
        "config_version": CONFIG_VERSION,
        "wandb_id": new_run_id(identity["fingerprint"]),
        "facts": dict(facts),
        "segments": [],
    }
    before = lasting(environment["segments"], position)
    for key in WATCHED if before else ():
        was, now = (stretch.get(key, "not recorded") for stretch in (before[-1], segment))
        if was != now:
            say(f"note: {key} was {was} and is {now} from here on")
    new = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_epoch": position.epoch,
        "from_step": position.step,
        **segment,
    }
    kept = set(map(id, before))
    if lost := [stretch for stretch in environment["segments"] if id(stretch) not in kept]:
        environment["lost_segments"] = [*environment.get("lost_segments", ()), *lost]
    environment["segments"] = [*before, new]
    write_json(folder.environment, environment)
    return environment


def lasting(segments: Sequence[Mapping[str, Any]], position: Position) -> list[Mapping[str, Any]]:
    """Return the segments of a run that left steps which are still part of it.

    The steps of one are those between its beginning and the first place from which training went on
    later: where it began there or after, all were made again.

    Args:
        segments: of environment.json.
        position: where training goes on now.
    """
    found: list[Mapping[str, Any]] = []
    end = position
    for segment in reversed(segments):
        began = Position(segment["from_epoch"], segment["from_step"])
        if began < end:
            found.insert(0, segment)
            end = began
    return found


def _environment(folder: RunFolder) -> dict[str, Any] | None:
    """Read environment.json, which is on disk before the first checkpoint."""
    past = read_json(folder.environment)
    if past is None and any(folder.checkpoints.glob("*.pt")):
        raise ConfigError([f"{folder.environment}: is missing; put it back, or use --fresh"])
    if past is not None and not {"split_fingerprint", "wandb_id", "segments"} <= past.keys():
        raise ConfigError([f"{folder.environment}: not of this version; use --fresh"])
    return past


def changes(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Return sentences on what changed between the segments of a run, for the tables."""
    lines = []
    for key in WATCHED:
        seen = list(dict.fromkeys(str(s.get(key, "not recorded")) for s in environment["segments"]))
        if len(seen) > 1:
            lines.append(f"{key} changed during the run: {' -> '.join(seen)}")
    return tuple(lines)


def describe_segment(
    *,
    command: Sequence[str],
    device: str,
    precision: str,
    threads: int,
    compiled: str = "nothing",
    features: str | None = None,
    code: str,
    files: Sequence[Path] = (),
    processes: int = 1,
) -> dict[str, Any]:
    """Describe one uninterrupted stretch of a run, for environment.json.

    The checkout is ``dirty`` where it differs from its commit: a tracked file has changed, or the
    run is made by one that no commit holds; ``untracked`` names these.

    Args:
        command: what was typed.
        device: in words.
        precision: of the model's arithmetic.
        threads: of torch.
        compiled: which parts of the run call a compiled model: training, evaluation.
        features: ``cached`` or ``computed`` in every epoch; None where they change.
        code: the hash of ``files``.
        files: that can change a number of the run.
        processes: that share it.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE_PATHS)
    untracked = _untracked(files)
    return {
        "command": list(command),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(changed or untracked),
        "untracked": untracked,
        "code_hash": code,
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "precision": precision,
        "threads": threads,
        "compiled": compiled,
        **({} if features is None else {"features": features}),
        "processes": processes,
    }


def _untracked(files: Sequence[Path]) -> list[str]:
    """Return the files that git does not know, ignored ones too; none without a repository."""
    known = _git("ls-files", "-z")
    if known is None:
        return []
    names = {file.relative_to(ROOT).as_posix() for file in files}
    return sorted(names - set(known.split("\0")))


@functools.cache
def package_version(package: str) -> str | None:
    """Return the version of a package, or None if it is missing, as W&B may be."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return git's output in the checkout, or None without git or a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
