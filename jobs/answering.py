"""Let an exported model answer the questions of held-out conversations: about the right ECG, and about another patient's.

The second is the control: whoever answers as well from another patient's ECG has not looked at any.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ecgchat.conversation import collate, exchanges, tokenise
from ecgchat.models.ecg_chat import EcgChatModel
from jobs.language import ecgs_to_millivolts
from shards.conversations.loader import ConversationLoader, ConversationSample
from shards.dataset import ShardSet
from shards.loader import LoaderConfig
from shards.order import OrderConfig
from shards.record import ECG_MARK, digest

NEW_TOKENS = {"report": 160, "findings": 96}
"""Tokens that an answer may have, by kind of question; a report is the longest."""
OTHERS_NEW_TOKENS = 48

ECGS_AT_ONCE = 64


@dataclass(frozen=True)
class Question:
    """One question about the ECGs of one sample, asked without what was said before it."""

    sample: int
    """Place of the sample among those asked about."""
    text: str
    reference: str
    """What the conversation answers."""
    kind: str
    about: str | None
    expected: Any


@dataclass(frozen=True)
class Answered:
    """Questions with what the model said, looking at the right ECGs and at another patient's."""

    samples: list[ConversationSample]
    questions: list[Question]
    said: list[str]
    said_of_another: list[str]
    patients: list[str]
    """Of each question; stands for the patient without naming one."""


def held_out(data: ShardSet, records: int) -> list[ConversationSample]:
    """Samples with an ECG, at most so many, spread over the whole split.

    Args:
        data: one split of a conversation data set.
        records: how many at most.
    """
    order = OrderConfig(global_batch=min(64, data.index.num_rows), shuffle=True, drop_tail=False, block=64)
    loader = ConversationLoader(data, LoaderConfig(order))
    found = (sample for batch in loader.take(loader.batches) for sample in batch.samples)
    with_ecg = (sample for sample in found if sample is not None and sample.ecgs)
    return list(itertools.islice(with_ecg, records))


def questions_of(samples: Sequence[ConversationSample]) -> list[Question]:
    """Every question of the samples whose right answer is known."""
    asked = []
    for place, sample in enumerate(samples):
        turns = exchanges(sample.record["conversations"])
        for (question, answer), known in zip(turns, sample.record["answers"], strict=True):
            if known is not None and known["expected"] is not None:
                words = question.replace(ECG_MARK, "").strip()
                asked.append(Question(place, words, answer, known["kind"], known["about"], known["expected"]))
    return asked


def other_patients(samples: Sequence[ConversationSample]) -> list[int]:
    """For each sample the place of another one with as many ECGs, of another patient; its own where there is none."""
    chosen = []
    for place, sample in enumerate(samples):
        candidates = (
            other
            for other in itertools.chain(range(place + 1, len(samples)), range(place))
            if len(samples[other].ecgs) == len(sample.ecgs)
            and samples[other].record["patient_id"] != sample.record["patient_id"]
        )
        chosen.append(next(candidates, place))
    return chosen


def answer_all(
    model: EcgChatModel, tokenizer: PreTrainedTokenizerBase, samples: list[ConversationSample], batch: int, device: torch.device
) -> Answered:
    """Ask everything twice and keep what is said, greedily.

    Args:
        model: ready to answer.
        tokenizer: its tokenizer.
        samples: as `held_out` gives them.
        batch: questions at once.
        device: that the model lies on.
    """
    questions = questions_of(samples)
    read = read_ecgs(model, samples, device)
    others = other_patients(samples)
    said, of_another = (
        _answers(model, tokenizer, questions, [read[places[q.sample]] for q in questions], batch, device, label)
        for places, label in ((list(range(len(samples))), "answering"), (others, "answering about another patient"))
    )
    patients = [digest(str(samples[question.sample].record["patient_id"])) for question in questions]
    return Answered(samples, questions, said, of_another, patients)


@torch.no_grad()
def read_ecgs(model: EcgChatModel, samples: Sequence[ConversationSample], device: torch.device) -> list[Tensor]:
    """For each sample (ECGs, tokens of an ECG, width of the LLM): what the reader makes of its ECGs, each read once."""
    length = model.reader.config.tower.samples
    ecgs = [pair for sample in samples for pair in zip(sample.ecgs, sample.mv_per_lsb, strict=True)]
    parts = [
        model.reader(ecgs_to_millivolts(ecgs[start : start + ECGS_AT_ONCE], length, model.reader.dtype).to(device))
        for start in track(range(0, len(ecgs), ECGS_AT_ONCE), "reading ECGs", transient=True)
    ]
    return list(torch.cat(parts).split([len(sample.ecgs) for sample in samples]))


def _answers(
    model: EcgChatModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    read: Sequence[Tensor],
    batch: int,
    device: torch.device,
    label: str,
) -> list[str]:
    said = [""] * len(questions)
    for places in track(list(_batches(questions, batch)), label, transient=True):
        prompts = [_prompt(tokenizer, questions[place], len(read[place]), model) for place in places]
        ready = collate(prompts, torch.zeros(0), int(tokenizer.pad_token_id or 0), pad_on="left")
        new = model.generate(
            ready.to(device),
            NEW_TOKENS.get(questions[places[0]].kind, OTHERS_NEW_TOKENS),
            torch.cat([read[place] for place in places]),
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        for place, text in zip(places, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            said[place] = text.strip()
    return said


def _prompt(tokenizer: PreTrainedTokenizerBase, question: Question, ecgs: int, model: EcgChatModel) -> Any:
    turn = {"from": "human", "value": f"{ECG_MARK}\n" * ecgs + question.text}
    tokens = model.reader.config.tokens_per_ecg
    return tokenise(tokenizer, [turn], tokens, context_length=1 << 20)


def _batches(questions: Sequence[Question], size: int) -> Iterator[list[int]]:
    """Places of questions of one kind, in a fixed order: answers of one kind are about equally long."""
    kinds = np.unique([question.kind for question in questions])
    for kind in kinds:
        places = [place for place, question in enumerate(questions) if question.kind == kind]
        places.sort(key=lambda place: hashlib.sha256(questions[place].text.encode()).digest())
        for start in range(0, len(places), size):
            yield places[start : start + size]
