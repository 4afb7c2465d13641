"""What a run leaves for people to look at: `metrics.jsonl`, and one W&B run for the stage, whatever happens to its workers."""

from __future__ import annotations

import json
import math
import os
import secrets
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cluster import metrics
from cluster.console import say
from cluster.errors import at_least
from cluster.mirror import Mirror
from cluster.stage import Picture
from cluster.wandb_run import Identity, OnlineRun, write_offline
from shards.storage import Store

RUN_ID = "wandb_run.json"
PICTURES = "pictures"

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class TrackingConfig:
    """Where a run is followed."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: as WANDB_MODE says; without it online where WANDB_API_KEY is set, else offline."""
    project: str = "ecgchat"
    group: str = ""
    """Joins the stages of one pipeline; the run's name where it is empty."""
    tags: list[str] = field(default_factory=list)
    """Beside the stage's name."""
    refer_to_checkpoint: bool = False
    """Name the last checkpoint's URI at W&B, as an artifact that holds a reference and no file. Only online."""
    log_every: int = 10
    """Steps between two looks at the device: numbers are kept there until then."""

    def __post_init__(self) -> None:
        at_least(1, train__tracking__log_every=self.log_every)

    @property
    def mode(self) -> Mode:
        """The W&B mode that `auto` stands for on this machine."""
        if self.wandb != "auto":
            return self.wandb
        asked = os.environ.get("WANDB_MODE", "online")
        if asked == "disabled":
            return "disabled"
        return "online" if asked == "online" and os.environ.get("WANDB_API_KEY") else "offline"


class Tracker:
    """Rank 0's record of a run.

    Args:
        run: the run's folder in the store.
        config: where to follow it.
        name: of the run.
        stage: job type.
        attempt: this start's id.
        resumed_from: step of the checkpoint that this attempt goes on from, 0 for none.
        settings: the resolved configuration and what the stage says of itself.
        local: scratch folder.
    """

    def __init__(
        self,
        run: Store,
        config: TrackingConfig,
        name: str,
        stage: str,
        attempt: str,
        resumed_from: int,
        settings: dict[str, Any],
        local: Path,
    ) -> None:
        self._store, self._config, self._attempt, self._local = run, config, attempt, local
        self._settings = settings
        self._file = local / metrics.FILE
        if run.exists(metrics.FILE):
            run.download(metrics.FILE, self._file)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        metrics.append(self._file, [{"attempt": attempt, "resumed_from": resumed_from, "started": started}])
        known = run.exists(RUN_ID)
        self.run_id = str(json.loads(run.get(RUN_ID))["id"]) if known else secrets.token_hex(4)
        self._identity = Identity(
            self.run_id, config.project, config.group or name, stage, f"{name}-{stage}", [stage, *config.tags]
        )
        run.put(RUN_ID, json.dumps(asdict(self._identity)).encode())
        self._mirror = Mirror(self._file, run, metrics.FILE)
        self._online: OnlineRun | None = None
        if config.mode == "online":
            rewind_to = resumed_from if known else None
            self._try("cannot be started", lambda: setattr(self, "_online", self._start(rewind_to)))
        self._rewound = self._online is not None and resumed_from > 0
        self._lost = False
        """Whether W&B was there and failed later: its process may not be able to begin another run."""

    def log(self, lines: Iterable[dict[str, Any]]) -> None:
        """Record lines; each has `step` and `samples`."""
        marked = [{"attempt": self._attempt, **_finite(line)} for line in lines]
        metrics.append(self._file, marked)
        self._with_online("fails", lambda online: online.log(marked))

    def undo(self, step: int) -> None:
        """The steps after one count no more: the weights are those of that step again."""
        metrics.append(self._file, [{"attempt": self._attempt, "resumed_from": step, "rolled_back": True}])

    def show(self, pictures: list[Picture]) -> None:
        """Keep pictures with their texts; the stage gives those that may leave the machine."""
        keep_pictures(self._store, pictures)
        if not self._rewound:
            self._with_online("fails", lambda online: online.show(pictures, self._local))

    def upload(self) -> None:
        """Bring the store's `metrics.jsonl` up to date; called before each commit, so that no committed step lacks its line."""
        self._mirror.now()

    def leave(self) -> None:
        """The attempt has ended, whatever became of it: nothing is copied beside it any more."""
        self._mirror.end()

    def close(self, checkpoint: str = "") -> None:
        """End the W&B run, and put what is to be looked at into the run's folder.

        Args:
            checkpoint: URI of the last committed one.
        """
        self._mirror.close()
        self.upload()
        if checkpoint and self._config.refer_to_checkpoint:
            self._with_online("fails", lambda online: online.refer(self._identity.name, checkpoint))
        self._with_online("did not take everything", lambda online: online.close())
        if self._online is None and not self._lost and self._config.mode != "disabled":
            self._try("cannot write its offline files", self._write_offline)

    def _start(self, rewind_to: int | None) -> OnlineRun:
        return OnlineRun(self._identity, self._settings, self._local, rewind_to)

    def _write_offline(self) -> None:
        written = write_offline(
            self._identity,
            self._settings,
            metrics.read(self._file),
            kept_pictures(self._store),
            self._local / "offline",
        )
        put_offline(self._store, written)

    def _with_online(self, what: str, action: Callable[[OnlineRun], None]) -> None:
        online = self._online
        if online is not None and not self._try(what, lambda: action(online)):
            self._online, self._lost = None, True

    def _try(self, what: str, action: Callable[[], None]) -> bool:
        """Whether it went well; W&B may not stop training, whatever it raises."""
        try:
            action()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            say(
                f"W&B {what} ({type(error).__name__}: {reason[:200]}); the run goes on without it, metrics.jsonl has every "
                f"number, and 'ecgchat runs sync {self._store.uri}' makes a W&B run of it"
            )
            return False
        return True


def origin() -> dict[str, str]:
    """Where a run comes from, as far as its environment tells: revision of the code, Slurm's and Ray's ids of the job."""
    found = {
        "git_revision": _revision(Path(__file__).parents[1]),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        "ray_submission_id": _ray_submission(),
    }
    return {name: value for name, value in found.items() if value}


def _revision(project: Path) -> str:
    """The commit that is checked out, marked where files differ from it; empty without a repository of its own."""
    if not (project / ".git").exists():
        return ""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git, or a disk that hangs: not worth the run


def _ray_submission() -> str:
    """Ray's id of the submitted job that this worker belongs to."""
    try:
        import ray

        if not ray.is_initialized():
            return ""
        metadata = ray._private.worker.global_worker.core_worker.get_job_config().metadata
        return str(metadata.get("job_submission_id", ""))
    except Exception:  # Ray has no public name for it: whatever becomes of this one, a run may not end by it
        return ""


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """Without the numbers of a bad step that are none, which JSON does not have."""
    return {name: value for name, value in line.items() if not isinstance(value, float) or math.isfinite(value)}


def keep_pictures(run: Store, pictures: list[Picture]) -> None:
    """Put pictures and their texts into a run's folder."""
    listed = []
    for number, picture in enumerate(pictures):
        run.put(f"{PICTURES}/{number}.png", picture.png)
        listed.append({"name": picture.name, "file": f"{number}.png", "text": picture.text})
    if listed:
        run.put(f"{PICTURES}/pictures.json", json.dumps(listed).encode())


def kept_pictures(run: Store) -> list[Picture]:
    """The pictures of a run's folder."""
    if not run.exists(f"{PICTURES}/pictures.json"):
        return []
    listed = json.loads(run.get(f"{PICTURES}/pictures.json"))
    return [Picture(item["name"], run.get(f"{PICTURES}/{item['file']}"), item["text"]) for item in listed]


def put_offline(run: Store, written: Path) -> None:
    """Make an offline W&B run the one of a run's folder."""
    run.delete_folder("wandb")
    for path in sorted(written.rglob("*")):
        if path.is_file() and not path.is_symlink():
            run.upload(path, f"wandb/{written.name}/{path.relative_to(written).as_posix()}")
