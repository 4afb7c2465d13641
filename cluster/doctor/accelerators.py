"""GPUs of this machine, and whether they, or processes on CPUs, reach one another."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from cluster.doctor.findings import ChildError, Finding, ask_child, fail, ok, size, warn

REDUCE_S = 90.0
BUSY = 0.1
"""Share of a GPU's memory that is somebody else's before it is worth a word."""
UNREACHED = {
    "nccl": "look again with NCCL_DEBUG=INFO; name the interface (NCCL_SOCKET_IFNAME), or mend NVLink (nvidia-fabricmanager)",
    "gloo": "name the interface: GLOO_SOCKET_IFNAME=lo on one machine",
}


def gpus() -> list[Finding]:
    """Driver, GPUs, their memory, and NCCL."""
    import torch

    if not torch.cuda.is_available():
        return [_without(torch.version.cuda)]
    findings = [ok("GPU driver", f"{_driver()}; torch {torch.__version__} with CUDA {torch.version.cuda}")]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}, {size(free)} of {size(total)} free"
        if free < (1 - BUSY) * total:
            findings.append(warn(f"GPU {index}", found, "somebody else's process holds the rest: see nvidia-smi"))
        else:
            findings.append(ok(f"GPU {index}", found))
    return [*findings, ok("NCCL", ".".join(map(str, torch.cuda.nccl.version())))]


def _without(cuda: str | None) -> Finding:
    """What it means that torch sees no GPU."""
    if not Path("/dev/nvidiactl").exists():
        return ok("GPU", "none: training runs on CPUs, with gloo")
    if cuda is None:
        return fail(
            "GPU", "there is one, and torch is built for CPUs", "install torch's build for CUDA, as pytorch.org names it"
        )
    return fail(
        "GPU", f"there is one, and torch (CUDA {cuda}) does not see it", "update the driver, or unset CUDA_VISIBLE_DEVICES"
    )


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not answer"
    return f"driver {(said.splitlines() or ['of unknown version'])[0]}"


def all_reduce() -> list[Finding]:
    """A sum over a process for each GPU, or over two on CPUs: the collective that every step of training waits for."""
    import torch

    world, backend = (torch.cuda.device_count(), "nccl") if torch.cuda.is_available() else (2, "gloo")
    name = f"all-reduce ({backend})"
    if world < 2:
        return [ok(name, "one GPU: there is nobody to talk to")]
    try:
        answer = ask_child("cluster.doctor.collective", str(world), backend, limit_s=REDUCE_S)
    except (ChildError, json.JSONDecodeError) as error:
        return [fail(name, f"between {world} processes of this machine: {error}", UNREACHED[backend])]
    rate = answer["bytes"] / answer["seconds"]
    return [ok(name, f"{world} processes, {size(answer['bytes'])} in {answer['seconds'] * 1e3:.1f} ms ({size(rate)}/s)")]
