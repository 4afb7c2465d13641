"""MIMIC-IV-ECG: leads by name, the cart's statements as a report, its fiducial times as intervals, patients on one side."""

from __future__ import annotations

import csv
import pickle

import numpy as np
import pytest
import wfdb

from shards.build import BuildOptions, build
from shards.record import INVALID, LEADS, RecordError, split_by_hash
from shards.sources.mimic_iv_ecg import MimicIvEcg
from tests.shards.sources.readings import assert_millivolts, read_all

HEADER_LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
LIST_COLUMNS = ["subject_id", "study_id", "file_name", "ecg_time", "path"]
REPORTS = [f"report_{place}" for place in range(18)]
NUMBERS = ["rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis"]
SINUS = {"rr_interval": 1000, "p_onset": 40, "p_end": 140, "qrs_onset": 200, "qrs_end": 290, "t_end": 600}
AXES = {"p_axis": 60, "qrs_axis": -30, "t_axis": 45}


def write_record(folder, path, signal):
    """A record as the publisher ships it: format 16, gain 200, aVF before aVL. `signal` is (12, samples), in that order."""
    where = folder / path
    where.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        where.name, 500, ["mV"] * 12, HEADER_LEADS, d_signal=signal.T.astype(np.int64), fmt=["16"] * 12, adc_gain=[200.0] * 12,
        baseline=[0] * 12, write_dir=str(where.parent),
    )  # fmt: skip


def listed(study, subject="10000001", **changes):
    path = f"files/p1000/p{subject}/s{study}/{study}"
    return {
        "subject_id": subject,
        "study_id": study,
        "file_name": study,
        "ecg_time": "2180-01-02 03:04:05",
        "path": path,
        **changes,
    }


def measured(study, *statements, subject="10000001", **numbers):
    reports = dict(zip(REPORTS, statements, strict=False))
    return {"subject_id": subject, "study_id": study, **reports, **SINUS, **AXES, **numbers}


def write_table(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def small(tmp_path):
    """`small(listed rows, measured rows, signal)`: a corpus of these rows, with a short record for each listed path."""

    def make(list_rows, measured_rows, signal=None):
        write_table(tmp_path / "record_list.csv", LIST_COLUMNS, list_rows)
        columns = ["subject_id", "study_id", "cart_id", "ecg_time", *REPORTS, "bandwidth", "filtering", *NUMBERS]
        write_table(tmp_path / "machine_measurements.csv", columns, measured_rows)
        default = np.arange(12)[:, None] * 100 + np.arange(50)
        for row in list_rows:
            if row["path"].startswith("files/"):
                write_record(tmp_path, row["path"], default if signal is None else signal)
        return MimicIvEcg(tmp_path)

    return make


@pytest.fixture(scope="module")
def real(corpus):
    """The 60 real records, study → record."""
    return read_all(MimicIvEcg(corpus("mimic-iv-ecg")))


def only(source):
    [record] = read_all(source).values()
    return record


def test_every_real_record_has_the_millivolts_that_wfdb_reads_lead_by_lead(corpus, real):
    folder = corpus("mimic-iv-ecg")
    assert len(real) == 60
    for record in real.values():
        expected = wfdb.rdrecord(str(folder / record.source_path))
        assert expected.sig_name == HEADER_LEADS
        assert_millivolts(record, dict(zip(expected.sig_name, expected.p_signal.T, strict=True)))
        assert (record.fs_hz, record.ecg.shape) == (500, (12, 5000))


def test_avl_and_avf_are_what_goldberger_derives_from_the_limb_leads(real):
    """Holds whatever the header says: aVL = (I - III) / 2, aVF = (II + III) / 2, but for rounding."""
    for record in real.values():
        lead = dict(zip(LEADS, record.ecg.astype(float), strict=True))
        assert np.median(np.abs(lead["aVL"] - (lead["I"] - lead["III"]) / 2)) <= 2
        assert np.median(np.abs(lead["aVF"] - (lead["II"] + lead["III"]) / 2)) <= 2


def test_samples_that_were_not_recorded_are_invalid_and_the_others_exact(small):
    signal = np.tile(np.arange(50), (12, 1))
    signal[HEADER_LEADS.index("aVL"), 10:20] = -32768
    record = only(small([listed("40000001")], [measured("40000001")], signal))
    expected = np.tile(np.arange(50), (12, 1))
    expected[LEADS.index("aVL"), 10:20] = INVALID
    np.testing.assert_array_equal(record.ecg, expected)
    assert record.quality["invalid_fraction"] == pytest.approx(10 / 600, abs=1e-6)


def test_a_real_report_is_its_findings_in_their_order_with_abbreviations_written_out(real):
    record = real["44120736"]
    assert record.report == (
        "Sinus rhythm with premature ventricular complexes with borderline 1st degree A-V block; Left axis deviation; "
        "Left bundle branch block; Abnormal ECG"
    )
    assert (record.report_source, record.report_language) == ("publisher", "en")
    assert record.report_original.splitlines() == [
        "Sinus rhythm with PVCs with borderline 1st degree A-V block",
        "Left axis deviation",
        "Left bundle branch block",
        "Abnormal ECG",
    ]


def test_no_real_conduction_defect_is_lost(real):
    records = real.values()
    stated = [record for record in records if "conduction de" in record.report_original]
    assert len(stated) == 4
    assert all("conduction de" in record.report for record in stated)


def test_statements_after_an_empty_cell_belong_to_the_report(small):
    record = only(small([listed("40000001")], [measured("40000001", "Sinus rhythm.", "", "LBBB", " ", "MI")]))
    assert record.report == "Sinus rhythm; left bundle branch block; myocardial infarction"
    assert record.report_original == "Sinus rhythm.\nLBBB\nMI"


def test_a_report_of_notes_alone_is_none_and_its_words_are_kept(real):
    record = real["40130031"]
    assert (record.report, record.report_source) == (None, None)
    assert "Analysis error" in record.report_original
    assert record.measurements == {}


def test_intervals_follow_their_standard_definitions(small):
    record = only(small([listed("40000001")], [measured("40000001", "Sinus rhythm", rr_interval=810)]))
    assert record.measurements == {
        "rr": 810.0,
        "heart_rate": 74.1,
        "pr": 160.0,
        "qrs": 90.0,
        "qt": 400.0,
        "qtc": pytest.approx(400 / np.sqrt(0.81), abs=0.05),
        "p_axis": 60.0,
        "qrs_axis": -30.0,
        "t_axis": 45.0,
        "qtc_formula": "Bazett",
        "source": "publisher",
    }


@pytest.mark.parametrize(
    ("field", "value", "unknown"),
    [
        ("rr_interval", 65535, {"rr", "heart_rate", "qtc"}),
        ("rr_interval", 29999, {"rr", "heart_rate", "qtc"}),
        ("rr_interval", 0, {"rr", "heart_rate", "qtc"}),
        ("p_onset", 29999, {"pr"}),
        ("qrs_onset", 29999, {"pr", "qrs", "qt", "qtc"}),
        ("qrs_end", 29999, {"qrs"}),
        ("t_end", 29999, {"qt", "qtc"}),
        ("t_end", 200, {"qt", "qtc"}),
        ("qrs_end", 199, {"qrs"}),
        ("p_onset", 200, {"pr"}),
        ("p_axis", 29999, {"p_axis", "pr"}),
        ("p_axis", 32767, {"p_axis", "pr"}),
        *((axis, value, {axis}) for axis in ("qrs_axis", "t_axis") for value in (29999, 32767, -32767, 32768, -32768)),
        ("t_axis", "", {"t_axis"}),
        ("t_end", "nan", {"qt", "qtc"}),
    ],
)
def test_stand_ins_and_impossible_values_are_unknown_and_nothing_else_is(small, field, value, unknown):
    record = only(small([listed("40000001")], [measured("40000001", **{field: value})]))
    assert {name for name, entry in record.measurements.items() if entry is None} == unknown


def test_a_p_onset_without_a_p_axis_makes_no_pr_interval(real):
    record = real["41720885"]
    assert "Atrial fibrillation" in record.report
    assert record.measurements["pr"] is None
    assert record.measurements["qrs"] == 107


def test_all_studies_of_a_patient_are_in_one_split_that_the_subject_decides(small):
    rows = [listed(str(40000000 + study), subject=str(10000000 + study % 20)) for study in range(40)]
    plan = small(rows, []).plan()
    assert {record.split for record in plan.records} == {"train", "val", "test"}
    for record in plan.records:
        assert record.split == split_by_hash("mimic-iv-ecg", record.row["listed"]["subject_id"])


def test_a_record_carries_its_subject_and_the_published_time(real):
    record = real["44326091"]
    assert (record.patient_id, record.acquired) == ("10001884", "2127-03-15 12:08:00")
    assert (record.age, record.sex) == (None, None)


def test_a_study_without_a_row_of_measurements_is_read_without_text_and_numbers(small):
    record = only(small([listed("40000001")], [measured("40000002", "Sinus rhythm")]))
    assert (record.report, record.report_original, record.report_language, record.measurements) == (None, None, None, {})


def test_rows_are_joined_by_study_and_not_by_place(small):
    rows = [measured("40000002", "Two"), measured("40000001", "One")]
    records = read_all(small([listed("40000001"), listed("40000002")], rows))
    assert {study: record.report for study, record in records.items()} == {"40000001": "One", "40000002": "Two"}


def test_a_study_that_stands_twice_is_read_once_and_said(small):
    source = small(
        [listed("40000001"), listed("40000001", subject="10000002")],
        [measured("40000001", "Sinus rhythm"), measured("40000001", "Atrial fibrillation")],
    )
    plan = source.plan()
    assert only(source).report == "Sinus rhythm"
    assert [rejected.reason for rejected in plan.rejected] == [
        "record_list.csv, study_id 40000001: row 2 gives it again, row 1 is read; keep one",
        "machine_measurements.csv, study_id 40000001: row 2 gives it again, row 1 is read; keep one",
    ]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (listed("", path="files/a/b/c"), "row 1: expected a number as study_id"),
        (listed("40000001", subject="", path="files/a/b/c"), "expected one number as subject_id"),
        (listed("40000001", subject="10000009"), "expected one number as subject_id, the same in machine_measurements.csv"),
        (listed("40000001", path="../40000001"), "expected a path below"),
        (listed("40000001", path="/etc/passwd"), "expected a path below"),
    ],
)
def test_a_row_that_is_no_use_is_rejected_with_its_reason(small, row, sentence):
    plan = small([row, listed("40000002")], [measured("40000001")]).plan()
    assert [record.record_id for record in plan.records] == ["40000002"]
    [rejected] = plan.rejected
    assert sentence in rejected.reason


def test_absent_files_are_absent_and_not_rejected(small, tmp_path):
    source = small([listed("40000001"), listed("40000002")], [])
    (tmp_path / (listed("40000001")["path"] + ".dat")).unlink()
    plan = source.plan()
    assert [absent.record_id for absent in plan.absent] == ["40000001"]
    assert ".dat not in" in plan.absent[0].reason
    assert [record.record_id for record in plan.records] == ["40000002"]


@pytest.mark.parametrize("table", ["record_list.csv", "machine_measurements.csv"])
def test_a_missing_table_stops_with_its_name(small, tmp_path, table):
    source = small([listed("40000001")], [measured("40000001")])
    (tmp_path / table).unlink()
    with pytest.raises(RecordError, match=f"{table}: no such file; expected a MIMIC-IV-ECG 1.0 folder"):
        source.plan()


def test_a_worker_gets_no_table_and_reads_the_same_record(corpus):
    source = MimicIvEcg(corpus("mimic-iv-ecg"))
    planned = source.plan().records[0]
    sent = pickle.dumps(source)
    assert len(sent) < 500
    assert pickle.loads(sent).read(pickle.loads(pickle.dumps(planned))).to_members() == source.read(planned).to_members()


def test_a_build_of_the_real_sample_keeps_all_and_names_its_tables(corpus, tmp_path):
    manifest = build(MimicIvEcg(corpus("mimic-iv-ecg")), str(tmp_path / "set"), BuildOptions(records_per_shard=32))
    assert (manifest["counts"]["records"], manifest["counts"]["absent"], manifest["counts"]["rejected"]) == (60, 0, 0)
    assert manifest["provenance"]["licence"] == "ODbL 1.0"
    assert [*manifest["provenance"]["tables"]] == ["record_list.csv", "machine_measurements.csv"]
