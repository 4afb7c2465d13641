"""CODE-test: leads in an order of their own, seven annotators joined by row, all of it a test set."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from shards.build import BuildOptions, build
from shards.record import LEADS, RecordError, Statement, to_millivolts
from shards.sources.code_test import CodeTest
from tests.shards.sources.readings import assert_millivolts, read_all

IN_FILE = ["I", "II", "III", "aVL", "aVF", "aVR", "V1", "V2", "V3", "V4", "V5", "V6"]
FINDINGS = ["1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"]
ANNOTATORS = ["cardiologist1", "cardiologist2", "cardiology_residents", "dnn", "emergency_residents", "gold_standard"]


@pytest.fixture
def whole(corpus, tmp_path):
    """The real tables of all 827 exams beside tracings that are one level throughout, which take no room in the file."""
    folder = copied(corpus("code-test"), tmp_path)
    with h5py.File(folder / "ecg_tracings.hdf5", "w") as file:
        file.create_dataset("tracings", (827, 4096, 12), "f8", chunks=(1, 4096, 12), fillvalue=0.5)
    return folder


@pytest.fixture
def one(corpus, tmp_path):
    """A copy of the exam whose signal is here."""
    return copied(corpus("code-test") / "one-exam", tmp_path)


def copied(source, tmp_path):
    folder = Path(shutil.copytree(source, tmp_path / "data"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_real_exam_has_the_millivolts_of_its_leads_by_name(corpus):
    folder = corpus("code-test") / "one-exam"
    [record] = read_all(CodeTest(folder)).values()
    with h5py.File(folder / "ecg_tracings.hdf5") as file:
        values = file["tracings"][0, 581:3515].T / 2
    assert record.ecg.shape == (12, 2934)
    assert_millivolts(record, dict(zip(IN_FILE, values, strict=True)))


def test_the_real_exam_obeys_goldberger_in_our_order(corpus):
    [record] = read_all(CodeTest(corpus("code-test") / "one-exam")).values()
    lead = dict(zip(LEADS, to_millivolts(record.ecg, record.mv_per_lsb), strict=True))
    for name, law in (
        ("aVR", -(lead["I"] + lead["II"]) / 2),
        ("aVL", lead["I"] - lead["II"] / 2),
        ("aVF", lead["II"] - lead["I"] / 2),
    ):
        assert np.std(lead[name] - law) < 0.05 * np.std(lead[name]), name


def test_zeroed_chest_leads_are_kept_as_published_and_told(corpus):
    [record] = read_all(CodeTest(corpus("code-test") / "one-exam")).values()
    assert record.quality["flat_leads"] == ["V1", "V2", "V3", "V4", "V5", "V6"]
    assert record.quality["invalid_fraction"] == 0


def test_every_annotator_has_its_own_findings_by_name(corpus, whole):
    """The positives of the gold standard are those that the paper's files hold: 28, 34, 30, 16, 13 and 37."""
    tables = {path.stem: table(path) for path in (corpus("code-test") / "annotations").glob("*.csv")}
    assert set(ANNOTATORS) <= set(tables)
    source = CodeTest(whole)
    plan = source.plan()
    assert len(plan.records) == 827
    marked = [row for row in range(827) if any(rows[row][finding] == "1" for rows in tables.values() for finding in FINDINGS)]
    found = dict.fromkeys(FINDINGS, 0)
    for row in marked:
        record = source.read(plan.records[row])
        expected = {name: {finding: int(rows[row][finding]) for finding in FINDINGS} for name, rows in tables.items()}
        assert record.annotations == expected
        assert record.labels == expected["gold_standard"]
        found = {finding: found[finding] + record.labels[finding] for finding in FINDINGS}
    assert list(found.values()) == [28, 34, 30, 16, 13, 37]


def test_labels_are_the_gold_standard_and_attributes_those_of_the_same_row(whole):
    source = CodeTest(whole)
    record = source.read(source.plan().records[1])
    assert (record.record_id, record.patient_id, record.split) == ("1", "1", "test")
    assert (record.age, record.sex) == (70.0, "F")
    assert (record.report, record.report_source) == ("Left bundle branch block", "made from statements")
    assert record.statements == [Statement("LBBB", "CODE")]
    assert record.annotations["medical_students"]["LBBB"] == 0


def test_no_finding_is_no_report_for_there_is_no_flag_of_a_normal_ecg(corpus):
    [record] = read_all(CodeTest(corpus("code-test") / "one-exam")).values()
    assert (record.report, record.statements, "normal_ecg" in record.labels) == (None, [], False)


def test_all_of_it_is_for_testing(whole):
    assert {planned.split for planned in CodeTest(whole).plan().records} == {"test"}


@pytest.mark.parametrize("name", ["attributes.csv", "annotations/dnn.csv", "annotations/cardiologist2.csv"])
def test_another_number_of_rows_in_any_file_stops_with_files_and_counts(whole, name):
    path = whole / name
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(RecordError, match="expected as many in each, found ecg_tracings.hdf5 827") as refusal:
        CodeTest(whole).plan()
    assert f"{name} 826" in str(refusal.value)


def test_without_the_gold_standard_there_are_no_labels_and_no_plan(one):
    (one / "annotations/gold_standard.csv").unlink()
    with pytest.raises(RecordError, match="gold_standard.csv: no such file"):
        CodeTest(one).plan()


def test_an_annotation_that_is_no_yes_or_no_rejects_its_exam(one):
    (one / "annotations/cardiologist1.csv").write_text("1dAVb,RBBB,LBBB,SB,AF,ST\n0,2,0,0,0,0\n")
    source = CodeTest(one)
    with pytest.raises(RecordError, match="annotations/cardiologist1.csv, row 0: RBBB is neither true nor false"):
        source.read(source.plan().records[0])


def test_that_the_scale_is_inferred_is_in_the_manifest(one, tmp_path):
    manifest = build(CodeTest(one), str(tmp_path / "set"), BuildOptions())
    assert "inferred" in manifest["provenance"]["values"]
    assert len(manifest["provenance"]["tables"]) == 8
