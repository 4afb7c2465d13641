"""Turn a run's committed checkpoint into a plain model folder: safetensors, configuration, tokenizer, model card.

ecgchat export s3://bucket/runs/demo --out s3://bucket/exports/demo
model = CocaModel.from_pretrained("exports/demo")              # a run of coca
model, tokenizer = load_chat("exports/demo")                   # a run of align or instruct
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from cluster.errors import RunError
from cluster.launch.process import prepare_libraries
from cluster.markers import Marker, best_steps, committed, download
from jobs.config import parse
from jobs.model_card import model_card
from shards.storage import Store

STAGES = {"coca": "jobs.coca", "align": "jobs.align", "instruct": "jobs.instruct"}
"""Stage of a run → module with `write_export(settings, record, weights, folder)`."""


@dataclass(frozen=True)
class ExportJob:
    """Write the model of a run's checkpoint as a `save_pretrained` folder."""

    run: str
    """URI of the run's folder."""
    out: str
    """URI of the folder to write."""
    step: int | None = None
    """Which committed checkpoint; null takes the best by validation loss, or the newest where none was validated."""


def choose(markers: list[Marker], step: int | None, run: str) -> Marker:
    """The checkpoint to export.

    Raises:
        RunError: there is none, or not that one.
    """
    if not markers:
        raise RunError(f"{run}: no committed checkpoint; check the URI, or train longer than train.checkpoint.every_steps")
    wanted = step if step is not None else max(best_steps(markers), default=markers[-1].step)
    chosen = next((marker for marker in markers if marker.step == wanted), None)
    if chosen is None:
        raise RunError(f"{run}: no committed checkpoint of step {wanted}; there are {', '.join(str(m.step) for m in markers)}")
    return chosen


def trained_weights(folder: Path, zero_stage: int) -> dict[str, Tensor]:
    """Full fp32 weights of all that is trained, from the files of all ranks of a checkpoint, whatever the ZeRO stage.

    They are put together from the optimiser's partitions. A state dictionary taken from a running ZeRO-3 model would hold
    empty tensors instead, for every weight above its persistence threshold.

    Args:
        folder: holds `state/`, as DeepSpeed wrote it.
        zero_stage: of the run.
    """
    if zero_stage == 0 and not list((folder / "state").glob("*_optim_states.pt")):
        state = torch.load(folder / "state" / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
        return {name: weight.float() for name, weight in state["module"].items()}
    prepare_libraries()
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    # It prints its own progress, tensor by tensor.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return dict(get_fp32_state_dict_from_zero_checkpoint(str(folder), tag="state", exclude_frozen_parameters=True))


def export(job: ExportJob) -> Marker:
    """Write the export and return the checkpoint that it was made from."""
    run = Store(job.run)
    marker = choose(committed(run.child("checkpoints")), job.step, run.uri)
    record = json.loads(run.get("config.json"))
    stage = importlib.import_module(STAGES[record["stage"]])
    with tempfile.TemporaryDirectory(prefix="ecgchat-export-") as scratch:
        parts, folder = Path(scratch, "checkpoint"), Path(scratch, "export")
        download(run.child("checkpoints"), marker, parts)
        disable_progress_bar()
        zero_stage = marker.content["settings"]["train"]["engine"]["zero_stage"]
        stage.write_export(marker.content["settings"], record, trained_weights(parts, zero_stage), folder)
        (folder / "README.md").write_text(model_card(record, marker))
        (folder / "training.json").write_text(json.dumps({"checkpoint": marker.name, **record}, indent=1))
        store = Store(job.out)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            store.upload(path, path.relative_to(folder).as_posix())
    return marker


def add_results(job: ExportJob, marker: Marker, rows: list[str]) -> None:
    """Write the model card of an export again, with what was measured on it: rows of a Markdown table."""
    record = json.loads(Store(job.run).get("config.json"))
    Store(job.out).put("README.md", model_card(record, marker, rows).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Export a run's model."""
    job = parse(ExportJob, arguments, "ecgchat export")
    marker = export(job)
    print(f"{marker.name} of {job.run} exported to {job.out}")
