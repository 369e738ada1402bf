"""The records of a ``.wandb`` file, read without wandb's own reader.

The file is a LevelDB log behind a 7-byte header: blocks of 32 KiB that hold chunks, each with a
checksum, a length and a kind. One record, a protocol buffer, is one chunk or several.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK, CHUNK = 7, 32 * 1024, struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4


def payloads(content: bytes) -> Iterator[bytes]:
    """The bytes of each record that is written whole."""
    position, whole = HEADER, b""
    while position + CHUNK.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < CHUNK.size:  # padding: a chunk's head never spans two blocks
            position += left
            continue
        _, length, kind = CHUNK.unpack_from(content, position)
        begin = position + CHUNK.size
        position = begin + length
        if position > len(content):  # still being written
            return
        whole = (b"" if kind in (FULL, FIRST) else whole) + content[begin:position]
        if kind in (FULL, LAST):
            yield whole


def records(path: Path, kind: str) -> list[Any]:
    """The records of one kind (``run``, ``history``, ``exit`` ...) of a run that has finished.

    ``finish`` returns a few milliseconds before wandb's service has written the last record.
    """
    deadline = time.monotonic() + 60
    while not (found := whole_records(path)) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, f"{path} has no end"
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def whole_records(path: Path) -> list[Any]:
    """All records that are written whole, of a run that may have been killed."""
    found = []
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        found.append(record)
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, one dict a step."""
    return [values_of(record.item) for record in records(path, "history")]


def epochs(path: Path) -> list[dict[str, Any]]:
    """The steps that are epochs, without what closes the run."""
    return [line for line in history(path) if "train/loss" in line or "loss" in line]


def values_of(items: Any) -> dict[str, Any]:
    """``{key: value}`` of a history, summary or config record; nested keys joined by a slash."""
    found = {}
    for item in items:
        assert item.value_json, "wandb now writes values in another encoding than JSON"
        found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found
