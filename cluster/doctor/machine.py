"""This machine: compiler, versions, shared memory, open files, room on its disks."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from cluster.doctor.findings import ChildError, Finding, ask_child, fail, ok, size, warn
from shards.storage import user_cache

PROJECT = Path(__file__).parents[2]
GIB = 2**30
BUILD_S = 300.0
SHARED_LEAST = GIB
"""Below it NCCL and Ray's object store fail; Docker gives 64 MiB unless it is told otherwise."""
SHARED_OF_MEMORY = 0.3
"""What Ray's object store takes of the memory by default; with less it goes to /tmp."""
OPEN_FILES = 65536
"""What Ray advises for a head; each worker, connection and shard is one."""
ROOM_LEAST, ROOM_GOOD = 2 * GIB, 20 * GIB
FULL = 0.95
"""Ray gives a node no work whose disk is fuller (`local_fs_capacity_threshold`)."""


def python() -> list[Finding]:
    """The interpreter."""
    found = f"{sys.version.split()[0]} in {sys.prefix}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return [ok("Python", found)]
    return [fail("Python", found, "make the environment with Python 3.11 or 3.12: make environment PYTHON=python3.12")]


def compiler() -> list[Finding]:
    """What DeepSpeed compiles its CPU collectives with."""
    findings = []
    program = shutil.which(os.environ.get("CXX", "c++"))
    if program is None:
        findings.append(
            fail("C++ compiler", f"no {os.environ.get('CXX', 'c++')} on PATH", "install one (Debian: g++ make), or set CXX")
        )
    else:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
        findings.append(ok("C++ compiler", (said.stdout.splitlines() or [program])[0]))
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if header.is_file():
        findings.append(ok("Python headers", str(header)))
    else:
        findings.append(fail("Python headers", f"{header} is absent", "install them (Debian: python3-dev)"))
    return findings


def deepspeed_op() -> list[Finding]:
    """Whether DeepSpeed's own code can be built, or has been; a fresh build takes a minute."""
    name = "DeepSpeed op"
    try:
        answer = ask_child("cluster.doctor.build", limit_s=BUILD_S)
    except ChildError as error:
        advice = "mend what it names (compiler, ninja, headers, TORCH_EXTENSIONS_DIR): python -m cluster.launch.precompile"
        return [fail(name, str(error), advice)]
    return [ok(name, answer["found"])]


def versions(constraints: Path = PROJECT / "constraints.txt") -> list[Finding]:
    """What is installed, against the versions that are known to work together."""
    name = "versions"
    if not constraints.is_file():
        return [warn(name, f"{constraints} is absent", "run from the project's folder, whose constraints.txt names them")]
    pinned = dict(line.split("==") for line in constraints.read_text().splitlines() if "==" in line and line[0] != "#")
    needed = {Requirement(text).name for text in metadata.requires("ecgchat") or () if "extra ==" not in text}
    missing, other = [], []
    for package, version in pinned.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing += [package] if package in needed else []
            continue
        # 2.13.0+cpu and 2.13.0+cu130 are builds of one version.
        if Version(installed).public != Version(version).public:
            other.append(f"{package} {installed} for {version}")
    advice = "pip install --constraint constraints.txt --editable ."
    if missing:
        return [fail(name, f"not installed: {', '.join(missing)}", advice)]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        return [warn(name, f"{', '.join(other[:5])}{more}", f"{advice}; the same on every machine of a run")]
    return [ok(name, f"all {len(pinned)} of {constraints.name}")]


def shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Where NCCL, the loaders and Ray's object store share memory between processes."""
    if not folder.is_dir():
        return [fail("shared memory", f"{folder} is absent", "mount a tmpfs there")]
    room, memory = shutil.disk_usage(folder), psutil.virtual_memory().total
    found = f"{size(room.free)} of {size(room.total)} free in {folder}"
    advice = "give it more: docker --shm-size=16g, Kubernetes an emptyDir with medium: Memory, else mount -o remount,size=50%"
    if room.free < SHARED_LEAST:
        return [fail("shared memory", found, advice)]
    if room.total < SHARED_OF_MEMORY * memory:
        return [warn("shared memory", f"{found}: Ray's object store wants {size(SHARED_OF_MEMORY * memory)}", advice)]
    return [ok("shared memory", found)]


def open_files() -> list[Finding]:
    """How many files and connections a process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    words = ["unlimited" if limit == unlimited else str(limit) for limit in (soft, hard)]
    found = f"{words[0]} (ulimit -n), at most {words[1]}"
    if soft == unlimited or soft >= OPEN_FILES:
        return [ok("open files", found)]
    if hard == unlimited or hard >= OPEN_FILES:
        return [warn("open files", found, f"ulimit -n {OPEN_FILES} before ray start or sbatch")]
    return [warn("open files", found, f"ask for {OPEN_FILES} (limits.conf: nofile; docker --ulimit nofile={OPEN_FILES})")]


def disks() -> list[Finding]:
    """Room for scratch (Ray, checkpoints on their way) and for the cache (shards, models)."""
    places = {
        "disk of TMPDIR": (Path(tempfile.gettempdir()), "set TMPDIR to a larger local disk"),
        "disk of the cache": (user_cache(), "set XDG_CACHE_HOME to a larger disk"),
    }
    return [_disk(name, folder, advice) for name, (folder, advice) in places.items()]


def _disk(name: str, folder: Path, advice: str) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        return fail(name, f"{folder} cannot be written", advice)
    room = shutil.disk_usage(there)
    found = f"{size(room.free)} of {size(room.total)} free in {folder}"
    if room.free < ROOM_LEAST:
        return fail(name, found, f"make room, or {advice}")
    if room.free < ROOM_GOOD or room.free < (1 - FULL) * room.total:
        return warn(name, f"{found}; Ray gives no work to a node whose disk is {FULL:.0%} full", f"make room, or {advice}")
    return ok(name, found)
