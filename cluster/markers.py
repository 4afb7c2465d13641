"""Markers of committed checkpoints: what exists, and how it is read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import RunError
from shards.storage import Store

MARKER_END = ".committed.json"

SKIP_BROKEN = "--train.checkpoint.skip_broken true to resume from the checkpoint before it"


@dataclass(frozen=True)
class Marker:
    """A committed checkpoint."""

    step: int
    attempt: str
    world_size: int
    files: dict[str, dict[str, Any]]
    """Name below the checkpoint's folder → bytes, sha256."""
    content: dict[str, Any] = field(default_factory=dict)
    """What the run said of itself: data state, configuration, W&B run, validation result."""
    universal: bool = False
    """Whether it is the form that fits any number of workers (`cluster.universal`)."""

    @property
    def name(self) -> str:
        """`step-000120`."""
        return step_name(self.step)

    @property
    def folder(self) -> str:
        """Where its files lie below `checkpoints`."""
        return f"{self.name}/{self.attempt}"


def committed(checkpoints: Store, skip_broken: bool = False) -> list[Marker]:
    """All committed checkpoints below a run's `checkpoints`, oldest first.

    Args:
        checkpoints: of the run.
        skip_broken: leave out markers that cannot be read.

    Raises:
        RunError: names the first that cannot be read.
    """
    markers = []
    for name in checkpoints.list():
        if "/" not in name and name.endswith(MARKER_END):
            try:
                markers.append(read_marker(checkpoints, name))
            except RunError:
                if not skip_broken:
                    raise
    return sorted(markers, key=lambda marker: marker.step)


def read_marker(checkpoints: Store, name: str) -> Marker:
    """One marker.

    Raises:
        RunError: it is no marker, or not what was written.
    """
    try:
        fields = json.loads(checkpoints.get(name))
        if fields.pop("sha256") != _digest(fields):
            raise ValueError("its checksum is another")
        return Marker(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        step = name.removesuffix(MARKER_END)
        raise RunError(
            f"checkpoint {step}: {checkpoints.uri_of(name)} is no marker that was written so ({error}); pass {SKIP_BROKEN}"
        ) from error


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def damage(checkpoints: Store, marker: Marker) -> str | None:
    """What is visibly wrong with a checkpoint's files, from their names and sizes alone; sums are checked when read."""
    parts = checkpoints.child(marker.folder)
    names = set(parts.list())
    for name, facts in marker.files.items():
        if name not in names:
            return f"checkpoint {marker.name}: {parts.uri_of(name)} is missing"
        size = parts.size(name)
        if size != facts["bytes"]:
            return f"checkpoint {marker.name}: {parts.uri_of(name)} has {size} bytes, its marker says {facts['bytes']}"
    return None


def fetch(checkpoints: Store, marker: Marker, name: str, target: Path) -> None:
    """One file of a checkpoint.

    Raises:
        RunError: it is not what the marker says.
    """
    checkpoints.download(f"{marker.folder}/{name}", target)
    found, expected = file_sha256(target), marker.files[name]["sha256"]
    if found != expected:
        raise RunError(
            f"checkpoint {marker.name}: {checkpoints.uri_of(f'{marker.folder}/{name}')} has sha256 {found[:12]}…, its marker "
            f"says {expected[:12]}…; pass {SKIP_BROKEN}"
        )


def best_steps(markers: list[Marker]) -> set[int]:
    """The step with the lowest validation loss, if any was validated; a loss that is no number is not the lowest."""
    losses = {marker.step: marker.content.get("validation_loss") for marker in markers}
    judged = {step: loss for step, loss in losses.items() if loss is not None and math.isfinite(loss)}
    return {min(judged, key=judged.__getitem__)} if judged else set()


def write_marker(checkpoints: Store, name: str, marker: Marker) -> None:
    """Say that a checkpoint exists; everything that it names is in the store by then."""
    # As it will be read: a JSON object has no numbers for keys.
    fields = json.loads(json.dumps(asdict(marker)))
    checkpoints.put(name, json.dumps({**fields, "sha256": _digest(fields)}, indent=1).encode())


def upload(checkpoints: Store, source: Path, folder: str) -> dict[str, dict[str, Any]]:
    """Write all files below a local folder, and return what a marker says of them: name → bytes, sha256."""
    files = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        checkpoints.upload(path, f"{folder}/{name}")
    return files


def download(checkpoints: Store, marker: Marker, folder: Path) -> None:
    """All ranks' files of a checkpoint in one folder, as DeepSpeed's converters read them."""
    for name in marker.files:
        fetch(checkpoints, marker, name, folder / name.partition("/")[2])


def step_name(step: int) -> str:
    """`step-000120`."""
    return f"step-{step:06d}"


def rank_name(rank: int) -> str:
    """`rank-00003`."""
    return f"rank-{rank:05d}"


def file_sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
