"""When a generated answer is right, and what a constant answer is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgchat.judging.answers import (
    INTERVAL_TOLERANCE_MS,
    RATE_TOLERANCE,
    constant_answer,
    is_right,
    milliseconds_in,
    number_in,
    right_by_constant,
)
from shards.conversations import names
from shards.conversations.phrases import ANSWERS

KINDS = ("rhythm", "rate_class", "rate", "pr", "qrs", "qt", "qtc", "finding", "findings", "change")

RIGHT = [
    ("rhythm", None, "AFIB", "The rhythm is atrial fibrillation."),
    ("rhythm", None, "AFIB", "Atrial fibrillation with lbbb, no sinus rhythm."),
    ("rate_class", None, "slow", "The heart rate is slow, below 60 beats per minute."),
    ("rate_class", None, "slow", "Bradycardic."),
    ("rate_class", None, "fast", "The rate is faster than normal."),
    ("rate_class", None, "fast", "There is tachycardia."),
    ("rate_class", None, "normal", "It is normal, neither slow nor fast."),
    ("rate_class", None, "normal", "Not slow but normal"),
    ("rate", None, 72, "About 80 beats per minute, not 120."),
    ("rate", None, 72, "62"),
    ("pr", None, 160, "The PR interval is 170 ms."),
    ("pr", None, 160, "PR (ms): 150"),
    ("pr", None, 160, "0.16 s"),
    ("qrs", None, 100, "On this 12-lead ECG the QRS lasts 100ms."),
    ("qt", None, 400, "400"),
    ("qtc", None, 420, "In V1 it is 425 milliseconds"),
    ("finding", "CLBBB", "yes", "Yes, there is complete left bundle branch block."),
    ("finding", "CLBBB", "yes", "**Yes**"),
    ("finding", "CLBBB", "yes", "The ECG shows LBBB."),
    ("finding", "CLBBB", "no", "No, there is no complete left bundle branch block."),
    ("finding", "CLBBB", "no", "No."),
    ("finding", "CLBBB", "no", "There is no LBBB."),
    ("finding", "CLBBB", "no", "No, there is right bundle branch block."),
    ("finding", "CLBBB", "no", "The ECG shows sinus rhythm."),
    ("finding", "CLBBB", "yes", "Yes, LBBB is there, but no atrial fibrillation."),
    ("findings", None, ["CLBBB", "LVH"], "Normal sinus rhythm, LVH and LBBB."),
    ("findings", None, ["SBRAD"], "Sinus bradycardia, otherwise normal."),
    ("findings", None, [], "No abnormal findings."),
    ("findings", None, [], "None."),
    ("change", "rhythm", "yes", "Yes, the rhythm has changed from sinus rhythm to atrial fibrillation."),
    ("change", "rhythm", "no", "No, both ECGs show sinus rhythm."),
    ("change", "rate", "second", "The second ECG has the faster rate than the first."),
    ("change", "rate", "first", "The heart rate is faster in the first ECG."),
    ("change", "rate", "first", "The first, at 90 beats per second degree AV block"),
]

WRONG = [
    ("rhythm", None, "AFIB", "Sinus rhythm."),
    ("rhythm", None, "AFIB", "Atrial fibrillation or sinus rhythm."),
    ("rhythm", None, "AFIB", "No atrial fibrillation."),
    ("rate_class", None, "slow", "It is not slow."),
    ("rate_class", None, "slow", "Slow or fast."),
    ("rate_class", None, "normal", "The rate is abnormal."),
    ("rate_class", None, "normal", "faster than normal"),
    ("rate", None, 72, "83"),
    ("rate", None, 72, "Between 40 and 72."),
    ("rate", None, 72, "as seen in V72"),
    ("rate", None, 15, "-15"),
    ("pr", None, 160, "181 ms"),
    ("pr", None, 160, "160 s"),
    ("finding", "CLBBB", "yes", "Yes and no."),
    ("finding", "CLBBB", "no", "Yes. No."),
    ("finding", "CLBBB", "yes", "Yes, there is no left bundle branch block."),
    ("finding", "CLBBB", "no", "No, there is left bundle branch block."),
    ("finding", "CLBBB", "no", "There is LBBB. There is no LBBB."),
    ("finding", "CLBBB", "yes", "There is incomplete left bundle branch block."),
    ("finding", "CLBBB", "no", "I cannot tell."),
    ("findings", None, ["LVH"], "LVH and atrial fibrillation."),
    ("findings", None, ["LVH", "CLBBB"], "LVH"),
    ("findings", None, [], "心"),
    ("change", "rhythm", "yes", "Yes/no"),
    ("change", "rhythm", "yes", "No."),
    ("change", "rate", "first", "The first or the second."),
    ("change", "rate", "first", "Not the first but the second."),
]


@pytest.mark.parametrize(("kind", "about", "expected", "text"), RIGHT)
def test_right(kind, about, expected, text):
    assert is_right(kind, about, expected, text) is True


@pytest.mark.parametrize(("kind", "about", "expected", "text"), WRONG)
def test_wrong(kind, about, expected, text):
    assert is_right(kind, about, expected, text) is False


SOME = {
    "rhythm": "SR",
    "rate_class": "normal",
    "rate": 70,
    "finding": "no",
    "findings": [],
    "change": "no",
    **dict.fromkeys(("pr", "qrs", "qt", "qtc"), 0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "—", "\x00", "🫀"])
def test_an_answer_that_says_nothing_is_wrong(kind, text):
    assert is_right(kind, "rhythm" if kind == "change" else "AFIB", SOME[kind], text) is False


@pytest.mark.parametrize("kind", ["report", "general", "opinion", ""])
def test_other_kinds_are_not_judged(kind):
    assert is_right(kind, None, "normal ecg", "normal ecg") is None
    assert is_right("change", "axis", "yes", "yes") is None
    assert is_right("rate", None, None, "70") is None


@given(st.sampled_from(KINDS), st.text(max_size=60))
def test_any_text_can_be_judged(kind, text):
    assert is_right(kind, "rate" if kind == "change" else "AFIB", SOME[kind], text) in (True, False)


@given(st.integers(20, 300), st.integers(-40, 40))
def test_numbers_are_right_within_their_tolerance(expected, miss):
    said = expected + miss
    if said >= 0:
        assert is_right("rate", None, expected, f"The rate is {said} bpm.") is (abs(miss) <= RATE_TOLERANCE)
        assert is_right("qt", None, expected, f"It is {said} ms.") is (abs(miss) <= INTERVAL_TOLERANCE_MS)
        assert right_by_constant("rate", expected, said) is (abs(miss) <= RATE_TOLERANCE)


@pytest.mark.parametrize(
    ("text", "value"), [("QTc 420.5", 420.5), ("0,5", 0.5), ("60-100", 60), ("-7", -7), ("V1", None), ("", None)]
)
def test_the_first_number_of_a_text(text, value):
    assert number_in(text) == value


def test_a_duration_in_ms_goes_before_other_numbers():
    assert milliseconds_in("lead 2, at 70 bpm: PR 160 msec, QRS 90 ms") == 160
    assert milliseconds_in("0,2 seconds") == 200
    assert milliseconds_in("no number") is None


@pytest.mark.parametrize(
    ("kind", "answers", "constant"),
    [
        ("rate", [60, 70, 200], 70.0),
        ("pr", [160, 170], 165.0),
        ("rhythm", ["SR", "AFIB", "SR"], "SR"),
        ("finding", ["yes", "no"], "no"),
        ("findings", [["LVH", "AFIB"], ["AFIB", "LVH"], []], ["AFIB", "LVH"]),
        ("findings", [[], ["LVH"]], []),
    ],
)
def test_the_constant_answer(kind, answers, constant):
    assert constant_answer(kind, answers) == constant


def test_a_constant_needs_answers():
    with pytest.raises(ValueError, match="found none"):
        constant_answer("rate", [])


def test_constants_are_compared_like_answers():
    assert right_by_constant("findings", ["LVH", "AFIB"], ["AFIB", "LVH"])
    assert right_by_constant("findings", ["SR"], [])
    assert not right_by_constant("findings", ["LVH"], [])
    assert right_by_constant("rhythm", "SR", "SR")
    assert not right_by_constant("finding", "yes", "no")


def test_the_answers_that_training_gives_are_right():
    """The wording of the conversations and the judge agree: else a perfect model would be marked down."""
    for code, name in names.FINDINGS.items():
        for truth in ("yes", "no"):
            for wording in ANSWERS[f"finding={truth}"]:
                said = wording.format(**{"is": names.is_or_are(name), "name": name})
                assert [is_right("finding", code, answer, said) for answer in ("yes", "no")] == [truth == "yes", truth == "no"]
        for other in sorted({"LVH", "SBRAD", "PVC"} - {code}):
            for wording in ANSWERS["findings"]:
                codes = sorted([code, other])
                assert is_right("findings", None, codes, wording.format(findings=names.listed(codes)))
    for code, name in names.RHYTHMS.items():
        assert all(is_right("rhythm", None, code, wording.format(name=name)) for wording in ANSWERS["rhythm"])
    for said in ("slow", "normal", "fast"):
        assert all(is_right("rate_class", None, said, wording) for wording in ANSWERS[f"rate_class={said}"])
    assert all(is_right("findings", None, [], wording) for wording in ANSWERS["findings=[]"])
    assert all(is_right("change", "rate", "first", wording.format(which="first")) for wording in ANSWERS["change:rate"])
