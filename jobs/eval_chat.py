"""Evaluate an exported ECG-Chat on held-out patients: answers and reports, each beside a constant and beside the control.

ecgchat eval exports/instruct --shards s3://bucket/dialogues --out results.json
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from transformers.utils.logging import disable_progress_bar

from cluster.launch.process import prepare_libraries
from cluster.world import local_device
from ecgchat.chat_export import load_chat
from ecgchat.conversation import exchanges
from ecgchat.judging.answers import is_right
from ecgchat.judging.findings import findings_in
from ecgchat.judging.report import JudgedAnswer, judge_answers, judge_reports, question_key
from jobs.answering import Answered, answer_all, held_out
from jobs.folders import local_source, reading
from shards.dataset import ShardSet

CONSTANT_FROM = 1000
"""Training conversations whose reports the most frequent one is looked for in."""

NOT_JUDGED = ("report", "general")


@dataclass(frozen=True)
class ChatResults:
    """What was measured, and what it was measured on."""

    rows: dict[str, dict[str, Any]]
    """`answers_rhythm`, `report_bleu_1`, … → value, low, high, majority, shuffled, …"""
    answered: Answered


def evaluate_chat(model: str, shards: str, split: str, records: int, batch: int) -> ChatResults:
    """Ask the model everything that is known of held-out records, and judge what it says.

    Args:
        model: folder or URI of an export of `align` or `instruct`.
        shards: URI of a conversation data set.
        split: which of its splits to ask about.
        records: samples at most.
        batch: questions at once.

    Raises:
        DatasetError: no conversation data set, another sampling rate than the model's, or nothing in it to ask.
        ModelError: a part of the export is missing.
    """
    prepare_libraries()
    disable_progress_bar()
    device = local_device()
    folder = local_source(model)
    with reading(model, "export of align or instruct"):
        chat, tokenizer = load_chat(folder)
    data = ShardSet.open(shards)
    data.require_kind("conversation", "eval")
    data.require_rate(chat.reader.config.ecg["sampling_rate_hz"], "eval")
    answered = answer_all(chat.to(device), tokenizer, held_out(data.select(split), records), batch, device)
    return ChatResults({**_judged_answers(answered, data), **_judged_reports(answered, data)}, answered)


def training_answers(data: ShardSet) -> dict[str, list[Any]]:
    """What training conversations answer, by question: where the best constant answer comes from."""
    found: dict[str, list[Any]] = defaultdict(list)
    for answer in itertools.chain.from_iterable(data.select("train").index["answers"].to_pylist()):
        name, _, expected = answer.partition("=")
        kind, _, about = name.partition(":")
        found[question_key(kind, about or None)].append(_value(kind, expected))
    return found


def show_chat(rows: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the results as a table."""
    table = Table(Column("measure", no_wrap=True), "n", "value", "95 %", "majority", "another's ECG", "looks at the ECG")
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["n"]),
            f"{row['value']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
            f"{row['majority']['value']:.3f}",
            f"{row['shuffled']['value']:.3f}",
            "yes" if row["looks_at_ecg"] else "no",
        )
    console.print(table)


def chat_card_rows(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The results as rows of a Markdown table."""
    head = ["| on held-out patients | n | value (95 %) | majority | another patient's ECG |", "|---|---|---|---|---|"]
    return head + [
        f"| {name} | {row['n']} | {row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f}) "
        f"| {row['majority']['value']:.3f} | {row['shuffled']['value']:.3f} |"
        for name, row in rows.items()
    ]


@dataclass(frozen=True)
class ShownAnswer:
    """One exchange of an example, with whether it is right; None where that cannot be told from the words."""

    question: str
    said: str
    reference: str
    right: bool | None


def shown_answers(answered: Answered, sample: int) -> list[ShownAnswer]:
    """Everything that the model said about one sample."""
    return [
        ShownAnswer(question.text, said, question.reference, is_right(question.kind, question.about, question.expected, said))
        for question, said in zip(answered.questions, answered.said, strict=True)
        if question.sample == sample
    ]


def _judged_answers(answered: Answered, data: ShardSet) -> dict[str, dict[str, Any]]:
    rows = zip(answered.questions, answered.said, answered.said_of_another, answered.patients, strict=True)
    judged = [
        JudgedAnswer(question.kind, question.about, question.expected, said, of_another, patient)
        for question, said, of_another, patient in rows
        if question.kind not in NOT_JUDGED
    ]
    training = training_answers(data)
    for answer in judged:
        if answer.kind not in {key.partition(":")[0] for key in training}:
            # Never asked in training: the best constant is then the one that the test itself would choose.
            training[question_key(answer.kind, answer.about)] = [
                one.expected for one in judged if (one.kind, one.about) == (answer.kind, answer.about)
            ]
    return {f"answers_{name}": row for name, row in judge_answers(judged, training).items()} if judged else {}


def _judged_reports(answered: Answered, data: ShardSet) -> dict[str, dict[str, Any]]:
    places = [place for place, question in enumerate(answered.questions) if question.kind == "report"]
    if not places:
        return {}
    references = [str(answered.questions[place].expected) for place in places]
    rows = judge_reports(
        references,
        [answered.said[place] for place in places],
        [answered.said_of_another[place] for place in places],
        [findings_in(reference) for reference in references],
        [answered.patients[place] for place in places],
        training_reports=_training_reports(data),
    )
    return {f"report_{name}": row for name, row in rows.items()}


def _training_reports(data: ShardSet) -> list[str]:
    records = itertools.islice(data.select("train").descriptions(), CONSTANT_FROM)
    return [
        answer
        for _, record in records
        for (_, answer), known in zip(exchanges(record["conversations"]), record["answers"], strict=True)
        if known is not None and known["kind"] == "report"
    ]


def _value(kind: str, expected: str) -> Any:
    if kind == "findings":
        return [code for code in expected.split("+") if code]
    return float(expected) if expected.replace(".", "", 1).isdigit() else expected
