"""A checkpoint for another number of workers: DeepSpeed's universal form, made once and committed beside the original.

    RUN/checkpoints/step-000120.universal.json          the marker, last
    RUN/checkpoints/step-000120/universal-<attempt>/…   one folder a parameter: fp32 weights and optimiser moments

ZeRO cuts flat buffers into as many parts as there are workers, so that its own files fit no other number; the universal
form holds whole parameters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cluster.errors import RunError
from cluster.markers import Marker, download, file_sha256, read_marker
from shards.storage import Store

UNIVERSAL_END = ".universal.json"


def converted(checkpoints: Store, marker: Marker, zero_stage: int, attempt: str, local: Path) -> Marker:
    """The universal form of a checkpoint, converted now where it is not there yet. Called by one rank.

    Raises:
        RunError: DeepSpeed's converter failed.
    """
    name = f"{marker.name}{UNIVERSAL_END}"
    if checkpoints.exists(name):
        return read_marker(checkpoints, name)
    parts, whole = local / "parts", local / "universal"
    download(checkpoints, marker, parts)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--num_extract_workers", "1"]
    command += ["--num_merge_workers", "1", "--input_folder", str(parts / "state"), "--output_folder", str(whole / "state")]
    if zero_stage < 3:
        # The converter wants a description of Megatron's layers, which other models do not write.
        command.append("--inject_missing_state")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"checkpoint {marker.name}: DeepSpeed cannot convert it for another number of workers ({cause})")
    folder = f"{marker.name}/universal-{attempt}"
    files = {}
    for path in sorted(path for path in whole.rglob("*") if path.is_file()):
        file = path.relative_to(whole).as_posix()
        files[file] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        checkpoints.upload(path, f"{folder}/{file}")
    universal = Marker(marker.step, f"universal-{attempt}", marker.world_size, files, marker.content, universal=True)
    checkpoints.put(name, json.dumps(universal.__dict__, indent=1).encode())
    return universal
