"""The kinds of faults, and what is promised of a run that meets them. docs/operations.md has the same table."""

from __future__ import annotations

import io
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pyarrow import parquet

from cluster.stopping import STOPPED_STATUS, request_stop
from tests.campaign import on_ray, places
from tests.campaign.attempt import PREPARE
from tests.campaign.job import PACE_S
from tests.campaign.scene import STEPS, Scene
from tests.shards.faults.proxy import Fault as Reply
from tests.shards.faults.proxy import Plan

Deed = Callable[[Scene], None]


class Promise(StrEnum):
    """What becomes of a run."""

    GOES_ON = "goes on"
    BY_ITSELF = "resumes by itself"
    AGAIN = "resumes when submitted again"
    STOPS = "stops with this sentence, resumes once it is mended"


def nothing(scene: Scene) -> None:
    """No deed."""


def nothing_missing() -> str:
    """It can happen on every machine."""
    return ""


@dataclass(frozen=True)
class Fault:
    """One kind."""

    name: str
    does: str
    """What happens, for the table."""
    promise: Promise
    harm: Deed = nothing
    """At a random moment of the first attempt."""
    afterwards: Deed = nothing
    """To what the first attempt left; the second is then the one that is judged."""
    mend: Deed = nothing
    """Before the run is submitted again."""
    says: str = ""
    """The sentence that the run ends with, or that its log has where it goes on; … and numbers stand for any."""
    status: tuple[int, ...] = (1, 2)
    """Of the ranks that end by themselves; any but 0 where it is empty."""
    before: Deed = nothing
    """Before the first attempt."""
    trouble: str = ""
    """What one rank does to itself at a random step."""
    earliest: int = 1
    """First of those steps."""
    pace_s: float = PACE_S
    """Of a step, where the fault wants a longer run."""
    settings: dict[str, Any] = field(default_factory=dict)
    loses_checkpoint: bool = False
    """Whether the newest checkpoint is what is harmed, so that the run goes on from the one before."""
    loses_samples: int = 0
    """Samples that are left out because they are damaged."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of the ranks, until the fault is mended."""
    commands: bool = False
    """Whether ranks have to be started as commands."""
    on_ray: bool = False
    """Whether the run is a job of a Ray cluster, and not plain processes."""
    missing: Callable[[], str] = nothing_missing
    """What this machine lacks for it."""
    quick: bool = False
    """Whether every short campaign has it."""
    slow: bool = False
    """Whether no short campaign has it."""
    learns_otherwise: bool = False
    """Whether the run comes to other weights than one to which nothing happened, as where a step is left out."""


PART = r"/checkpoints/step-\d+/"
MARKER = r"/checkpoints/step-\d+\.committed\.json"
HANGS_SOON = {"train": {"watch": {"hang_s": 4}}}


def pattern(sentence: str) -> re.Pattern[str]:
    """Finds a sentence with whatever stands in the place of each … and of each number."""
    return re.compile(".*?".join(re.sub(r"\d+", lambda _: r"\d+", re.escape(part)) for part in sentence.split("…")))


# Processes ----------------------------------------------------------------------------------------------------------------


def kill_a_rank(scene: Scene) -> None:
    scene.moment()
    scene.attempt.signal(signal.SIGKILL, scene.random_rank())


def kill_all(scene: Scene) -> None:
    scene.moment()
    scene.attempt.signal(signal.SIGKILL)


def kill_at_the_start(scene: Scene) -> None:
    time.sleep(scene.generator.uniform(0, 4))
    scene.attempt.signal(signal.SIGKILL)


def stop_a_rank(scene: Scene) -> None:
    scene.moment()
    scene.attempt.signal(signal.SIGSTOP, scene.random_rank())


def signal_one(number: signal.Signals) -> Deed:
    def harm(scene: Scene) -> None:
        scene.moment()
        scene.attempt.signal(number, scene.random_rank())

    return harm


def signal_all(number: signal.Signals) -> Deed:
    def harm(scene: Scene) -> None:
        scene.moment()
        scene.attempt.signal(number)

    return harm


def signal_during_a_save(number: signal.Signals) -> Deed:
    """Writes of checkpoints' parts are slow, so that the moment lies inside one."""

    def harm(scene: Scene) -> None:
        scene.proxy.plan = Plan.always(Reply.SLOW_INTAKE, "PUT", where=PART)
        scene.wait_until(lambda: scene.proxy.counts.faults[Reply.SLOW_INTAKE] > 0)
        time.sleep(scene.generator.uniform(0, 2))
        scene.attempt.signal(number)
        scene.proxy.plan = Plan()

    return harm


def usual_place(scene: Scene) -> None:
    for name in (PREPARE, "LD_PRELOAD"):
        scene.environment.pop(name, None)


def patient(scene: Scene) -> None:
    """A machine that is busy is not taken for one that hangs."""
    scene.settings["train"].pop("watch")


def ask_by_file(scene: Scene) -> None:
    scene.moment(last=STEPS // 4)
    request_stop(scene.run, "maintenance at noon")


def submit_again_meanwhile(scene: Scene) -> None:
    scene.moment(last=STEPS // 3)
    scene.begin()


ASKED = "stopped at step 12, committed (…); the same command goes on from there"
SLOW_S = 0.4


def asked(name: str, does: str, harm: Deed, pace_s: float = PACE_S, quick: bool = False) -> Fault:
    return Fault(name, does, Promise.AGAIN, harm, says=ASKED, status=(STOPPED_STATUS,), pace_s=pace_s, quick=quick)


PROCESSES = [
    Fault(
        "worker killed",
        "SIGKILL to one rank",
        Promise.AGAIN,
        kill_a_rank,
        says="rank 1 on … ended without a word, step 12, …: its process was killed, or its machine or network is gone; …",
        quick=True,
    ),
    Fault("all killed", "SIGKILL to all ranks at once", Promise.AGAIN, kill_all),
    Fault("killed at the start", "SIGKILL to all ranks before the first step", Promise.AGAIN, kill_at_the_start),
    Fault(
        "killed during a save",
        "SIGKILL to all ranks while a checkpoint is uploaded",
        Promise.AGAIN,
        signal_during_a_save(signal.SIGKILL),
    ),
    Fault(
        "worker hung",
        "SIGSTOP to one rank",
        Promise.AGAIN,
        stop_a_rank,
        says="rank 1 on … does not answer in step 12… for 1800 s in …",
        status=(70, 1),
        mend=patient,
        settings=HANGS_SOON,
    ),
    Fault(
        "error in a rank",
        "an exception that nobody foresaw",
        Promise.AGAIN,
        trouble="error",
        says="rank 1 on …, step 12, …: ZeroDivisionError: nobody foresaw this; its trace: s3://…",
    ),
    Fault(
        "deadlock",
        "one rank stands still in the middle of a step",
        Promise.AGAIN,
        trouble="deadlock",
        says="rank 1 on … stands still for 1800 s in step 12, …, at job.py:90 in _suffer…",
        status=(70, 1),
        mend=patient,
        settings=HANGS_SOON,
    ),
    Fault(
        "loader hung",
        "one rank's data never come",
        Promise.AGAIN,
        trouble="hung loader",
        says="rank 1 on … stands still for 1800 s in step 12, data, at job.py:60 in step_data…",
        status=(70, 1),
        mend=patient,
        settings=HANGS_SOON,
    ),
    Fault(
        "out of memory",
        "an allocation that fails",
        Promise.AGAIN,
        trouble="memory",
        says="rank 1 on …, step 12, forward: out of memory; go on with more launch.workers (8), or begin a new run with …",
    ),
    Fault(
        "killed for memory",
        "the kernel's out-of-memory killer ends one rank",
        Promise.AGAIN,
        trouble="hog",
        says="rank 1 on …, step 12, …: ended by its machine for want of memory; lower data.loader.ahead (3), …",
        status=(1, 2, -signal.SIGKILL),
        mend=usual_place,
        environment={PREPARE: "tests.campaign.places:little_memory"},
        missing=places.no_memory_limit,
    ),
    asked("SIGTERM", "SIGTERM to one rank", signal_one(signal.SIGTERM), quick=True),
    asked("SIGINT", "Ctrl-C: SIGINT to all ranks", signal_all(signal.SIGINT)),
    asked("SIGUSR1", "SIGUSR1 to one rank, as Slurm sends before the time limit", signal_one(signal.SIGUSR1)),
    asked("SIGTERM during a save", "SIGTERM to all ranks while a checkpoint is uploaded", signal_during_a_save(signal.SIGTERM)),
    asked("stop.json", "the file in the run's folder", ask_by_file, SLOW_S),
    Fault(
        "two jobs in one folder",
        "the run is submitted again while it runs",
        Promise.BY_ITSELF,
        submit_again_meanwhile,
        says="…/run: attempt … began on … while this one ran, and has the run now; this one ends; …",
        pace_s=SLOW_S,
    ),
]

# The store ----------------------------------------------------------------------------------------------------------------


def store_is_away_for_a_while(scene: Scene) -> None:
    scene.moment()
    scene.proxy.refuse()
    time.sleep(scene.generator.uniform(0.5, 2))
    scene.proxy.listen()


def store_is_gone(scene: Scene) -> None:
    scene.moment(last=STEPS // 2)
    scene.proxy.refuse()


def store_is_back(scene: Scene) -> None:
    scene.proxy.plan = Plan()
    scene.proxy.listen()


def replies(reply: Reply, *kinds: str, where: str = "", share: float = 1.0) -> Deed:
    """From a random moment of its first half on, so many of the store's replies are of a kind."""

    def harm(scene: Scene) -> None:
        scene.moment(last=STEPS // 2)
        generator = scene.generator
        scene.proxy.plan = Plan(
            lambda number: reply if generator.random() < share else None, set(kinds) or {"GET", "PUT", "HEAD", "LIST"}, where
        )

    return harm


def one_reply(reply: Reply, *kinds: str, where: str = "") -> Deed:
    """From a random moment on, the next reply of these kinds."""

    def harm(scene: Scene) -> None:
        scene.moment(last=STEPS // 2)
        scene.proxy.plan = Plan({1: reply}.get, set(kinds), where)

    return harm


STORE = [
    Fault("store away", "the store refuses connections for 0.5-2 s", Promise.GOES_ON, store_is_away_for_a_while, quick=True),
    Fault(
        "store gone",
        "the store refuses connections from then on",
        Promise.STOPS,
        store_is_gone,
        mend=store_is_back,
        says="s3://…: the request failed in 24 … over 291.3 s, at last by …; check AWS_ENDPOINT_URL (…)",
    ),
    Fault(
        "store slow",
        "a quarter of all writes are taken 2 s late",
        Promise.GOES_ON,
        replies(Reply.SLOW_INTAKE, "PUT", share=0.25),
    ),
    Fault(
        "store full",
        "the store takes no more bytes (507 InsufficientStorage)",
        Promise.STOPS,
        replies(Reply.FULL, "PUT"),
        mend=store_is_back,
        says="s3://…: the request failed (…No space left on the store…); check AWS_ENDPOINT_URL (…)",
    ),
    Fault("store busy", "a quarter of all requests get 503 SlowDown", Promise.GOES_ON, replies(Reply.SLOW_DOWN, share=0.25)),
    Fault(
        "replies cut off", "a fifth of all replies end in the middle", Promise.GOES_ON, replies(Reply.RESET, "GET", share=0.2)
    ),
    Fault(
        "checkpoint upload fails",
        "writes of a checkpoint's parts fail from then on",
        Promise.STOPS,
        replies(Reply.SERVER_ERROR, "PUT", where=PART),
        mend=store_is_back,
        says="s3://…/checkpoints/step-000120/…: the request failed in 24 … over 291.3 s, at last by …; check …",
    ),
    Fault(
        "checkpoint upload fails once",
        "a write of a checkpoint's part fails",
        Promise.GOES_ON,
        one_reply(Reply.SERVER_ERROR, "PUT", where=PART),
    ),
    Fault(
        "marker fails",
        "writes of markers fail from then on",
        Promise.STOPS,
        replies(Reply.SERVER_ERROR, "PUT", where=MARKER),
        mend=store_is_back,
        says="s3://…/checkpoints/step-000120.committed.json: the request failed in 24 … over 291.3 s, at last by …; check …",
    ),
    Fault(
        "marker's reply is lost",
        "a marker is written, and the connection ends before the reply",
        Promise.GOES_ON,
        one_reply(Reply.LOST_REPLY, "PUT", where=MARKER),
    ),
    Fault(
        "keys expired",
        "the store refuses the keys from then on (403 ExpiredToken)",
        Promise.STOPS,
        replies(Reply.EXPIRED_TOKEN),
        mend=store_is_back,
        says="s3://…: the store refused the request (…): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or …",
    ),
    Fault(
        "keys refused once",
        "one write is refused, as when keys are renewed",
        Promise.GOES_ON,
        one_reply(Reply.EXPIRED_TOKEN, "PUT"),
    ),
]

# Checkpoints --------------------------------------------------------------------------------------------------------------


def kill_after_two_checkpoints(scene: Scene) -> None:
    scene.wait_until(lambda: len(scene.committed()) > 1)
    kill_all(scene)


def newest_part(scene: Scene) -> str:
    """Name of some file of the newest checkpoint."""
    marker = scene.committed()[-1]
    return f"{marker.folder}/{scene.generator.choice([name for name in marker.files if name.endswith('.pt')])}"


def cut_a_part(scene: Scene) -> None:
    name = newest_part(scene)
    body = scene.checkpoints.get(name)
    scene.checkpoints.put(name, body[: scene.generator.randrange(len(body))])


def flip_a_bit_of_a_part(scene: Scene) -> None:
    name = newest_part(scene)
    scene.checkpoints.put(name, flipped(scene, scene.checkpoints.get(name)))


def delete_a_part(scene: Scene) -> None:
    scene.checkpoints.delete(newest_part(scene))


def flip_a_bit_of_the_marker(scene: Scene) -> None:
    name = f"{scene.committed()[-1].name}.committed.json"
    scene.checkpoints.put(name, flipped(scene, scene.checkpoints.get(name)))


def flipped(scene: Scene, body: bytes) -> bytes:
    """The same with one other bit."""
    place = scene.generator.randrange(len(body))
    return body[:place] + bytes([body[place] ^ 1 << scene.generator.randrange(8)]) + body[place + 1 :]


def skip_broken(scene: Scene) -> None:
    scene.settings["train"]["checkpoint"]["skip_broken"] = True


SKIP = "; pass --train.checkpoint.skip_broken true to resume from the checkpoint before it"


def damaged_checkpoint(name: str, does: str, deed: Deed, says: str) -> Fault:
    says = says.removesuffix("; …") + SKIP
    return Fault(name, does, Promise.STOPS, kill_after_two_checkpoints, deed, skip_broken, says, loses_checkpoint=True)


CHECKPOINTS = [
    damaged_checkpoint(
        "checkpoint cut",
        "a part of the newest checkpoint ends early",
        cut_a_part,
        "checkpoint step-000120: s3://… has 12 bytes, its marker says 34; …",
    ),
    damaged_checkpoint(
        "checkpoint flipped",
        "a bit of the newest checkpoint is another",
        flip_a_bit_of_a_part,
        "checkpoint step-000120: s3://… has sha256 …, its marker says …; …",
    ),
    damaged_checkpoint(
        "checkpoint deleted",
        "a part of the newest checkpoint is gone",
        delete_a_part,
        "checkpoint step-000120: s3://… is missing; …",
    ),
    damaged_checkpoint(
        "marker flipped",
        "a bit of the newest marker is another",
        flip_a_bit_of_the_marker,
        "checkpoint step-000120: s3://…/step-000120.committed.json …",
    ),
]

# Data and numbers ---------------------------------------------------------------------------------------------------------


def damage_a_sample(scene: Scene) -> None:
    """Turn some bytes of one sample in the store."""
    [table] = [name for name in scene.data.list() if name.endswith("index.parquet")]
    rows = parquet.read_table(io.BytesIO(scene.data.get(table))).to_pylist()
    row = scene.generator.choice(rows)
    [shard] = [name for name in scene.data.list() if name.endswith(row["shard"])]
    body = bytearray(scene.data.get(shard))
    place = row["offset"] + row["bytes"] // 2
    body[place : place + 8] = bytes(255 - byte for byte in body[place : place + 8])
    scene.data.put(shard, body)


def restore_data(scene: Scene) -> None:
    scene.upload_data()


def tolerating(damage: int) -> dict[str, Any]:
    return {"data": {"loader": {"tolerated_damage": damage}}}


def on_bad_loss(policy: str) -> dict[str, Any]:
    return {"train": {"guard": {"on_bad_loss": policy, "roll_back_steps": 1}}}


def train_on(scene: Scene) -> None:
    scene.settings["train"]["guard"]["on_bad_loss"] = "skip"


DATA = [
    Fault(
        "sample damaged",
        "bytes of a sample are others; tolerated_damage 0",
        Promise.STOPS,
        before=damage_a_sample,
        mend=restore_data,
        says="small step 12, rank 1: …train-000001.tar: the bytes of sample … ",
    ),
    Fault(
        "sample damaged but tolerated",
        "the same; tolerated_damage 1",
        Promise.GOES_ON,
        before=damage_a_sample,
        settings=tolerating(1),
        says="small step 12, sample left out: …train-000001.tar: the bytes of sample … ",
        loses_samples=1,
        learns_otherwise=True,
    ),
    Fault(
        "NaN batch skipped",
        "a batch that holds NaN; train.guard.on_bad_loss skip",
        Promise.GOES_ON,
        trouble="nan",
        settings=on_bad_loss("skip"),
        says="small step 12: the loss is nan; samples …; its update is left out, 1 steps so far",
        learns_otherwise=True,
    ),
    Fault(
        "NaN batch rolled back",
        "the same; roll_back",
        Promise.GOES_ON,
        trouble="nan",
        earliest=STEPS // 2,
        pace_s=0.2,
        settings=on_bad_loss("roll_back"),
        says="small step 12: goes on from the weights of step 8; steps since taught nothing",
        learns_otherwise=True,
    ),
    Fault(
        "NaN batch stops",
        "the same; stop",
        Promise.STOPS,
        trouble="nan",
        mend=train_on,
        settings=on_bad_loss("stop"),
        says="small step 12: the loss is nan; samples …; look at them, or set train.guard.on_bad_loss to skip or roll_back",
    ),
]

# The machine --------------------------------------------------------------------------------------------------------------


def fill_the_disk(scene: Scene) -> None:
    """Of both ranks: all that is left of the small disk that they keep their scratch on."""
    scene.moment(last=STEPS // 2)
    for pid in scene.attempt.pids():
        places.fill(Path(f"/proc/{pid}/root") / scene.temporary.relative_to("/"))


def jump(scene: Scene) -> None:
    scene.moment()
    places.set_clock(scene.clock, scene.generator.choice([-1, 1]) * scene.generator.uniform(60, 600))


MACHINE = [
    Fault(
        "local disk full",
        "nothing is left of the disk that checkpoints are copied to",
        Promise.STOPS,
        fill_the_disk,
        mend=usual_place,
        # Whether a checkpoint's copy meets it first or what a step has to write.
        says="…; make room, or set TMPDIR …",
        environment={PREPARE: "tests.campaign.places:small_disk"},
        missing=places.no_mounts,
    ),
    Fault(
        "clock jumps",
        "the clock of all ranks jumps by 1-10 minutes, forth or back",
        Promise.GOES_ON,
        jump,
        commands=True,
        missing=places.no_compiler,
    ),
    Fault(
        "W&B away",
        "W&B is online and nobody answers",
        Promise.GOES_ON,
        settings={"train": {"tracking": {"wandb": "online"}}},
        environment={"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"},
        slow=True,
    ),
]

# Ray ----------------------------------------------------------------------------------------------------------------------


def under_ray(name: str, does: str, promise: Promise, harm: Callable[[on_ray.RayScene], None], **more: Any) -> Fault:
    return Fault(name, does, promise, harm, pace_s=on_ray.PACE_S, on_ray=True, slow=True, **more)  # type: ignore[arg-type]


RAY = [
    under_ray("Ray worker killed", "SIGKILL to one worker process", Promise.BY_ITSELF, on_ray.kill_a_worker),
    under_ray(
        "raylet killed",
        "SIGKILL to the raylet of the workers' node; another node comes",
        Promise.BY_ITSELF,
        on_ray.kill_the_raylet,
    ),
    under_ray(
        "node lost",
        "SIGKILL to every process of the workers' node; another node comes",
        Promise.BY_ITSELF,
        on_ray.kill_the_node,
    ),
    under_ray(
        "Ray head killed",
        "SIGKILL to the head's control store; the run is submitted to another cluster",
        Promise.AGAIN,
        on_ray.kill_the_head,
        status=(),
        mend=on_ray.another_cluster,
    ),
    under_ray("driver killed", "SIGKILL to the driver of the job", Promise.AGAIN, on_ray.kill_the_driver, status=()),
    under_ray(
        "driver asked to end",
        "SIGTERM, SIGINT or SIGUSR1 to the driver",
        Promise.AGAIN,
        on_ray.signal_the_driver,
        says=ASKED,
        status=(STOPPED_STATUS,),
    ),
]

FAULTS = {fault.name: fault for fault in [*PROCESSES, *STORE, *CHECKPOINTS, *DATA, *MACHINE, *RAY]}
