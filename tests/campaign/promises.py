"""Whether a run kept what is promised of it: how it ended, what it said, what it used, what it learnt, what it left."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from cluster import metrics
from tests.campaign.faults import Fault, Promise, nothing, pattern
from tests.campaign.job import PACE
from tests.campaign.on_ray import RayScene
from tests.campaign.scene import OURS, STEPS, Scene, Site, counted, noted
from tests.cluster.ranks import Ended
from tests.cluster.states import assert_equal, final_state


@dataclass(frozen=True)
class Undisturbed:
    """What the same run comes to when nothing happens to it."""

    used: dict[int, list[str]]
    state: dict[str, Any]
    losses: dict[int, dict[str, float]]


def undisturbed(site: Site) -> Undisturbed:
    """Run it."""
    scene = Scene(site, "undisturbed", 0, {})
    try:
        scene.begin()
        assert_done(scene.wait())
        return outcome(scene)
    finally:
        scene.close()


def outcome(scene: Scene) -> Undisturbed:
    """What a run that is done used, learnt and measured."""
    return Undisturbed(
        counted(noted(scene.notes)), final_state(scene.run, scene.folder / "final", STEPS), train_and_eval(scene)
    )


def train_and_eval(scene: Scene) -> dict[int, dict[str, float]]:
    """Step → what was learnt, of `metrics.jsonl`."""
    file = scene.folder / metrics.FILE
    scene.run.download(metrics.FILE, file)
    lines = metrics.read(file)
    return {line["step"]: {k: v for k, v in line.items() if k.startswith(("train/", "eval/"))} for line in lines}


def judge(fault: Fault, site: Site, seed: int, expected: Undisturbed) -> None:
    """Harm a run, submit it again where that is promised to help, and check exactly what is promised.

    Raises:
        AssertionError: a promise is not kept.
    """
    environment = {**fault.environment, PACE: str(fault.pace_s)}
    name = re.sub(r"\W+", "-", f"{fault.name}-{seed}")
    scene = (RayScene if fault.on_ray else Scene)(site, name, seed, fault.settings, environment, fault.commands)
    try:
        fault.before(scene)
        scene.begin(trouble_of(fault, scene))
        fault.harm(scene)
        committed = scene.newest()
        ended = scene.attempts[0].wait()
        if fault.afterwards is not nothing:
            committed = scene.newest()
            fault.afterwards(scene)
            scene.begin()
            ended = scene.wait()
        assert_ended(fault, scene, ended)
        if fault.promise in (Promise.AGAIN, Promise.STOPS):
            fault.mend(scene)
            scene.begin()
        if len(scene.attempts) > 1:
            assert_done(scene.wait())
        assert_nothing_was_lost(fault, scene, committed, expected)
        scene.settle()
        assert_nothing_is_left(scene)
        scene.forget()
    finally:
        scene.close()


def trouble_of(fault: Fault, scene: Scene) -> dict[str, Any]:
    """What one rank is to do to itself."""
    if not fault.trouble:
        return {}
    return {"kind": fault.trouble, "rank": scene.random_rank(), "step": scene.random_step(fault.earliest)}


def assert_ended(fault: Fault, scene: Scene, ended: list[Ended]) -> None:
    """As is promised, with one sentence that names what it should."""
    judged = scene.attempts[0] if fault.promise is Promise.BY_ITSELF else scene.attempt
    others = [rank for number, rank in enumerate(ended) if number not in judged.killed]
    if fault.promise is Promise.GOES_ON or (fault.on_ray and fault.promise is Promise.BY_ITSELF):
        assert_done(ended)
    else:
        for rank in others:
            expected = rank.status in fault.status if fault.status else rank.status != 0
            assert expected, f"expected status {fault.status}: {ended}"
            assert fault.on_ray or "Traceback" not in rank.err, f"a trace: {rank.err}"
    if fault.says:
        said = {line for rank in others for line in rank.err.splitlines() if line.startswith("ecgchat: ")}
        # A run that goes on, and a watch that ends it, say it in the log.
        said = said or {line for rank in others for line in rank.out.splitlines() if pattern(fault.says).search(line)}
        assert len(said) == 1, f"expected one sentence, {fault.says!r}: {said or ended}"
        assert pattern(fault.says).search(*said), f"expected {fault.says!r}: {said}"


def assert_done(ended: list[Ended]) -> None:
    """All ranks came to the last step."""
    assert [rank.status for rank in ended] == [0] * len(ended), ended


def assert_nothing_was_lost(fault: Fault, scene: Scene, committed: int, expected: Undisturbed) -> None:
    """No committed checkpoint, no sample; and the run came to where it comes when nothing happens."""
    firsts = [min(part) for part in noted(scene.notes) if part]
    resumed_from = firsts[-1] - 1
    if len(firsts) > 1 and not fault.loses_checkpoint and not fault.learns_otherwise:
        assert resumed_from >= committed, f"resumed from step {resumed_from}, {committed} was committed"
    found = outcome(scene)
    left_out = {key for keys in expected.used.values() for key in keys} - {key for keys in found.used.values() for key in keys}
    assert len(left_out) == fault.loses_samples, f"these samples were never used: {left_out}"
    used = {step: [key for key in keys if key not in left_out] for step, keys in expected.used.items()}
    assert found.used == used, "samples were lost or used twice"
    if fault.learns_otherwise:
        return
    assert found.losses == expected.losses, "metrics.jsonl does not say what was learnt"
    assert found.state.keys() == expected.state.keys()
    for name in expected.state:
        assert_equal(found.state[name], expected.state[name], name)


def assert_nothing_is_left(scene: Scene) -> None:
    """Neither a process nor a file on the local disk nor an object that no marker knows."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(OURS) == scene.name:
                left.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
    assert not left, f"processes are left: {left}"
    files = [path for path in scene.temporary.rglob("*") if path.is_file()]
    assert not files, f"files are left: {files[:5]}"
    folders = tuple(f"{marker.folder}/" for marker in scene.committed())
    orphans = [name for name in scene.checkpoints.list() if "/" in name and not name.startswith(folders)]
    assert not [name for name in orphans if not name.endswith(".json")], f"no marker knows {orphans[:5]}"
