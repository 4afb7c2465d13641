"""The figures of a model beside the best constant and beside the model that was given another ECG."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgchat.judging.report import FEWEST_PATIENTS, JudgedAnswer, judge_answers, judge_reports, question_key
from shards.simulate.case import draw_case
from shards.simulate.reports import report

TRAINING = {
    "rhythm": ["SR", "SR", "AFIB"],
    "rate": [60, 70, 80],
    "finding:LVH": ["no", "no", "yes"],
    "finding:CLBBB": ["yes", "yes", "no"],
    "change:rate": ["first", "second", "second"],
}
NAMES = {"SR": "Sinus rhythm.", "AFIB": "Atrial fibrillation."}


def rhythm(number, truth, said, blind):
    return JudgedAnswer("rhythm", None, truth, NAMES[said], NAMES[blind], str(number))


def claims(row):
    return [row[name] for name in ("beats_majority", "beats_shuffled", "looks_at_ecg")]


def test_a_model_that_looks_beats_both():
    answers = [rhythm(i, truth, truth, "SR") for i, truth in enumerate(["SR", "AFIB"] * 40)]
    row = judge_answers(answers, TRAINING, resamples=200)["rhythm"]
    assert (row["n"], row["patients"]) == (80, 80)
    assert (row["value"], row["low"], row["high"]) == (1.0, 1.0, 1.0)
    assert row["majority"]["value"] == row["shuffled"]["value"] == 0.5
    assert row["gain_over_majority"]["value"] == row["gain_over_shuffled"]["value"] == 0.5
    assert row["gain_over_majority"]["low"] > 0
    assert claims(row) == [True, True, True]
    json.dumps(row)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["SR", "AFIB"]), st.sampled_from(["SR", "AFIB"])), min_size=1, max_size=20))
def test_a_model_that_ignores_the_ecg_is_found_out(pairs):
    answers = [rhythm(i, truth, said, said) for i, (truth, said) in enumerate(pairs)]
    row = judge_answers(answers, TRAINING, resamples=50)["rhythm"]
    assert row["gain_over_shuffled"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert claims(row)[1:] == [False, False]


def test_each_finding_has_its_own_constant_and_all_of_them_a_row():
    answers = [
        JudgedAnswer("finding", code, truth, f"{truth}.", "no.", str(i))
        for i, (code, truth) in enumerate([("LVH", "no"), ("CLBBB", "yes"), ("CLBBB", "no")] * 4)
    ]
    rows = judge_answers(answers, TRAINING, resamples=50)
    assert set(rows) == {"finding", "finding:LVH", "finding:CLBBB"}
    assert rows["finding:LVH"]["majority"]["value"] == 1.0
    assert rows["finding:CLBBB"]["majority"]["value"] == 0.5
    assert rows["finding"]["majority"]["value"] == pytest.approx(2 / 3)
    assert rows["finding"]["value"] == 1.0
    assert rows["finding"]["n"] == 12


def test_a_finding_that_training_never_asked_has_the_constant_of_the_others():
    answer = JudgedAnswer("finding", "AFIB", "no", "no", "no", "p")
    assert judge_answers([answer], TRAINING, resamples=5)["finding:AFIB"]["majority"]["value"] == 1.0
    assert judge_answers([answer], {"finding": ["yes"]}, resamples=5)["finding:AFIB"]["majority"]["value"] == 0.0
    with pytest.raises(ValueError, match="found none"):
        judge_answers([answer], {"rhythm": ["SR"]})


def test_numbers_are_compared_with_the_median():
    answers = [JudgedAnswer("rate", None, rate, f"{rate} bpm", "no idea", str(rate)) for rate in (62, 75, 79, 95)]
    row = judge_answers(answers, TRAINING, resamples=50)["rate"]
    assert row["value"] == 1.0
    assert row["majority"]["value"] == 0.75
    assert row["shuffled"]["value"] == 0.0


def test_few_patients_prove_nothing():
    answers = [rhythm(i % (FEWEST_PATIENTS - 1), "AFIB", "AFIB", "SR") for i in range(60)]
    row = judge_answers(answers, TRAINING, resamples=50)["rhythm"]
    assert row["patients"] == FEWEST_PATIENTS - 1
    assert claims(row) == [False, False, False]
    more = [replace(answer, patient=str(i)) for i, answer in enumerate(answers)]
    assert judge_answers(more, TRAINING, resamples=50)["rhythm"]["looks_at_ecg"]


def test_what_is_not_right_or_wrong_is_left_out():
    assert judge_answers([JudgedAnswer("report", None, "normal ecg", "normal ecg", "", "p")], {}) == {}
    assert judge_answers([], {}) == {}


def test_questions_are_named_by_what_they_are_about():
    assert question_key("finding", "AFIB") == "finding:AFIB"
    assert question_key("change", "rate") == "change:rate"
    assert question_key("rate", None) == "rate"


@pytest.fixture(scope="module")
def simulated():
    cases = [draw_case(5, number) for number in range(1, 61)]
    reports = [report(case) for case in cases]
    return reports, [set(case.findings.codes) for case in cases], [str(case.patient.number) for case in cases]


def test_perfect_reports_score_1_and_look_at_the_ecg(simulated):
    reports, codes, patients = simulated
    rows = judge_reports(reports, reports, [*reports[1:], reports[0]], codes, patients, reports, resamples=50)
    names = ("bleu_1", "bleu_4", "rouge_l", "findings_precision", "findings_recall", "findings_f1", "findings_macro_f1")
    assert tuple(rows) == names
    for row in rows.values():
        assert row["value"] == row["low"] == row["high"] == pytest.approx(1.0)
        assert row["shuffled"]["high"] < 1
        assert row["gain_over_shuffled"]["value"] == pytest.approx(row["value"] - row["shuffled"]["value"])
        assert claims(row) == [True, True, True]
    json.dumps(rows)


def test_one_report_for_all_is_the_constant(simulated):
    reports, codes, patients = simulated
    constant = "Sinus rhythm. Normal ecg."
    same = [constant] * len(reports)
    rows = judge_reports(reports, same, same, codes, patients, constant_report=constant, resamples=30)
    for row in rows.values():
        assert row["low"] <= row["value"] <= row["high"]
        assert {name: row[name] for name in ("value", "low", "high")} == row["majority"] == row["shuffled"]
        assert claims(row) == [False, False, False]
    training = [constant, constant, "lbbb"]
    assert judge_reports(reports, same, same, codes, patients, training, resamples=30) == rows


def test_reports_are_refused_where_a_list_is_short_or_a_constant_is_missing(simulated):
    reports, codes, patients = simulated
    with pytest.raises(ValueError, match="as many reports"):
        judge_reports(reports, reports[1:], reports, codes, patients, reports)
    with pytest.raises(ValueError, match="constant report"):
        judge_reports(reports, reports, reports, codes, patients)


def test_empty_reports_score_0(simulated):
    reports, codes, patients = simulated
    empty = [""] * len(reports)
    rows = judge_reports(reports, empty, empty, codes, patients, reports, resamples=10)
    assert all(row["value"] == 0 for row in rows.values())
