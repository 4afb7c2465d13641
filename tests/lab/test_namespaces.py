"""Hosts in namespaces are machines of their own, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.local.servers import listens
from tests.lab import namespaces
from tests.lab.namespaces import PROJECT, Lab, lab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing())),
]

ABANDONED = """
from tests.lab.namespaces import lab
import time
with lab() as made:
    host = made.add("abandoned")
    host.run("(setsid sleep 1000 >/dev/null 2>&1 &)")
    print(made.folder, made.number, flush=True)
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    """Hosts `first` and `second`."""
    with lab() as made:
        made.add("first")
        made.add("second")
        yield made


def ssh(made: Lab, name: str, command: str) -> str:
    """What a command on one host prints that the other sends by ssh."""
    key = f"ssh -i {made.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    done = made.hosts["first"].run(f"{key} root@{made.hosts[name].address} {command!r}")
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def test_a_host_has_its_own_name_home_folders_and_processes(two):
    assert ssh(two, "second", "hostname; echo ~; ls ~/ecgchat/jobs/cli.py").split() == [
        "second",
        str(two.hosts["second"].home),
        f"{two.hosts['second'].home}/ecgchat/jobs/cli.py",
    ]
    ssh(two, "second", "touch /tmp/here /dev/shm/here")
    assert two.hosts["first"].run("ls /tmp/here /dev/shm/here").returncode != 0
    assert not Path("/dev/shm/here").exists()
    assert str(os.getpid()) not in ssh(two, "second", "ps -eo pid").split()


def test_a_cut_cable_is_silence_until_it_is_mended(two):
    second = two.hosts["second"]
    second.cut_link()
    assert not listens(22, second.address)
    second.restore_link()
    assert listens(22, second.address)


def test_a_host_without_power_keeps_its_disk_and_loses_its_processes(two):
    second = two.hosts["second"]
    second.run("touch ~/kept; (setsid sleep 4321 >/dev/null 2>&1 &)")
    second.kill()
    assert not listens(22, second.address)
    second.start()
    assert ssh(two, "second", "ls ~/kept; pgrep -f '[s]leep 4321' || echo none").split()[-1] == "none"


def test_nothing_outlives_a_test_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", ABANDONED], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        folder, number = test.stdout.readline().split()
        test.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while left := [found for process in psutil.process_iter() if folder in " ".join(found := words(process))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert Path(folder).exists()
    with lab():
        assert not Path(folder).exists()
    while Path(f"/sys/class/net/lab{number}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def words(process: psutil.Process) -> list[str]:
    """Of its command line; none where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
