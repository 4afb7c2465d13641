"""CODE-15%: exams joined by number, padding that is no signal, 2 x millivolts, and what is not known stays unknown."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shards.build import BuildOptions, build
from shards.record import INVALID, LEADS, RecordError, Statement, split_by_hash, to_millivolts
from shards.sources.code_15 import Code15
from shards.sources.tnmg import without_padding
from tests.shards.sources.readings import assert_millivolts, read_all

FINDINGS = ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]
COLUMNS = [
    "exam_id",
    "age",
    "is_male",
    "nn_predicted_age",
    *FINDINGS,
    "patient_id",
    "death",
    "timey",
    "normal_ecg",
    "trace_file",
]
FALSE = dict.fromkeys(("is_male", *FINDINGS, "normal_ecg"), "False")


def row(exam_id, **values):
    known = {"exam_id": exam_id, "age": 60, "nn_predicted_age": 61.5, "patient_id": f"{exam_id}0", "death": "", "timey": ""}
    return {**FALSE, **known, "trace_file": "exams_part0.hdf5", **values}


def write_table(folder, rows, columns=COLUMNS):
    with (folder / "exams.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_part(folder, exams, name="exams_part0.hdf5"):
    """Exam number → (samples, 12) values, in that order, and last the empty row with number 0."""
    with h5py.File(folder / name, "w") as file:
        file["exam_id"] = np.array([*exams, 0], dtype=np.int64)
        tracings = np.zeros((len(exams) + 1, 4096, 12), dtype=np.float32)
        for place, values in enumerate(exams.values()):
            left = (4096 - len(values)) // 2
            tracings[place, left : left + len(values)] = values
        file["tracings"] = tracings


def level(value, samples=2934):
    """A tracing whose lead k is value + k hundredths throughout."""
    return np.tile(value + 0.01 * np.arange(12), (samples, 1))


@pytest.fixture
def folder(tmp_path):
    """Two exams, in the file the other way round."""
    write_part(tmp_path, {22: level(2.0), 11: level(1.0)})
    write_table(tmp_path, [row(11), row(22)])
    return tmp_path


def test_every_real_exam_has_the_millivolts_that_h5py_reads(corpus):
    records = read_all(Code15(corpus("code-15")))
    assert len(records) == 6
    for path in sorted(corpus("code-15").glob("*.hdf5")):
        with h5py.File(path) as file:
            for exam, values in zip(file["exam_id"][:].tolist(), file["tracings"][:].astype(float), strict=True):
                if exam:
                    loud = np.flatnonzero(np.abs(values).sum(axis=1))
                    signal = values[loud.min() : loud.max() + 1] / 2
                    assert_millivolts(records.pop(str(exam)), dict(zip(LEADS, signal.T, strict=True)))
    assert records == {}


def test_real_exams_have_the_lengths_that_were_recorded(corpus):
    lengths = {number: record.ecg.shape[1] for number, record in read_all(Code15(corpus("code-15"))).items()}
    assert sorted(lengths.values()) == [2934] * 4 + [4096] * 2
    assert {record.fs_hz for record in read_all(Code15(corpus("code-15"))).values()} == {400.0}


def test_a_real_row_becomes_labels_statements_and_outcome(corpus):
    record = read_all(Code15(corpus("code-15")))["795649"]
    assert record.labels == {"1dAVb": 0, "RBBB": 0, "LBBB": 0, "SB": 0, "AF": 0, "ST": 1, "normal_ecg": 0}
    assert record.statements == [Statement("ST", "CODE")]
    assert (record.report, record.report_source) == ("Sinus tachycardia", "made from statements")
    assert (record.age, record.sex, record.patient_id) == (75.0, "M", "618483")
    assert record.outcome == {"death": True, "follow_up_years": 1.208218}
    assert record.split == split_by_hash("code-15", "618483")


def test_blank_mortality_is_unknown_and_not_alive(corpus):
    records = read_all(Code15(corpus("code-15")))
    assert records["438277"].outcome == {"death": None, "follow_up_years": None}
    assert records["358121"].outcome == {"death": False, "follow_up_years": 3.846572}


def test_exams_are_joined_by_number_and_not_by_place(folder):
    records = read_all(Code15(folder))
    for number, value in (("11", 1.0), ("22", 2.0)):
        assert_millivolts(records[number], {lead: level(value)[:, place] / 2 for place, lead in enumerate(LEADS)})


def test_findings_are_read_by_name_whatever_the_order_of_the_columns(tmp_path):
    write_part(tmp_path, {11: level(1.0), 22: level(2.0)})
    write_table(tmp_path, [row(11, AF="True"), row(22, ST="True")], columns=[*COLUMNS[:8], "AF", "ST", *COLUMNS[10:]])
    records = read_all(Code15(tmp_path))
    assert [name for name, value in records["11"].labels.items() if value] == ["AF"]
    assert [name for name, value in records["22"].labels.items() if value] == ["ST"]


def test_the_empty_last_row_is_no_exam_even_where_a_table_names_it(folder):
    write_table(folder, [row(11), row(22), row(0)])
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["11", "22"]
    assert [absent.record_id for absent in plan.absent] == ["0"]


def test_tracings_that_no_row_names_are_left_alone(folder):
    write_table(folder, [row(22)])
    assert list(read_all(Code15(folder))) == ["22"]


def test_a_file_that_is_not_there_and_an_exam_that_is_not_in_its_file_are_absent_for_their_reasons(folder):
    write_table(folder, [row(11), row(33), row(44, trace_file="exams_part7.hdf5")])
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["11"]
    reasons = {absent.record_id: absent.reason for absent in plan.absent}
    assert reasons["33"].startswith("exams_part0.hdf5: exam 33 is not in it")
    assert reasons["44"].startswith("exams_part7.hdf5: not in ")


def test_a_number_that_stands_twice_in_a_file_is_refused(tmp_path):
    write_part(tmp_path, {11: level(1.0), 22: level(2.0)})
    with h5py.File(tmp_path / "exams_part0.hdf5", "a") as file:
        file["exam_id"][0] = 22
    write_table(tmp_path, [row(22)])
    plan = Code15(tmp_path).plan()
    assert plan.records == []
    assert "exam 22 stands in several of its rows" in plan.rejected[0].reason


def test_a_number_that_stands_twice_in_the_table_is_refused(folder):
    write_table(folder, [row(11), row(22), row(22, patient_id=5)])
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["11"]
    assert ["exam 22 stands in 2 rows" in rejected.reason for rejected in plan.rejected] == [True, True]


def test_the_same_number_in_two_files_is_that_of_the_file_that_the_table_names(folder):
    write_part(folder, {22: level(7.0)}, "exams_part1.hdf5")
    write_table(folder, [row(22, trace_file="exams_part1.hdf5")])
    [record] = read_all(Code15(folder)).values()
    assert to_millivolts(record.ecg, record.mv_per_lsb)[0, 0] == pytest.approx(3.5, abs=0.001)


def test_neither_a_finding_nor_the_flag_of_a_normal_ecg_says_nothing(folder):
    record = read_all(Code15(folder))["11"]
    assert (record.report, record.report_source, record.statements) == (None, None, [])
    assert record.labels == dict.fromkeys((*FINDINGS, "normal_ecg"), 0)


def test_a_normal_ecg_is_one_that_the_publisher_calls_so(folder):
    write_table(folder, [row(11, normal_ecg="True")])
    record = read_all(Code15(folder))["11"]
    assert (record.report, record.labels["normal_ecg"], record.statements) == (
        "Normal ECG",
        1,
        [Statement("normal_ecg", "CODE")],
    )


def test_several_findings_are_all_in_the_report_and_blank_ones_are_unknown(folder):
    write_table(folder, [row(11, RBBB="True", SB="True", AF="", normal_ecg="")])
    record = read_all(Code15(folder))["11"]
    assert record.report == "Right bundle branch block, sinus bradycardia"
    assert (record.labels["AF"], record.labels["normal_ecg"], record.labels["ST"]) == (None, None, 0)


def test_the_age_that_a_network_predicted_is_not_kept(folder):
    record = read_all(Code15(folder))["11"]
    assert record.age == 60.0
    assert b"61.5" not in record.to_members()["json"]


def test_all_exams_of_a_patient_are_on_one_side(tmp_path):
    exams = {number: level(1.0, 8) for number in range(1, 61)}
    write_part(tmp_path, exams)
    write_table(tmp_path, [row(number, patient_id=f"{number % 20}{'.0' if number > 30 else ''}") for number in exams])
    sides: dict[str, set[str]] = {}
    for record in read_all(Code15(tmp_path)).values():
        sides.setdefault(record.patient_id, set()).add(record.split)
    assert len(sides) == 20
    assert all(len(side) == 1 for side in sides.values())
    assert len(set.union(*sides.values())) > 1


def test_zeros_within_a_signal_and_a_lead_of_zeros_stay(tmp_path):
    values = level(1.0, 2801)
    values[1000:1400] = 0
    values[:, 7] = 0
    write_part(tmp_path, {11: values})
    write_table(tmp_path, [row(11)])
    [record] = read_all(Code15(tmp_path)).values()
    assert record.ecg.shape == (12, 2801)
    assert not record.ecg[:, 1000:1400].any()
    assert not record.ecg[7].any()
    assert record.quality["flat_leads"] == ["V2"]


@given(
    signal=arrays.arrays(np.float64, (6, 12), elements=st.floats(-5, 5)),
    before=st.integers(0, 9),
    after=st.integers(0, 9),
)
def test_any_padding_is_cut_and_nothing_else(signal, before, after):
    signal[[0, -1], 3] = 1.0
    padded = np.concatenate([np.zeros((before, 12)), signal, np.zeros((after, 12))])
    np.testing.assert_array_equal(without_padding(padded), signal)


def test_what_is_not_finite_is_invalid(tmp_path):
    values = level(1.0, 100)
    values[:5, 1] = np.nan
    values[50, 2] = np.inf
    write_part(tmp_path, {11: values})
    write_table(tmp_path, [row(11)])
    [record] = read_all(Code15(tmp_path)).values()
    assert np.argwhere(record.ecg == INVALID).tolist() == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4], [2, 50]]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_exam_without_a_signal_is_refused(tmp_path, value):
    write_part(tmp_path, {11: np.full((4096, 12), value)})
    write_table(tmp_path, [row(11)])
    source = Code15(tmp_path)
    with pytest.raises(RecordError, match="exams_part0.hdf5, exam 11: all of its values are 0 or not finite"):
        source.read(source.plan().records[0])


@pytest.mark.parametrize("column", ["RBBB", "death"])
def test_a_field_that_is_neither_true_nor_false_rejects_its_exam_and_is_not_repeated(folder, column):
    write_table(folder, [row(11, **{column: "perhaps"})])
    source = Code15(folder)
    with pytest.raises(RecordError, match=f"exams.csv, exam 11: {column} is neither true nor false") as refusal:
        source.read(source.plan().records[0])
    assert "perhaps" not in str(refusal.value)


@pytest.mark.parametrize("values", [{"exam_id": "x"}, {"patient_id": ""}, {"exam_id": "9" * 30}, {"exam_id": "nan"}])
def test_a_row_without_numbers_is_rejected_and_the_others_stay(folder, values):
    write_table(folder, [row(22), {**row(11), **values}])
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["22"]
    assert "expected whole numbers for exam and patient" in plan.rejected[0].reason


@pytest.mark.parametrize("name", ["../exams_part0.hdf5", "/etc/passwd", "", "n" * 300])
def test_a_file_name_that_leads_elsewhere_is_rejected(folder, name):
    write_table(folder, [row(11, trace_file=name), row(22)])
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["22"]
    assert "exams.csv" in plan.rejected[0].reason


def damage(file):
    del file["tracings"]


def turn(file):
    tracings = file["tracings"][:].transpose(0, 2, 1)
    del file["tracings"]
    file["tracings"] = tracings


def shorten(file):
    del file["exam_id"]
    file["exam_id"] = np.array([22, 11])


def write_floats(file):
    del file["exam_id"]
    file["exam_id"] = np.array([22.0, 11.0, 0.0])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (damage, "expected the dataset 'tracings'"),
        (turn, r"tracings has the shape \(3, 12, 4096\), expected \(exams, 4096, 12\)"),
        (shorten, r"exam_id has shape \(2,\) and type int64, expected 3 whole numbers"),
        (write_floats, "type float64, expected 3 whole numbers"),
    ],
)
def test_a_damaged_file_rejects_its_exams_and_no_others(folder, change, complaint):
    write_part(folder, {33: level(3.0)}, "exams_part1.hdf5")
    write_table(folder, [row(11), row(22), row(33, trace_file="exams_part1.hdf5")])
    with h5py.File(folder / "exams_part0.hdf5", "a") as file:
        change(file)
    plan = Code15(folder).plan()
    assert [planned.record_id for planned in plan.records] == ["33"]
    assert [rejected.record_id for rejected in plan.rejected] == ["11", "22"]
    with pytest.raises(RecordError, match=complaint):
        raise RecordError(plan.rejected[0].reason)


def test_a_table_without_its_columns_or_not_there_is_named(folder):
    write_table(folder, [], columns=[column for column in COLUMNS if column != "patient_id"])
    with pytest.raises(RecordError, match="column patient_id missing; expected the table of CODE-15% 1.0.0"):
        Code15(folder).plan()
    (folder / "exams.csv").unlink()
    with pytest.raises(RecordError, match="exams.csv: no such file"):
        Code15(folder).plan()


def test_a_build_reads_the_corpus_and_counts_what_is_absent(corpus, tmp_path):
    manifest = build(Code15(corpus("code-15")), str(tmp_path / "set"), BuildOptions(records_per_shard=4))
    assert (manifest["counts"]["records"], manifest["counts"]["absent"], manifest["counts"]["rejected"]) == (6, 0, 0)
    assert manifest["counts"]["label"] == {"1dAVb": 1, "RBBB": 2, "SB": 1, "ST": 2}
    assert manifest["provenance"]["licence"] == "CC BY 4.0"
    assert list(manifest["provenance"]["tables"]) == ["exams.csv"]


def test_source_and_planned_records_go_to_a_worker_without_their_tables(folder):
    source = Code15(folder)
    plan = source.plan()
    body = pickle.dumps((source, plan.records[0]))
    assert len(body) < 2000
    worker, planned = pickle.loads(body)
    assert worker.read(planned).to_members() == source.read(plan.records[0]).to_members()
    assert isinstance(worker.folder, Path)
