"""What an offline run of W&B holds, read back from its file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = 7, 32768
WHOLE, LAST = 1, 4


def history(body: bytes) -> list[dict[str, Any]]:
    """The logged values, row by row."""
    return [_row(record.history.item) for record in _records(body) if record.history.item]


def _row(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = row
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return row


def run_record(body: bytes) -> Any:
    """What names the run, and its configuration."""
    return next(record.run for record in _records(body) if record.HasField("run"))


def config(body: bytes) -> dict[str, Any]:
    """The run's configuration."""
    return {item.key: json.loads(item.value_json) for item in run_record(body).config.update}


def _records(body: bytes) -> Iterator[Any]:
    """Protobuf records in a LevelDB log, after its first 7 bytes, which are W&B's own."""
    position, parts = HEADER, []
    while position + HEADER <= len(body):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack("<HB", body[position + 4 : position + HEADER])
        parts.append(body[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (WHOLE, LAST):
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []
