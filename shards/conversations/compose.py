"""Which questions make a conversation: pure functions of (records, seed), whoever asks and in whatever order.

`report` asks each record for its report. `dialogue` asks each record 3 to 5 things, of two records of one patient what
has changed between them, and now and then something that needs no ECG at all.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shards.conversations.facts import Fact, changes, report, tells
from shards.conversations.general import GENERAL_FACTS, GeneralFact
from shards.conversations.phrases import INTERVALS, Phrasing
from shards.conversations.questions import Turn, choose, in_words, possible_turns
from shards.record import ECG_MARK, RecordError, Split

Task = Literal["report", "dialogue"]
TASKS: tuple[Task, ...] = ("report", "dialogue")

FEWEST_TURNS, MOST_TURNS = 4, 7
"""Questions in a dialogue, fewer where a record says less."""

INTERVAL_WEIGHT = 0.2
"""How often an interval is asked for, against any other question; four of them would else fill most dialogues."""

CHANGE_SHARE = 0.5
"""Share of the patients with several ECGs in a split who are asked what has changed."""


@dataclass(frozen=True)
class Composed:
    """The text of a conversation, before its ECGs are fetched."""

    conversations: list[dict[str, str]]
    answers: list[dict[str, Any] | None]
    phrasing: Phrasing | None
    """None where the words came from elsewhere."""


@dataclass(frozen=True)
class Recording:
    """What pairing needs to know of a record."""

    record_id: str
    split: Split
    patient_id: str
    acquired: str | None


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that belong to these names alone, on every machine the same."""
    digest = hashlib.sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))


def phrasing_of(split: Split) -> Phrasing:
    """The wording that a split hears; the test split alone hears that of the evaluation."""
    return "evaluation" if split == "test" else "training"


def compose_report(record: Mapping[str, Any], seed: int) -> Composed:
    """One turn: the ECG and the wish for a report; the answer is the report as it is.

    Raises:
        RecordError: the record has no report.
    """
    fact = report(record)
    if fact is None:
        raise RecordError(f"record {record['record_id']}: expected a report in English, found none; leave it out")
    phrasing = phrasing_of(record["split"])
    rng = generator(seed, "report", record["source"], record["record_id"])
    return _conversation([in_words(fact, phrasing, rng)], 1, phrasing, rng)


def compose_dialogue(record: Mapping[str, Any], asked: Mapping[str, int], seed: int) -> Composed:
    """Three to five turns about one ECG; an answer never gives away a later one, and a report comes last.

    A record of the test split is asked everything that is known of it.

    Args:
        record: description of an ECG sample.
        asked: how often each finding is present in the data set.
        seed: of the whole data set.

    Raises:
        RecordError: nothing can be asked about the record.
    """
    phrasing = phrasing_of(record["split"])
    rng = generator(seed, "dialogue", record["source"], record["record_id"])
    turns = possible_turns(record, asked, phrasing, rng)
    if not turns:
        raise RecordError(
            f"record {record['record_id']}: expected a report, a known label or a measurement to ask for, found none; "
            "leave it out"
        )
    if phrasing == "evaluation":
        # Held-out records are asked everything that is known of them: each question stands for itself there.
        return _conversation(turns, 1, phrasing, rng)
    wanted = int(rng.integers(FEWEST_TURNS, MOST_TURNS + 1))
    weights = np.array([INTERVAL_WEIGHT if turn.fact.kind in INTERVALS else 1.0 for turn in turns])
    order = rng.choice(len(turns), size=len(turns), replace=False, p=weights / weights.sum())
    chosen = _without_giving_away([turns[place] for place in order], wanted)
    return _conversation(sorted(chosen, key=lambda turn: turn.fact.kind == "report"), 1, phrasing, rng)


def compose_change(earlier: Mapping[str, Any], later: Mapping[str, Any], seed: int) -> Composed:
    """What has changed between two ECGs of one patient.

    Raises:
        RecordError: nothing surely comparable is said of both.
    """
    facts = changes(earlier, later)
    names = (str(earlier["record_id"]), str(later["record_id"]))
    if not facts:
        raise RecordError(
            f"records {' and '.join(names)}: expected a rhythm or different rates of both, found none; leave the pair out"
        )
    phrasing = phrasing_of(earlier["split"])
    rng = generator(seed, "change", earlier["source"], *names)
    turns = [in_words(facts[place], phrasing, rng) for place in rng.permutation(len(facts))]
    return _conversation(turns, 2, phrasing, rng)


def compose_general(name: str, split: Split, source: str, seed: int) -> Composed:
    """One to three questions that need no ECG."""
    phrasing = phrasing_of(split)
    rng = generator(seed, "general", source, name)
    facts = rng.permutation(len(GENERAL_FACTS))[: int(rng.integers(1, 4))]
    return _conversation([_general_turn(GENERAL_FACTS[place], phrasing, rng) for place in facts], 0, phrasing, rng)


def pairs(recordings: Iterable[Recording], seed: int, source: str) -> list[tuple[str, str]]:
    """Record ids (earlier, later) of two ECGs, for a share of the patients who have them in one split.

    Two recordings that follow each other in time are taken; those without a time have no order and are left out.
    """
    of_patient: dict[tuple[Split, str], list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.acquired:
            of_patient[recording.split, recording.patient_id].append(recording)
    chosen = []
    for (_, patient), theirs in sorted(of_patient.items()):
        rng = generator(seed, "pairs", source, patient)
        in_time = sorted(theirs, key=lambda recording: (str(recording.acquired), recording.record_id))
        following = [(a.record_id, b.record_id) for a, b in itertools.pairwise(in_time) if a.acquired != b.acquired]
        if following and rng.random() < CHANGE_SHARE:
            chosen.append(following[int(rng.integers(len(following)))])
    return chosen


def _general_turn(fact: GeneralFact, phrasing: Phrasing, rng: np.random.Generator) -> Turn:
    question = choose(rng, fact.questions.of(phrasing))
    return Turn(question, choose(rng, fact.answers), Fact("general", None))


def _without_giving_away(turns: Sequence[Turn], wanted: int) -> list[Turn]:
    chosen: list[Turn] = []
    for turn in turns:
        if len(chosen) < wanted and not any(tells(earlier.fact, turn.fact) for earlier in chosen):
            chosen.append(turn)
    return chosen


def _conversation(turns: Sequence[Turn], ecgs: int, phrasing: Phrasing, rng: np.random.Generator) -> Composed:
    """LLaVA form; the marks stand before or after the first question, a line each."""
    said: list[dict[str, str]] = []
    for turn in turns:
        said += [{"from": "human", "value": turn.question}, {"from": "gpt", "value": turn.answer}]
    if ecgs:
        marks = [ECG_MARK] * ecgs
        lines = [*marks, said[0]["value"]] if rng.random() < 0.5 else [said[0]["value"], *marks]
        said[0]["value"] = "\n".join(lines)
    return Composed(said, [turn.expected for turn in turns], phrasing)
