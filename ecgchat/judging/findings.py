"""Which findings an English ECG text states and which it denies, and how well those of many texts agree with what is known.

A rule-based reader in the manner of NegEx (Chapman et al., 2001, J Biomed Inform 34:301): words are looked up in
`wordings`, and a negation reaches to the end of its clause. A doubt ("cannot be excluded", "possible") counts as stated,
as in PTB-XL, where such findings are coded with a low likelihood. A question states nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgchat.judging.wordings import FAST, LOCATIONS, SLOW, VOCABULARY, WORDINGS

_MASK = "\x00"

_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(wording), written)
    for wording, written in (
        (r"(\w)\((e?s)\)", r"\1\2"),
        (r"[’`´]", "'"),
        (r"\b(can|could|did|do|does|has|is|are|was|were)n't\b", r"\1 not"),
        (r"\bcannot\b", "can not"),
        (r"\b([1-4]|i{1,3})\. (?=degree)", r"\1 "),
        (r"\s+[-–]\s+|\s*—\s*", ", "),
        (r"°", " degree "),
        (r"[-–‐‑−/()\[\]{}\"“”*_#~|<>]", " "),
        (r"ischaemi", "ischemi"),
        (r"\b(?:ekg|electrocardiogram|electrocardiography)\b", "ecg"),
        (r"\b(p|q|s) (?=[rt]\b)", r"\1"),
        (r"\b(?:non|un) ?(?=specific|diagnostic)", "non"),
        (r"\b(supra) (?=ventricular)|\b(pre) (?=excitation)", r"\1\2"),
        (r"\b(antero|infero|postero) (?=septal|lateral|posterior|inferior)", r"\1"),
        (r"\banterior (?=septal)", "antero"),
        (r"\bposteroinferior", "inferoposterior"),
        (r"\b(left|right) sided\b", r"\1"),
        (r"\bbiatrial\b", "left and right atrial"),
        (r"\bbiventricular (?=hypertrophy)", "left and right ventricular "),
        (r"[^\S\n]+", " "),
    )
)

_SIDES = rf"(?:left|right|{'|'.join(LOCATIONS.values())})"
_HEADS = (
    r"bundle branch block|atrial (?:overload|enlargement|dilat(?:at)?ion|hypertrophy)|ventricular hypertrophy"
    r"|(?:wall )?(?:(?:acute|old) )?(?:myocardial )?(?:infarct(?:ion)?s?|ischemia)"
)
_SHARED_HEADS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\b({_SIDES}) (and|or) (?={_SIDES} ({_HEADS})\b)"), r"\1 \3 \2 "),
    (re.compile(r"\b(atrial) (fibrillation|flutter)( and| or|) (?=(?:fibrillation|flutter)\b)"), r"\1 \2\3 \1 "),
    (re.compile(r"\b(st(?: segment)?) (elevation|depression)s?( and| or|) (?=(?:elevation|depression)s?\b)"), r"\1 \2\3 \1 "),
)
"""Two findings that share a word are given one each: "left and right bundle branch block"."""

_SENTENCE_END = re.compile(r"(?<=[?])|[!;\n]+|\.+(?=\s|$)")
_ANSWER_NO = re.compile(r"^\s*no *(?:[,:]|$)")
"""The "no" that answers a question and negates nothing of the sentence after it."""

_SEEN = (
    r"(?:present|seen|noted|evident|visible|detected|detectable|found|identified|shown|observed|recogni[sz]able|apparent|there)"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|without|absence of|(?:negative|free) (?:for|of)|neither|nor|lacks|lacking|rul(?:es|ing) out|rather than"
    r"|instead of)\b"
)
_DENIED_AFTER = re.compile(
    rf"(?P<many>\b(?:are|were|have been)\b)?(?: ?\b(?:is|was|has been)\b)? ?"
    rf"(?:: ?(?:no|none|negative|absent)\b|\b(?:clearly |also |both )?absent\b|\b(?:not|no longer) (?:be )?{_SEEN}\b"
    r"|\b(?:excluded|ruled out|unlikely)\b|\bnot(?=,|$))"
)
_CONTRAST = (
    r"(?:,? ?\b(?:but|however|although|though|yet|except|apart from|aside from|besides|other than|instead(?! of)|whereas|while"
    r"|with the exception|only|so|therefore|thus|hence|because)\b|, (?:consistent|suggest\w*|indicat\w*|in keeping)\b)"
)
_NEW_CLAUSE = (
    r"(?:, |: |\band )(?:and )?(?=(?:the|there|it|this|these|which|i|ecg|rhythm|now|normal|regular|otherwise|sinus rhythm)\b"
    rf"|(?:(?!\b(?:n?or|no|not)\b)[^,:])*\bis (?:also )?{_SEEN}\b)"
)
_CLAUSE_END = re.compile(
    rf"{_CONTRAST}|{_NEW_CLAUSE}|(?:,|\band) with\b|, (?=(?:(?!\b(?:n?or|no|not)\b)[^,:])*\bare (?:also )?{_SEEN}\b)"
)
_ONE_BEFORE = re.compile(rf"[,:]|\b(?:and|is|are|was|were|shows?|has|have|with|without)\b|{_CONTRAST}")
_MANY_BEFORE = re.compile(rf":|\b(?:is|are|was|were|shows?|has|have|with|without)\b|{_CONTRAST}")


class Reading(NamedTuple):
    """What a text says: codes that it states somewhere, and codes that it denies somewhere."""

    stated: frozenset[str]
    denied: frozenset[str]


@dataclass(frozen=True)
class FindingsScore:
    """Agreement of the codes found with the codes expected, each 0 to 1.

    Micro figures count all codes alike; macro figures are the mean over the codes that are expected somewhere, as
    `sklearn.metrics.f1_score` with these labels and `zero_division=0`. Nothing found where nothing is expected is 1.
    """

    precision: float
    recall: float
    f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True)
class FindingsCounts:
    """What a score is counted from, so that that of a resample costs a sum: (texts, codes) arrays of 0 and 1."""

    hits: NDArray[np.float64]
    expected: NDArray[np.float64]
    found: NDArray[np.float64]

    @classmethod
    def of(cls, expected: Sequence[set[str]], found: Sequence[set[str]]) -> FindingsCounts:
        """Counts of texts whose true and found codes are given in the same order.

        Raises:
            ValueError: the two differ in length.
        """
        if len(expected) != len(found):
            raise ValueError(f"expected as many sets found as known, found {len(found)} and {len(expected)}")
        codes = sorted(set().union(*expected, *found))
        shape = (len(expected), len(codes))
        known, seen = (
            np.array([[code in row for code in codes] for row in rows], np.float64).reshape(shape) for rows in (expected, found)
        )
        return cls(known * seen, known, seen)

    def score(self, rows: NDArray[np.int64]) -> FindingsScore:
        """Score of any multiset of row numbers."""
        times = np.bincount(rows, minlength=len(self.hits)).astype(np.float64)
        hits, expected, found = times @ self.hits, times @ self.expected, times @ self.found
        there = expected > 0
        micro = _agreement(hits.sum(keepdims=True), expected.sum(keepdims=True), found.sum(keepdims=True))
        if not there.any():
            return FindingsScore(*(float(value[0]) for value in micro * 2))
        macro = _agreement(hits[there], expected[there], found[there])
        return FindingsScore(*(float(value.mean()) for value in micro + macro))


def findings_in(text: str) -> set[str]:
    """SCP codes of the findings and rhythms that a text states, denied ones left out."""
    return set(read(text).stated)


def findings_score(expected: Sequence[set[str]], found: Sequence[set[str]]) -> FindingsScore:
    """Precision, recall and F1 of codes found in texts, micro and macro; see `FindingsScore`."""
    return FindingsCounts.of(expected, found).score(np.arange(len(expected)))


@lru_cache(maxsize=1 << 16)
def read(text: str) -> Reading:
    """What a text states and what it denies, as SCP codes of `VOCABULARY`."""
    stated: set[str] = set()
    denied: set[str] = set()
    for sentence in sentences(text):
        matches, masked = _matches(sentence)
        reach = denials(sentence, masked)
        for start, code in matches:
            (denied if any(first <= start < last for first, last in reach) else stated).add(code)
    for rate, rhythm in ((SLOW, "SBRAD"), (FAST, "STACH")):
        # A slow or fast rate beside a sinus rhythm makes its name; beside another rhythm it makes none.
        if {rate, "SR"} <= stated:
            stated = stated - {"SR"} | {rhythm}
    return Reading(frozenset(stated & VOCABULARY), frozenset(denied & VOCABULARY))


def sentences(text: str) -> list[str]:
    """Statements of a text in lower case and one spelling, without questions and without a "no" that only answers."""
    plain = unicodedata.normalize("NFKC", text.replace("º", "°")).lower()
    for pattern, written in (*_SPELLINGS, *_SHARED_HEADS):
        plain = pattern.sub(written, plain)
    parts = (_ANSWER_NO.sub("", part).strip(" ,:'") for part in _SENTENCE_END.split(plain) if part)
    return [part for part in parts if part and not part.endswith("?")]


def denials(sentence: str, masked: str) -> list[tuple[int, int]]:
    """Stretches (from, to) of a sentence that a negation reaches.

    Args:
        sentence: as from `sentences`.
        masked: the same with all that is no candidate for a negation replaced, at the same length.
    """
    reach = []
    for cue in _DENIED_AFTER.finditer(masked):
        before = [end.end() for end in (_MANY_BEFORE if cue["many"] else _ONE_BEFORE).finditer(masked, 0, cue.start())]
        reach.append((before[-1] if before else 0, cue.start()))
    for cue in _DENIED_BEFORE.finditer(_DENIED_AFTER.sub(_masked, masked)):
        end = _CLAUSE_END.search(sentence, cue.end())
        reach.append((cue.end(), end.start() if end else len(sentence)))
    return reach


def _matches(sentence: str) -> tuple[list[tuple[int, str]], str]:
    """(place, code) of all wordings in a sentence, and the sentence without them; the more specific ones come first."""
    found: list[tuple[int, str]] = []
    for code, pattern in WORDINGS:
        for match in pattern.finditer(sentence):
            found.append((match.start(), code))
        sentence = pattern.sub(_masked, sentence)
    return [(start, code) for start, code in found if code], sentence


def _masked(match: re.Match[str]) -> str:
    return _MASK * len(match[0])


def _agreement(
    hits: NDArray[np.float64], expected: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1, element by element; 1 where nothing is expected and nothing found."""
    nothing = (expected + found) == 0
    parts = ((hits, found), (hits, expected), (2 * hits, expected + found))
    precision, recall, f1 = (np.where(nothing, 1.0, top / np.maximum(bottom, 1)) for top, bottom in parts)
    return precision, recall, f1
