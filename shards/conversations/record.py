"""A conversation about none, one or several ECGs, and the sample it becomes in a shard.

Members are `<key>.json` and `<key>.ecg0.npy`, `<key>.ecg1.npy` … in the order of the `<ecg>` marks in the text; the signals
are those of the ECG data set, bit for bit. The JSON holds the turns in LLaVA form, and what is expected of each answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.conversations.phrases import Phrasing
from shards.record import ECG_MARK, JSON, LEADS, RecordError, Split, digest, peak_mv, sample_key, signal_quality
from shards.tar import decode_array

SPEAKERS = ("human", "gpt")
"""Who speaks in turn, as LLaVA names them."""

FREE_TEXT = ("report", "general")
"""Kinds whose expected answer is a text or none, and so not listed in the index."""


@dataclass(frozen=True)
class ConversationEcg:
    """One ECG of a conversation, as the ECG data set holds it."""

    body: bytes
    """The `.npy` member."""
    description: dict[str, Any]
    """The `.json` member."""


@dataclass(frozen=True)
class ConversationRecord:
    """A conversation with its ECGs and what is known of its answers."""

    source: str
    record_id: str
    """Name of the conversation; stands once in its source."""
    split: Split
    ecgs: list[ConversationEcg]
    conversations: list[dict[str, str]]
    """Turns `{"from": "human" | "gpt", "value": …}`."""
    answers: list[dict[str, Any] | None]
    """For each gpt turn `{"kind", "about", "expected"}`, or None where nothing is known of it."""
    phrasing: Phrasing | None
    """Which wording asks; None for a conversation that came from elsewhere."""

    @property
    def key(self) -> str:
        """Name of the sample in its shard."""
        return sample_key(self.source, self.record_id)

    @property
    def patient_id(self) -> str | None:
        """The patient of the first ECG; None without an ECG."""
        return str(self.ecgs[0].description["patient_id"]) if self.ecgs else None

    @property
    def fs_hz(self) -> float | None:
        """The one sampling rate of all its ECGs; None without an ECG.

        Raises:
            RecordError: the ECGs have different rates.
        """
        rates = sorted({float(ecg.description["fs_hz"]) for ecg in self.ecgs})
        if len(rates) > 1:
            found = " and ".join(f"{rate:g} Hz" for rate in rates)
            raise RecordError(f"conversation {self.record_id}: expected ECGs of one sampling rate, found {found}; leave it out")
        return rates[0] if rates else None

    def to_members(self) -> dict[str, bytes]:
        """The sample as shard members, extension → bytes; the same record always gives the same bytes."""
        description = {
            "source": self.source,
            "record_id": self.record_id,
            "split": self.split,
            "patient_id": self.patient_id,
            "records": [{name: ecg.description[name] for name in ("source", "record_id", "source_path")} for ecg in self.ecgs],
            "fs_hz": self.fs_hz,
            "leads": list(LEADS),
            "mv_per_lsb": [ecg.description["mv_per_lsb"] for ecg in self.ecgs],
            "conversations": self.conversations,
            "answers": self.answers,
            "phrasing": self.phrasing,
        }
        text = JSON.encode(description)
        return {"json": text.encode(), **{f"ecg{i}.npy": ecg.body for i, ecg in enumerate(self.ecgs)}}

    def index_row(self) -> dict[str, Any]:
        """What the index says of it, but for where it lies."""
        signals = [decode_array(ecg.body) for ecg in self.ecgs]
        qualities = [signal_quality(signal) for signal in signals]
        scales = [ecg.description["mv_per_lsb"] for ecg in self.ecgs]
        known = [answer for answer in self.answers if answer is not None]
        return {
            "key": self.key,
            "split": self.split,
            "source": self.source,
            "record_id": self.record_id,
            "patient_hash": digest(self.source, self.patient_id) if self.patient_id is not None else "",
            "text_hash": digest(*(turn["value"] for turn in self.conversations if turn["from"] == "gpt")),
            "fs_hz": self.fs_hz,
            "ecgs": len(self.ecgs),
            "samples": signals[0].shape[1] if signals else 0,
            "mv_per_lsb": [scale for ecg in scales for scale in ecg],
            "invalid_fraction": max((quality["invalid_fraction"] for quality in qualities), default=0.0),
            "missing_leads": sum(len(quality["missing_leads"]) for quality in qualities),
            "flat_leads": sum(len(quality["flat_leads"]) for quality in qualities),
            "peak_mv": max((peak_mv(*pair) for pair in zip(signals, scales, strict=True)), default=0.0),
            "text_length": sum(len(turn["value"]) for turn in self.conversations),
            "labels": sorted({answer["kind"] for answer in known}),
            "unknown_labels": [],
            "answers": [answer_name(answer) for answer in known if answer["kind"] not in FREE_TEXT],
        }


def answer_name(answer: Mapping[str, Any]) -> str:
    """An expected answer in one word for the index: `rhythm=AFIB`, `finding:PVC=no`, `rate=72`, `findings=CLBBB+PVC`."""
    about = f":{answer['about']}" if answer["about"] else ""
    expected = answer["expected"]
    return f"{answer['kind']}{about}={'+'.join(expected) if isinstance(expected, list) else expected}"


def count_marks(conversations: Sequence[Mapping[str, str]]) -> int:
    """How many ECGs the text of a conversation speaks of."""
    return sum(turn["value"].count(ECG_MARK) for turn in conversations)


def check_conversation(conversations: Any, ecgs: int) -> None:
    """Refuse what is no conversation in LLaVA form about so many ECGs.

    Args:
        conversations: turns `{"from": "human" | "gpt", "value": …}`, as read.
        ecgs: number of ECGs that it comes with.

    Raises:
        RecordError: the sentence names the turn, what was expected and what was found.
    """
    if not isinstance(conversations, list) or not conversations:
        raise RecordError(f"conversations: expected a list of turns, found {_short(conversations)}; mend or drop the item")
    for number, turn in enumerate(conversations):
        _check_turn(turn, number)
    if conversations[-1]["from"] != "gpt":
        raise RecordError(
            f"conversations: expected a gpt turn at the end, found a human one (turn {len(conversations) - 1}); "
            "add its answer or drop the turn"
        )
    marks = count_marks(conversations)
    if marks != ecgs:
        without = "a conversation without its ECG: " if marks > ecgs else ""
        raise RecordError(
            f"conversations: {without}expected one {ECG_MARK} in the human turns for each ECG, found {marks} for {ecgs}; "
            "name as many ECGs as the text has marks"
        )


def _check_turn(turn: Any, number: int) -> None:
    where = f"conversations, turn {number}"
    if not isinstance(turn, Mapping) or turn.get("from") not in SPEAKERS:
        found = turn.get("from") if isinstance(turn, Mapping) else turn
        raise RecordError(f"{where}: expected 'from' to be human or gpt, found {_short(found)}; mend or drop the item")
    value = turn.get("value")
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{where}: expected words in 'value', found {_short(value)}; mend or drop the item")
    expected = SPEAKERS[number % 2]
    if turn["from"] != expected:
        raise RecordError(
            f"{where}: expected human and gpt in turn, human first, found {turn['from']} where {expected} is due; "
            "mend or drop the item"
        )
    if turn["from"] == "gpt" and ECG_MARK in value:
        raise RecordError(f"{where}: expected {ECG_MARK} in human turns only, found it in an answer; mend or drop the item")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
