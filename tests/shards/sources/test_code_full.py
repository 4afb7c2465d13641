"""CODE in full: older and newer columns, several files, and a lead order and a scale that are checked on the tracings.

Nobody may pass the data on, so its layout is made here from recordings of CODE-15%, a part of it, in the same stored values.
"""

from __future__ import annotations

import csv
import pickle

import h5py
import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import BuildOptions, build
from shards.record import LEADS, RecordError, Statement, split_by_hash, to_millivolts
from shards.simulate.case import draw_case, render
from shards.sources.code_full import CodeFull, fit_limb_order, limb_residual, r_amplitude_mv
from tests.shards.sources.readings import assert_millivolts, read_all

COLUMNS = ["id_exam", "id_patient", "age", "sex", "1dAVb", "RBBB", "LBBB", "SB", "AF", "ST", "date_exam"]
OLDER = {"id_exam": "N_exame", "id_patient": "N_paciente_univoco", "age": "Idade"}
TEST_ORDER = (0, 1, 2, 4, 5, 3, *range(6, 12))
"""I, II, III, aVL, aVF, aVR, V1-V6: the order of CODE-test."""


@pytest.fixture(scope="module")
def tracings_of(corpus):
    """Exam number → (12, samples) stored values of 40 real exams: their export in WFDB form calls 2 x mV mV."""
    found = {}
    for header in sorted(corpus("code-15-wfdb").glob("*.hea")):
        record = wfdb.rdrecord(str(header.with_suffix("")))
        assert [name.upper() for name in record.sig_name] == [lead.upper() for lead in LEADS]
        found[int(header.stem)] = record.p_signal.T
    assert len(found) == 40
    return found


@pytest.fixture(scope="module")
def simulated():
    """Simulated recordings in millivolts at 400 Hz."""
    return {number: render(draw_case(5, number), 400) for number in range(1, 13)}


def write_signals(folder, tracings_of, name="traces.hdf5", order=tuple(range(12)), factor=1.0):
    with h5py.File(folder / name, "w") as file:
        file["id_exam"] = np.array(list(tracings_of), dtype=np.int64)
        tracings = file.create_dataset("signal", (len(tracings_of), 4096, 12), "f4")
        for place, values in enumerate(tracings_of.values()):
            left = (4096 - values.shape[1]) // 2
            tracings[place, left : left + values.shape[1]] = values[list(order)].T * factor


def row(exam, **values):
    findings = dict.fromkeys(("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"), 0)
    return {"id_exam": exam, "id_patient": 7 * exam, "age": 54, "sex": "F", "date_exam": "2014-03-02", **findings, **values}


def write_table(folder, rows, columns=COLUMNS, name="annotations.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tracings_of, tmp_path):
    """The real exams, the table in another order than the file."""
    write_signals(tmp_path, tracings_of)
    write_table(tmp_path, [row(exam) for exam in reversed(tracings_of)])
    return tmp_path


def test_every_real_exam_has_half_its_stored_values_as_millivolts_and_no_padding(folder, tracings_of):
    records = read_all(CodeFull(folder))
    assert len(records) == 40
    for exam, values in tracings_of.items():
        assert_millivolts(records[str(exam)], dict(zip(LEADS, values / 2, strict=True)))


def test_a_row_becomes_labels_by_name(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of)
    exam = next(iter(tracings_of))
    columns = [*COLUMNS[:4], "ST", "AF", *COLUMNS[4:8], "date_exam"]
    write_table(tmp_path, [row(exam, AF=1, sex="M")], columns)
    [record] = read_all(CodeFull(tmp_path)).values()
    assert [name for name, value in record.labels.items() if value] == ["AF"]
    assert (record.report, record.statements) == ("Atrial fibrillation", [Statement("AF", "CODE")])
    assert (record.patient_id, record.age, record.sex, record.acquired) == (str(7 * exam), 54.0, "M", "2014-03-02")
    assert record.split == split_by_hash("code", str(7 * exam))


@pytest.mark.parametrize("renamed", [("id_exam", "id_patient", "age"), ("id_exam",), ("age",)])
def test_older_names_of_columns_are_known_one_by_one(tracings_of, tmp_path, renamed):
    write_signals(tmp_path, tracings_of)
    rows = [{OLDER[key] if key in renamed else key: value for key, value in row(exam).items()} for exam in tracings_of]
    write_table(tmp_path, rows, [OLDER[name] if name in renamed else name for name in COLUMNS])
    records = read_all(CodeFull(tmp_path))
    assert set(records) == {str(exam) for exam in tracings_of}
    assert all(record.age == 54 and record.patient_id == str(7 * int(number)) for number, record in records.items())


def test_exams_of_several_files_are_joined_by_number(tracings_of, tmp_path):
    exams = list(tracings_of)
    write_signals(tmp_path, {exam: tracings_of[exam] for exam in exams[20:]}, "a.h5")
    write_signals(tmp_path, {exam: tracings_of[exam] for exam in exams[:20]}, "b.hdf5")
    write_table(tmp_path, [row(exam) for exam in exams] + [row(5)])
    source = CodeFull(tmp_path)
    plan = source.plan()
    assert len(plan.records) == 40
    assert [absent.record_id for absent in plan.absent] == ["5"]
    assert "in none of a.h5, b.hdf5" in plan.absent[0].reason
    record = source.read(plan.records[0])
    assert record.source_path == "b.hdf5"
    assert_millivolts(record, dict(zip(LEADS, tracings_of[exams[0]] / 2, strict=True)))


def test_an_exam_that_is_in_two_files_is_refused(tracings_of, tmp_path):
    exams = list(tracings_of)
    write_signals(tmp_path, tracings_of, "a.h5")
    write_signals(tmp_path, {exams[3]: tracings_of[exams[4]]}, "b.h5")
    write_table(tmp_path, [row(exam) for exam in exams])
    plan = CodeFull(tmp_path).plan()
    assert [rejected.record_id for rejected in plan.rejected] == [str(exams[3])]
    assert "a.h5, b.h5: exam" in plan.rejected[0].reason


def test_patients_are_on_one_side(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of)
    write_table(
        tmp_path, [row(exam, id_patient=f"{place % 10}{'.0' if place > 20 else ''}") for place, exam in enumerate(tracings_of)]
    )
    sides = {(planned.row["id_patient"].removesuffix(".0"), planned.split) for planned in CodeFull(tmp_path).plan().records}
    assert len(sides) == 10
    assert len({split for _, split in sides}) > 1


def test_comorbidities_are_kept_beside_the_labels(folder, tracings_of):
    first, second, *_ = tracings_of
    columns = ["id_exam", "id_patient", "diabetesmellitus", "tabagismo", "doencadechagas"]
    answers = [dict(zip(columns, (first, 7 * first, "True", "False", ""), strict=True))]
    write_table(folder, answers, columns, "comorbidities.csv")
    source = CodeFull(folder)
    records = read_all(source)
    expected = {"diabetesmellitus": True, "tabagismo": False, "doencadechagas": None}
    assert records[str(first)].annotations == {"comorbidities": expected}
    assert records[str(second)].annotations == {}
    assert set(source.provenance()["tables"]) == {"annotations.csv", "comorbidities.csv"}


def test_leads_in_the_order_of_code_test_are_found_and_the_option_is_named(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of, order=TEST_ORDER)
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    with pytest.raises(RecordError, match="break Einthoven's and Goldberger's laws") as refusal:
        CodeFull(tmp_path).plan()
    assert "--leads I,II,III,aVL,aVF,aVR,V1,V2,V3,V4,V5,V6" in str(refusal.value)
    records = read_all(CodeFull(tmp_path, leads="DI,DII,DIII,AVL,AVF,AVR,V1,V2,V3,V4,V5,V6"))
    for exam, values in tracings_of.items():
        assert_millivolts(records[str(exam)], dict(zip(LEADS, values / 2, strict=True)))


def test_an_order_that_was_given_wrongly_is_refused_with_the_right_one(folder):
    with pytest.raises(RecordError, match=f"give --leads {','.join(LEADS)}$"):
        CodeFull(folder, leads="I,II,III,aVL,aVF,aVR,V1,V2,V3,V4,V5,V6").plan()


def test_the_order_that_fits_is_named_in_the_places_where_the_limb_leads_are(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of, order=(*range(6, 12), *range(6)))
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    with pytest.raises(RecordError, match=f"give --leads {','.join(LEADS[6:] + LEADS[:6])}$"):
        CodeFull(tmp_path, leads="V1,V2,V3,V4,V5,V6,II,I,III,aVR,aVL,aVF").plan()


def test_limb_leads_that_obey_no_order_are_refused(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of, order=(0, 1, 2, 3, 4, 6, 5, *range(7, 12)))
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    with pytest.raises(RecordError, match="obey Einthoven's and Goldberger's laws in no order"):
        CodeFull(tmp_path).plan()


@pytest.mark.parametrize(
    ("factor", "option"), [(0.5, "--scale 1 if values are millivolts"), (500.0, "--scale 1000 if values are")]
)
def test_values_that_look_like_another_unit_are_refused_and_taken_once_confirmed(tracings_of, tmp_path, factor, option):
    write_signals(tmp_path, tracings_of, factor=factor)
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    with pytest.raises(RecordError, match="the R wave of lead II is .* mV high") as refusal:
        CodeFull(tmp_path).plan()
    assert option in str(refusal.value)
    [record, *_] = read_all(CodeFull(tmp_path, scale=2 * factor)).values()
    expected = tracings_of[int(record.record_id)] / 2
    np.testing.assert_allclose(to_millivolts(record.ecg, record.mv_per_lsb), expected, atol=0.001)


def test_a_scale_that_is_given_is_taken_and_the_order_is_still_checked(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of, factor=0.5)
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    assert len(CodeFull(tmp_path, scale=2.0).plan().records) == 40
    with pytest.raises(RecordError, match="laws"):
        CodeFull(tmp_path, scale=2.0, leads="I,II,III,aVL,aVF,aVR,V1,V2,V3,V4,V5,V6").plan()


@pytest.mark.parametrize("scale", [0.0, -2.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(tmp_path, scale):
    with pytest.raises(RecordError, match="--scale .*: expected how many values are 1 mV"):
        CodeFull(tmp_path, scale=scale)


@pytest.mark.parametrize("leads", ["", "I,II,III", "I,I,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6", ",".join([*LEADS, "V7"])])
def test_leads_that_are_not_the_twelve_are_refused(tmp_path, leads):
    with pytest.raises(RecordError, match="--leads .*: expected the twelve of I,II,III"):
        CodeFull(tmp_path, leads=leads)


def test_options_are_in_the_manifest(tracings_of, tmp_path):
    write_signals(tmp_path, tracings_of)
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    manifest = build(CodeFull(tmp_path), str(tmp_path / "set"), BuildOptions())
    assert manifest["provenance"]["options"] == {"scale": None, "leads": ",".join(LEADS)}
    assert manifest["provenance"]["values"] == "stored values / 2 = mV"
    assert manifest["counts"]["records"] == 40


def test_a_folder_without_files_or_with_two_tables_or_none_is_refused(folder):
    write_table(folder, [], name="more.csv")
    with pytest.raises(RecordError, match="expected one csv table with the columns .*, found annotations.csv, more.csv"):
        CodeFull(folder).plan()
    (folder / "more.csv").unlink()
    (folder / "annotations.csv").write_text("id_exam,AF\n1,0\n")
    with pytest.raises(RecordError, match="expected one csv table with the columns .*, found none"):
        CodeFull(folder).plan()
    (folder / "traces.hdf5").unlink()
    with pytest.raises(RecordError, match="expected \\*.hdf5 or \\*.h5 files with signal and id_exam, found none"):
        CodeFull(folder).plan()


def test_a_file_of_something_else_is_named(folder):
    with h5py.File(folder / "predictions.h5", "w") as file:
        file["probabilities"] = np.zeros(3)
    with pytest.raises(RecordError, match="predictions.h5: expected the dataset 'signal'"):
        CodeFull(folder).plan()


def test_tracings_that_hold_nothing_cannot_be_checked(tracings_of, tmp_path):
    write_signals(tmp_path, {exam: np.zeros((12, 4096)) for exam in tracings_of})
    write_table(tmp_path, [row(exam) for exam in tracings_of])
    with pytest.raises(RecordError, match="none of 40 tracings drawn to check lead order and scale holds an ECG"):
        CodeFull(tmp_path).plan()


def test_source_and_planned_records_go_to_a_worker_without_their_tables(folder):
    source = CodeFull(folder)
    plan = source.plan()
    body = pickle.dumps((source, plan.records[0]))
    assert len(body) < 2000
    worker, planned = pickle.loads(body)
    assert worker.read(planned).to_members() == source.read(plan.records[0]).to_members()


def test_real_exams_obey_the_laws_in_the_standard_order_and_in_no_other(tracings_of):
    for exam, values in tracings_of.items():
        found = fit_limb_order([values])
        assert found.order == tuple(range(6)), exam
        assert found.assumed == found.best == pytest.approx(limb_residual(values))
    together = fit_limb_order(list(tracings_of.values()))
    assert together.assumed < 0.02


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)))
def test_any_order_of_the_limb_leads_is_found_on_simulated_beats(simulated, order):
    shuffled = [np.concatenate([simulated[number][list(order)], simulated[number][6:]]) for number in (1, 2, 3)]
    found = fit_limb_order(shuffled)
    assert [order[place] for place in found.order] == list(range(6))
    assert found.best < 0.001
    assert found.assumed > 0.1 or list(order) == list(range(6))


def test_the_residual_is_none_where_the_laws_hold_whatever_gain_and_offset(simulated):
    for mv in simulated.values():
        assert limb_residual(mv) < 0.001
        assert limb_residual(1e-6 * mv + np.arange(12)[:, None]) < 0.01
        assert limb_residual(mv[list(TEST_ORDER)]) > 0.5


def test_missing_samples_are_left_out_and_nothing_that_moves_is_no_verdict(simulated):
    mv = simulated[1].copy()
    mv[3, 100:200] = np.nan
    assert limb_residual(mv) < 0.001
    assert np.isnan(limb_residual(np.ones((12, 50))))
    assert np.isnan(limb_residual(np.full((12, 50), np.nan)))
    assert np.isnan(fit_limb_order([np.zeros((12, 50))]).best)
    assert np.isnan(r_amplitude_mv(np.zeros((12, 4000))))
    assert np.isnan(r_amplitude_mv(np.full((12, 4000), np.nan)))


def test_the_r_wave_is_as_high_as_its_beats_whatever_the_baseline(simulated):
    for number in simulated:
        clean = render(draw_case(5, number), 400, noise=False)
        lead = clean[1]
        beats = np.sort([part.max() - np.median(lead) for part in np.array_split(lead, 5)])
        slow = 0.2 * np.sin(np.arange(clean.shape[1]) / 400)
        assert r_amplitude_mv(clean) == pytest.approx(beats[2], abs=0.05)
        assert r_amplitude_mv(clean + slow) == pytest.approx(beats[2], abs=0.25)
        assert r_amplitude_mv(2 * clean) == pytest.approx(2 * r_amplitude_mv(clean))


def test_the_median_r_wave_of_real_exams_is_plausible_at_half_the_stored_values_alone(tracings_of):
    heights = np.array([r_amplitude_mv(values / 2) for values in tracings_of.values()])
    assert 0.6 < np.median(heights) < 0.8
