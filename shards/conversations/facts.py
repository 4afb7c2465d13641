"""What a record surely says, as facts that can be asked for: kind, what it is about, and the answer that is expected.

| kind | about | expected |
|---|---|---|
| `rhythm` | | SCP code |
| `rate_class` | | `slow`, `normal` or `fast` |
| `rate` | | 1/min, a whole number |
| `pr`, `qrs`, `qt`, `qtc` | | ms, a whole number |
| `finding` | SCP code | `yes` or `no` |
| `findings` | | sorted list of SCP codes |
| `report` | | the report |
| `change` | `rhythm`; `rate` | `yes` or `no`; `first` or `second` |

A record is the description of an ECG sample (its JSON). A label that is null is unknown: nothing is asked about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.conversations.names import FINDINGS, RHYTHMS
from shards.conversations.overlaps import absence_unsure
from shards.conversations.phrases import INTERVALS
from shards.record import findings_of

SLOW_BELOW, FAST_ABOVE = 60, 100
"""Heart rates in 1/min at which bradycardia ends and tachycardia begins."""

RATES_DIFFER = 10
"""Beats per minute by which two rates differ before it is asked which is the faster."""


@dataclass(frozen=True)
class Fact:
    """Something that can be asked, with the answer that is true."""

    kind: str
    expected: Any
    about: str | None = None
    words: tuple[tuple[str, str], ...] = ()
    """What else the answer says: (place in the wording, SCP code)."""


def facts_of(record: Mapping[str, Any], asked: Mapping[str, int], rng: np.random.Generator) -> list[Fact]:
    """Everything that can be asked about one ECG.

    Args:
        record: description of an ECG sample.
        asked: how often each finding is present in the data set; decides which absent ones are asked for.
        rng: draws the absent findings.
    """
    single = (rhythm(record), rate_class(record), rate(record), *(interval(record, name) for name in INTERVALS))
    summary = (findings(record), report(record))
    return [fact for fact in (*single, *finding_facts(record, asked, rng), *summary) if fact is not None]


def rhythm(record: Mapping[str, Any]) -> Fact | None:
    """The rhythm, where exactly one is stated and none is unknown."""
    labels = record["labels"]
    stated = [code for code in RHYTHMS if labels.get(code) == 1]
    unknown = any(code in labels and labels[code] is None for code in RHYTHMS)
    return Fact("rhythm", stated[0]) if len(stated) == 1 and not unknown else None


def rate_class(record: Mapping[str, Any]) -> Fact | None:
    """Slow, normal or fast by the measured rate, else by the rhythm; not where rounding would cross a limit."""
    measured = record["measurements"].get("heart_rate")
    if measured is not None:
        exact, rounded = _class_of(measured), _class_of(round(measured))
        return Fact("rate_class", exact) if exact == rounded else None
    said = rhythm(record)
    stated = {"SBRAD": "slow", "STACH": "fast"}.get(said.expected) if said else None
    return Fact("rate_class", stated) if stated else None


def rate(record: Mapping[str, Any]) -> Fact | None:
    """The measured heart rate in 1/min."""
    return _number("rate", record["measurements"].get("heart_rate"))


def interval(record: Mapping[str, Any], name: str) -> Fact | None:
    """A measured interval in ms: `pr`, `qrs`, `qt` or `qtc`."""
    return _number(name, record["measurements"].get(name))


def present(record: Mapping[str, Any]) -> list[str]:
    """Codes of the findings that are present and have a name, sorted; abnormal rhythms are findings too."""
    return sorted(code for code in FINDINGS if record["labels"].get(code) == 1)


def absent(record: Mapping[str, Any]) -> list[str]:
    """Codes of the findings that are surely absent, sorted: stated as absent, and not hidden by what is present."""
    labels = findings_of(record["labels"])
    stated = frozenset(code for code, value in labels.items() if value != 0)
    rhythm_stated = any(labels.get(code) == 1 for code in RHYTHMS)
    return sorted(
        code
        for code in FINDINGS
        if labels.get(code) == 0
        and (rhythm_stated or code not in RHYTHMS)
        and not absence_unsure(code, stated, record["measurements"])
    )


def finding_facts(record: Mapping[str, Any], asked: Mapping[str, int], rng: np.random.Generator) -> Iterator[Fact]:
    """Each present finding, and as many absent ones (one where none is present).

    An absent finding is drawn as often as it is present in the data set, so that its code alone tells no answer.
    """
    there = present(record)
    yield from (Fact("finding", "yes", code) for code in there)
    candidates = [code for code in absent(record) if asked.get(code, 0) > 0]
    count = min(max(1, len(there)), len(candidates))
    if count:
        weights = np.array([asked[code] for code in candidates], dtype=np.float64)
        drawn = rng.choice(candidates, size=count, replace=False, p=weights / weights.sum())
        yield from (Fact("finding", "no", str(code)) for code in drawn)


def findings(record: Mapping[str, Any]) -> Fact | None:
    """All findings, where every label that is present has a name and none is unknown; none only where NORM is stated."""
    labels = findings_of(record["labels"])
    if not labels or any(value is None for value in labels.values()):
        return None
    there = present(record)
    named = {*there, "SR", "NORM"}
    if any(value == 1 and code not in named for code, value in labels.items()):
        return None
    return Fact("findings", there) if there or labels.get("NORM") == 1 else None


def report(record: Mapping[str, Any]) -> Fact | None:
    """The report, where there is one in English."""
    text = record["report"]
    return Fact("report", text) if text and text.strip() else None


def changes(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[Fact]:
    """What can be asked of two ECGs of one patient, the earlier one first."""
    found = []
    first, second = rhythm(earlier), rhythm(later)
    if first and second:
        words = (("first", first.expected), ("second", second.expected))
        found.append(Fact("change", "no" if first.expected == second.expected else "yes", "rhythm", words))
    before, after = (record["measurements"].get("heart_rate") for record in (earlier, later))
    if before is not None and after is not None and abs(before - after) >= RATES_DIFFER:
        found.append(Fact("change", "first" if before > after else "second", "rate"))
    return found


def tells(earlier: Fact, later: Fact) -> bool:
    """Whether the answer to one question gives away the answer to another, which is then not asked any more."""
    if earlier.kind == "findings":
        return later.kind in ("finding", "rhythm")
    if earlier.kind == "rate":
        return later.kind == "rate_class"
    said = earlier.expected if earlier.kind == "rhythm" else earlier.about if earlier.expected == "yes" else None
    if said not in RHYTHMS:
        return False
    told_rate = later.kind == "rate_class" and said in ("SBRAD", "STACH")
    return told_rate or later.kind == "rhythm" or (later.kind == "finding" and later.about in RHYTHMS)


def occurring(labels: Sequence[Sequence[str]]) -> dict[str, int]:
    """How often each named finding is present, from the labels of a data set's index."""
    counts = dict.fromkeys(sorted(FINDINGS), 0)
    for row in labels:
        for code in row:
            if code in counts:
                counts[code] += 1
    return {code: count for code, count in counts.items() if count}


def _number(kind: str, value: float | None) -> Fact | None:
    return None if value is None else Fact(kind, round(value))


def _class_of(heart_rate: float) -> str:
    return "slow" if heart_rate < SLOW_BELOW else "fast" if heart_rate > FAST_ABOVE else "normal"
