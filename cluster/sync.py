"""A W&B run of what a run left in `metrics.jsonl`, whatever ended its attempts."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster import metrics
from cluster.errors import RunError
from cluster.tracking import RUN_ID, kept_pictures, put_offline
from cluster.wandb_run import Identity, write_offline
from shards.storage import Store


def rebuild(run: Store, out: Path) -> str:
    """Write the run, whole, as one clean offline run of W&B: every step that counts once, and nothing of what was undone.

    Args:
        run: the run's folder.
        out: local folder to make; what it held before is removed.

    Returns:
        What was done, in a sentence.

    Raises:
        RunError: the folder holds no run.
    """
    if not run.exists(metrics.FILE):
        raise RunError(f"{run.uri}: no {metrics.FILE} in it; name the folder of a run that has trained at least one step")
    with tempfile.TemporaryDirectory(prefix="ecgchat-sync-") as scratch:
        file = Path(scratch) / metrics.FILE
        run.download(metrics.FILE, file)
        lines = metrics.read(file)
        attempts, events, cut = len(metrics.attempts(file)), len(metrics.events(file)), metrics.cut_lines(file)
    config = json.loads(run.get("config.json")) if run.exists("config.json") else {}
    write_offline(_identity(run, config), config, lines, kept_pictures(run), out)
    left_out = f"; {cut} lines that were cut short are left out" if cut else ""
    return f"{run.uri}: {len(lines)} steps of {attempts} attempts, {events} events beside them{left_out}"


def keep(run: Store, out: Path) -> None:
    """Put a rebuilt run into the run's folder, in the place of whatever W&B left there."""
    [written] = (out / "wandb").glob("offline-run-*")
    put_offline(run, written)


def send(out: Path) -> None:
    """Give a rebuilt run to W&B, through its own command.

    Raises:
        RunError: it was not taken.
    """
    [written] = (out / "wandb").glob("offline-run-*")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(written)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise RunError(
            f"'wandb sync' did not take {written} ({said[-1] if said else f'status {done.returncode}'}); "
            "set WANDB_API_KEY, and WANDB_BASE_URL for a server of your own"
        )


def _identity(run: Store, config: dict[str, Any]) -> Identity:
    """The one that the run's attempts shared; a new one, kept from now on, where none was written."""
    if run.exists(RUN_ID):
        return Identity(**json.loads(run.get(RUN_ID)))
    stage, settings = config.get("stage", "unknown"), config.get("run", {})
    name = settings.get("run", {}).get("name", "run")
    made = Identity(secrets.token_hex(4), "ecgchat", name, stage, f"{name}-{stage}", [stage])
    run.put(RUN_ID, json.dumps(asdict(made)).encode())
    return made
