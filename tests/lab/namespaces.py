"""Machines for tests: hosts in namespaces of this one, each with its own address, processes, /tmp and home, and an sshd.

    this machine (10.77.N.1) ─┐
    host (10.77.N.2) ─────────┼─ switch, a namespace that holds the bridge
    host (10.77.N.3) ─────────┘

Nothing outlives the process that made a lab: every namespace ends when the pipe to its first process does, and with the
switch's namespace go all links. Only the folder may stay after SIGKILL; the next lab removes it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster.local.servers import listens

PROJECT = Path(__file__).parents[2]
TOOLS = ("ip", "unshare", "nsenter", "mount", "/usr/sbin/sshd", "ssh-keygen", "rsync")
TEMPORARY = Path("/tmp")
PREFIX = "ecgchat-lab-"
START_S = 60

SWITCH = "ip link add lab type bridge && ip link set lab up && ip link set lo up && echo ready && read -r forever"

HOST = """
set -e
umask 022
home=$1 name=$2; shift 2
hostname "$name"
for file in passwd hosts; do mount --bind "$home/../$file" "/etc/$file"; done
for folder in /run /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
mkdir -m 755 /run/sshd
for shared in "$@"; do
    inside="$home/../tmp/${shared#/tmp/}"
    mkdir -p "$inside"; mount --bind "$shared" "$inside"
done
mount --rbind "$home/../tmp" /tmp
ip link set lo up
echo ready
/usr/sbin/sshd -D -e -f "$home/../sshd_config" 2>>"$home/../sshd.log" &
set +e
read -r forever
"""
"""The first process of a host: it lasts until its input ends, and takes in whatever loses its parent."""

SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/../key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 50
"""


def missing() -> str | None:
    """Why this machine cannot hold a lab, in words for a skipped test; None where it can."""
    if os.geteuid() != 0:
        return "a lab of network namespaces needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"a lab of network namespaces needs {', '.join(absent)} (Debian: iproute2 openssh-server rsync)"
    command = ["unshare", "--net", "--pid", "--mount", "--fork", "true"]
    trial = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"a lab needs namespaces: {trial.stderr.strip()}" if trial.returncode else None


class Lab:
    """A network of hosts.

    Attributes:
        folder: of the lab, seen by all hosts under the same path.
        key: the private ssh key that every host accepts.
        gateway: the address of this machine on the lab's network.
    """

    def __init__(self, folder: Path, shared: Sequence[Path]) -> None:
        self.folder = folder
        self.key = folder / "key"
        self.hosts: dict[str, Host] = {}
        # What lies below /tmp is seen by a host with its own /tmp only if it is shown there.
        paths = {path.resolve() for path in (PROJECT, Path(sys.prefix), folder, *shared)}
        self.shared = [str(path) for path in sorted(paths) if path.is_relative_to(TEMPORARY)]
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self.switch = Namespace(["--net"], SWITCH, [], folder / "switch.log")
        self.number = self._connect_this_machine()
        self.gateway = self.address(1)

    def address(self, last: int) -> str:
        """Of a machine of this lab's network."""
        return f"10.77.{self.number}.{last}"

    def _connect_this_machine(self) -> int:
        """The first number whose link is not there yet: two labs never share a network."""
        for number in range(1, 255):
            link = f"lab{number}"
            command = ["ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(self.switch.pid)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                run("ip", "address", "add", f"10.77.{number}.1/24", "dev", link)
                run("ip", "link", "set", link, "up")
                self.in_switch("ip link set uplink master lab up")
                return number
        raise RuntimeError("no number is free for another lab's network")

    def in_switch(self, command: str) -> None:
        """Run a command where the bridge is."""
        run("nsenter", "-t", str(self.switch.pid), "-n", "sh", "-c", command)

    def add(self, name: str) -> Host:
        """A new host, switched on."""
        host = Host(self, name, self.address(len(self.hosts) + 2))
        self.hosts[name] = host
        host.start()
        return host

    def close(self) -> None:
        """Everything off."""
        for host in self.hosts.values():
            host.namespace.end()
        self.switch.end()


class Host:
    """A machine of a lab.

    Attributes:
        home: of its one user, root.
    """

    def __init__(self, lab: Lab, name: str, address: str) -> None:
        self.lab, self.name, self.address = lab, name, address
        self.folder = lab.folder / name
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.environment: dict[str, str] = {}
        """More variables of the commands that tests start; logins read the home's `.profile` instead."""
        self._write_files()

    def _write_files(self) -> None:
        (self.folder / "tmp").mkdir(mode=0o1777)
        (self.folder / "passwd").write_text(
            f"root:x:0:0:root:{self.home}:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        # As Debian writes it: a machine's own name stands for loopback.
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        (self.folder / "sshd_config").write_text(SSHD.format(folder=self.folder))
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        self._lay_out_project()

    def _lay_out_project(self) -> None:
        """`~/ecgchat` as on a real machine: the project with its environment in `.venv`."""
        project = self.home / "ecgchat"
        project.mkdir()
        for entry in PROJECT.iterdir():
            if entry.name != ".venv":
                (project / entry.name).symlink_to(entry)
        (project / ".venv").symlink_to(sys.prefix)

    def start(self) -> None:
        """Switch it on: its disk is as it was left, its processes are new."""
        arguments = [str(self.home), self.name, *self.lab.shared]
        self.namespace = Namespace(["--net", "--mount", "--uts"], HOST, arguments, self.folder / "console.log")
        # The same hardware address at each start: its neighbours remember it.
        card = f"eth0 address 02:00:00:00:{self.lab.number:02x}:{int(self.address.rpartition('.')[2]):02x}"
        self.lab.in_switch(
            f"ip link add {self.link} type veth peer name {card} netns {self.namespace.pid}"
            f" && ip link set {self.link} master lab up"
        )
        run(*self.enter, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*self.enter, "ip", "link", "set", "eth0", "up")
        self._wait_for_ssh()

    def _wait_for_ssh(self) -> None:
        deadline = time.monotonic() + START_S
        while not listens(22, self.address):
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd of {self.name} does not answer: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.05)

    @property
    def link(self) -> str:
        """Its cable's end at the switch."""
        return f"to-{self.name}"[:15]

    @property
    def within(self) -> list[str]:
        """The words before a command that runs on this host with the variables of this process."""
        return ["nsenter", "-t", str(self.namespace.pid), "-m", "-n", "-p", "-u"]

    @property
    def enter(self) -> list[str]:
        """The words before a command that runs on this host, with a login's variables and none of this process's."""
        variables = {"HOME": str(self.home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **self.environment}
        return [*self.within, "env", "-i", "-C", str(self.home), *(f"{name}={value}" for name, value in variables.items())]

    def popen(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command in a login shell; what it says goes to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.enter, "bash", "-lc", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command in a login shell to its end; its output and errors together in `stdout`."""
        return subprocess.run(
            [*self.enter, "bash", "-lc", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def kill(self) -> None:
        """Pull the plug: every process is gone at once, and nobody is told, not even by the network."""
        self.cut_link()
        self.namespace.end()
        # The kernel takes its cable away a little later, which would be in the way of the next.
        self.lab.in_switch(f"ip link delete {self.link} 2>/dev/null || true")

    def cut_link(self) -> None:
        """Cut its cable: packets vanish, nobody is told."""
        self.lab.in_switch(f"ip link set {self.link} nomaster")

    def restore_link(self) -> None:
        """Mend its cable."""
        self.lab.in_switch(f"ip link set {self.link} master lab")


class Namespace:
    """A process in namespaces of its own that runs a shell script; all that it holds ends with it, and it with this process."""

    def __init__(self, kinds: Sequence[str], script: str, arguments: Sequence[str], log: Path) -> None:
        namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *kinds]
        command = [*namespaces, "bash", "-c", script, "lab", *arguments]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.process.kill()
            raise RuntimeError(f"{shlex.join(namespaces)}: {log.read_text().strip()}")
        [first] = psutil.Process(self.process.pid).children()
        self.pid: int = first.pid

    def end(self) -> None:
        """SIGKILL to its first process, and by that to all."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(START_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def lab(shared: Sequence[Path] = ()) -> Iterator[Lab]:
    """A lab while the context lasts.

    Args:
        shared: folders that all hosts are to see under the same path, besides the project and its environment.
    """
    remove_stale()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=TEMPORARY))
    folder.chmod(0o755)
    try:
        made = Lab(folder, shared)
        try:
            yield made
        finally:
            made.close()
    finally:
        remove(folder)


def remove_stale() -> None:
    """Folders of labs whose process is gone."""
    for folder in TEMPORARY.glob(f"{PREFIX}*-*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(PREFIX).split("-")[0])):
            remove(folder)


def remove(folder: Path) -> None:
    """A folder; what was mounted below it was mounted in namespaces that are gone, or is another lab's."""
    deadline = time.monotonic() + START_S
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str) -> None:
    """A command that has to succeed.

    Raises:
        RuntimeError: it did not; with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
