"""Whether a generated answer to a question about an ECG is right, and what the best constant answer would be.

| kind | about | expected | right when the answer |
|---|---|---|---|
| `rhythm` | | SCP code | states this rhythm and no other |
| `rate_class` | | `slow`, `normal` or `fast` | says this one alone; a denied one does not count |
| `rate` | | 1/min | has as its first number one within `RATE_TOLERANCE` |
| `pr`, `qrs`, `qt`, `qtc` | | ms | has as its first number in ms one within `INTERVAL_TOLERANCE_MS` |
| `finding` | SCP code | `yes` or `no` | says so in its first word, else by what it states, and does not contradict itself |
| `findings` | | SCP codes | states exactly these; `NOT_FINDINGS` do not count |
| `change` | `rhythm` | `yes` or `no` | says this one alone |
| `change` | `rate` | `first` or `second` | says this one alone |

Other kinds (`report`, `general`) are not right or wrong.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ecgchat.judging.findings import denials, findings_in, read, sentences
from ecgchat.judging.wordings import RHYTHMS

RATE_TOLERANCE = 10.0
"""1/min by which a rate may miss, both ends included."""

INTERVAL_TOLERANCE_MS = 20.0
"""ms by which an interval may miss, both ends included: half a small square of ECG paper at 25 mm/s."""

TOLERANCES: dict[str, float] = {"rate": RATE_TOLERANCE, **dict.fromkeys(("pr", "qrs", "qt", "qtc"), INTERVAL_TOLERANCE_MS)}
"""Kind of question whose answer is a number → how far it may miss, in its unit."""

NOT_FINDINGS = frozenset(("SR", "NORM"))
"""Codes that a list of findings may name or not; other rhythms are findings."""

NOTHING_FOUND = (
    r"\bno (abnormal |other |pathological )?(findings?|abnormalit\w+)\b"
    r"|\b(none|nothing|unremarkable)\b|(?<!ab)\bnormal\b(?! sinus)"
)
"""Ways to say that there is nothing to find."""

_NUMBER = r"(?<![\w.])[-−]?(\d+(?:[.,]\d+)?)"
_MS = r"(?:ms|msecs?|milliseconds?)\b"
_IN_MS = (re.compile(rf"{_NUMBER}\s*{_MS}", re.I), re.compile(rf"\b{_MS}\W{{0,4}}{_NUMBER}", re.I))
_IN_S = re.compile(rf"{_NUMBER}\s*(?:s|secs?|seconds?)\b", re.I)
_ANY = re.compile(_NUMBER)

_RATE_CLASSES = {
    "slow": re.compile(r"\bslow(?:er than normal)?\b|\bbelow normal\b|\bbradycardi[ac]\b"),
    "normal": re.compile(r"(?<!than )(?<!above )(?<!below )\bnormal\b(?! sinus rhythm)"),
    "fast": re.compile(r"\b(?:fast|rapid)(?:er than normal)?\b|\babove normal\b|\btachycardi[ac]\b"),
}
_ORDER = {
    "first": re.compile(r"\b(?:first|1st)\b(?! degree)"),
    "second": re.compile(r"(?<!per )\b(?:second|2nd)\b(?! degree)"),
}
_COMPARED = re.compile(r"\b(?:than|compared (?:to|with)|as opposed to)\b[^.,;]*")

_NO_ALONE = re.compile(r"\bno\b(?=\s*(?:[.!?;/]|$|(?:and|or)\b))|(?:^|[.!?;])\s*no\s*,")


def is_right(kind: str, about: str | None, expected: Any, text: str) -> bool | None:
    """Whether an answer is right; None where the kind is not judged or nothing is expected.

    Args:
        kind: of the question, as in the table of this module.
        about: the code or the thing that is asked about, where the kind needs it.
        expected: the true answer.
        text: the generated answer.
    """
    if expected is None:
        return None
    if kind in TOLERANCES:
        value = number_in(text) if kind == "rate" else milliseconds_in(text)
        return value is not None and abs(value - float(expected)) <= TOLERANCES[kind]
    if kind == "rhythm":
        return findings_in(text) & RHYTHMS == {expected}
    if kind == "rate_class":
        return _said_of(_RATE_CLASSES, text) == {expected}
    if kind == "finding":
        return about is not None and _finding_said(about, text) == expected
    if kind == "findings":
        return _findings_right(expected, text)
    if kind == "change" and about in ("rhythm", "rate"):
        return (_yes_no_said(text) if about == "rhythm" else _said_of(_ORDER, _COMPARED.sub("", text.lower()))) == {expected}
    return None


def constant_answer(kind: str, expected_values: Sequence[Any]) -> Any:
    """The best single answer to a question of a kind, from the true answers of training.

    The median for numbers, else the most frequent answer; of equally frequent ones the first of the alphabet. Lists of
    codes are compared as sets, and come back sorted.

    Raises:
        ValueError: there are no answers.
    """
    if not expected_values:
        raise ValueError(
            f"expected answers of training to questions of kind {kind!r}, found none; ask this kind in training too"
        )
    if kind in TOLERANCES:
        return float(median(float(value) for value in expected_values))
    counts = Counter(_comparable(value) for value in expected_values)
    answer = min(counts, key=lambda value: (-counts[value], value))
    return list(answer) if isinstance(answer, tuple) else answer


def right_by_constant(kind: str, expected: Any, constant: Any) -> bool:
    """Whether a constant from `constant_answer` is right, by the tolerances that hold for generated answers."""
    if kind in TOLERANCES:
        return abs(float(constant) - float(expected)) <= TOLERANCES[kind]
    if kind == "findings":
        return set(constant) - NOT_FINDINGS == set(expected) - NOT_FINDINGS
    return bool(_comparable(constant) == _comparable(expected))


def number_in(text: str) -> float | None:
    """The first number of a text; digits inside a word (V1) are none."""
    match = _ANY.search(unicodedata.normalize("NFKC", text))
    return _value(match) if match else None


def milliseconds_in(text: str) -> float | None:
    """The first duration of a text in ms: a number beside "ms", else one in seconds, else the first number."""
    plain = unicodedata.normalize("NFKC", text)
    for pattern in _IN_MS:
        if match := pattern.search(plain):
            return _value(match)
    match = _IN_S.search(plain)
    return 1000 * _value(match) if match else number_in(plain)


def _value(match: re.Match[str]) -> float:
    sign = -1.0 if match[0].lstrip()[0] in "-−" else 1.0
    return sign * float(match[1].replace(",", "."))


def _comparable(value: Any) -> Any:
    return value if isinstance(value, str) or not isinstance(value, Sequence) else tuple(sorted(value))


def _said_of(choices: Mapping[str, re.Pattern[str]], text: str) -> set[str]:
    """Which choices a text says without denying them."""
    said = set()
    for sentence in sentences(text):
        masked = sentence
        for pattern in choices.values():
            masked = pattern.sub(lambda match: "\x00" * len(match[0]), masked)
        reach = denials(sentence, masked)
        for choice, pattern in choices.items():
            starts = [match.start() for match in pattern.finditer(sentence)]
            if any(not any(first <= start < last for first, last in reach) for start in starts):
                said.add(choice)
    return said


def _yes_no_said(text: str) -> set[str]:
    """`yes` and `no` as answers: the first word, and either one standing alone."""
    plain = unicodedata.normalize("NFKC", text).lower()
    first = re.search(r"[^\W_]+", plain)
    said = {first[0]} & {"yes", "no"} if first else set()
    if re.search(r"\byes\b", plain):
        said.add("yes")
    if _NO_ALONE.search(plain):
        said.add("no")
    return said


def _finding_said(code: str, text: str) -> str | None:
    """`yes`, `no`, or None for an answer that says nothing or contradicts itself.

    A description that states other things and leaves the finding out says no.
    """
    said, (stated, denied) = _yes_no_said(text), read(text)
    by_words = {answer for answer, codes in (("yes", stated), ("no", denied)) if code in codes}
    if not said and not by_words and (stated or denied):
        return "no"
    together = said | by_words
    return together.pop() if len(together) == 1 else None


def _findings_right(expected: Sequence[str], text: str) -> bool:
    """Whether the findings are these. That there are none has to be said: denying one finding says nothing of the others."""
    stated = findings_in(text)
    if stated - NOT_FINDINGS != set(expected) - NOT_FINDINGS:
        return False
    return bool(stated - NOT_FINDINGS) or re.search(NOTHING_FOUND, text.lower()) is not None
