"""What a run leaves for people to look at: `metrics.jsonl`, and one W&B run for the stage, whatever happens to its workers."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cluster import metrics
from cluster.errors import at_least
from cluster.stage import Picture
from shards.storage import Store

RUN_ID = "wandb_run.json"

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class TrackingConfig:
    """Where a run is followed."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where WANDB_API_KEY is set, else offline."""
    project: str = "ecgchat"
    group: str = ""
    """Joins the stages of one pipeline; the run's name where it is empty."""
    log_every: int = 10
    """Steps between two looks at the device: numbers are kept there until then."""

    def __post_init__(self) -> None:
        at_least(1, train__tracking__log_every=self.log_every)

    @property
    def mode(self) -> Mode:
        """The W&B mode that `auto` stands for on this machine."""
        if self.wandb != "auto":
            return self.wandb
        return "online" if os.environ.get("WANDB_API_KEY") else "offline"


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
        self._store = run
        self._config = config
        self._attempt = attempt
        self._resumed_from = resumed_from
        self._local = local
        self._file = local / metrics.FILE
        if run.exists(metrics.FILE):
            run.download(metrics.FILE, self._file)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        metrics.append(self._file, [{"attempt": attempt, "resumed_from": resumed_from, "started": started}])
        self.run_id, known = _run_id(run)
        self._identity = {
            "project": config.project,
            "group": config.group or name,
            "job_type": stage,
            "name": f"{name}-{stage}",
            "id": self.run_id,
            "config": settings,
        }
        self._wandb = _start_wandb(config.mode, self._identity, local, rewind_to=resumed_from if known else None)
        self._pictures: list[Picture] = []

    def log(self, lines: Iterable[dict[str, Any]]) -> None:
        """Record lines; each has `step` and `samples`."""
        marked = [{"attempt": self._attempt, **line} for line in lines]
        metrics.append(self._file, marked)
        if self._wandb is not None:
            for line in marked:
                self._wandb.log(_numbers(line), step=line["step"])

    def show(self, pictures: list[Picture]) -> None:
        """A table of pictures with their texts, at the run's beginning; the stage gives those that may leave the machine."""
        self._pictures = pictures
        rewound = self._config.mode == "online" and self._resumed_from > 0
        if self._wandb is None or not pictures or rewound:
            return
        import wandb

        files = []
        for number, picture in enumerate(pictures):
            files.append(self._local / f"picture-{number}.png")
            files[-1].write_bytes(picture.png)
        rows = [[picture.name, wandb.Image(str(file)), picture.text] for picture, file in zip(pictures, files, strict=True)]
        self._wandb.log({"data/examples": wandb.Table(columns=["record", "ecg", "text"], data=rows)}, step=0)

    def upload(self) -> None:
        """Bring the store's `metrics.jsonl` up to date; called before each commit, so that no committed step lacks its line."""
        self._store.upload(self._file, metrics.FILE)

    def close(self) -> None:
        """End the W&B run and put everything into the run's folder.

        The offline run of an attempt that resumed begins in the middle: it is written again, whole, from `metrics.jsonl`.
        """
        self.upload()
        if self._wandb is None:
            return
        self._wandb.finish()
        if self._config.mode == "offline":
            if self._resumed_from:
                shutil.rmtree(self._local / "wandb")
                self._wandb = _start_wandb("offline", self._identity, self._local, rewind_to=None)
                self.show(self._pictures)
                for line in metrics.read(self._file):
                    self._wandb.log(_numbers(line), step=line["step"])
                self._wandb.finish()
            for path in sorted((self._local / "wandb").rglob("*")):
                if path.is_file() and not path.is_symlink() and "offline-run-" in str(path):
                    self._store.upload(path, f"wandb/{path.relative_to(self._local / 'wandb').as_posix()}")


def _run_id(run: Store) -> tuple[str, bool]:
    """The W&B id that all attempts of this run share, kept in the run's folder; and whether an earlier attempt made it."""
    if run.exists(RUN_ID):
        return str(json.loads(run.get(RUN_ID))["id"]), True
    run_id = secrets.token_hex(4)
    run.put(RUN_ID, json.dumps({"id": run_id}).encode())
    return run_id, False


def _start_wandb(mode: Mode, identity: dict[str, Any], local: Path, rewind_to: int | None) -> Any:
    if mode == "disabled":
        return None
    import wandb

    # An online run goes back to the step that it resumes from, so that its curves have no fold.
    rewound = mode == "online" and rewind_to is not None
    resume: dict[str, Any] = {"resume_from": f"{identity['id']}?_step={rewind_to}"} if rewound else {}
    run = wandb.init(
        **identity,
        **resume,
        mode=mode,
        dir=str(local),
        settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_machine_info=True),
    )
    run.define_metric("samples", hidden=True)
    for names in ("train/*", "perf/*", "data/*", "eval/*"):
        run.define_metric(names, step_metric="samples")
    return run


def _numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key == "samples" or "/" in key}
