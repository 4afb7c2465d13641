"""The one W&B run of a stage. Online it is followed while it trains; offline it is written, whole, from `metrics.jsonl`.

Nothing that W&B does or fails to do stops training: `metrics.jsonl` is the truth, and this is a view of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster.stage import Picture

START_TIMEOUT_S = 60
FINISH_TIMEOUT_S = 300
"""How long the end of a run waits for what W&B has not taken yet."""

EXAMPLES = "data/examples"
"""Name of the pictures."""


@dataclass(frozen=True)
class Identity:
    """What names a run at W&B; kept in the run's folder as `wandb_run.json`, the same for all attempts."""

    id: str
    project: str
    group: str
    """The pipeline."""
    job_type: str
    """The stage."""
    name: str
    tags: list[str] = field(default_factory=list)


class OnlineRun:
    """The run at W&B, followed while it trains.

    Args:
        identity: of the run.
        config: the resolved configuration and what the stage says of itself.
        local: scratch folder.
        rewind_to: the step that an attempt resumes from, where an earlier attempt made the run: its curves have no fold then.

    Raises:
        Exception: W&B cannot be reached or refuses; whatever it raises.
    """

    def __init__(self, identity: Identity, config: dict[str, Any], local: Path, rewind_to: int | None) -> None:
        resume: dict[str, Any] = {} if rewind_to is None else {"resume_from": f"{identity.id}?_step={rewind_to}"}
        try:
            self._run = _start(identity, config, local, "online", **resume)
        except BaseException:
            # Its process would hold the id, and an offline run could not take it.
            _forget()
            raise

    def log(self, lines: Iterable[dict[str, Any]]) -> None:
        """Values of some steps."""
        _log(self._run, lines)

    def show(self, pictures: Sequence[Picture], folder: Path) -> None:
        """Pictures with their texts."""
        _show(self._run, pictures, folder)

    def refer(self, name: str, uri: str) -> None:
        """Name a checkpoint where it lies, without copying it."""
        import wandb

        artifact = wandb.Artifact(name, type="checkpoint")
        artifact.add_reference(uri, checksum=False)
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Wait until W&B has everything, for a time."""
        self._run.finish()


def write_offline(
    identity: Identity, config: dict[str, Any], lines: Iterable[dict[str, Any]], pictures: Sequence[Picture], folder: Path
) -> Path:
    """Write one clean offline run, as `wandb sync` takes it.

    Args:
        identity: of the run.
        config: as for `OnlineRun`.
        lines: one for each step that counts, in order (`metrics.read`).
        pictures: of the stage.
        folder: to make; what it held before is removed.

    Returns:
        The run's own folder in it, `offline-run-<time>-<id>`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = _start(identity, config, folder, "offline")
    _show(run, pictures, folder)
    _log(run, lines)
    run.finish()
    # Its process writes the file's end after it has said that the run is finished, but before it ends itself.
    _forget()
    [written] = (folder / "wandb").glob("offline-run-*")
    return written


def _log(run: Any, lines: Iterable[dict[str, Any]]) -> None:
    for line in lines:
        run.log({key: value for key, value in line.items() if key == "samples" or "/" in key}, step=line["step"])


def _start(identity: Identity, config: dict[str, Any], folder: Path, mode: Literal["online", "offline"], **resume: Any) -> Any:
    import wandb

    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        x_disable_machine_info=True,
        init_timeout=START_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )
    run = wandb.init(**asdict(identity), **resume, config=config, mode=mode, dir=str(folder), settings=settings)
    run.define_metric("samples", hidden=True)
    for names in ("train/*", "perf/*", "data/*", "eval/*"):
        run.define_metric(names, step_metric="samples")
    return run


def _forget() -> None:
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _show(run: Any, pictures: Sequence[Picture], folder: Path) -> None:
    """Pictures with captions and no table: a table's files would stay in the home folder of whoever wrote an offline run."""
    if not pictures:
        return
    import wandb

    images = []
    for number, picture in enumerate(pictures):
        file = folder / f"picture-{number}.png"
        file.write_bytes(picture.png)
        images.append(wandb.Image(str(file), caption=f"{picture.name}: {picture.text}"))
    run.log({EXAMPLES: images}, step=0)
