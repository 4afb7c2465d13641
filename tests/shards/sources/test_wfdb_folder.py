"""A folder of WFDB records: what is a record, what a table says of it, windows, and splits by patient."""

from __future__ import annotations

import csv
import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.record import INVALID, LEADS, RecordError, split_by_hash
from shards.sources.wfdb_decoder import decode_wfdb
from shards.sources.wfdb_folder import WfdbFolder
from tests.conftest import SHARED
from tests.shards.sources.readings import read_all
from tests.shards.sources.test_wfdb_decoder import ramp, write_leads

FORMATS = SHARED / "ecg" / "wfdb-formats"


@pytest.fixture
def folder(tmp_path):
    """Three records: `a` and `ward/b` of three seconds, `ward/c` of one; all at 100 Hz, leads I and V1."""
    folder = tmp_path / "records"
    (folder / "ward").mkdir(parents=True)
    for place, name, samples in ((folder, "a", 300), (folder / "ward", "b", 300), (folder / "ward", "c", 100)):
        write_leads(place, {"I": ramp(1, samples), "V1": ramp(2, samples)}, fs=100, name=name)
    return folder


def table(folder, *rows):
    path = folder.parent / "said.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def comment(folder, record, text):
    header = folder / f"{record}.hea"
    header.write_text(header.read_text() + text)


def ids(records):
    return [record.record_id for record in records]


def test_every_kind_of_header_in_a_real_folder_is_read_left_out_or_rejected(corpus):
    source = WfdbFolder(corpus("wfdb-formats"))
    plan = source.plan()
    assert source.name == "wfdb-formats"
    assert {record.record_id: record.reason for record in plan.absent} == {
        "1003": "1003.dat not beside 1003.hea",
        "multi-segment/p000878/p000878-2137-10-26-16-57": (
            "3269321_0003.hea not beside multi-segment/p000878/p000878-2137-10-26-16-57.hea"
        ),
    }
    assert len(plan.records) == 30
    assert not [name for name in ids(plan.records) if name.endswith(("_layout", "041s01", "3234460_0001", "v102s_1"))]
    assert {"multi-segment/041s/041s", "multi-segment/fixed1/v102s", "v102s"} <= set(ids(plan.records))


def test_a_real_folder_becomes_shards(corpus, tmp_path):
    build(WfdbFolder(corpus("code-15-wfdb")), str(tmp_path / "set"), BuildOptions(records_per_shard=16))
    data = ShardSet.open(str(tmp_path / "set"))
    assert data.manifest["counts"]["records"] == 49
    assert {row["fs_hz"] for row in data.index.to_pylist()} == {300.0, 400.0, 800.0}


def test_age_sex_and_patient_are_taken_from_the_comments(corpus):
    records = read_all(WfdbFolder(corpus("code-15-wfdb")))
    assert (records["10005"].age, records["10005"].sex) == (32.0, "M")
    assert records["edge/9190"].patient_id == records["edge/9190_low_sample_rate"].patient_id == "513956"
    assert records["edge/9190"].split == records["edge/9190_low_sample_rate"].split
    assert records["edge/9190_all_data_is_zero"].patient_id == "edge/9190_all_data_is_zero"


@pytest.mark.parametrize(
    ("text", "age", "sex"),
    [
        ("# Age: 32\n# Sex: Female\n", 32.0, "F"),
        ("# <age>: 25  <sex>: M  <diagnoses>: (none)\n", 25.0, "M"),
        ("# <age>: ?? <sex>: ?\n", None, None),
        ("# 69 M 1085 1629 x1\n", None, None),
        ("# Age: 300\n# Sex: unknown\n", None, None),
        ("# Average: 12\n", None, None),
    ],
)
def test_what_a_comment_does_not_say_is_unknown(folder, text, age, sex):
    comment(folder, "a", text)
    record = read_all(WfdbFolder(folder))["a"]
    assert (record.age, record.sex) == (age, sex)


def test_without_a_table_a_record_is_its_own_patient_and_its_split_does_not_hang_on_names(folder):
    here = WfdbFolder(folder)
    moved = WfdbFolder(shutil.copytree(folder, folder.parent / "copy of them"))
    assert (here.name, moved.name, WfdbFolder(folder, name="ward-7").name) == ("records", "copy-of-them", "ward-7")
    for source in (here, moved, WfdbFolder(folder, name="ward-7")):
        records = read_all(source)
        assert list(records) == ["a", "ward/b", "ward/c"]
        assert [record.split for record in records.values()] == [split_by_hash("wfdb", name) for name in records]
        assert {name: record.patient_id for name, record in records.items()} == {name: name for name in records}
        assert {record.source for record in records.values()} == {source.name}


def test_a_table_gives_patients_reports_labels_and_splits(folder):
    said = table(
        folder,
        {
            "record": "a",
            "patient_id": "7",
            "report": "Sinus  rhythm",
            "age": "61.5",
            "sex": "female",
            "label:AF": "0",
            "note": "x",
        },
        {"record": "ward/b", "patient_id": "7", "split": "test", "acquired": "2020-01-02", "label:AF": "1", "label:MI": ""},
        {"record": "gone", "patient_id": "9"},
    )
    source = WfdbFolder(folder, table=said)
    records = read_all(source)
    first, second, unlisted = (records[name] for name in ("a", "ward/b", "ward/c"))
    assert (first.patient_id, first.report, first.report_source) == ("7", "Sinus rhythm", "publisher")
    assert (first.age, first.sex, first.labels) == (61.5, "F", {"AF": 0, "MI": None})
    assert (second.acquired, second.labels, second.report, second.report_source) == (
        "2020-01-02",
        {"AF": 1, "MI": None},
        None,
        None,
    )
    assert (first.split, second.split) == ("test", "test")  # a patient is in one split
    assert (unlisted.patient_id, unlisted.labels) == ("ward/c", {"AF": None, "MI": None})
    assert [(row.record_id, row.reason) for row in source.plan().absent] == [
        ("gone", "record gone: in the table, not in the folder")
    ]
    provenance = source.provenance()
    assert provenance["records_without_a_row"] == 1
    assert provenance["columns_left_alone"] == ["note"]
    assert list(provenance["tables"]) == ["said.csv"]
    json.dumps(provenance)


def test_the_table_goes_before_the_comments(folder):
    comment(folder, "a", "# Age: 32\n# Sex: Male\n# Patient ID: 1\n")
    record = read_all(WfdbFolder(folder, table=table(folder, {"record": "a", "age": "40", "patient_id": "2"})))["a"]
    assert (record.age, record.sex, record.patient_id) == (40.0, "M", "2")


def test_a_worker_reads_what_the_planner_planned(folder):
    source = WfdbFolder(folder, table=table(folder, {"record": "a", "label:AF": "1"}))
    [planned] = [planned for planned in source.plan().records if planned.record_id == "a"]
    worker, sent = pickle.loads(pickle.dumps((source, planned)))
    assert not hasattr(worker, "_table")
    assert worker.read(sent).to_members() == source.read(planned).to_members()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"split": "training"}, "split is 'training', expected train, val, test or blank"),
        ({"label:AF": "maybe"}, "column label:AF is 'maybe', expected 1, 0 or blank"),
        ({"age": "old"}, "column age is no number from 0 to 130"),
        ({"sex": "x"}, "column sex is none of M, F, male, female or blank"),
    ],
)
def test_a_bad_field_rejects_its_record_alone(folder, row, complaint):
    source = WfdbFolder(folder, table=table(folder, {"record": "a", **row}))
    reasons = {rejected.record_id: rejected.reason for rejected in source.plan().rejected}
    for planned in source.plan().records:
        try:
            source.read(planned)
        except RecordError as error:
            reasons[planned.record_id] = str(error)
    assert list(reasons) == ["a"]
    assert complaint in reasons["a"]


def test_a_patient_in_two_splits_and_a_record_with_two_rows_are_rejected(folder):
    said = table(
        folder,
        {"record": "a", "patient_id": "7", "split": "test"},
        {"record": "ward/b", "patient_id": "7", "split": "train"},
        {"record": "ward/c", "patient_id": "8"},
        {"record": "ward/c", "patient_id": "9"},
    )
    reasons = {rejected.record_id: rejected.reason for rejected in WfdbFolder(folder, table=said).plan().rejected}
    assert "its patient's records stand in test and train" in reasons["a"]
    assert "its patient's records stand in test and train" in reasons["ward/b"]
    assert "has more than one row" in reasons["ward/c"]


def test_records_whose_ids_become_one_key_are_rejected_but_for_the_first(folder):
    write_leads(folder, {"I": ramp()}, name="ward_b")
    [rejected] = WfdbFolder(folder).plan().rejected
    assert (rejected.record_id, rejected.reason) == ("ward_b", "ward_b: has the same key as ward/b; rename one")


def test_a_header_of_noise_is_rejected_and_the_others_are_read(folder):
    (folder / "noise.hea").write_bytes(b"\xff\xfe\x00" * 10)
    plan = WfdbFolder(folder).plan()
    assert len(plan.records) == 3
    assert "noise.hea: not a WFDB header" in plan.rejected[0].reason


def test_links_that_lead_back_are_walked_once(folder):
    (folder / "ward" / "up").symlink_to(folder)
    assert ids(WfdbFolder(folder).plan().records) == ["a", "ward/b", "ward/c"]


# --- windows


def test_windows_are_whole_consecutive_and_of_one_patient_and_split(folder):
    source = WfdbFolder(folder, window_s=1.25)
    records = read_all(source)
    assert list(records) == ["a@0-1.25s", "a@1.25-2.5s", "ward/b@0-1.25s", "ward/b@1.25-2.5s"]
    whole = decode_wfdb(folder / "a").ecg
    np.testing.assert_array_equal(records["a@0-1.25s"].ecg, whole[:, :125])
    np.testing.assert_array_equal(records["a@1.25-2.5s"].ecg, whole[:, 125:250])
    assert {record.patient_id for name, record in records.items() if name.startswith("ward")} == {"ward/b"}
    assert {record.source_path for record in records.values()} == {"a", "ward/b"}
    for record in records.values():
        assert record.split == split_by_hash("wfdb", record.patient_id)


def test_what_no_window_holds_is_said(folder):
    source = WfdbFolder(folder, window_s=2)
    assert [(row.record_id, row.reason) for row in source.plan().absent] == [
        ("ward/c", "1 s long, shorter than one window of 2 s")
    ]
    assert source.provenance()["options"] == {"window_s": 2, "seconds_after_the_last_windows": 3.0}


@settings(max_examples=30, deadline=None)
@given(seconds=st.floats(0.05, 20))
def test_windows_cover_a_record_without_overlap(seconds):
    path = FORMATS / "multi-segment" / "041s"
    if not path.is_dir():
        pytest.skip("holds real recordings, which the project does not ship")
    whole = decode_wfdb(path / "041s").ecg
    source = WfdbFolder(path, window_s=seconds)
    planned = source.plan().records
    each = round(seconds * 125)
    assert [record.row["window"] for record in planned] == [(k * each, (k + 1) * each) for k in range(2000 // each)]
    assert len(set(ids(planned))) == len(planned)
    for record in planned[:: max(1, len(planned) // 3)]:
        first, stop = record.row["window"]
        np.testing.assert_array_equal(source.read(record).ecg, whole[:, 4 * first : 4 * stop])


def test_a_claim_of_endless_length_makes_no_endless_plan(folder):
    header = folder / "a.hea"
    header.write_text(header.read_text().replace("a 2 100 300", "a 2 100 999999999999"))
    (folder / "gaps.hea").write_text("gaps/2 2 100 999999999999\nc 100\n~ 999999999899\n")
    shutil.copyfile(folder / "ward/c.hea", folder / "c.hea")
    shutil.copyfile(folder / "ward/c.dat", folder / "c.dat")
    reasons = {rejected.record_id: rejected.reason for rejected in WfdbFolder(folder, window_s=1).plan().rejected}
    assert "a.dat: expected 3999999999996 bytes" in reasons["a"]
    assert "windows of 1 s at 100 Hz would be 9999999999, expected at most 100000" in reasons["gaps"]


def test_a_claim_of_endless_length_in_a_plain_record_is_refused(folder):
    write_leads(folder, {lead: ramp() for lead in LEADS}, name="plain")
    header = folder / "plain.hea"
    header.write_text(header.read_text().replace("plain 12 500 100", "plain 12 500 999999999"))
    source = WfdbFolder(folder)
    [planned] = [planned for planned in source.plan().records if planned.record_id == "plain"]
    with pytest.raises(RecordError, match="plain.dat: expected 23999999976 bytes"):
        source.read(planned)


def test_a_lead_that_a_record_lacks_is_missing_in_its_windows_too(folder):
    record = next(iter(read_all(WfdbFolder(folder, window_s=1)).values()))
    assert [lead for lead, row in zip(LEADS, record.ecg, strict=True) if (row != INVALID).any()] == ["I", "V1"]


# --- what cannot be


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_window_has_a_length(folder, seconds):
    with pytest.raises(RecordError, match="expected more than 0"):
        WfdbFolder(folder, window_s=seconds)


def test_folders_and_tables_that_are_not_there_are_named(folder, tmp_path):
    with pytest.raises(RecordError, match="nowhere: no such folder"):
        WfdbFolder(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="none.csv: no such file"):
        WfdbFolder(folder, table=tmp_path / "none.csv")
    with pytest.raises(RecordError, match="column record missing"):
        WfdbFolder(folder, table=table(folder, {"ecg": "a"}))
    with pytest.raises(RecordError, match="expected letters, digits, _ and -"):
        WfdbFolder(folder, name="a/b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="expected WFDB records"):
        WfdbFolder(tmp_path / "empty").plan()
