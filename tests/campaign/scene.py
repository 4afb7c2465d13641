"""Where a fault happens: a small run of two ranks, its data and its folder on a real S3 server, behind a failing proxy."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from cluster.local import object_store
from cluster.local.object_store import ObjectStore
from cluster.markers import MARKER_END, Marker, committed
from shards.storage import Store
from tests.campaign.attempt import HANGS_S, RANKS, Attempt
from tests.campaign.job import NOTES, PACE_S, TROUBLE
from tests.campaign.places import CLOCK, clock_library, remove_memory_groups, set_clock
from tests.cluster.ranks import Ended
from tests.shards.faults.proxy import Plan, Proxy
from tests.shards.small_sets import build_small_set

OURS = "ECGCHAT_TEST_RUN"
"""In the environment of every process of a run, so that those are found that it left behind."""
GLOBAL_BATCH = 7
SAMPLES = 6 * GLOBAL_BATCH
EPOCHS = 4
STEPS = EPOCHS * SAMPLES // GLOBAL_BATCH
BETWEEN_CHECKPOINTS = 4


@dataclass(frozen=True)
class Site:
    """What all runs of a campaign share."""

    folder: Path
    server: ObjectStore
    shards: Path
    """The data set that each run gets a copy of."""


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A server and a data set; this process talks to the server past all proxies while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = Path(build_small_set(folder / "set", SAMPLES, 8))
    with object_store.serve(folder / "s3") as server, mock.patch.dict(os.environ, server.environment):
        yield Site(folder, server, shards)


def job_settings(shards: str, run: str) -> dict[str, Any]:
    """Settings of the run; neither the lanes nor the batch are a multiple of the ranks."""
    return {
        "run": {"folder": run, "name": "harmed"},
        "data": {
            "shards": shards,
            "validation_split": "train",
            "loader": {
                "order": {"global_batch": GLOBAL_BATCH, "lanes": 3, "block": 5, "seed": 1},
                "patience": {"deadline_s": 6.0, "attempt_s": 4.0, "longest_wait_s": 1.0},
            },
        },
        "train": {
            "epochs": EPOCHS,
            "eval_every": 10,
            "engine": {"zero_stage": 2, "precision": "fp32"},
            "checkpoint": {"every_steps": BETWEEN_CHECKPOINTS, "commit_timeout_s": 30},
            "tracking": {"wandb": "disabled", "log_every": 1},
        },
        "launch": {"launcher": "processes", "threads": 1},
    }


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, the second's over the first's."""
    both = dict(first)
    for key, value in second.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


class Scene:
    """One run, what harms it, and what it leaves.

    Args:
        site: of the campaign.
        name: of this run.
        seed: of its moments.
        settings: over those of `job_settings`.
        environment: of its ranks.
        commands: start ranks as commands.
    """

    hangs_s: float = HANGS_S

    def __init__(
        self,
        site: Site,
        name: str,
        seed: int,
        settings: dict[str, Any],
        environment: dict[str, str] | None = None,
        commands: bool = False,
    ) -> None:
        self.site, self.name = site, name
        self.generator = random.Random(seed)
        self.folder = site.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.notes = self.folder / "notes"
        self.notes.mkdir(parents=True)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        uri = f"{site.server.uri}/{name}"
        self.data, self.run = Store(f"{uri}/set"), Store(f"{uri}/run")
        self.upload_data()
        self.proxy = Proxy(site.server.environment["AWS_ENDPOINT_URL"], Plan())
        # Mending a run changes them, and a kind of fault lends its own to each of its runs.
        self.settings = deepcopy(merged(job_settings(self.data.uri, self.run.uri), settings))
        self.environment = {
            **self.proxy.environment,
            **{OURS: name, NOTES: str(self.notes), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
            **(environment or {}),
        }
        self.clock = self.folder / "clock"
        set_clock(self.clock, 0)
        if commands:
            self.environment |= {CLOCK: str(self.clock), "LD_PRELOAD": str(clock_library(site.folder))}
        self.commands = commands
        self.attempts: list[Attempt] = []

    def upload_data(self) -> None:
        """Write the run's copy of the data set."""
        for path in sorted(path for path in self.site.shards.rglob("*") if path.is_file()):
            self.data.upload(path, path.relative_to(self.site.shards).as_posix())

    def close(self) -> None:
        """End whatever still runs; the folder stays for who looks into a failure."""
        for attempt in self.attempts:
            attempt.kill()
        self.proxy.close()
        remove_memory_groups()

    def settle(self) -> None:
        """End what the run was given, before it is looked for what it left."""

    def forget(self) -> None:
        """Remove what it wrote, where nobody has to look into a failure."""
        shutil.rmtree(self.folder)
        Store(f"{self.site.server.uri}/{self.name}").delete_folder("")

    def begin(self, trouble: dict[str, Any] | None = None, **environment: str) -> Attempt:
        """Submit the run."""
        harm = {TROUBLE: json.dumps(trouble or {})}
        folder = self.folder / f"attempt-{len(self.attempts) + 1}"
        self.attempts.append(Attempt(self.settings, folder, {**self.environment, **harm, **environment}, self.commands))
        return self.attempts[-1]

    @property
    def attempt(self) -> Attempt:
        """The newest."""
        return self.attempts[-1]

    @property
    def checkpoints(self) -> Store:
        """The run's."""
        return self.run.child("checkpoints")

    def committed(self) -> list[Marker]:
        """The committed checkpoints, oldest first."""
        return committed(self.checkpoints)

    def newest(self) -> int:
        """Step of the newest committed checkpoint, 0 where there is none; from names alone, since a marker may be damaged."""
        ends = [name for name in self.checkpoints.list() if name.endswith(MARKER_END) and "/" not in name]
        return max((int(name.removeprefix("step-").removesuffix(MARKER_END)) for name in ends), default=0)

    def step(self) -> int:
        """The newest step that rank 0 began, 0 before the first."""
        lines = [line for line in _lines(self.notes / "rank-0.jsonl") if line.endswith("}")]
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Let the ranks run until something is so; it is an error if one ends, or hangs, before."""
        deadline = time.monotonic() + self.hangs_s
        while not reached():
            assert self.attempt.running(), f"a rank ended before it was harmed: {self.attempt.said()}"
            assert time.monotonic() < deadline, f"nothing happens: {self.attempt.said()}"
            time.sleep(0.01)

    def random_step(self, first: int = 1, last: int = STEPS - 2) -> int:
        """Some step."""
        return self.generator.randint(first, last)

    def random_rank(self) -> int:
        """Some rank."""
        return self.generator.randrange(RANKS)

    def moment(self, first: int = 1, last: int = STEPS - 6) -> None:
        """Let the ranks run up to some moment in some step."""
        step = self.random_step(first, last)
        self.wait_until(lambda: self.step() >= step)
        time.sleep(self.generator.uniform(0, 2 * PACE_S))

    def wait(self) -> list[Ended]:
        """How the ranks of the newest attempt ended."""
        return self.attempt.wait()


def noted(notes: Path) -> list[dict[int, list[str]]]:
    """What was used, in the order of time: step → keys of its global batch in the order of the ranks, for the steps that all
    ranks began. An attempt is one part, and one more for each time that it went back."""
    parts: dict[tuple[str, int], list[dict[int, list[str]]]] = {}
    for rank, file in enumerate(sorted(notes.glob("rank-*.jsonl"))):
        attempt, part, before = "", 0, 0
        for text in _lines(file):
            line = json.loads(text)
            part = 0 if line["attempt"] != attempt else part + (line["step"] <= before)
            attempt, before = line["attempt"], line["step"]
            parts.setdefault((attempt, part), [{} for _ in range(RANKS)])[rank][before] = line["keys"]
    return [
        {step: [key for rank in ranks for key in rank[step]] for step in sorted(set.intersection(*map(set, ranks)))}
        for _, ranks in sorted(parts.items())
    ]


def counted(attempts: list[dict[int, list[str]]]) -> dict[int, list[str]]:
    """Step → keys as they count: an attempt undoes what earlier ones did from its first step on."""
    steps: dict[int, list[str]] = {}
    for attempt in attempts:
        if attempt:
            steps = {step: keys for step, keys in steps.items() if step < min(attempt)} | attempt
    return steps


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
