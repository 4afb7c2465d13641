"""What the tests of `align` and `instruct` run on worker processes: several runs, or several first steps, one after another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import cluster.loop
from cluster.engine import build_engine
from cluster.launch.process import join_deepspeed
from cluster.loop import backward, global_counts, train
from cluster.world import World
from jobs.align import AlignJob, AlignStage
from jobs.config import from_settings
from jobs.instruct import InstructJob, InstructStage
from shards.storage import Store

KINDS = {"align": (AlignJob, AlignStage), "instruct": (InstructJob, InstructStage)}

Report = Callable[[dict[str, Any]], None]


def stage_of(settings: dict[str, Any]) -> tuple[Any, Any]:
    """Job and stage of settings, whichever of the two they are for."""
    kind, make_stage = KINDS["align" if "encoder" in settings else "instruct"]
    job = from_settings(kind, settings)
    return job, make_stage(job)


def first_steps(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """Loss and gradients of the first step of each job in `jobs`, and how many places of ECGs each rank had in it."""
    from deepspeed.utils import safe_get_full_grad

    join_deepspeed()
    world = World.join()
    results = {}
    for name, of_job in settings["jobs"].items():
        job, stage = stage_of(of_job)
        torch.manual_seed(0)
        model = stage.build_model()
        for parameter in model.parameters():
            # Adapters begin as nothing, and half of their gradients would be nothing too.
            if parameter.requires_grad and parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.05)
        engine = build_engine(model, job.train.engine, job.train.optimizer, 1, world)
        data = stage.training_data(world, None)
        batch = next(data)
        data.close()
        counts = global_counts(stage, batch, world)
        loss = torch.zeros(())
        for micro_batch in batch.micro_batches:
            terms = stage.terms(engine, micro_batch, world)
            loss += terms["answer"].total.detach()
            backward(engine, terms, counts, world)
            if micro_batch is batch.micro_batches[-1]:
                learning = {name: weight for name, weight in engine.module.named_parameters() if weight.requires_grad}
                gradients = {name: safe_get_full_grad(weight).clone() for name, weight in learning.items()}
            engine.step()
        engine.destroy()
        places: list[Any] = [None] * world.size
        dist.all_gather_object(places, sum(int(micro_batch.ecg_places.sum()) for micro_batch in batch.micro_batches))
        results[name] = {"loss": float(world.sum(loss) / counts["answer"]), "gradients": gradients, "places": places}
    if world.main:
        torch.save(results, settings["out"])
    return {}


def whole_runs(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """Each job in `jobs` from its newest checkpoint to its end; what its engine holds then goes to `RUN/live.pt`."""
    import deepspeed

    join_deepspeed()
    engines = []

    def remembered(*arguments: Any, **named: Any) -> Any:
        engines.append(build_engine(*arguments, **named))
        return engines[-1]

    cluster.loop.build_engine = remembered
    ends = {}
    for name, of_job in settings["jobs"].items():
        job, stage = stage_of(of_job)
        plain = json.loads(json.dumps(asdict(job)))
        ends[name] = asdict(train(stage, job.train, Store(job.run.folder), job.run.name, plain, on_report))
        trained = {name: weight for name, weight in engines[-1].module.named_parameters() if weight.requires_grad}
        parts = {name: tuple(weight.shape) for name, weight in trained.items()}
        zero_stage = job.train.engine.zero_stage
        with deepspeed.zero.GatheredParameters(list(trained.values()), enabled=zero_stage == 3):
            whole = {name: weight.detach().clone() for name, weight in trained.items()}
        if dist.get_rank() == 0:
            torch.save({"parts": parts, "whole": whole}, Path(job.run.folder, "live.pt"))
    return ends
