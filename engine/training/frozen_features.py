"""The features of a split through a frozen backbone, computed once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import data
import models
from engine.config.components import ROOT
from engine.config.load import flatten
from engine.config.schema import Config
from engine.training.build import weight_layout
from engine.training.code_hash import code_files
from engine.training.files import array_file
from engine.training.machine import Machine
from engine.training.provenance import package_version
from engine.training.runtime import autocast, device_name, in_eval_mode
from engine.training.weights_hash import weights_hash

BATCH_SIZE = 64  # whatever that of training is: the last bits of features depend on it
# The code that makes features: files of folders, and those that say how a batch goes through.
CODE_FOLDERS = ("data", "models", "models/tuning")
CODE_FILES = tuple(
    f"engine/training/{name}.py" for name in ("frozen_features", "loaders", "runtime")
)
ABANDONED_SECONDS = 3600  # after which an unfinished file that does not grow is nobody's
PACKAGES = ("torch", "timm", "numpy")  # beside those that decode images


@dataclass(frozen=True)
class Features:
    """What a backbone makes of the images of a split.

    Attributes:
        table: float32 (views, N, D), on the CPU.
        sentence: how they were had, for the user.
    """

    table: Tensor
    sentence: str


class FeatureStore:
    """Computes features, and keeps them in files that any run on the same images can use.

    A file is named by a hash of all that its numbers depend on: the weights of the backbone, the
    images and what is done to them, the code, and the machine's way of computing.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        model: whose backbone makes the features, at the weights of the moment.
    """

    def __init__(
        self, config: Config, dataset: data.LongTailed, *, machine: Machine, model: Any
    ) -> None:
        self.config, self.dataset, self.machine = config, dataset, machine
        self.model: models.Classifier = model
        self._facts = {
            "weights": weights_hash(model.backbone.state_dict()),
            "model": {key: getattr(config.model, key) for key in ("name", "norm", "kwargs")},
            "images": _image_keys(config),
            "split": dataset.split_fingerprint,
            "normalization": [dataset.mean, dataset.std],
            "machine": [device_name(machine.device), machine.precision, machine.threads],
            "processes": machine.processes.world,
            "layout": str(weight_layout(machine.device, precision=machine.precision)),
            "packages": {name: package_version(name) for name in PACKAGES},
            "decoders": data.decoder_versions(),
            "code": _code(config),
        }

    def features(
        self,
        split: str,
        loader: Callable[[], data.Loader],
        *,
        views: int = 0,
        as_tested: bool = False,
        after_batch: Callable[[], None] | None = None,
    ) -> Features:
        """Return the features of a split: from their file where there is one.

        Args:
            split: ``train``, ``val`` or ``test``.
            loader: makes the loader whose epoch v serves view v of every image.
            views: how many changed views of an image there are; 0: the images as they are.
            as_tested: whether the loader serves training images as they would be tested, where
                training reads them in another way.
            after_batch: called between batches; it may stop by raising.
        """
        file = self._file(split, views=views, as_tested=as_tested)
        num_images = len(getattr(self.dataset, split))
        shape, processes = (max(views, 1), num_images), self.machine.processes
        known = None if file is None else _read(file, shape=shape)
        (is_missing,) = processes.largest(int(known is None))
        said = f"features of {num_images:,} {split} images"
        said += f" in {views} views" if views else ""
        if not is_missing and known is not None:
            return Features(known, f"{said}: read from {file}")
        with contextlib.closing(loader()) as opened:
            table = self._computed(opened, split, shape=shape, after_batch=after_batch)
        said += ": computed once"
        if file is None:
            return Features(table, said)
        if not table.isfinite().all():  # float16 has no number beyond 65,504
            return Features(table, f"{said}; not kept, since some are infinite or NaN")
        (is_lost,) = processes.largest(int(processes.is_main and not _write(file, table)))
        if is_lost:
            return Features(table, f"{said}; {file} cannot be written")
        written = _read(file, shape=shape)  # a map of the file: the table's memory is free again
        return Features(table if written is None else written, f"{said}, kept in {file}")

    @torch.no_grad()
    def _computed(
        self,
        loader: data.Loader,
        split: str,
        *,
        shape: tuple[int, int],
        after_batch: Callable[[], None] | None,
    ) -> Tensor:
        """Return the features (views, N, D), which are in memory once."""
        views, num_images = shape
        processes, model, device = self.machine.processes, self.model, self.machine.device
        table = torch.empty(0)
        positions = processes.share(torch.arange(num_images))
        said, total = f"features of {split}", views * num_images
        with in_eval_mode(model), _progress(said, total, is_on=processes.is_main) as tell:
            for view in range(views):
                done = 0
                for batch in loader.epoch(positions, epoch=view):
                    with autocast(device, self.machine.precision):
                        rows = model.backbone(batch.images).float().cpu()
                    if not table.numel():
                        table = torch.empty(views, len(positions), rows.shape[1])
                    table[view, done : done + len(rows)] = rows
                    done += len(rows)
                    tell(len(rows) * processes.world)
                    if after_batch is not None:
                        after_batch()
        if processes.world == 1:
            return table
        joined = torch.empty(views, num_images, table.shape[2])
        for view in range(views):
            joined[view] = processes.joined_shares(table[view], num_rows=num_images)
        return joined

    def _file(self, split: str, *, views: int, as_tested: bool) -> Path | None:
        """Return where the features are kept; None where nothing says where data go."""
        part: data.Split = getattr(self.dataset, split)
        contents = [data.content_key(i) for i in (part.images, part.files) if i is not None]
        facts = {**self._facts, "part": split, "contents": contents, "views": views}
        if views:
            facts |= {"augment": self.config.data.augment.model_dump(), "seed": self.config.seed}
        if as_tested:
            facts |= {"as_tested": True}
        canonical = json.dumps(facts, sort_keys=True, default=str)
        name = hashlib.sha256(canonical.encode()).hexdigest()[:24]
        try:
            return data.data_root() / "cache" / "features" / f"{name}.npy"
        except data.DataError:
            return None


def _image_keys(config: Config) -> dict[str, Any]:
    """Return the keys that images depend on, before augmentation."""
    left_out = ("data.augment.", "data.download", "data.cache_gb", "data.title")
    return {
        key: value
        for key, value in flatten(config).items()
        if key.startswith("data.") and not key.startswith(left_out)
    }


def code_of_features(config: Config) -> list[Path]:
    """Return the files of code that read images and make features of them, sorted."""
    folders, files = ({ROOT / name for name in names} for names in (CODE_FOLDERS, CODE_FILES))
    return [f for f in code_files(config) if f.parent in folders or f in files]


def _code(config: Config) -> str:
    digest = hashlib.sha256()
    for file in code_of_features(config):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def _read(file: Path, *, shape: tuple[int, int]) -> Tensor | None:
    """Map a file of features privately; None if it is absent, damaged or of other images."""
    try:
        found = np.load(file, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    is_whole = found.dtype == np.float32 and found.ndim == 3 and found.shape[:2] == shape
    return torch.from_numpy(found) if is_whole else None


def _write(file: Path, table: Tensor) -> bool:
    """Write a file of features whole or not at all; return whether it could be written."""
    # Of its own name, since another run may be writing the same features.
    unfinished = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.npy")
    try:
        _remove_abandoned(file.parent)
        with array_file(unfinished, shape=tuple(table.shape), dtype=np.float32) as append:
            append(table.numpy())
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left of files that they were writing."""
    for left in (*folder.glob("..*.npy.tmp"), *folder.glob(".*.npy")):
        with contextlib.suppress(OSError):  # another run does the same, or it is another user's
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()


@contextlib.contextmanager
def _progress(said: str, total: int, *, is_on: bool) -> Iterator[Callable[[int], None]]:
    if not is_on:
        yield lambda _: None
        return
    with data.progress(said, total=total) as tell:
        yield tell
