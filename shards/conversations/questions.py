"""Facts in words: the question, the answer, and what is expected of whoever answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.conversations.facts import Fact, facts_of
from shards.conversations.names import FINDINGS, RHYTHMS, is_or_are, listed
from shards.conversations.phrases import ANSWERS, INTERVALS, QUESTIONS, Phrasing

NAMES = {**RHYTHMS, **FINDINGS}
"""SCP code → English name, of rhythms and findings alike."""


@dataclass(frozen=True)
class Turn:
    """One question with its answer."""

    question: str
    answer: str
    fact: Fact

    @property
    def expected(self) -> dict[str, Any]:
        """What a judge is told: `{"kind", "about", "expected"}`."""
        return {"kind": self.fact.kind, "about": self.fact.about, "expected": self.fact.expected}


def possible_turns(
    record: Mapping[str, Any], asked: Mapping[str, int], phrasing: Phrasing, rng: np.random.Generator
) -> list[Turn]:
    """Everything that can be asked about one ECG, in words; the arguments are those of `facts_of`."""
    return [in_words(fact, phrasing, rng) for fact in facts_of(record, asked, rng)]


def in_words(fact: Fact, phrasing: Phrasing, rng: np.random.Generator) -> Turn:
    """A fact as question and answer, each in one of its wordings."""
    words = _words(fact)
    kind = f"change:{fact.about}" if fact.kind == "change" else fact.kind
    question = choose(rng, QUESTIONS[kind].of(phrasing)).format(**words)
    if fact.kind == "report":
        return Turn(question, str(fact.expected), fact)
    for name in (f"{kind}={fact.expected}", kind):
        if name in ANSWERS:
            return Turn(question, choose(rng, ANSWERS[name]).format(**words), fact)
    raise KeyError(f"no answer is worded for {kind}={fact.expected}")


def choose(rng: np.random.Generator, ways: Sequence[str]) -> str:
    """One of several wordings."""
    return ways[int(rng.integers(len(ways)))]


def _words(fact: Fact) -> dict[str, str]:
    """What the wording's places are filled with."""
    words = {place: NAMES[code] for place, code in fact.words}
    if fact.kind in INTERVALS:
        words["name"] = INTERVALS[fact.kind]
        words["part"] = words["name"].replace("duration", "complex")
    elif fact.kind in ("rhythm", "finding"):
        words["name"] = NAMES[fact.expected if fact.kind == "rhythm" else str(fact.about)]
    if fact.kind == "findings" and fact.expected:
        words["findings"] = listed(fact.expected)
    verb = is_or_are(words.get("name", ""))
    return words | {"is": verb, "Is": verb.capitalize(), "value": str(fact.expected), "which": str(fact.expected)}
