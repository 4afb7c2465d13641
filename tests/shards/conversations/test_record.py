"""What a conversation is: turns about ECGs, refused where they do not go together."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.conversations.record import ConversationEcg, ConversationRecord, check_conversation, count_marks
from shards.record import LEADS, EcgRecord, RecordError, digest

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1).filter(str.strip)


def turn(speaker, value):
    return {"from": speaker, "value": value}


def asked(*values):
    return [turn(("human", "gpt")[place % 2], value) for place, value in enumerate(values)]


def an_ecg(record_id="17", fs_hz=100.0, patient="8"):
    signal = np.arange(120, dtype=np.int16).reshape(12, 10)
    record = EcgRecord("corpus", record_id, f"a/{record_id}", patient, "val", fs_hz, signal, [0.001] * 12)
    members = record.to_members()
    return ConversationEcg(members["ecg.npy"], json.loads(members["json"]))


def conversation(ecgs, turns, answers):
    return ConversationRecord("corpus", "17-dialogue", "val", ecgs, turns, answers, "training")


@pytest.mark.parametrize(
    ("turns", "ecgs", "complaint"),
    [
        (None, 0, "expected a list of turns, found None"),
        ([], 0, "expected a list of turns, found []"),
        ("hello", 0, "expected a list of turns, found 'hello'"),
        ([turn("gpt", "Hello.")], 0, "turn 0: expected human and gpt in turn, human first, found gpt where human is due"),
        ([*asked("A", "B"), turn("gpt", "C")], 0, "turn 2: .* found gpt where human is due"),
        ([turn("human", "A"), turn("human", "B")], 0, "turn 1: .* found human where gpt is due"),
        (asked("A", "B", "C"), 0, "expected a gpt turn at the end, found a human one (turn 2)"),
        (asked("A", " \n"), 0, "turn 1: expected words in 'value', found ' \\n'"),
        (asked("A", None), 0, "turn 1: expected words in 'value', found None"),
        ([{"from": "human"}], 0, "turn 0: expected words in 'value', found None"),
        ([turn("system", "A")], 0, "turn 0: expected 'from' to be human or gpt, found 'system'"),
        (["A"], 0, "turn 0: expected 'from' to be human or gpt, found 'A'"),
        (asked("A", "See <ecg>."), 1, "turn 1: expected <ecg> in human turns only"),
        (asked("<ecg>\nA", "B"), 0, "a conversation without its ECG: expected one <ecg> .*, found 1 for 0"),
        (asked("<ecg>\n<ecg>\nA", "B"), 1, "a conversation without its ECG: .* found 2 for 1"),
        (asked("A", "B"), 1, "found 0 for 1"),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_turn(turns, ecgs, complaint):
    pattern = ".*".join(re.escape(part) for part in complaint.split(".*"))
    with pytest.raises(RecordError, match=pattern) as refused:
        check_conversation(turns, ecgs)
    assert "\n" not in str(refused.value)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6), st.integers(0, 4), st.data())
def test_questions_and_answers_in_turn_with_a_mark_for_each_ecg_are_a_conversation(pairs, ecgs, data):
    turns = asked(*(value for pair in pairs for value in pair))
    for _ in range(ecgs):
        place = 2 * data.draw(st.integers(0, len(pairs) - 1))
        turns[place] = turn("human", f"<ecg>\n{turns[place]['value']}")
    check_conversation(turns, ecgs)
    assert count_marks(turns) == ecgs
    for wrong in {ecgs - 1, ecgs + 1} - {-1}:
        with pytest.raises(RecordError):
            check_conversation(turns, wrong)


def test_its_members_are_the_text_and_the_ecgs_bit_for_bit():
    first, second = an_ecg("17"), an_ecg("18")
    answer = {"kind": "change", "about": "rate", "expected": "first"}
    record = conversation([first, second], asked("<ecg>\n<ecg>\nWhich is faster?", "The first."), [answer])
    members = record.to_members()
    assert sorted(members) == ["ecg0.npy", "ecg1.npy", "json"]
    assert (members["ecg0.npy"], members["ecg1.npy"]) == (first.body, second.body)
    said = json.loads(members["json"])
    assert [one["record_id"] for one in said["records"]] == ["17", "18"]
    assert said["records"][0] == {"source": "corpus", "record_id": "17", "source_path": "a/17"}
    assert (said["fs_hz"], said["leads"], said["mv_per_lsb"]) == (100, list(LEADS), [[0.001] * 12] * 2)
    assert (said["split"], said["patient_id"], said["phrasing"]) == ("val", "8", "training")
    assert (said["answers"], said["conversations"]) == ([answer], record.conversations)


def test_without_an_ecg_it_has_no_rate_and_no_patient():
    record = conversation([], asked("What is bradycardia?", "A slow heart."), [None])
    said = json.loads(record.to_members()["json"])
    assert (said["fs_hz"], said["patient_id"], said["records"], said["mv_per_lsb"]) == (None, None, [], [])
    row = record.index_row()
    assert (row["fs_hz"], row["patient_hash"], row["ecgs"], row["samples"], row["peak_mv"]) == (None, "", 0, 0, 0.0)


def test_ecgs_of_two_rates_are_refused():
    record = conversation([an_ecg("17", 100), an_ecg("18", 500)], asked("<ecg>\n<ecg>\nA", "B"), [None])
    with pytest.raises(RecordError, match="17-dialogue: expected ECGs of one sampling rate, found 100 Hz and 500 Hz"):
        record.to_members()


def test_its_row_of_the_index_names_what_is_asked_and_expected():
    answers = [
        {"kind": "rhythm", "about": None, "expected": "AFIB"},
        {"kind": "finding", "about": "PVC", "expected": "no"},
        {"kind": "rate", "about": None, "expected": 72},
        {"kind": "report", "about": None, "expected": "D"},
        None,
    ]
    turns = asked("<ecg>\nq", "A", "q", "B", "q", "C", "q", "D", "q", "E")
    row = conversation([an_ecg()], turns, answers).index_row()
    assert row["answers"] == ["rhythm=AFIB", "finding:PVC=no", "rate=72"]
    assert row["labels"] == ["finding", "rate", "report", "rhythm"]
    assert row["text_hash"] == digest("A", "B", "C", "D", "E")
    assert row["text_length"] == sum(len(one["value"]) for one in turns)
    assert row["patient_hash"] == digest("corpus", "8")
    assert (row["ecgs"], row["samples"], row["peak_mv"]) == (1, 10, 0.119)
