"""The records of a ``.wandb`` file, read without wandb's own reader.

The file is a LevelDB log behind a 7-byte header: blocks of 32 KiB, each chunk with checksum, length
and kind; the payload of a whole record is a protocol buffer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK, CHUNK = 7, 32 * 1024, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(content: bytes) -> Iterator[bytes]:
    """The whole records of a log; a torn tail is left out."""
    assert content[:4] == b":W&B"
    position, whole = HEADER, b""
    while position + CHUNK.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < CHUNK.size:  # padding: a chunk's head never spans two blocks
            position += left
            continue
        _, length, kind = CHUNK.unpack_from(content, position)
        position += CHUNK.size
        whole = (
            content[position : position + length]
            if kind in (FULL, FIRST)
            else (whole + content[position : position + length])
        )
        position += length
        if kind in (FULL, LAST):
            yield whole


def records(path: Path) -> list[Any]:
    """The records of a ``.wandb`` file in order."""
    found = []
    for payload in payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        found.append(record)
    return found


def values_of(items: Any) -> dict[str, Any]:
    """``{key: value}`` of a history, summary or config record; nested keys joined by a slash."""
    found = {}
    for item in items:
        assert item.value_json, "wandb writes values in another encoding than JSON"
        found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found
