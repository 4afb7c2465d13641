"""What of elastic workers needs no cluster: settings that cannot be, room for the fewest, and the network of a node."""

import os

import pytest

from cluster.errors import RunError
from cluster.launch.config import LaunchConfig
from cluster.launch.ray_network import choose_interface, interface_of
from cluster.launch.ray_train import _require_resources


def test_without_a_fewest_the_number_of_workers_is_fixed():
    assert LaunchConfig(workers=4).fewest == 4
    assert LaunchConfig(workers=4, min_workers=2).fewest == 2


def test_a_fewest_above_the_number_of_workers_is_refused():
    with pytest.raises(RunError, match="launch.min_workers: at most launch.workers 2 are allowed, not 3"):
        LaunchConfig(workers=2, min_workers=3)


def test_a_cluster_with_room_for_the_fewest_is_enough():
    elastic = LaunchConfig(workers=8, min_workers=2, cpus_per_worker=3)
    _require_resources({"CPU": 6}, elastic)
    with pytest.raises(RunError, match="launch.min_workers 2 want 6 CPUs, the Ray cluster has 5; lower launch.min_workers, or"):
        _require_resources({"CPU": 5}, elastic)


def test_the_interface_of_an_address_is_found_and_another_choice_is_respected(monkeypatch):
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.254") is None
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
