"""Where a rank runs: on a small disk, with little memory, by a clock that can be set. What this needs, a machine may lack."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

DISK_BYTES = 24 * 2**20
MEMORY_BYTES = 512 * 2**20
"""Beyond what the rank was forked with."""
NEW_MOUNTS = 0x00020000
PRIVATE_BELOW = 0x44000
"""MS_REC | MS_PRIVATE: what is mounted here is seen nowhere else."""
MEMORY = Path("/sys/fs/cgroup/memory")
CLOCK = "ECGCHAT_TEST_CLOCK"
"""Names the file that holds how far the clock is off, as a double in seconds."""
CLOCK_SOURCE = Path(__file__).with_name("clock.c")

libc = ctypes.CDLL(None, use_errno=True)


def small_disk() -> None:
    """Mount a small disk over this process's folder for temporary files; it is gone with the process."""
    _checked(libc.unshare(NEW_MOUNTS))
    _checked(libc.mount(b"none", b"/", None, PRIVATE_BELOW, None))
    _checked(libc.mount(b"tmpfs", os.environ["TMPDIR"].encode(), b"tmpfs", 0, f"size={DISK_BYTES}".encode()))


def fill(folder: Path) -> None:
    """Leave nothing of a disk."""
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def no_mounts() -> str:
    """Why no disk can be mounted."""
    return "" if os.geteuid() == 0 and _in_a_child(small_disk) else "mounting wants root"


def little_memory() -> None:
    """Put this process into a memory group of its own."""
    group = _memory_group() / f"ecgchat-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def no_memory_limit() -> str:
    """Why no memory group can be made."""
    try:
        made = _memory_group() / f"ecgchat-test-try-{os.getpid()}"
        made.mkdir()
        made.rmdir()
    except OSError:
        return "memory groups (cgroup v1) want root"
    return ""


def remove_memory_groups() -> None:
    """Those whose processes have ended."""
    for group in _memory_group().glob("ecgchat-test-*"):
        with suppress(OSError):
            group.rmdir()


def no_compiler() -> str:
    """Why the clock cannot be set."""
    return "" if shutil.which("cc") else "needs a C compiler"


def clock_library(folder: Path) -> Path:
    """What a process loads first to have a clock of its own."""
    library = folder / "clock.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, CLOCK_SOURCE, "-ldl"], check=True)
    return library


def set_clock(file: Path, seconds: float) -> None:
    """How far the clock of the processes that read a file is off."""
    file.write_bytes(struct.pack("d", seconds))


def _memory_group() -> Path:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if line.split(":", 2)[1] == "memory"), "")
    return MEMORY / own.lstrip("/")


def _in_a_child(deed) -> bool:
    """Whether something can be done, tried where it has no effect."""
    pid = os.fork()
    if pid == 0:
        try:
            os.environ["TMPDIR"] = "/tmp"
            deed()
            os._exit(0)
        except BaseException:  # whatever it is, it cannot be done
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _checked(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
