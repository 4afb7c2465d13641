"""Reports in English, put together from phrases: several for each finding, in more than one order."""

from __future__ import annotations

import numpy as np

from shards.simulate.case import WORDS, Case

REPORT_PHRASES: dict[str, tuple[str, ...]] = {
    "NORM": ("normal ecg", "ecg within normal limits", "normal tracing", "findings are normal"),
    "SR": ("sinus rhythm", "normal sinus rhythm", "the rhythm is sinus"),
    "SBRAD": ("sinus bradycardia", "slow sinus rhythm, bradycardia", "bradycardic sinus rhythm"),
    "STACH": ("sinus tachycardia", "fast sinus rhythm, tachycardia", "tachycardic sinus rhythm"),
    "AFIB": (
        "atrial fibrillation",
        "atrial fibrillation with irregular ventricular response",
        "absolute arrhythmia in atrial fibrillation",
    ),
    "1AVB": (
        "first degree av block",
        "prolonged pr interval, first degree av block",
        "av block i°",
        "first-degree atrioventricular block",
    ),
    "CLBBB": (
        "complete left bundle branch block",
        "left bundle branch block",
        "lbbb",
        "complete lbbb with secondary st-t changes",
    ),
    "CRBBB": ("complete right bundle branch block", "right bundle branch block", "rbbb", "complete rbbb with rsr' in v1"),
    "PVC": (
        "premature ventricular complexes",
        "ventricular extrasystole(s)",
        "ventricular premature beats",
        "ventricular ectopic beats",
    ),
    "AMI": (
        "acute anterior myocardial infarction",
        "anterior infarction",
        "anterior wall infarct",
        "anterior myocardial infarct",
    ),
    "IMI": (
        "acute inferior myocardial infarction",
        "inferior infarction",
        "inferior wall infarct",
        "inferior myocardial infarct",
    ),
    "STE_": ("st elevation", "st segment elevation", "elevated st segments", "raised st segments"),
    "LVH": (
        "left ventricular hypertrophy",
        "left ventricular hypertrophy with strain",
        "voltage criteria for left ventricular hypertrophy",
        "lvh with st-t changes",
    ),
}
"""SCP code → ways to say it."""

TERRITORIES: dict[str, tuple[str, ...]] = {
    "AMI": ("in v1-v4", "in the anterior leads", "in leads v1 to v4"),
    "IMI": ("in ii, iii and avf", "in the inferior leads", "in leads ii, iii, avf"),
}
"""Where the ST elevation of an infarct is."""

RATES_SAID = (" at {rate} bpm", ", rate {rate}/min", " with a rate of {rate} per minute", ", heart rate {rate} bpm", "")
ONLY_REMARK = ("otherwise normal ecg", "otherwise normal", "ecg otherwise within normal limits")
MINOR = frozenset(("SBRAD", "STACH", "1AVB", "PVC"))
"""Findings after which, alone, the rest of the tracing is normal."""


def report(case: Case) -> str:
    """The report of a case: one to four short sentences that say every finding, the same for the same case."""
    rng = np.random.default_rng([case.seed, WORDS, case.number])
    codes = case.findings.codes
    rhythm = _say(rng, case.findings.rhythm)
    rhythm += _choose(rng, RATES_SAID).format(rate=round(case.measurements.heart_rate))
    sentences = [rhythm, *_joined(rng, _findings_said(rng, case))]
    if rng.random() < 0.15:
        sentences.reverse()
    if rng.random() < 0.35:
        sentences.insert(int(rng.integers(1, len(sentences) + 1)), _intervals_said(case))
    others = [code for code in codes if code != "SR"]
    if others == ["NORM"]:
        sentences.append(_say(rng, "NORM"))
    elif len(others) == 1 and others[0] in MINOR and rng.random() < 0.6:
        sentences.append(_choose(rng, ONLY_REMARK))
    if rng.random() < 0.4:
        sentences = [sentence[0].upper() + sentence[1:] for sentence in sentences]
    return ". ".join(sentences) + "."


def _findings_said(rng: np.random.Generator, case: Case) -> list[str]:
    """One phrase for each finding beside the rhythm, in any order; an infarct and its ST elevation are said together."""
    infarct = case.findings.infarct
    said = [_say(rng, code) for code in ("CLBBB", "CRBBB", "1AVB", "LVH", "PVC") if code in case.findings.codes]
    if infarct:
        elevation = f"{_say(rng, 'STE_')} {_choose(rng, TERRITORIES[infarct])}"
        said.append(
            _choose(rng, ("{st}, {mi}", "{mi} with {st}", "{st} consistent with {mi}")).format(
                st=elevation, mi=_say(rng, infarct)
            )
        )
    return [said[place] for place in rng.permutation(len(said))]


def _joined(rng: np.random.Generator, said: list[str]) -> list[str]:
    """At most two sentences for all the findings."""
    if len(said) < 2 or (len(said) == 2 and rng.random() < 0.7):
        return said
    return [said[0], ", ".join(said[1:])]


def _intervals_said(case: Case) -> str:
    measured = case.measurements
    pr = f"pr {measured.pr_ms} ms, " if measured.pr_ms is not None else ""
    return f"{pr}qrs {measured.qrs_ms} ms, qt {measured.qt_ms} ms, qtc {round(measured.qtc_ms)} ms"


def _say(rng: np.random.Generator, code: str) -> str:
    return _choose(rng, REPORT_PHRASES[code])


def _choose(rng: np.random.Generator, phrases: tuple[str, ...]) -> str:
    return phrases[int(rng.integers(len(phrases)))]
