"""Words of reports: each rule does its work on its phrase, and on nothing that merely looks like it."""

import csv
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sources.statement_text import CART_RULES, PTB_XL_RULES, clean_statements

# Phrase of a rule → (statement, what the rules make of it) that it works on; a statement that must pass unchanged.
CART_EXAMPLES = {
    r"-{3,}|\*{3,}": (("*** CONSIDER ACUTE INFARCT ***", "CONSIDER ACUTE INFARCT"), "rSr'(V1) - probable normal variant"),
    r"^summary:": (("Summary: ABNORMAL ECG", "ABNORMAL ECG"), "No summary: rhythm not determined"),
    r"(?<![. ])[. ]+$": (("Sinus bradycardia.", "Sinus bradycardia"), "0.5 mm ST elevation"),
    r"(?:warning: )?data quality may affect interpretation": (
        ("--- Warning: Data quality may affect interpretation ---", None),
        "Abnormal ECG, data quality may affect interpretation of V1",
    ),
    r"poor quality data, interpretation may be affected": (
        ("Poor quality data, interpretation may be affected", None),
        "Poor R wave progression",
    ),
    r"recording unsuitable for analysis - please repeat": (
        ("--- Recording unsuitable for analysis - please repeat ---", None),
        "Recording unsuitable for analysis of P waves",
    ),
    r"all 12 leads are missing": (("All 12 leads are missing", None), "P waves are missing"),
    r"analysis error": (("Analysis error", None), "Q in V1/V2 may be due to lead placement error"),
    r"possible measurement error": (("--- Possible measurement error ---", None), "Possible left atrial enlargement"),
    r"(?:report|interpretation) made without knowing patient's (?:sex|age|gender)(?: or age)?": (
        ("*** report made without knowing patient's sex or age ***", None),
        "Sinus rhythm, report made without knowing patient's sex",
    ),
    r"age not entered, assumed to be \d+ years old[\w ]*": (
        ("Age not entered, assumed to be 50 years old for purpose of ECG interpretation", None),
        "QRS axis leftward for age",
    ),
    r"pediatric criteria used": (("--- Pediatric criteria used ---", None), "Pediatric criteria for hypertrophy met"),
    r"pediatric ecg interpretation": (
        ("-------------------- Pediatric ECG interpretation --------------------", None),
        "Normal pediatric ECG",
    ),
    r"suspect (?:arm|limb) lead reversal(?: - only [\w, -]+ analyzed)?": (
        ("--- Suspect arm lead reversal - only aVF, V1-V6 analyzed ---", None),
        "Suspect limb lead reversal or dextrocardia",
    ),
    r"suspect (?:arm|limb) lead reversal, interpretation assumes no reversal": (
        ("*** Suspect arm lead reversal, interpretation assumes no reversal", None),
        "Suspect septal infarct",
    ),
    r"lead\(s\) unsuitable for analysis:[\w, ]*": (
        ("LEAD(S) UNSUITABLE FOR ANALYSIS: V1, V2", None),
        "Tall R wave in lateral leads",
    ),
    r"possible faulty [\w, ]+ - omitted from analysis": (
        ("Possible faulty V2 - omitted from analysis", None),
        "Possible right atrial abnormality",
    ),
    r"possible sequence error: [\w, ]+ omitted": (
        ("Possible sequence error: V1,V2 omitted", None),
        "Possible biatrial enlargement",
    ),
    r"pacer detection suspended due to external noise ?- ?review advised": (
        ("PACER DETECTION SUSPENDED DUE TO EXTERNAL NOISE-REVIEW ADVISED", None),
        "Demand pacing",
    ),
    r"if rhythm is confirmed, the following report may not be valid": (
        ("IF RHYTHM IS CONFIRMED, THE FOLLOWING REPORT MAY NOT BE VALID", None),
        "Irregular ectopic atrial rhythm",
    ),
    r" ?[-,] age (?:undetermined|indeterminate)\b": (
        ("Probable anterior infarct , age indeterminate", "Probable anterior infarct"),
        "Probable anteroseptal infarct, old",
    ),
    r" - no further analysis\b": (
        ("Pacemaker rhythm - no further analysis", "Pacemaker rhythm"),
        "Poor R wave progression - cannot rule out septal infarct",
    ),
    r"\bRBBB\b": (("RBBB with RAD", "right bundle branch block with RAD"), "iRBBBs"),
    r"\bLBBB\b": (("Incomplete LBBB", "Incomplete left bundle branch block"), "LBBBB"),
    r"\bLVH\b": (("Q may be due to LVH", "Q may be due to left ventricular hypertrophy"), "LVHV"),
    r"\bRVH\b": (("RVH, probable", "right ventricular hypertrophy, probable"), "BiRVH"),
    r"\bMI\b": (
        ("CONSIDER ACUTE ST ELEVATION MI", "CONSIDER ACUTE ST ELEVATION myocardial infarction"),
        "Sinus arrhythmia, ischemia, minimal ST depression, within limits, STEMI",
    ),
    r"\bLAFB\b": (("lafb", "left anterior fascicular block"), "LAFBs"),
    r"\bPVCs\b|\bPVC\(s\)": (
        ("Atrial fibrillation with PVC(s)", "Atrial fibrillation with premature ventricular complexes"),
        "Frequent multifocal ventricular premature complexes",
    ),
    r"\bPVC\b(?!\(s\))": (("Single PVC", "Single premature ventricular complex"), "PVCX"),
    r"\bPACs\b|\bPAC\(s\)": (("Sinus rhythm with PACs", "Sinus rhythm with premature atrial complexes"), "Ventricular pacing"),
    r"\bPAC\b(?!\(s\))": (("with a PAC", "with a premature atrial complex"), "PACE, PACED"),
}
PTB_XL_EXAMPLES = {
    r"(?:\b4\.46 )?\bunconfirmed(?: report)?[. ]*$": (
        ("sinus rhythm. otherwise normal ECG 4.46 unconfirmed report", "sinus rhythm. otherwise normal ECG"),
        "unconfirmed atrial flutter, qt 4.46",
    ),
    r",? age undetermined\b": (("inferior infarct, age undetermined.", "inferior infarct."), "normal for age"),
    r"\bnormales\b": (("otherwise normales finding", "otherwise normal finding"), "sinus rhythm. normal finding"),
    r"\be[ck]g\b": (("normal ekg.", "normal ECG."), "ekgs"),
}
LISTS = {"cart": (CART_RULES, CART_EXAMPLES), "ptb-xl": (PTB_XL_RULES, PTB_XL_EXAMPLES)}
EACH_RULE = [pytest.param(name, rule, id=f"{name}: {rule.phrase}") for name, (rules, _) in LISTS.items() for rule in rules]
FINDINGS = ["Sinus arrhythmia", "Myocardial ischemia", "within limits", "minimal", "IV conduction defect", "Normal ECG", "LAE"]


@pytest.mark.parametrize(("name", "rule"), EACH_RULE)
def test_each_rule_works_on_its_phrase_and_on_no_other(name, rule):
    rules, examples = LISTS[name]
    (statement, expected), unlike = examples[rule.phrase]
    assert clean_statements([statement], rules) == ([] if expected is None else [expected])
    assert clean_statements([unlike], rules) == [unlike]
    others = [other for other in rules if other is not rule]
    assert clean_statements([statement], others) != clean_statements([statement], rules), "another rule does the work"
    assert rule.why


@pytest.mark.parametrize("name", LISTS)
def test_no_example_is_left_of_a_rule_that_is_gone(name):
    rules, examples = LISTS[name]
    assert [rule.phrase for rule in rules] == [*examples]


@pytest.mark.parametrize(
    "statement", ["IV conduction defect", "Intraventricular conduction defect", "IV conduction defect is nonspecific"]
)
def test_conduction_defects_are_findings_and_stay(statement):
    assert clean_statements([statement]) == [statement]


@pytest.mark.parametrize("word", ["arrhythmia", "ischemia", "limits", "minimal", "minor", "myocardial", "admission"])
def test_words_that_hold_mi_stay_whole(word):
    assert clean_statements([word, word.upper()]) == [word, word.upper()]


def test_lbbb_is_the_left_bundle_branch():
    assert clean_statements(["LBBB", "RBBB"]) == ["left bundle branch block", "right bundle branch block"]


def test_statements_keep_their_order_and_empty_cells_count_for_nothing():
    assert clean_statements(["", "Sinus rhythm", "  ", "Analysis error", "Normal  ECG."]) == ["Sinus rhythm", "Normal ECG"]


@given(st.lists(st.sampled_from(FINDINGS)))
def test_findings_without_a_phrase_of_a_rule_pass_unchanged(findings):
    assert clean_statements(findings) == findings


@given(st.text(), st.sampled_from([CART_RULES, PTB_XL_RULES]))
def test_whatever_the_text_is_what_comes_out_is_one_line_and_not_empty(text, rules):
    for statement in clean_statements([text], rules):
        assert statement == " ".join(statement.split()) != ""


def test_a_long_run_of_one_character_takes_no_longer_than_its_length():
    begun = time.perf_counter()
    for text in (
        "." * 40_000 + "x",
        "-" * 40_000 + "x",
        ", " * 40_000,
        "Lead(s) unsuitable for analysis:" + "V1, " * 40_000 + "!",
    ):
        clean_statements([text])
        clean_statements([text], PTB_XL_RULES)
    assert time.perf_counter() - begun < 1.5


def test_what_is_clean_stays_as_it_is_in_every_real_report(corpus):
    with (corpus("mimic-iv-ecg") / "machine_measurements.csv").open(newline="") as file:
        cells = [row[f"report_{place}"] for row in csv.DictReader(file) for place in range(18)]
    once = clean_statements(cells)
    assert clean_statements(once) == once
    # Five of the published cells are notes (data quality twice, an analysis error, …); all others are findings.
    assert len(once) == sum(1 for cell in cells if cell) - 5
