"""Figures of a model that talks about ECGs, each beside what says how much it is worth.

`majority` is the best constant, taken from training: what can be had without reading anything. `shuffled` is the same
model asked the same, but given the ECG of another patient: what it has from the question and from habit. A model that
looks at the ECG is right more often than it is with the wrong one, which `gain_over_shuffled` measures row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgchat.judging.answers import constant_answer, is_right, right_by_constant
from ecgchat.judging.bootstrap import (
    LEVEL,
    RESAMPLES,
    Measured,
    Rows,
    interval,
    measured_mean,
    paired_difference,
    patient_resamples,
)
from ecgchat.judging.findings import FindingsCounts, findings_in
from ecgchat.judging.text_overlap import OverlapCounts

FEWEST_PATIENTS = 6
"""Patients from which on a comparison is drawn. Fewer all on one side are no evidence at the 5 % level: 2 · 0.5⁵ > 0.05."""

ASKED_ABOUT = frozenset(("finding", "change"))
"""Kinds whose questions differ by what they are about, so that each has a constant answer of its own."""


@dataclass(frozen=True)
class JudgedAnswer:
    """A question of the test set with what was expected and what was answered."""

    kind: str
    about: str | None
    expected: Any
    text: str
    shuffled_text: str
    """Answer to the same question, given the ECG of another patient."""
    patient: str


@dataclass(frozen=True)
class ReportScorer:
    """What the figures of a set of reports are counted from."""

    overlap: OverlapCounts
    findings: FindingsCounts

    @classmethod
    def of(cls, texts: Sequence[str], references: Sequence[str], codes: Sequence[Collection[str]]) -> ReportScorer:
        """Counts of reports, their references and the codes that they ought to state, in the same order."""
        found = {text: findings_in(text) for text in set(texts)}
        counts = FindingsCounts.of([set(row) for row in codes], [found[text] for text in texts])
        return cls(OverlapCounts.of(texts, references), counts)

    def score(self, rows: Rows) -> dict[str, float]:
        """Figure → value, 0 to 1, of any multiset of row numbers."""
        findings = self.findings.score(rows)
        return {
            **self.overlap.score(rows),
            "findings_precision": findings.precision,
            "findings_recall": findings.recall,
            "findings_f1": findings.f1,
            "findings_macro_f1": findings.macro_f1,
        }


def question_key(kind: str, about: str | None) -> str:
    """Name of a question: its kind, and for `ASKED_ABOUT` what it is about, such as `finding:AFIB`."""
    return f"{kind}:{about}" if kind in ASKED_ABOUT and about else kind


def judge_answers(
    answers: Sequence[JudgedAnswer], training: Mapping[str, Sequence[Any]], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Share of right answers, question by question.

    Args:
        answers: of the test set; kinds that are not right or wrong are left out.
        training: `question_key` → the true answers of training. A key that is missing there is looked for under its kind
            alone, then under all keys of its kind.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `question_key`, and `finding` and `change` over all that they are about → `n`, `patients`, `value`, `low`, `high`;
        `majority`, `shuffled`, `gain_over_majority` and `gain_over_shuffled` (row by row), each with `value`, `low` and `high`;
        `beats_majority`, `beats_shuffled` (intervals apart) and `looks_at_ecg` (the gain over `shuffled` surely above 0).
        The three are false below `FEWEST_PATIENTS`.

    Raises:
        ValueError: training has no answers for a kind of question.
    """
    groups: dict[str, list[JudgedAnswer]] = {}
    for answer in answers:
        if is_right(answer.kind, answer.about, answer.expected, answer.text) is not None:
            for key in dict.fromkeys((answer.kind, question_key(answer.kind, answer.about))):
                groups.setdefault(key, []).append(answer)
    constants = {
        (one.kind, one.about): constant_answer(one.kind, _training_of(one, training))
        for group in groups.values()
        for one in group
    }
    return {key: _judge_group(group, constants, resamples, seed) for key, group in sorted(groups.items())}


def judge_reports(
    references: Sequence[str],
    generated: Sequence[str],
    shuffled: Sequence[str],
    expected_codes: Sequence[Collection[str]],
    patients: Sequence[str],
    training_reports: Sequence[str] = (),
    constant_report: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Words and findings of generated reports against those of the references.

    Args:
        references: (records,) the true reports.
        generated: (records,)
        shuffled: (records,) generated for the ECG of another patient.
        expected_codes: (records,) SCP codes of each record; the codes of a report are found by `findings_in`.
        patients: (records,)
        training_reports: the most frequent one is the constant; of equally frequent ones the first of the alphabet.
        constant_report: used instead where it is given.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `bleu_1`, `bleu_4`, `rouge_l`, `findings_precision`, `findings_recall`, `findings_f1` (micro) and
        `findings_macro_f1` → a row as of `judge_answers`.

    Raises:
        ValueError: the lists differ in length or are empty, or there is no constant report.
    """
    lengths = {len(rows) for rows in (references, generated, shuffled, expected_codes, patients)}
    if len(lengths) != 1 or not references:
        raise ValueError(f"expected as many reports, codes and patients as references, found lists of {sorted(lengths)}")
    constant = [_constant_report(training_reports, constant_report)] * len(references)
    systems = [ReportScorer.of(texts, references, expected_codes) for texts in (generated, constant, shuffled)]
    everything = [system.score(np.arange(len(references))) for system in systems]
    drawn = [[system.score(rows) for system in systems] for rows in patient_resamples(patients, resamples, seed)]
    return {
        name: _report_row([one[name] for one in everything], [[one[name] for one in row] for row in drawn], patients)
        for name in everything[0]
    }


def _training_of(answer: JudgedAnswer, training: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    for key in (question_key(answer.kind, answer.about), answer.kind):
        if training.get(key):
            return training[key]
    return [value for key, values in training.items() if key.startswith(f"{answer.kind}:") for value in values]


def _judge_group(
    group: Sequence[JudgedAnswer], constants: Mapping[tuple[str, str | None], Any], resamples: int, seed: int
) -> dict[str, Any]:
    patients = [one.patient for one in group]
    right = [float(bool(is_right(one.kind, one.about, one.expected, one.text))) for one in group]
    blind = [float(bool(is_right(one.kind, one.about, one.expected, one.shuffled_text))) for one in group]
    constant = [float(right_by_constant(one.kind, one.expected, constants[one.kind, one.about])) for one in group]
    model, majority, shuffled = (measured_mean(values, patients, resamples, seed) for values in (right, constant, blind))
    over_majority, over_shuffled = (paired_difference(right, other, patients, resamples, seed) for other in (constant, blind))
    return _row(model, majority, shuffled, over_majority, over_shuffled, patients)


def _report_row(whole: Sequence[float], drawn: Sequence[Sequence[float]], patients: Sequence[str]) -> dict[str, Any]:
    """Row of a figure of the model, the constant and the shuffled model: of all records, and of each resample."""
    model, majority, shuffled = (
        Measured(value, *interval([row[place] for row in drawn], LEVEL)) for place, value in enumerate(whole)
    )
    over_majority, over_shuffled = (
        Measured(whole[0] - whole[other], *interval([row[0] - row[other] for row in drawn], LEVEL)) for other in (1, 2)
    )
    return _row(model, majority, shuffled, over_majority, over_shuffled, patients)


def _row(
    model: Measured,
    majority: Measured,
    shuffled: Measured,
    over_majority: Measured,
    over_shuffled: Measured,
    patients: Sequence[str],
) -> dict[str, Any]:
    enough = len(set(patients)) >= FEWEST_PATIENTS
    return {
        "n": len(patients),
        "patients": len(set(patients)),
        **model.as_dict(),
        "majority": majority.as_dict(),
        "shuffled": shuffled.as_dict(),
        "gain_over_majority": over_majority.as_dict(),
        "gain_over_shuffled": over_shuffled.as_dict(),
        "beats_majority": enough and model.above(majority),
        "beats_shuffled": enough and model.above(shuffled),
        "looks_at_ecg": enough and over_shuffled.low > 0,
    }


def _constant_report(training_reports: Sequence[str], constant_report: str | None) -> str:
    if constant_report is not None:
        return constant_report
    if not training_reports:
        raise ValueError("expected the reports of training or a constant report, found neither; give one of the two")
    counts = Counter(training_reports)
    return min(counts, key=lambda text: (-counts[text], text))
