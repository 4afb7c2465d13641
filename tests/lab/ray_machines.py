"""A Ray cluster on the hosts of a lab, brought up as the user does it: `ray up ray_cluster.yaml` on a laptop, by ssh.

laptop ── ssh ──► head, node-1, node-2, …        every host: one CPU, an environment for the store in `~/.profile`
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.lab.namespaces import PROJECT, Host, Lab

SMALL_MACHINE = {
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}',
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20),
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A process of Ray for each core of the machine would be one too many here.
    "RAY_num_workers_soft_limit": "1",
    "RAY_enable_worker_prestart": "0",
}
"""What only a lab sets: several Ray nodes share two cores."""

SOON = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "15",
}
"""Ray's own figures, shortened: a silent node is given up after about ten seconds."""


class RayMachines:
    """The hosts, and what their user types.

    Args:
        lab: without hosts yet.
        nodes: besides the head.
        environment: of every host: the store's address and keys, and what a test's workers read; what is empty is not set.
    """

    def __init__(self, lab: Lab, nodes: int, environment: Mapping[str, str]) -> None:
        self.lab = lab
        self.environment = {**SMALL_MACHINE, **SOON, "RAY_AUTH_MODE": "token", **environment}
        self.laptop = lab.add("laptop")
        self.laptop.environment["RAY_AUTH_MODE"] = "token"
        self.head = self.add("head")
        self.nodes = [self.add(f"node-{number}") for number in range(1, nodes + 1)]
        self._write_laptop()

    def add(self, name: str) -> Host:
        """A machine made ready as the user does it: the project, and for each login Ray's token mode and the store's keys."""
        host = self.lab.add(name)
        profile = host.home / ".profile"
        profile.touch(mode=0o600)
        set_ones = {name: value for name, value in self.environment.items() if value}
        profile.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in set_ones.items()))
        return host

    def _write_laptop(self) -> None:
        shutil.copy(self.lab.key, self.laptop.home / "key")
        self.configure(self.nodes)
        self.type("ray get-auth-token --generate")

    def configure(self, nodes: Sequence[Host]) -> None:
        """The committed ray_cluster.yaml, with this lab's machines in the places that a user fills in."""
        config = yaml.safe_load((PROJECT / "ray_cluster.yaml").read_text())
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [node.address for node in nodes]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/key"}
        config["min_workers"] = config["max_workers"] = len(nodes)
        (self.laptop.home / "ray_cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def type(self, command: str, timeout_s: float = 300) -> str:
        """Run a command of the project's environment on the laptop; what it printed."""
        done = self.laptop.run(f"source ~/ecgchat/.venv/bin/activate; {command}", timeout_s)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def up(self, options: str = "") -> str:
        """`ray up`, until all nodes are there."""
        return self.type(f"ray up --yes {options} ray_cluster.yaml")

    def join(self, host: Host) -> None:
        """Add a machine to a running cluster, which `ray up` does not do with machines like these: the token, and a node."""
        [_, start] = yaml.safe_load((PROJECT / "ray_cluster.yaml").read_text())["worker_start_ray_commands"]
        options = "-i ~/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        command = shlex.quote(f"bash --login -c {shlex.quote(f'export RAY_HEAD_IP={self.head.address}; {start}')}")
        self.type(
            f"rsync --mkpath --rsh 'ssh {options}' ~/.ray/auth_token root@{host.address}:.ray/auth_token"
            f" && ssh {options} root@{host.address} {command}"
        )

    def on_head(self, command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's environment on the head."""
        return self.head.run(f"cd ~/ecgchat; source .venv/bin/activate; {command}", timeout_s)

    def alive(self) -> set[str]:
        """Names of the hosts that Ray counts as alive."""
        done = self.on_head("python -m tests.lab.alive")
        assert done.returncode == 0, done.stdout
        addresses = json.loads(done.stdout.splitlines()[-1])
        return {name for name, host in self.lab.hosts.items() if host.address in addresses}

    def wait_for(self, names: set[str], timeout_s: float = 300) -> None:
        """Until exactly these hosts are alive."""
        wait(lambda: self.alive() == names, timeout_s, lambda: f"alive: {self.alive()}, expected {names}")


def wait(reached: Callable[[], bool], timeout_s: float, said: Callable[[], Any]) -> None:
    """Until something is so; an error with what `said` says if it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


def read(file: Path) -> str:
    """What is in a file, nothing where there is none."""
    return file.read_text() if file.exists() else ""
