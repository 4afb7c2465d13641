"""What a job would do, before any machine is taken: data, batch arithmetic, and the memory of one rank."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from cluster.memory import frozen_bytes, state_bytes
from ecgchat.models.coca import CocaModel
from ecgchat.models.memory import transformer_activation_bytes
from jobs.coca import CocaJob, CocaStage
from jobs.language import LanguageJob, LanguageStage, attention_backend
from shards.order import rank_slice
from shards.stream import read_ahead_bytes

GIB = 2**30


def describe_coca(stage: CocaStage) -> None:
    """Print the plan of a `coca` job, whose settings and data have been checked already."""
    job = stage.job
    with torch.device("meta"):
        model = CocaModel(stage.model_config)
    order, workers = job.data.loader.order, job.launch.workers
    bytes_each = 2 if job.train.engine.precision == "bf16" else 4
    own = {
        "data": _data(stage, job.model.ecg.sampling_rate_hz),
        "activations": f"about {activation_bytes(stage, -(-order.global_batch // workers), bytes_each) / GIB:.2f} GiB a rank",
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _print_plan(stage, job, parameters, frozen=0, own=own)


def describe_language(stage: LanguageStage) -> None:
    """Print the plan of an `align` or `instruct` job, whose settings, data and models have been checked already."""
    job = stage.settings
    model = stage.build_model()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trained
    ecg, context = stage.reader_config.tokens_per_ecg, job.data.context_length
    own = {
        "data": _data(stage, stage.ecg.sampling_rate_hz),
        "LLM": f"{stage.llm_folder}, {stage.llm_config.model_type}, attention {attention_backend(job.attention)}",
        "context": f"{context} tokens, {ecg} of them for each ECG",
    }
    _print_plan(stage, job, trained, frozen, own)


def _print_plan(
    stage: CocaStage | LanguageStage, job: CocaJob | LanguageJob, trained: int, frozen: int, own: dict[str, str]
) -> None:
    engine, workers, order = job.train.engine, job.launch.workers, job.data.loader.order
    batches = stage.steps_per_epoch()
    steps = job.train.steps or max(1, round(job.train.epochs * batches))
    slices = [rank_slice(order.global_batch, rank, workers) for rank in range(workers)]
    share = sorted({stop - start for start, stop in slices})
    uneven = "" if order.lanes % workers == 0 else f": not a multiple of {workers}, so that ranks read some lanes twice"
    parts = "no accumulation" if engine.gradient_accumulation == 1 else f"in {engine.gradient_accumulation} micro-batches"
    states = state_bytes(trained, engine, workers) + frozen_bytes(frozen, engine, workers)
    rows = {
        "data": own.pop("data"),
        "records": f"train {len(stage.training)}, validation {len(stage.validation)}",
        "batch": f"{order.global_batch} samples over {workers} workers: {' or '.join(map(str, share))} each, {parts}",
        "steps": f"{steps}, {batches} an epoch, {steps / batches:.1f} epochs",
        "lanes": f"{order.lanes}{uneven}",
        "parameters": f"{trained / 1e6:.2f} M" + (f" trained, {frozen / 1e6:.2f} M frozen" if frozen else ""),
        "read-ahead": f"about {read_ahead_bytes(stage.training, order, workers) / GIB:.2f} GiB a rank where shards are remote",
        "model, gradients, optimiser": f"{states / GIB:.2f} GiB a rank (ZeRO-{engine.zero_stage}, {engine.precision})",
        **own,
        "started by": job.launch.by,
        "run": job.run.folder,
    }
    table = Table("", "", title=f"{stage.name}: dry run, nothing was started", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _data(stage: CocaStage | LanguageStage, sampling_rate_hz: float) -> str:
    sets = " + ".join(f"{dataset.store.uri}, {dataset.manifest['source']}" for dataset in stage.datasets)
    return f"{sets}, {sampling_rate_hz:g} Hz"


def activation_bytes(stage: CocaStage, samples: int, bytes_each: int) -> int:
    """Activations of one rank's share of a batch, kept for the backward pass."""
    config, model = stage.model_config, stage.job.model
    width, length = model.ecg.width, model.context_length
    ecg = transformer_activation_bytes(samples, 1 + model.ecg.patches, width, model.ecg.layers, bytes_each)
    text = transformer_activation_bytes(samples, length, width, config.text["num_hidden_layers"], bytes_each)
    decoder = transformer_activation_bytes(samples, length, width, 2 * model.decoder.layers, bytes_each)
    logits = 2 * samples * length * config.text["vocab_size"] * 4
    return ecg + text + decoder + logits
