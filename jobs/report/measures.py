"""What was measured on held-out conversations, in words and as bars: each figure beside what says how much it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ecgchat.judging.answers import INTERVAL_TOLERANCE_MS, RATE_TOLERANCE
from ecgchat.judging.report import FEWEST_PATIENTS
from shards.conversations.names import FINDINGS

_MS = f"± {INTERVAL_TOLERANCE_MS:g} ms"

ANSWERS = {
    "rhythm": "which rhythm it is",
    "rate_class": "slow, normal or fast",
    "rate": f"heart rate, ± {RATE_TOLERANCE:g}/min",
    "pr": f"PR interval, {_MS}",
    "qrs": f"QRS duration, {_MS}",
    "qt": f"QT interval, {_MS}",
    "qtc": f"QTc interval, {_MS}",
    "finding": "is this finding there, yes or no",
    "findings": "all findings, exactly",
    "change": "what changed between two",
}
CHANGES = {"rhythm": "has the rhythm changed", "rate": "which of two ECGs is faster"}
REPORTS = {
    "findings_f1": "findings, F1",
    "findings_precision": "findings named that are there",
    "findings_recall": "findings there that are named",
    "findings_macro_f1": "findings, macro F1",
    "bleu_1": "BLEU-1, words in common",
    "bleu_4": "BLEU-4, runs of words",
    "rouge_l": "ROUGE-L, common sequence",
}

Verdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class MeasuredRow:
    """One figure, 0 to 1, beside the best constant and the control."""

    name: str
    count: int
    value: float
    low: float
    high: float
    majority: float
    shuffled: float
    verdict: Verdict
    """Whether the model looks at the ECG for this."""
    reason: str
    """What the verdict means here."""


@dataclass(frozen=True)
class MeasuredTable:
    """Figures of one kind."""

    title: str
    rows: list[MeasuredRow]
    details: list[MeasuredRow]
    """Parts of the rows, such as each finding."""


def measured_tables(rows: Mapping[str, Mapping[str, Any]]) -> list[MeasuredTable]:
    """Answers and reports, each in the order of this module; empty tables are left out.

    Args:
        rows: as `jobs.eval_chat.evaluate_chat` gives them.
    """
    made = []
    for title, prefix, names in (("Answers to questions", "answers_", ANSWERS), ("Reports", "report_", REPORTS)):
        found = {key.removeprefix(prefix): row for key, row in rows.items() if key.startswith(prefix)}
        whole = sorted((key for key in found if ":" not in key), key=lambda key: _place(key, names))
        parts = [key for key in found if ":" in key]
        if found:
            in_words = [_measured(names.get(key, key.replace("_", " ")), found[key]) for key in whole]
            made.append(MeasuredTable(title, in_words, [_measured(_part_name(key), found[key]) for key in parts]))
    return made


def verdict(row: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Whether the model looks at the ECG, and what that means; few patients tell nothing."""
    if row["looks_at_ecg"]:
        return "yes", "better with the right ECG" + ("" if row["beats_majority"] else ", not surely than the constant")
    if row["patients"] < FEWEST_PATIENTS:
        return "unknown", f"{row['patients']} patients are too few to tell"
    gain = row["gain_over_shuffled"]["value"]
    if gain > 0:
        return "no", f"{100 * gain:.1f} points more than with another's ECG, perhaps chance"
    return "no", "no better than with another's ECG"


def _measured(name: str, row: Mapping[str, Any]) -> MeasuredRow:
    controls = (row["majority"]["value"], row["shuffled"]["value"])
    return MeasuredRow(name, row["n"], row["value"], row["low"], row["high"], *controls, *verdict(row))


def _place(key: str, names: Mapping[str, str]) -> int:
    return list(names).index(key) if key in names else len(names)


def _part_name(key: str) -> str:
    kind, _, about = key.partition(":")
    return CHANGES.get(about, about) if kind == "change" else FINDINGS.get(about, about)
