"""TNMG's JSON: counts times resolution, a lead that is not there moves no other one, and one sentence for what is no file."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.record import INVALID, LEADS, RecordError, split_by_hash, standard_lead
from shards.sources.tnmg_json import TnmgJson
from tests.shards.sources.readings import assert_millivolts, read_all

STORED = ("DI", "DII", "V1", "V2", "V3", "V4", "V5", "V6")


def ramp(seed=0, samples=40):
    return np.random.default_rng(seed).integers(-3000, 3000, samples)


def joined(counts):
    return ";".join(str(count) for count in counts)


def content(**changed):
    leads = {name: joined(ramp(place)) for place, name in enumerate(STORED)}
    return {"resolution": 2.44, "sampling": 400, **leads, **changed}


@pytest.fixture
def read(tmp_path):
    """`read(content)`: the record of a file with that content, or those bytes."""

    def record(found):
        (tmp_path / "exam.json").write_bytes(found if isinstance(found, bytes) else json.dumps(found).encode())
        source = TnmgJson(tmp_path)
        [planned] = source.plan().records
        return pickle.loads(pickle.dumps(source)).read(pickle.loads(pickle.dumps(planned)))

    return record


def test_real_signals_come_back_as_they_were_written(corpus, read):
    for header in sorted(corpus("ptb-xl").rglob("*_hr.hea"))[:3]:
        stored = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        counts = {name: stored.d_signal[:, stored.sig_name.index(standard_lead(name))] for name in STORED}
        record = read({"resolution": 1, "sampling": 500, **{name: joined(values) for name, values in counts.items()}})
        assert_millivolts(record, {standard_lead(name): values / 1000 for name, values in counts.items()})


def test_counts_are_kept_and_resolution_is_microvolts_of_one(read):
    record = read(content())
    assert (record.fs_hz, record.mv_per_lsb[0]) == (400.0, 2.44 / 1000)
    np.testing.assert_array_equal(record.ecg[LEADS.index("V6")], ramp(7))
    assert (record.patient_id, record.split) == ("exam", split_by_hash("tnmg-json", "exam"))


@pytest.mark.parametrize("missing", STORED)
def test_a_missing_lead_is_missing_and_every_other_one_keeps_its_place(read, missing):
    found = content()
    del found[missing]
    record = read(found)
    for place, name in enumerate(STORED):
        expected = np.full(40, INVALID) if name == missing else ramp(place)
        np.testing.assert_array_equal(record.ecg[LEADS.index(standard_lead(name))], expected, err_msg=name)
    for lead in ("III", "aVR", "aVL", "aVF"):
        assert (record.ecg[LEADS.index(lead)] == INVALID).all()


@pytest.mark.parametrize("nothing", ["", None, []])
def test_a_lead_that_is_empty_is_missing_too(read, nothing):
    record = read(content(V3=nothing))
    assert (record.ecg[LEADS.index("V3")] == INVALID).all()
    np.testing.assert_array_equal(record.ecg[LEADS.index("V4")], ramp(5))


def test_other_leads_have_their_places_and_other_channels_are_listed(read):
    record = read(content(DIII=joined(ramp(20)), AVR=joined(ramp(21)), V3R=joined(ramp(22)), operator="x;y", note="1"))
    np.testing.assert_array_equal(record.ecg[2], ramp(20))
    np.testing.assert_array_equal(record.ecg[3], ramp(21))
    assert record.dropped_channels == ["V3R"]


@pytest.mark.parametrize("resolution", [2.44, "2.44", "2,44", " 2,44 "])
def test_a_resolution_may_be_text_with_a_comma(read, resolution):
    assert read(content(resolution=resolution)).mv_per_lsb[0] == 2.44 / 1000


def test_a_last_separator_and_blanks_are_no_sample(read):
    record = read({"resolution": 1, "sampling": "300", "DI": " 1; -2 ;3; "})
    assert record.ecg[0].tolist() == [1, -2, 3]
    assert record.fs_hz == 300


def test_counts_beyond_16_bits_are_never_clipped(read):
    record = read({"resolution": 1, "sampling": 400, "DI": "100000;-100000;5", "DII": "1;2;3"})
    assert_millivolts(record, {"I": np.array([100.0, -100.0, 0.005]), "II": np.array([0.001, 0.002, 0.003])})
    assert record.ecg[1].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"V2": "1;2;3"}, "expected leads of one length, found I 40, II 40, V1 40, V2 3"),
        ({"V2": "1;x;3"}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"V2": "1;;3"}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"V2": "1_0;3"}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"V2": "1" * 30}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"V2": [1, 2]}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"V2": 5}, "lead V2: expected up to 1000000 integers joined by ';'"),
        ({"I": "1;2"}, "lead I stands for more than one of the channels"),
        ({"resolution": 0}, "resolution is no number above 0"),
        ({"resolution": "x"}, "resolution is no number above 0"),
        ({"resolution": True}, "resolution is no number above 0"),
        ({"resolution": float("nan")}, "resolution is no number above 0"),
        ({"resolution": None}, "resolution is no number above 0"),
        ({"sampling": -400}, "sampling is no number above 0"),
        ({"sampling": 10**400}, "sampling is no number above 0"),
        ({"sampling": {}}, "sampling is no number above 0"),
    ],
)
def test_what_is_wrong_is_named(read, changed, complaint):
    with pytest.raises(RecordError, match=f"exam.json: .*{complaint}"):
        read(content(**changed))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"resolution": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"resolution": 1, "sampling": 400}', "holds none of the twelve leads"),
        (b'{"DI": "1", "DI": "2", "resolution": 1, "sampling": 400}', "has a key twice"),
        (b" " * 32_000_001, "longer than 32000000 bytes"),
    ],
)
def test_what_is_no_such_file_is_refused(read, body, complaint):
    with pytest.raises(RecordError, match=complaint):
        read(body)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 1500), length=st.integers(0, 20), put=st.one_of(st.binary(max_size=8), st.just(b"[[[")))
def test_no_damage_raises_anything_but_one_sentence(first, length, put, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    body = json.dumps(content()).encode()
    (folder / "exam.json").write_bytes(body[:first] + put + body[first + length :])
    source = TnmgJson(folder)
    [planned] = source.plan().records
    try:
        assert source.read(planned).ecg.shape[0] == 12
    except RecordError:
        return


def test_a_table_gives_patients(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content()))
    (tmp_path / "said.csv").write_text("record,patient_id,report\na,7,Sinus rhythm\nb,7,\n")
    records = read_all(TnmgJson(tmp_path, table=tmp_path / "said.csv"))
    assert {record.patient_id for record in records.values()} == {"7"}
    assert {record.split for record in records.values()} == {split_by_hash("tnmg-json", "7")}
    assert [record.report for record in records.values()] == ["Sinus rhythm", None]


def test_a_folder_becomes_shards_and_one_bad_file_stops_nobody(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.json").write_text(json.dumps(content()))
    (tmp_path / "bad.json").write_text("{}")
    manifest = build(TnmgJson(tmp_path), str(tmp_path / "set"), BuildOptions(max_rejected=0.5))
    assert manifest["counts"]["records"] == 5
    assert [row["record_id"] for row in manifest["rejected"]] == ["bad"]
    assert len(ShardSet.open(str(tmp_path / "set")).index) == 5
