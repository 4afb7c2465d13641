"""Markers of committed checkpoints: what exists, and how it is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.errors import RunError
from shards.storage import Store

MARKER_END = ".committed.json"


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


def committed(checkpoints: Store) -> list[Marker]:
    """All committed checkpoints below a run's `checkpoints`, oldest first."""
    names = [name for name in checkpoints.list() if "/" not in name and name.endswith(MARKER_END)]
    return sorted((read_marker(checkpoints, name) for name in names), key=lambda marker: marker.step)


def read_marker(checkpoints: Store, name: str) -> Marker:
    """One marker.

    Raises:
        RunError: it is no marker.
    """
    try:
        return Marker(**json.loads(checkpoints.get(name)))
    except (ValueError, TypeError) as error:
        raise RunError(f"{checkpoints.uri_of(name)}: not a checkpoint marker ({error}); remove it") from error


def best_steps(markers: list[Marker]) -> set[int]:
    """The step with the lowest validation loss, if any was validated."""
    judged = [marker for marker in markers if marker.content.get("validation_loss") is not None]
    return {min(judged, key=lambda marker: marker.content["validation_loss"]).step} if judged else set()


def write_marker(checkpoints: Store, name: str, marker: Marker) -> None:
    """Say that a checkpoint exists; everything that it names is in the store by then."""
    checkpoints.put(name, json.dumps(asdict(marker), indent=1).encode())


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
    for name, facts in marker.files.items():
        target = folder / name.partition("/")[2]
        checkpoints.download(f"{marker.folder}/{name}", target)
        if target.stat().st_size != facts["bytes"]:
            raise RunError(f"{checkpoints.uri_of(f'{marker.folder}/{name}')}: cut while it was read; run the command again")


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
