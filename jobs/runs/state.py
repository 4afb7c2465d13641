"""What a run's folder tells of it, read from outside while it may still be running."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster import failure as failure_file
from cluster import metrics
from cluster.errors import RunError
from cluster.launch.spec import FOLDER as LAUNCHES
from cluster.launch.spec import launches
from cluster.markers import MARKER_END, step_name
from cluster.tracking import RUN_ID
from shards.storage import Store

CONFIG = "config.json"

SILENT_S = 3600
"""The numbers of a run reach its folder within half a minute; one that has added none for so long is called silent."""

State = Literal["launched", "running", "silent", "stopped", "failed", "finished"]


@dataclass(frozen=True)
class RunState:
    """One run."""

    uri: str
    name: str
    stage: str
    state: State
    done: int
    """Steps whose numbers are known."""
    steps: int | None
    """All that it is to do; None where that is not known yet."""
    loss: float | None
    committed: list[int]
    """Steps of its checkpoints, oldest first."""
    word_s: float
    """When it last wrote into its folder, in seconds since the epoch."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether processes may be at work on it."""
        return self.state in ("launched", "running")


def find_runs(folder: Store) -> list[str]:
    """Names of the runs below a folder; the empty name is the folder itself.

    Models and exports have a `config.json` too: a run is known by what names it at W&B, online or not, or by its launches.
    """
    found = set()
    for name in folder.list():
        parent, _, file = name.rpartition("/")
        if file == RUN_ID:
            found.add(parent)
        elif file.endswith(".json") and (parent == LAUNCHES or parent.endswith(f"/{LAUNCHES}")):
            found.add(parent.removesuffix(LAUNCHES).rstrip("/"))
    return sorted(found)


def read_run(run: Store) -> RunState:
    """What a run's folder tells.

    Raises:
        RunError: it is the folder of no run.
    """
    names = set(run.list())
    launched = launches(run)
    config = _json(run, CONFIG, names) or {}
    # A model's folder has a file of this name too.
    if "run" not in config and metrics.FILE not in names and not launched:
        raise RunError(
            f"{run.uri}: expected a run's folder, found neither its {CONFIG} nor {LAUNCHES}/; 'ecgchat runs list' finds runs"
        )
    failure = _json(run, failure_file.FILE, names)
    attempts, events, lines = _told(run, names)
    committed = sorted(int(name[len("checkpoints/step-") : -len(MARKER_END)]) for name in names if _is_marker(name))
    steps = config.get("steps") or config.get("run", {}).get("train", {}).get("steps")
    losses = [line for line in lines if "train/loss" in line]
    written = {name: run.changed(name) for name in (CONFIG, metrics.FILE) if name in names}
    newest = [f"checkpoints/{step_name(committed[-1])}{MARKER_END}"] if committed else []
    records = sorted(name for name in names if name.startswith(f"{LAUNCHES}/"))[-1:]
    word_s = max([*written.values(), *(run.changed(name) for name in newest + records)], default=time.time())
    spec = launched[-1]["spec"] if launched else {}
    return RunState(
        uri=run.uri,
        name=config.get("run", {}).get("run", {}).get("name") or spec.get("name", ""),
        stage=config.get("stage") or spec.get("stage", ""),
        state=_state(committed, steps, attempts, events, failure, written, word_s),
        done=lines[-1]["step"] if lines else 0,
        steps=steps,
        loss=losses[-1]["train/loss"] if losses else None,
        committed=committed,
        word_s=word_s,
        attempts=attempts,
        events=events,
        launches=launched,
        failure=failure,
        config=config,
    )


def _state(
    committed: list[int],
    steps: int | None,
    attempts: list[dict[str, Any]],
    events: list[dict[str, Any]],
    failure: dict[str, Any] | None,
    written: dict[str, float],
    word_s: float,
) -> State:
    if committed and steps and committed[-1] >= steps:
        return "finished"
    # An attempt says that it has begun in its configuration; its numbers follow with its first checkpoint.
    begun_since = written.get(CONFIG, 0) > written.get(metrics.FILE, 0) + 1
    last = attempts[-1]["attempt"] if attempts else None
    if not begun_since and any(event["event"] == "stopped" and event["attempt"] == last for event in events):
        return "stopped"
    if failure and not failure.get("followed_by") and (failure.get("attempt") == last or begun_since or not attempts):
        return "failed"
    if time.time() - word_s > SILENT_S:
        return "silent"
    return "running" if written else "launched"


def _is_marker(name: str) -> bool:
    return name.startswith("checkpoints/step-") and name.endswith(MARKER_END) and name.count("/") == 1


def _json(run: Store, name: str, names: set[str]) -> dict[str, Any] | None:
    if name not in names:
        return None
    try:
        content: dict[str, Any] = json.loads(run.get(name))
    except ValueError as error:
        raise RunError(f"{run.uri_of(name)}: not readable as JSON ({error}); the run writes it anew when it goes on") from error
    return content


def _told(run: Store, names: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Attempts, events, and the lines of steps."""
    if metrics.FILE not in names:
        return [], [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / metrics.FILE
        run.download(metrics.FILE, file)
        return metrics.attempts(file), metrics.events(file), metrics.read(file)
