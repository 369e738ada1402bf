"""Files of checkpoints: whole or absent, the previous one kept, loaded without running any code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.training.files import write_bytes

FORMAT = 1


class Begun(NamedTuple):
    """Weights that a run goes on with.

    Attributes:
        state: of its model.
        is_whole: whether that is all of it, or what a light run's checkpoint holds.
    """

    state: Mapping[str, Tensor]
    is_whole: bool


def begun(folder: Path) -> Begun | None:
    """Return the weights of the newest whole checkpoint of a folder; None if there is none."""
    state, _, _ = load_latest(folder)
    if state is None:
        return None
    weights = state["ema"] if state["model"] is None else state["model"]
    return Begun(weights, is_whole="base" not in state)


class Checkpoint(NamedTuple):
    """The state, lines for the user on files that were passed over, and the file it is from."""

    state: dict[str, Any] | None
    problems: tuple[str, ...]
    path: Path | None


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``last.pt``; the one before becomes ``previous.pt``.

    A crash at any moment leaves at least one of the two whole.
    """
    write(folder / "next.pt", state)
    promote(folder)


def hand_over(left: Path, folder: Path, *, epoch: int, chosen: Mapping[str, int]) -> None:
    """Make a checkpoint that one run has left after an epoch the newest one of another.

    Args:
        left: the checkpoint.
        folder: of the other's checkpoints.
        epoch: how many epochs it must have behind it.
        chosen: the epochs that the other's selection rules would have chosen by then.

    Raises:
        ValueError: it is damaged, or not such a checkpoint.
    """
    state = _read(left)
    if state["epoch"] != epoch or state["totals"]["steps"] or state["optimizer"] is None:
        raise ValueError(f"not the checkpoint after epoch {epoch}")
    best = {rule: kept for rule, kept in state["best"].items() if rule in chosen}
    if {rule: kept["epoch"] for rule, kept in best.items()} != chosen:
        raise ValueError(f"does not hold the weights of epochs {chosen}")
    save(folder, {**state, "best": best})


def keep_weights(folder: Path, *, epoch: int) -> None:
    """Leave only ``last.pt``, and in it only what predicts: the weights of the selection rules.

    Optimizer state goes, and with an average the weights that it is of. A crash at any moment
    leaves the weights, and the same call goes on from there.

    Args:
        folder: of the checkpoints.
        epoch: epochs that were trained; where the newest whole checkpoint is of another, nothing
            is done.
    """
    last = folder / "last.pt"
    state, _, path = load_latest(folder)
    if state is None or path != last or state["epoch"] != epoch:
        return
    (folder / "previous.pt").unlink(missing_ok=True)  # first: a full disk gets room
    if state["optimizer"] is not None:
        write(folder / "next.pt", weights_only(state))
        (folder / "next.pt").replace(last)


def final_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights at a checkpoint's moment that are evaluated: averaged where they are."""
    weights: dict[str, Tensor] = state["model"] if state["ema"] is None else state["ema"]
    return weights


def weights_only(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predicts of a state: the weights of the selection rules."""
    # What rules keep is on the CPU, and is compared with these.
    final = {key: value.detach().cpu() for key, value in final_weights(state).items()}
    best = {
        # One storage is written once.
        rule: {**kept, "state": final if _is_same(kept["state"], final) else kept["state"]}
        for rule, kept in state["best"].items()
    }
    model = final if state["ema"] is None else None
    return {**state, "model": model, "best": best, "optimizer": None, "scaler": None}


def _is_same(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return weights.keys() == others.keys() and all(
        torch.equal(value, others[key]) for key, value in weights.items()
    )


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state to a file, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({**state, "format": FORMAT}, buffer)
    write_bytes(path, buffer.getvalue())


def promote(folder: Path) -> None:
    """Make ``next.pt`` the last checkpoint, and the one before ``previous.pt``."""
    last = folder / "last.pt"
    if last.exists():
        last.replace(folder / "previous.pt")
    (folder / "next.pt").replace(last)


def load_latest(folder: Path) -> Checkpoint:
    """Load the newest whole checkpoint of a folder to the CPU; its state is None if there is none.

    A truncated, damaged or foreign file is named and passed over.
    """
    problems: list[str] = []
    for name in ("next.pt", "last.pt", "previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except ValueError as error:
            problems.append(f"{path}: {error}")
        else:
            using = tuple(f"{problem}; using {path.name}" for problem in problems)
            return Checkpoint(state, using, path)
    return Checkpoint(None, tuple(problems), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"damaged (checksum of {damaged} does not match)")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError("truncated or damaged") from error
    except pickle.UnpicklingError as error:
        raise ValueError("refused, it holds more than plain tensors and values") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"not a checkpoint of this format ({FORMAT})")
    return {**state, "best": _by_rule(state.get("best"))}


def _by_rule(best: dict[str, Any] | None) -> dict[str, Any]:
    """Return what rules keep, by name; old checkpoints hold only that of the rule ``val``."""
    if not best:
        return {}
    return {"val": best} if "state" in best else best
