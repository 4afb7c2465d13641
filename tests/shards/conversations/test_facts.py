"""What is asked of a record: only what it surely says, in words that name it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.conversations import facts
from shards.conversations.facts import Fact, facts_of, tells
from shards.conversations.general import GENERAL_FACTS
from shards.conversations.names import FINDINGS, RHYTHMS
from shards.conversations.overlaps import RELATED
from shards.conversations.phrases import ANSWERS, INTERVALS, QUESTIONS
from shards.conversations.questions import NAMES, in_words, possible_turns

ASKED = dict.fromkeys(FINDINGS, 1)
LABELS = st.dictionaries(st.sampled_from(["NORM", "SR", "ISCAL", *FINDINGS]), st.sampled_from([0, 0, 0, 1, None]))
MEASURED = st.one_of(st.none(), st.floats(20, 250))
RECORDS = st.builds(
    lambda labels, rate, pr, report: described(labels, report, heart_rate=rate, pr=pr),
    LABELS,
    MEASURED,
    MEASURED,
    st.one_of(st.none(), st.just("sinus rhythm.")),
)
PHRASINGS = ("training", "evaluation")


def described(labels, report=None, **measurements):
    return {"labels": labels, "measurements": measurements, "report": report}


def kinds(record, seed=0):
    return {(fact.kind, fact.about): fact.expected for fact in facts_of(record, ASKED, np.random.default_rng(seed))}


# --- facts


def test_the_rhythm_is_asked_where_exactly_one_is_stated():
    assert facts.rhythm(described({"SR": 0, "AFIB": 1})).expected == "AFIB"
    assert facts.rhythm(described({"SR": 1, "AFIB": 1})) is None
    assert facts.rhythm(described({"SR": 0, "AFIB": 0})) is None
    assert facts.rhythm(described({"SR": 1, "AFIB": None})) is None


@pytest.mark.parametrize(
    ("rate", "expected"), [(42.0, "slow"), (59.4, "slow"), (60.0, "normal"), (100.0, "normal"), (100.6, "fast"), (160, "fast")]
)
def test_the_rate_is_slow_below_60_and_fast_above_100(rate, expected):
    assert facts.rate_class(described({}, heart_rate=rate)).expected == expected


@pytest.mark.parametrize("rate", [59.7, 100.3])
def test_a_rate_that_rounding_carries_over_a_limit_has_no_class(rate):
    assert facts.rate_class(described({}, heart_rate=rate)) is None


def test_without_a_measured_rate_the_rhythm_says_slow_or_fast():
    assert facts.rate_class(described({"SBRAD": 1})).expected == "slow"
    assert facts.rate_class(described({"STACH": 1})).expected == "fast"
    assert facts.rate_class(described({"SR": 1})) is None
    assert facts.rate_class(described({"SBRAD": 1}, heart_rate=64.0)).expected == "normal"


def test_only_what_was_measured_is_asked_as_a_number():
    said = kinds(described({}, heart_rate=71.6, pr=None, qrs=96, qt=388.4))
    assert said == {("rate", None): 72, ("rate_class", None): "normal", ("qrs", None): 96, ("qt", None): 388}


def test_findings_are_all_that_are_present_with_a_name():
    assert facts.findings(described({"NORM": 0, "SR": 1, "PVC": 1, "1AVB": 1})).expected == ["1AVB", "PVC"]
    assert facts.findings(described({"SR": 0, "AFIB": 1})).expected == ["AFIB"]


def test_no_finding_is_said_only_of_what_is_stated_to_be_normal():
    assert facts.findings(described({"NORM": 1, "SR": 1, "PVC": 0})).expected == []
    assert facts.findings(described({"NORM": 0, "SR": 1, "PVC": 0})) is None
    assert facts.findings(described({})) is None


def test_findings_are_not_listed_where_one_is_unknown_or_has_no_name():
    assert facts.findings(described({"NORM": 0, "PVC": 1, "IMI": None})) is None
    assert facts.findings(described({"NORM": 0, "PVC": 1, "ISCAL": 1})) is None


@pytest.mark.parametrize(
    ("present", "not_asked"),
    [
        ("CRBBB", "IRBBB"),
        ("AMI", "ASMI"),
        ("ALMI", "AMI"),
        ("STE_", "STD_"),
        ("CLBBB", "STE_"),
        ("PACE", "CLBBB"),
        ("3AVB", "1AVB"),
        ("QWAVE", "IMI"),
        ("AFIB", "AFLT"),
    ],
)
def test_an_absence_that_something_present_makes_unsure_is_not_asked(present, not_asked):
    labels = dict.fromkeys(FINDINGS, 0) | {"SR": 0, present: 1}
    assert not_asked not in facts.absent(described(labels))
    assert not_asked in facts.absent(described(labels | {present: 0, "SR": 1}))


def test_an_absent_rhythm_is_asked_only_where_one_is_stated():
    assert "AFIB" in facts.absent(described({"SR": 1, "AFIB": 0}))
    assert "AFIB" not in facts.absent(described({"SR": 0, "AFIB": 0}))


def test_an_absence_that_a_measurement_speaks_against_is_not_asked():
    assert "1AVB" in facts.absent(described({"1AVB": 0}, pr=180))
    assert "1AVB" not in facts.absent(described({"1AVB": 0}, pr=230))
    assert "STACH" not in facts.absent(described({"SR": 1, "STACH": 0}, heart_rate=112.0))


def test_as_many_absent_findings_are_asked_as_present_ones_and_one_where_none_is():
    for there in ([], ["PVC"], ["PVC", "LVH", "1AVB"]):
        labels = dict.fromkeys(FINDINGS, 0) | {"SR": 1} | dict.fromkeys(there, 1)
        asked = list(facts.finding_facts(described(labels), ASKED, np.random.default_rng(0)))
        assert sorted(fact.about for fact in asked if fact.expected == "yes") == sorted(there)
        assert sum(fact.expected == "no" for fact in asked) == max(1, len(there))


def test_what_never_occurs_in_a_data_set_is_never_asked():
    record = described(dict.fromkeys(FINDINGS, 0) | {"SR": 1})
    drawn = {fact.about for seed in range(50) for fact in facts.finding_facts(record, {"PVC": 3}, np.random.default_rng(seed))}
    assert drawn == {"PVC"}


@given(RECORDS, st.integers(0, 5))
def test_nothing_is_asked_about_what_is_unknown(record, seed):
    said = kinds(record, seed)
    for (kind, about), expected in said.items():
        if kind == "finding":
            assert record["labels"][about] == {"yes": 1, "no": 0}[expected]
        if kind == "rhythm":
            assert record["labels"][expected] == 1
    if None in record["labels"].values():
        assert ("findings", None) not in said


@given(RECORDS, st.integers(0, 5))
def test_an_absent_finding_shares_no_group_with_one_that_is_not_absent(record, seed):
    stated = {code for code, value in record["labels"].items() if value != 0}
    for (kind, about), expected in kinds(record, seed).items():
        if (kind, expected) == ("finding", "no"):
            assert not any(about in group and group & stated for group in RELATED)


def test_of_two_ecgs_it_is_asked_whether_the_rhythm_changed_and_which_is_faster():
    earlier, later = described({"SR": 1}, heart_rate=70.0), described({"SR": 0, "AFIB": 1}, heart_rate=95.0)
    said = {fact.about: fact.expected for fact in facts.changes(earlier, later)}
    assert said == {"rhythm": "yes", "rate": "second"}
    assert {fact.about: fact.expected for fact in facts.changes(later, earlier)} == {"rhythm": "yes", "rate": "first"}
    assert {fact.about: fact.expected for fact in facts.changes(earlier, earlier)} == {"rhythm": "no"}
    nearly = described({"SR": 1}, heart_rate=79.0)
    assert [fact.about for fact in facts.changes(earlier, nearly)] == ["rhythm"]
    assert facts.changes(described({}), later) == []


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Fact("rate", 45), Fact("rate_class", "slow")),
        (Fact("rhythm", "AFIB"), Fact("finding", "yes", "AFIB")),
        (Fact("rhythm", "SR"), Fact("finding", "no", "AFIB")),
        (Fact("rhythm", "STACH"), Fact("rate_class", "fast")),
        (Fact("finding", "yes", "AFIB"), Fact("rhythm", "AFIB")),
        (Fact("findings", ["PVC"]), Fact("finding", "no", "LVH")),
        (Fact("findings", ["AFIB"]), Fact("rhythm", "AFIB")),
    ],
)
def test_what_an_answer_gave_away_is_not_asked_again(earlier, later):
    assert tells(earlier, later)


def test_what_an_answer_did_not_say_may_be_asked():
    assert not tells(Fact("finding", "no", "AFIB"), Fact("rhythm", "SR"))
    assert not tells(Fact("rhythm", "AFIB"), Fact("finding", "no", "PVC"))
    assert not tells(Fact("rhythm", "AFIB"), Fact("rate_class", "fast"))


# --- words


def every_question(phrasing):
    """All questions that can be asked in one phrasing."""
    rendered = set()
    for fact in every_fact():
        rendered |= {in_words(fact, phrasing, np.random.default_rng(seed)).question for seed in range(60)}
    return rendered | {way for fact in GENERAL_FACTS for way in fact.questions.of(phrasing)}


def every_fact():
    yield from (Fact("rhythm", code) for code in RHYTHMS)
    yield from (Fact("rate_class", name) for name in ("slow", "normal", "fast"))
    yield from (Fact(kind, 120) for kind in ("rate", *INTERVALS))
    yield from (Fact("finding", answer, code) for code in FINDINGS for answer in ("yes", "no"))
    yield from (Fact("findings", ["PVC"]), Fact("findings", []), Fact("findings", ["1AVB", "AFIB", "PVC"]))
    yield Fact("report", "Sinus rhythm {sic}.")
    words = (("first", "SR"), ("second", "AFIB"))
    yield from (Fact("change", answer, "rhythm", words) for answer in ("yes", "no"))
    yield from (Fact("change", answer, "rate") for answer in ("first", "second"))


def test_no_question_of_the_evaluation_is_one_of_training():
    evaluation, training = every_question("evaluation"), every_question("training")
    assert {question.lower() for question in evaluation}.isdisjoint(question.lower() for question in training)


def test_the_evaluation_asks_in_words_of_training():
    known = {word.strip(".,?") for question in every_question("training") for word in question.lower().split()}
    heard = [word.strip(".,?") for question in every_question("evaluation") for word in question.lower().split()]
    assert np.mean([word in known for word in heard]) > 0.98


@pytest.mark.parametrize("kind", sorted(QUESTIONS))
def test_every_kind_is_asked_in_several_ways_and_two_are_kept_for_the_evaluation(kind):
    assert len(QUESTIONS[kind].training) >= 3
    assert len(QUESTIONS[kind].evaluation) >= 2
    assert len(set(QUESTIONS[kind].training)) == len(QUESTIONS[kind].training)


def test_every_general_fact_is_asked_in_two_ways_and_a_third_for_the_evaluation():
    assert len(GENERAL_FACTS) >= 15
    for fact in GENERAL_FACTS:
        assert len(set(fact.questions.training)) >= 2
        assert fact.questions.evaluation


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_an_answer_says_what_is_expected_and_nothing_else_of_its_kind(phrasing):
    for fact in every_fact():
        for seed in range(12):
            turn = in_words(fact, phrasing, np.random.default_rng(seed))
            assert_said(turn)
            assert "{" not in turn.question
            assert turn.answer[0].isupper() or fact.kind == "report"


def assert_said(turn):
    fact, answer = turn.fact, turn.answer
    if fact.kind == "rhythm":
        assert NAMES[fact.expected] in answer
    elif fact.kind == "rate_class":
        assert [word for word in ("slow", "normal", "fast") if word in answer] == [fact.expected]
        assert all(word in turn.question for word in ("slow", "normal", "fast"))
    elif fact.kind in ("rate", *INTERVALS):
        assert str(fact.expected) in answer.split()
        assert str(fact.expected) not in turn.question
    elif fact.kind == "finding":
        assert answer.startswith({"yes": "Yes, ", "no": "No, "}[fact.expected])
        assert NAMES[fact.about] in answer
        assert NAMES[fact.about].lower() in turn.question.lower()
    elif fact.kind == "findings":
        assert all(NAMES[code] in answer for code in fact.expected)
        assert ("o abnormal findings" in answer) == (fact.expected == [])
    elif fact.kind == "report":
        assert answer == fact.expected
    elif fact.about == "rhythm":
        assert answer.startswith({"yes": "Yes, ", "no": "No, "}[fact.expected])
    else:
        assert [word for word in ("first", "second") if word in answer] == [fact.expected]


def test_a_plural_finding_takes_a_plural_verb():
    for seed in range(20):
        turn = in_words(Fact("finding", "yes", "PVC"), "training", np.random.default_rng(seed))
        assert "there is" not in turn.answer
        assert "beats is" not in turn.answer
        assert "Is there ventricular" not in turn.question


@given(RECORDS, st.sampled_from(PHRASINGS), st.integers(0, 5))
def test_whatever_a_record_says_can_be_put_into_words(record, phrasing, seed):
    for turn in possible_turns(record, ASKED, phrasing, np.random.default_rng(seed)):
        assert_said(turn)


def test_names_are_told_apart():
    assert len(set(NAMES.values())) == len(NAMES)
    assert all(ways and all(ways) for ways in ANSWERS.values())
