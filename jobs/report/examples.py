"""Held-out ECGs, drawn, beside what the models make of them. They are chosen by what they show, never by success."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.answering import Answered
from jobs.eval import Embedded
from jobs.eval_chat import ShownAnswer, shown_answers
from shards.conversations.loader import ConversationSample
from shards.conversations.names import FINDINGS, RHYTHMS
from shards.dataset import ShardSet
from shards.draw import draw_ecg
from shards.record import findings_of

NEAREST, TALKS = 3, 5
"""How many of each are shown."""
DPI = 110


@dataclass(frozen=True)
class NearestReport:
    """A held-out ECG beside the report that the encoder finds nearest."""

    key: str
    picture: str
    """Base64 of a PNG."""
    report: str
    nearest: str
    """Of another record."""
    labels: list[str]


@dataclass(frozen=True)
class Talk:
    """A held-out ECG with all that the model said about it."""

    key: str
    picture: str
    """Base64 of a PNG."""
    labels: list[str]
    """What its questions expect, in words."""
    judged: list[ShownAnswer]
    """Answers that are right or wrong."""
    others: list[ShownAnswer]
    """Reports, and whatever else cannot be told right or wrong by its words."""
    source_path: str
    """Of the recording, in its corpus."""

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.right is True for answer in self.judged)


def nearest_reports(split: Embedded, data: ShardSet) -> list[NearestReport]:
    """Records with different findings, each with the nearest report of another record."""
    labels = [
        tuple(name for name, value in sorted(findings_of(record["labels"]).items()) if value == 1) for record in split.records
    ]
    similarity = split.ecg @ split.text.T
    made = []
    for place in first_of_each(labels)[:NEAREST]:
        ranked = similarity[place].argsort(descending=True).tolist()
        other = next((number for number in ranked if number != place), place)
        key, ecg, record = data.sample(split.keys[place])
        own, nearest = (split.records[number].get("report") or "" for number in (place, other))
        picture = drawn(ecg, record["mv_per_lsb"], record["fs_hz"], key)
        made.append(NearestReport(key, picture, own, nearest, list(labels[place])))
    return made


def talks(answered: Answered) -> list[Talk]:
    """Samples about one ECG with what was said of them: of each rhythm the first, then of each set of findings."""
    places = [place for place, sample in enumerate(answered.samples) if len(sample.ecgs) == 1]
    shown = [_expected(answered.samples[place]) for place in places]
    by_rhythm = first_of_each([labels[0] for labels in shown])
    by_findings = first_of_each(shown)
    chosen = list(dict.fromkeys(by_rhythm + by_findings))[:TALKS]
    return [_talk(answered, places[number]) for number in sorted(chosen)]


def first_of_each(labels: Sequence[Hashable]) -> list[int]:
    """Place of the first record of each kind."""
    first: dict[Hashable, int] = {}
    for place, label in enumerate(labels):
        first.setdefault(label, place)
    return list(first.values())


def drawn(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float], fs_hz: float, title: str) -> str:
    """Base64 of a PNG."""
    return base64.b64encode(draw_ecg(ecg, mv_per_lsb, fs_hz, title=title, dpi=DPI)).decode()


def _talk(answered: Answered, place: int) -> Talk:
    sample, answers = answered.samples[place], shown_answers(answered, place)
    rhythm, findings = _expected(sample)
    return Talk(
        sample.key,
        drawn(sample.ecgs[0], sample.mv_per_lsb[0], sample.record["fs_hz"], sample.key),
        [FINDINGS.get(code) or RHYTHMS.get(code, code) for code in dict.fromkeys((rhythm, *findings)) if code],
        [answer for answer in answers if answer.right is not None],
        [answer for answer in answers if answer.right is None],
        sample.record["records"][0]["source_path"],
    )


def _expected(sample: ConversationSample) -> tuple[str, tuple[str, ...]]:
    """Rhythm and findings that the sample's questions expect; empty where it is not asked for them."""
    known: dict[str, Any] = {answer["kind"]: answer["expected"] for answer in sample.record["answers"] if answer}
    return known.get("rhythm") or "", tuple(sorted(known.get("findings") or ()))
