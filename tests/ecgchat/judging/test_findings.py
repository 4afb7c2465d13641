"""What the reader of findings takes a text to state, and how agreement is scored."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from ecgchat.judging.findings import FindingsCounts, findings_in, findings_score, read
from ecgchat.judging.wordings import RHYTHMS, VOCABULARY
from shards.simulate.case import draw_case
from shards.simulate.reports import REPORT_PHRASES, report

STATED = {
    "The rhythm is atrial fibrillation.": {"AFIB"},
    "Yes, there is complete left bundle branch block.": {"CLBBB"},
    "The ECG shows sinus bradycardia and left ventricular hypertrophy.": {"SBRAD", "LVH"},
    "LEFT BUNDLE BRANCH BLOCKS": {"CLBBB"},
    "lbbb, rbbb": {"CLBBB", "CRBBB"},
    "ｌｂｂｂ": {"CLBBB"},
    "left bundle branch block": {"CLBBB"},
    "incomplete right bundle-branch block": {"IRBBB"},
    "RBBB (incomplete), LBBB": {"IRBBB", "CLBBB"},
    "complete LBBB with secondary ST-T changes": {"CLBBB"},
    "left and right bundle branch block": {"CLBBB", "CRBBB"},
    "av block i°": {"1AVB"},
    "AV-Block Iº": {"1AVB"},
    "I. degree AV block": {"1AVB"},
    "second-degree A-V block, Mobitz type II": {"2AVB"},
    "complete heart block": {"3AVB"},
    "atrial flutter with 2:1 block": {"AFLT"},
    "first degree AV block, second degree AV block": {"1AVB", "2AVB"},
    "prolonged PR interval, first degree av block": {"1AVB"},
    "first degree av block, prolonged PR interval": {"1AVB", "LPR"},
    "anteroseptal infarction": {"ASMI"},
    "Antero-septal STEMI": {"ASMI"},
    "old infarction of the inferior wall": {"IMI"},
    "anterior infarct, inferior ST depression": {"AMI", "STD_"},
    "inferior and lateral infarction": {"IMI", "LMI"},
    "anterior infarct cannot be excluded": {"AMI"},
    "ischaemia": {"ISC_"},
    "anterolateral ischemia": {"ISCAL"},
    "lvh with strain": {"LVH"},
    "voltage criteria for left ventricular hypertrophy": {"LVH"},
    "voltage criteria (QRS) for left ventricular hypertrophy": {"VCLVH"},
    "T waves are inverted in V1-V3": {"INVT"},
    "ST elevation and depression": {"STE_", "STD_"},
    "PVCs, supra-ventricular extrasystole(s)": {"PVC", "PAC"},
    "premature complexes": {"PRC(S)"},
    "normal sinus rhythm": {"SR"},
    "Sinus rhythm. Bradycardia.": {"SBRAD"},
    "sinus rhythm with tachycardia": {"STACH"},
    "bradycardic atrial fibrillation": {"AFIB"},
    "ventricular tachycardia": set(),
    "normal ECG": {"NORM"},
    "The tracing is within normal limits.": {"NORM"},
    "Normal.": {"NORM"},
    "No abnormal findings.": {"NORM"},
    "No abnormal findings in this ECG.": {"NORM"},
    "All intervals are within normal limits.": set(),
    "abnormal ECG": set(),
    "sinus bradycardia, otherwise normal ecg": {"SBRAD"},
    "ECG otherwise within normal limits": set(),
    "normal ECG except for sinus bradycardia": {"SBRAD"},
    "no abnormal findings other than atrial fibrillation": {"AFIB"},
    "sinus tachycardia, no other abnormalities": {"STACH"},
    "": set(),
    " \n\t ": set(),
    "...!?": set(),
    "心房細動 ❤️": set(),
}

DENIED = {
    "no atrial fibrillation": {"AFIB"},
    "without ST elevation": {"STE_"},
    "There is no AF, no LBBB and no LVH.": {"AFIB", "CLBBB", "LVH"},
    "no AF, AFL or LBBB": {"AFIB", "AFLT", "CLBBB"},
    "no anterior or inferior infarction": {"AMI", "IMI"},
    "No atrial fibrillation or flutter": {"AFIB", "AFLT"},
    "no evidence of LVH": {"LVH"},
    "no changes consistent with ischemia": {"ISC_"},
    "atrial fibrillation is absent": {"AFIB"},
    "ST depression, T wave inversion and Q waves are not seen": {"STD_", "INVT", "QWAVE"},
    "**LBBB:** no": {"CLBBB"},
    "LBBB has been ruled out": {"CLBBB"},
    "ST elevation isn't present": {"STE_"},
    "not a normal ECG": {"NORM"},
    "There are no abnormalities such as LBBB": {"CLBBB"},
    "No, there is no atrial fibrillation.": {"AFIB"},
}

BOTH = {
    "no AF, but LBBB": ({"CLBBB"}, {"AFIB"}),
    "RBBB is seen, LBBB is not": ({"CRBBB"}, {"CLBBB"}),
    "anterior infarction without ST elevation and with LVH": ({"AMI", "LVH"}, {"STE_"}),
    "no AF. LBBB": ({"CLBBB"}, {"AFIB"}),
    "no AF; LBBB": ({"CLBBB"}, {"AFIB"}),
    "no AF, LBBB is present": ({"CLBBB"}, {"AFIB"}),
    "No AF, sinus rhythm at 70 bpm.": ({"SR"}, {"AFIB"}),
    "There is no AF and the rhythm is sinus rhythm.": ({"SR"}, {"AFIB"}),
    "The rhythm is not atrial fibrillation but sinus rhythm.": ({"SR"}, {"AFIB"}),
    "Sinus rhythm is present and AF is absent": ({"SR"}, {"AFIB"}),
    "Sinus rhythm, AF is absent": ({"SR"}, {"AFIB"}),
    "No, the rhythm is sinus rhythm.": ({"SR"}, set()),
    "No regular P waves, atrial fibrillation": ({"AFIB"}, set()),
    "not only LBBB but also AF": ({"CLBBB", "AFIB"}, set()),
    "Is there LBBB? No, RBBB.": ({"CRBBB"}, set()),
}


@pytest.mark.parametrize(("text", "codes"), STATED.items())
def test_a_text_states(text, codes):
    assert findings_in(text) == codes
    assert read(text).denied == set()


@pytest.mark.parametrize(("text", "codes"), DENIED.items())
def test_a_text_denies(text, codes):
    assert read(text) == (set(), codes)


@pytest.mark.parametrize(("text", "said"), BOTH.items())
def test_a_negation_ends_where_its_clause_does(text, said):
    assert read(text) == said


def test_every_simulated_report_gives_back_its_codes():
    for number in range(1, 1501):
        case = draw_case(11, number)
        assert findings_in(report(case)) == set(case.findings.codes), report(case)


@pytest.mark.parametrize("code", REPORT_PHRASES)
def test_every_simulated_phrase_can_be_denied(code):
    for phrase in REPORT_PHRASES[code]:
        assert findings_in(f"There is no {phrase}.") == set()


def described(folder):
    with (folder / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
        return [(row[""], row["description"]) for row in csv.DictReader(file)]


def test_every_description_of_ptb_xl_gives_its_code(ptb_xl_folder):
    statements = described(ptb_xl_folder)
    assert {code for code, _ in statements} == VOCABULARY
    assert {code: findings_in(text) for code, text in statements} == {code: {code} for code, _ in statements}
    assert {code: read(f"There is no {text}.") for code, text in statements} == {
        code: (set(), {code}) for code, _ in statements
    }


def test_reports_made_of_descriptions_give_back_their_codes(ptb_xl_folder):
    statements = described(ptb_xl_folder)
    rng = np.random.default_rng(0)
    for _ in range(400):
        drawn = [statements[place] for place in sorted(rng.choice(len(statements), size=5, replace=False))]
        assert findings_in(", ".join(text for _, text in drawn)) == {code for code, _ in drawn}


def test_the_rhythms_belong_to_the_vocabulary():
    assert RHYTHMS < VOCABULARY


@given(st.text(max_size=80))
def test_any_text_can_be_read(text):
    assert findings_in(text) <= VOCABULARY


CODES = ["AFIB", "CLBBB", "LVH", "SR"]
RECORDS = st.lists(st.tuples(st.sets(st.sampled_from(CODES)), st.sets(st.sampled_from(CODES))), min_size=1, max_size=12)


def as_matrix(rows):
    return np.array([[code in row for code in CODES] for row in rows], int)


@given(RECORDS)
def test_the_score_is_sklearns(records):
    expected, found = ([pair[side] for pair in records] for side in (0, 1))
    score = findings_score(expected, found)
    there = [place for place, code in enumerate(CODES) if any(code in row for row in expected)]
    if there:
        truth, guess = as_matrix(expected), as_matrix(found)
        options = {"zero_division": 0}
        assert score.precision == pytest.approx(precision_score(truth, guess, average="micro", **options))
        assert score.recall == pytest.approx(recall_score(truth, guess, average="micro", **options))
        assert score.f1 == pytest.approx(f1_score(truth, guess, average="micro", **options))
        assert score.macro_f1 == pytest.approx(f1_score(truth, guess, labels=there, average="macro", **options))


@given(RECORDS)
def test_perfect_findings_score_1_and_a_resample_is_scored_like_its_rows(records):
    expected, found = ([pair[side] for pair in records] for side in (0, 1))
    perfect = findings_score(expected, expected)
    assert (perfect.precision, perfect.recall, perfect.f1, perfect.macro_f1) == (1, 1, 1, 1)
    rows = np.array([0, 0, len(records) - 1])
    again = findings_score([expected[row] for row in rows], [found[row] for row in rows])
    assert FindingsCounts.of(expected, found).score(rows) == again


def test_the_score_needs_as_many_found_as_expected():
    with pytest.raises(ValueError, match="as many sets"):
        findings_score([{"SR"}], [])
