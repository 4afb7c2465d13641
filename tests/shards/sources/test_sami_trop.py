"""SaMi-Trop: tracings joined to the table by row, one exam a patient, mortality, Chagas cardiomyopathy throughout."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from shards.build import BuildOptions, build
from shards.record import LEADS, RecordError, split_by_hash
from shards.sources.sami_trop import SamiTrop
from tests.shards.sources.readings import assert_millivolts, read_all


@pytest.fixture
def folder(corpus, tmp_path):
    """A copy of the real sample that a test may change."""
    copy = Path(shutil.copytree(corpus("sami-trop"), tmp_path / "sami-trop"))
    for path in (copy, *copy.iterdir()):
        path.chmod(0o755)
    return copy


def test_every_real_exam_has_the_millivolts_of_its_row(corpus):
    folder = corpus("sami-trop")
    records = read_all(SamiTrop(folder))
    with h5py.File(folder / "exams.hdf5") as file, (folder / "exams.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
        assert [*records] == [row["exam_id"] for row in rows]
        for row, values in zip(rows, file["tracings"][:], strict=True):
            record = records[row["exam_id"]]
            assert record.ecg.shape == (12, 2934)
            assert_millivolts(record, dict(zip(LEADS, values[581:3515].T / 2, strict=True)))
            assert record.age == float(row["age"])
            assert record.sex == ("M" if row["is_male"] == "True" else "F")
            assert record.outcome == {"death": row["death"] == "True", "follow_up_years": float(row["timey"])}


def test_labels_are_the_cohort_and_the_flag_of_a_normal_ecg_and_no_diagnosis_is_made_up(corpus):
    records = read_all(SamiTrop(corpus("sami-trop")))
    assert records["105443"].labels == {"normal_ecg": 1, "chagas": 1}
    assert (records["105443"].report, records["105443"].report_source) == ("Normal ECG", "made from statements")
    assert records["101193"].labels == {"normal_ecg": 0, "chagas": 1}
    assert (records["101193"].report, records["101193"].statements) == (None, [])


def test_an_exam_is_its_own_patient_and_split_by_its_number(corpus):
    for number, record in read_all(SamiTrop(corpus("sami-trop"))).items():
        assert record.patient_id == number
        assert record.split == split_by_hash("sami-trop", number)


def test_blank_mortality_is_unknown_and_not_alive(folder):
    table = folder / "exams.csv"
    table.write_text(table.read_text().replace("105443,55,False,True,False,2.04972149202045", "105443,55,False,True,,"))
    assert read_all(SamiTrop(folder))["105443"].outcome == {"death": None, "follow_up_years": None}


@pytest.mark.parametrize("rows", [8, 10])
def test_another_number_of_tracings_than_rows_stops_with_both(folder, rows):
    with h5py.File(folder / "exams.hdf5", "a") as file:
        values = np.resize(file["tracings"][:], (rows, 4096, 12))
        del file["tracings"]
        file["tracings"] = values
    with pytest.raises(RecordError, match=f"exams.hdf5 has {rows} tracings and exams.csv 9 rows"):
        SamiTrop(folder).plan()


def test_a_number_that_stands_twice_in_the_table_is_refused(folder):
    table = folder / "exams.csv"
    table.write_text(table.read_text().replace("101193", "105443"))
    plan = SamiTrop(folder).plan()
    assert len(plan.records) == 7
    assert [rejected.record_id for rejected in plan.rejected] == ["105443", "105443"]


def test_a_rejected_row_does_not_move_the_others(folder):
    table = folder / "exams.csv"
    before = read_all(SamiTrop(folder))
    table.write_text(table.read_text().replace("101193,", "nobody,"))
    after = read_all(SamiTrop(folder))
    assert len(after) == 8
    assert all(record.to_members() == before[number].to_members() for number, record in after.items())


def test_missing_tracings_are_named(folder):
    (folder / "exams.hdf5").unlink()
    with pytest.raises(RecordError, match="exams.hdf5: no such file"):
        SamiTrop(folder).plan()


def test_a_build_counts_the_cohort(corpus, tmp_path):
    manifest = build(SamiTrop(corpus("sami-trop")), str(tmp_path / "set"), BuildOptions(records_per_shard=4))
    assert (manifest["counts"]["records"], manifest["counts"]["patients"]) == (9, 9)
    assert manifest["counts"]["label"] == {"chagas": 9, "normal_ecg": 4}
    assert "chagas is 1 for every exam" in manifest["provenance"]["labels"]
