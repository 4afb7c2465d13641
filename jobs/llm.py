"""Make a small LLM from the conversations of training patients alone, for where no pretrained one is at hand.

    ecgchat llm --conversations s3://bucket/reports,s3://bucket/dialogues --out s3://bucket/llm

In what it reads, the answers stand where the ECG would, in any order: so it learns to look there for what it is asked.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from transformers.utils.logging import disable_progress_bar

from cluster import metrics
from cluster.launch.process import prepare_libraries
from ecgchat.conversation import tokenise
from ecgchat.small_llm import SmallLlmConfig, build_small_llm, train_chat_tokenizer, train_small_llm
from jobs.config import ConfigError, parse
from shards.dataset import ShardSet
from shards.record import ECG_MARK
from shards.storage import Store

Conversation = list[dict[str, str]]

WITHOUT = 0.1
"""Share of the conversations that are read with nothing in the ECG's place, so that the LLM can speak of none too."""


@dataclass(frozen=True)
class LlmJob:
    """Make a small LLM and its tokenizer from the training split of conversation data sets."""

    conversations: str
    """URIs of data sets that `ecgchat shards conversations` wrote, joined by commas."""
    out: str
    """URI of the folder to write."""
    llm: SmallLlmConfig = field(default_factory=SmallLlmConfig)
    threads: int = 0
    """Threads of the CPU kernels; 0 leaves torch's choice."""


def make_llm(job: LlmJob) -> dict[str, Any]:
    """Train the LLM, write it with its tokenizer and `metrics.jsonl`, and return what it is.

    Raises:
        ConfigError: the data sets hold no conversation.
        DatasetError: one of them is no conversation data set, or has no training split.
    """
    prepare_libraries()
    disable_progress_bar()
    if job.threads:
        torch.set_num_threads(job.threads)
    records = [record for uri in job.conversations.split(",") for record in training_records(uri)]
    texts = readable(records, job.llm.seed)
    if not texts:
        raise ConfigError(f"--conversations {job.conversations}: no conversation in them; build them first")
    said = [turn["value"] for conversation in texts for turn in conversation]
    tokenizer = train_chat_tokenizer(said, job.llm.vocabulary)
    llm = build_small_llm(tokenizer, job.llm)
    tokens = [tokenise(tokenizer, conversation, 0, job.llm.context_length).tokens for conversation in texts]
    lines: list[dict[str, Any]] = []
    with Progress(transient=True) as bar:
        task = bar.add_task("training a small LLM", total=job.llm.steps)

        def on_step(step: int, loss: float, rate: float) -> None:
            lines.append({"step": step, "samples": step * job.llm.batch, "train/loss": loss, "train/learning_rate": rate})
            bar.update(task, completed=step)

        train_small_llm(llm, tokens, job.llm, on_step)
    store = Store(job.out)
    with tempfile.TemporaryDirectory() as folder:
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        metrics.append(Path(folder, metrics.FILE), lines)
        for path in sorted(Path(folder).iterdir()):
            store.upload(path, path.name)
    tenth = max(1, len(lines) // 10)
    return {
        "parameters": sum(parameter.numel() for parameter in llm.parameters()),
        "vocabulary": len(tokenizer),
        "conversations": len(texts),
        "steps": len(lines),
        "loss_first": statistics.fmean(line["train/loss"] for line in lines[:tenth]),
        "loss_last": statistics.fmean(line["train/loss"] for line in lines[-tenth:]),
    }


def training_records(uri: str) -> Iterator[dict[str, Any]]:
    """The descriptions of a conversation data set's training samples, in the order of their shards."""
    data = ShardSet.open(uri)
    data.require_kind("conversation", "llm")
    return (description for _, description in data.select("train").descriptions())


def readable(records: Sequence[dict[str, Any]], seed: int) -> list[Conversation]:
    """Conversations without a mark of an ECG: what is going to be answered stands there, in any order, or nothing does."""
    rng = np.random.default_rng(seed)
    return [_in_words(record["conversations"], rng) for record in records]


def _in_words(conversation: Conversation, rng: np.random.Generator) -> Conversation:
    answers = [turn["value"] for turn in conversation if turn["from"] == "gpt"]
    told = " ".join(answers[place] for place in rng.permutation(len(answers)))
    stands_there = iter([told if rng.random() >= WITHOUT else ""])

    def readable_turn(turn: dict[str, str]) -> dict[str, str]:
        first, *rest = turn["value"].split(ECG_MARK)
        return {"from": turn["from"], "value": "".join([first, *(next(stands_there, "") + piece for piece in rest)]).strip()}

    return [readable_turn(turn) for turn in conversation]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a small LLM."""
    job = parse(LlmJob, arguments, "ecgchat llm")
    made = make_llm(job)
    print(
        f"LLM of {made['parameters'] / 1e6:.1f} M parameters, {made['vocabulary']} tokens, in {job.out}; "
        f"loss {made['loss_first']:.2f} → {made['loss_last']:.2f} nats a token"
    )
