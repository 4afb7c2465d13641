"""What a job would do, before any machine is taken: data, batch arithmetic, and the memory of one rank."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from cluster.memory import state_bytes
from ecgchat.models.coca import CocaModel
from ecgchat.models.memory import transformer_activation_bytes
from jobs.coca import CocaStage
from shards.loader import block_bytes
from shards.order import Block, rank_slice

GIB = 2**30


def describe_coca(stage: CocaStage) -> None:
    """Print the plan of a `coca` job, whose settings and data have been checked already."""
    job, workers = stage.job, stage.job.launch.workers
    order = job.data.loader.order
    batches = stage.steps_per_epoch()
    steps = job.train.steps or max(1, round(job.train.epochs * batches))
    slices = [rank_slice(order.global_batch, rank, workers) for rank in range(workers)]
    share = sorted({stop - start for start, stop in slices})
    with torch.device("meta"):
        model = CocaModel(stage.model_config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    per_rank = -(-order.global_batch // workers)
    states = state_bytes(parameters, job.train.engine, workers)
    bytes_each = 2 if job.train.engine.precision == "bf16" else 4
    activations = activation_bytes(stage, per_rank, bytes_each)
    lanes = -(-order.lanes // workers)
    block = lanes * block_bytes(Block(0, 0, 0, order.block), job.model.ecg.samples)
    engine, seen = job.train.engine, steps * order.global_batch / stage.training.index.num_rows
    uneven = "" if order.lanes % workers == 0 else f": not a multiple of {workers}, so that ranks read some lanes twice"
    rows = {
        "data": f"{stage.dataset.store.uri}, {stage.dataset.manifest['source']}, {job.model.ecg.sampling_rate_hz:g} Hz",
        "records": f"train {stage.training.index.num_rows}, validation {stage.validation.index.num_rows}",
        "batch": f"{order.global_batch} samples over {workers} workers: {' or '.join(map(str, share))} each, no accumulation",
        "steps": f"{steps}, {batches} an epoch, {seen:.1f} epochs",
        "lanes": f"{order.lanes}{uneven}",
        "parameters": f"{parameters / 1e6:.2f} M",
        "model, gradients, optimiser": f"{states / GIB:.2f} GiB a rank (ZeRO-{engine.zero_stage}, {engine.precision})",
        "activations": f"about {activations / GIB:.2f} GiB a rank",
        "read-ahead": f"about {block / GIB:.2f} GiB a rank",
        "started by": job.launch.by,
        "run": job.run.folder,
    }
    table = Table("", "", title=f"{stage.name}: dry run, nothing was started", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def activation_bytes(stage: CocaStage, samples: int, bytes_each: int) -> int:
    """Activations of one rank's share of a batch, kept for the backward pass."""
    config, model = stage.model_config, stage.job.model
    width, length = model.ecg.width, model.context_length
    ecg = transformer_activation_bytes(samples, 1 + model.ecg.patches, width, model.ecg.layers, bytes_each)
    text = transformer_activation_bytes(samples, length, width, config.text["num_hidden_layers"], bytes_each)
    decoder = transformer_activation_bytes(samples, length, width, 2 * model.decoder.layers, bytes_each)
    logits = 2 * samples * length * config.text["vocab_size"] * 4
    return ecg + text + decoder + logits
