"""`ray up ray_cluster.yaml` on three machines, and what a run on them survives: lost nodes, cut cables, nodes that come back.

Each machine is a namespace of this one (tests/lab/namespaces.py) with one CPU; its Ray is the real one, and so is its sshd.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local import servers
from tests.cluster.states import assert_equal
from tests.lab import namespaces
from tests.lab.ray_machines import read, wait
from tests.lab.ray_runs import RUN_S, Cluster, expected, last_state, losses_of, lost_node, ray_cluster, report, undisturbed_run
from tests.lab.workers import PACE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing())),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Head and two nodes."""
    with ray_cluster(tmp_path_factory.mktemp("cluster")) as up:
        yield up


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happens to."""
    return undisturbed_run(cluster, tmp_path_factory.mktemp("undisturbed"))


def test_a_node_that_loses_its_power_is_replaced_and_the_run_continues_to_the_bit(cluster: Cluster, undisturbed: Path) -> None:
    began = time.monotonic()
    run = cluster.submit(cluster.settings("replaced", workers=2))
    report("submitted", run, 1, began)
    run.wait_for_step(20)
    victim = lost_node(cluster, run)
    before = run.attempts()
    victim.kill()
    report("power lost", run, len(before) + 1, time.monotonic())
    victim.start()
    run.end()

    assert run.sizes() == [2, 2]
    assert victim.name not in run.hosts()
    assert run.counted() == expected(cluster, run)
    assert_equal(last_state(cluster.run_folder("replaced")), last_state(undisturbed), "state")
    # The machine has power again: the cluster takes it back by itself.
    cluster.machines.wait_for({"head", "node-1", "node-2"})


def test_a_short_cut_of_a_cable_is_survived_and_a_long_one_shrinks_the_run_until_the_node_is_back(
    cluster: Cluster, undisturbed: Path
) -> None:
    run = cluster.submit(cluster.settings("elastic", workers=3, min_workers=2))
    run.wait_for_step(20)
    victim = lost_node(cluster, run)
    victim.cut_link()
    time.sleep(2)
    victim.restore_link()
    run.wait_for_step(run.step() + 10)
    assert run.sizes() == [3], "a blip costs nothing"

    (run.notes / PACE).write_text("1")
    victim.cut_link()
    report("cable cut", run, 2, time.monotonic())
    assert run.sizes() == [3, 2]
    victim.restore_link()
    report("cable mended", run, 3, time.monotonic())
    (run.notes / PACE).write_text("0")
    run.end()

    assert run.sizes() == [3, 2, 3]
    _, shrunk, grown = run.steps()
    assert min(grown) == max(shrunk) + 1, "growing does no step twice"
    assert run.counted() == expected(cluster, run)
    losses = [losses_of(folder) for folder in (cluster.run_folder("elastic"), undisturbed)]
    assert losses[0].keys() == losses[1].keys()
    # Of the same weights: three ranks add the same float32 numbers in another order than two.
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_command_is_submitted_from_a_laptop_through_the_tunnel_to_the_dashboard(cluster: Cluster, tmp_path: Path) -> None:
    laptop = cluster.machines.laptop
    (laptop.home / "work").mkdir()
    (laptop.home / "work" / "hello.py").write_text("import socket; print('hello from', socket.gethostname())")
    tunnel = laptop.popen("source ~/ecgchat/.venv/bin/activate; ray dashboard ray_cluster.yaml", tmp_path / "tunnel.log")
    try:
        wait(
            lambda: laptop.run("exec 3<>/dev/tcp/127.0.0.1/8265").returncode == 0, RUN_S, lambda: read(tmp_path / "tunnel.log")
        )
        said = cluster.machines.type(
            "cd ~/work && PYTHONPATH=~/ecgchat python -m jobs.cli submit ray --address http://127.0.0.1:8265 -- python hello.py"
        )
    finally:
        servers.stop(tunnel)
    assert "hello from head" in said
