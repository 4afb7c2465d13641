"""Evaluate an export on held-out patients: an ECG-CoCa here, an ECG-Chat by `jobs.eval_chat`.

    ecgchat eval s3://bucket/exports/coca --shards s3://bucket/shards --out results.json
    ecgchat eval s3://bucket/exports/instruct --shards s3://bucket/dialogues --out results.json

ECG-CoCa: retrieval both ways, and findings without a classifier.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from cluster.world import local_device
from ecgchat.evaluation import retrieval, zero_shot
from ecgchat.models.coca import CocaModel
from ecgchat.models.ecg_reader import EcgReaderConfig
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.models.signal import counts_to_millivolts
from ecgchat.prompts import FINDINGS, prompts
from ecgchat.text import encode, load_tokenizer
from jobs.config import parse
from jobs.eval_chat import evaluate_chat, show_chat
from jobs.folders import local_source, reading
from shards.dataset import ShardSet
from shards.loader import EcgLoader, EcgWindow, LoaderConfig
from shards.order import OrderConfig
from shards.record import digest


@dataclass(frozen=True)
class EvalJob:
    """Evaluate an exported model on the records of one split."""

    model: str
    """Folder or URI of an export."""
    shards: str
    """URI of the data set: ECGs for an export of coca, conversations for one of align or instruct."""
    split: str = "test"
    records: int = 1000
    """Of conversations, samples at most."""
    batch: int = 64
    out: str | None = None
    """JSON file for the results."""


@dataclass(frozen=True)
class Embedded:
    """A split as the model sees it."""

    ecg: Tensor
    """(records, latent width), normalised."""
    text: Tensor
    """(records, latent width), normalised: each record's report."""
    prompts: dict[str, Tensor]
    """Finding → (latent width,), normalised."""
    records: list[dict[str, Any]]
    keys: list[str]


def embed(job: EvalJob) -> Embedded:
    """Every ECG and report of the split, and the prompt of every finding, in the space that they share.

    Raises:
        DatasetError: another sampling rate than the model's, or an empty split.
    """
    disable_progress_bar()
    folder = local_source(job.model)
    device = local_device()
    with reading(job.model, "exported model"):
        model = CocaModel.from_pretrained(folder).eval().to(device)
        tokenizer = load_tokenizer(folder)
    ecg_config = EcgTowerConfig(**model.config.ecg)
    data = ShardSet.open(job.shards)
    data.require_kind("ecg", "eval")
    data = data.select(job.split)
    data.require_rate(ecg_config.sampling_rate_hz, "eval")
    context_length = model.text.encoder.config.max_position_embeddings
    order = OrderConfig(global_batch=min(job.batch, data.index.num_rows), shuffle=False, drop_tail=False)
    loader = EcgLoader(data, LoaderConfig(order), EcgWindow(ecg_config.duration_s))
    ecgs, texts, records, keys = [], [], [], []
    with torch.no_grad():
        for batch in track(loader.take(loader.batches), "evaluating", loader.batches, transient=True):
            real = [i for i, key in enumerate(batch.keys) if key]
            ecg = torch.from_numpy(batch.ecg[real]).to(device)
            scale = torch.from_numpy(batch.mv_per_lsb[real]).to(device)
            reports = [batch.records[i].get("report") or "" for i in real]
            ecgs.append(model.encode_ecg(counts_to_millivolts(ecg, scale)).cpu())
            texts.append(model.encode_text(encode(tokenizer, reports, context_length).to(device)).cpu())
            records += [batch.records[i] for i in real]
            keys += [batch.keys[i] for i in real]
        directions = {
            code: F.normalize(
                model.encode_text(encode(tokenizer, prompts(code), context_length).to(device)).mean(0), dim=0
            ).cpu()
            for code in FINDINGS
        }
    return Embedded(torch.cat(ecgs), torch.cat(texts), directions, records, keys)


def measure(split: Embedded) -> dict[str, dict[str, Any]]:
    """Name of a measure → its value beside its chance."""
    labels = {code: [record["labels"].get(code) for record in split.records] for code in split.prompts}
    found = zero_shot(split.ecg, split.prompts, labels)
    results: dict[str, dict[str, Any]] = dict(
        retrieval(split.ecg, split.text, [digest(record.get("report") or "") for record in split.records])
    )
    return results | {f"zero_shot_auroc_{name}": row for name, row in found.items()}


def show(results: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the results as a table."""
    table = Table("measure", "value", "chance", "positive")
    for name, row in results.items():
        table.add_row(name, f"{row['value']:.3f}", f"{row['chance']:.3f}", str(row.get("positive", "")))
    console.print(table)


def coca_card_rows(results: dict[str, dict[str, Any]]) -> list[str]:
    """The results as rows of a Markdown table."""
    head = ["| on held-out patients | value | chance |", "|---|---|---|"]
    return head + [f"| {name} | {row['value']:.3f} | {row['chance']:.3f} |" for name, row in results.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate an export and print the table."""
    job = parse(EvalJob, arguments, "ecgchat eval")
    with reading(job.model, "exported model"):
        kind = AutoConfig.from_pretrained(local_source(job.model)).model_type
    if kind == EcgReaderConfig.model_type:
        results = evaluate_chat(job.model, job.shards, job.split, job.records, job.batch).rows
        show_chat(results, Console())
    else:
        results = measure(embed(job))
        show(results, Console())
    if job.out:
        Path(job.out).write_text(json.dumps(results, indent=1))
