"""A checkpoint for another number of workers: DeepSpeed's universal form, made once and committed beside the original.

    RUN/checkpoints/step-000120/<attempt>.universal/…      one folder a parameter: fp32 weights and optimiser moments
    RUN/checkpoints/step-000120/<attempt>.universal.json   the marker, last

ZeRO cuts flat buffers into as many parts as there are workers, so that its own files fit no other number; the universal
form holds whole parameters. It is named after the attempt that made the original, so that it never stands for another
one, and lies below the same step, so that it is removed with it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from cluster.errors import RunError
from cluster.markers import Marker, damage, download, read_marker, upload, write_marker
from shards.storage import Store

UNIVERSAL = ".universal"


def converted(checkpoints: Store, marker: Marker, zero_stage: int, local: Path) -> Marker:
    """The universal form of a checkpoint, converted now where it is not there yet. Called by one rank.

    Raises:
        RunError: DeepSpeed's converter failed.
    """
    folder = f"{marker.folder}{UNIVERSAL}"
    name = f"{folder}.json"
    if checkpoints.exists(name) and damage(checkpoints, made := read_marker(checkpoints, name)) is None:
        return made
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
    files = upload(checkpoints, whole, folder)
    universal = replace(marker, attempt=f"{marker.attempt}{UNIVERSAL}", files=files, universal=True)
    write_marker(checkpoints, name, universal)
    return universal
