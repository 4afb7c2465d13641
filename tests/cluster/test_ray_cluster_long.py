"""What takes too long for every change: a head that is lost, machines that are added, and Ray's own figures for silence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.states import assert_equal
from tests.lab import namespaces
from tests.lab.ray_machines import SOON
from tests.lab.ray_runs import Cluster, expected, last_state, losses_of, lost_node, ray_cluster, report, undisturbed_run
from tests.lab.workers import PACE

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing())),
]

NAMES = {"head", "node-1", "node-2"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Head and two nodes."""
    with ray_cluster(tmp_path_factory.mktemp("cluster")) as up:
        yield up


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happens to."""
    return undisturbed_run(cluster, tmp_path_factory.mktemp("undisturbed"))


def test_a_head_that_is_lost_costs_the_steps_since_the_newest_checkpoint(cluster: Cluster, undisturbed: Path) -> None:
    settings = cluster.settings("headless", workers=2)
    run = cluster.submit(settings)
    run.wait_for_step(20)
    began = time.monotonic()
    cluster.machines.head.kill()
    cluster.machines.head.start()
    cluster.machines.up()
    cluster.machines.wait_for(NAMES)
    print(f"head lost: {time.monotonic() - began:.1f} s until 'ray up' had brought all machines up again")
    again = cluster.submit(settings)
    report("submitted again", again, 2, time.monotonic())
    again.end()

    assert again.sizes() == [2, 2]
    assert min(again.steps()[1]) > 1, "it goes on from a committed step"
    assert again.counted() == expected(cluster, again)
    assert_equal(last_state(cluster.run_folder("headless")), last_state(undisturbed), "state")


def test_a_machine_that_is_added_makes_the_run_grow(cluster: Cluster, undisturbed: Path) -> None:
    run = cluster.submit(cluster.settings("growing", workers=4, min_workers=2))
    run.wait_for_step(20)
    (run.notes / PACE).write_text("1")
    added = cluster.machines.add("node-3")
    cluster.machines.join(added)
    report("machine added", run, 2, time.monotonic())
    assert run.sizes() == [3, 4]
    added.kill()
    report("machine lost", run, 3, time.monotonic())
    (run.notes / PACE).write_text("0")
    run.end()

    assert run.sizes() == [3, 4, 3]
    few, many, _ = run.steps()
    assert min(many) == max(few) + 1, "growing does no step twice"
    assert run.counted() == expected(cluster, run)
    assert losses_of(cluster.run_folder("growing")) == pytest.approx(losses_of(undisturbed), rel=1e-4)


def test_a_lost_node_is_noticed_with_the_figures_that_ray_comes_with(tmp_path: Path) -> None:
    with ray_cluster(tmp_path, **dict.fromkeys(SOON, "")) as cluster:
        run = cluster.submit(cluster.settings("patient", workers=2))
        run.wait_for_step(20)
        lost_node(cluster, run).kill()
        report("power lost, Ray's own figures", run, 2, time.monotonic())
        run.end()
        assert run.counted() == expected(cluster, run)
