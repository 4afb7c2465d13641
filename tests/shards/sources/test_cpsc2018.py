"""Source `cpsc2018`: real recordings in both forms where they lie, then small folders of either form."""

import os
import pickle
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.record import INVALID, LEADS, RecordError, split_by_hash, to_millivolts
from shards.sources.cpsc2018 import Cpsc2018
from shards.sources.matlab import read_struct
from shards.sources.vocabularies import cpsc
from tests.shards.sources.readings import assert_millivolts, read_all

STRUCTS = {
    "A1980": ("PAC", "Premature atrial contractions", "M", 52, 5000),
    "A1981": ("STD", "ST-segment depression", "F", 48, 7950),
    "A1982": ("1AVB", "First-degree atrioventricular block", "M", 89, 5000),
    "A1983": ("NORM", "Normal ECG", "M", 49, 7500),
    "A1984": ("STD", "ST-segment depression", "F", 23, 9500),
}
WFDB = {
    "A0001": ("RBBB", "Right bundle branch block", "M", 74, 7500),
    "A0002": ("NORM", "Normal ECG", "F", 49, 5000),
    "A0003": ("AFIB", "Atrial fibrillation", "F", 81, 5000),
    "A0004": ("AFIB", "Atrial fibrillation", "M", 45, 5974),
    "A0005": ("PVC", "Premature ventricular contractions", "M", 53, 12500),
    "A0006": ("RBBB", "Right bundle branch block", "M", 29, 7000),
}
HEADING = "Recording,First_label,Second_label,Third_label\n"


def some_ecg(samples=3000, seed=0):
    return np.random.default_rng(seed).normal(0, 0.5, (12, samples))


def write_struct(path, ecg=None, sex="Male", age=52, **options):
    """A recording as the challenge published it; the order of the struct's fields is that of the dictionary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"sex": sex, "age": np.array([[age]]), "data": some_ecg() if ecg is None else ecg}
    scipy.io.savemat(path, {"ECG": fields}, **options)


def write_reference(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "REFERENCE.csv").write_text(HEADING + "".join(f"{row}\n" for row in rows))


def write_wfdb(path, ecg, dx="426783006", sex="Male", age="52", fs=500):
    """A recording as the PhysioNet Challenge published it: a MATLAB 4 matrix `val` of 16-bit counts at 1000/mV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = np.where(np.isnan(ecg), INVALID, np.rint(np.nan_to_num(ecg) * 1000)).astype("<i2")
    head = struct.pack("<5i4s", 30, 12, counts.shape[1], 0, 4, b"val\0")
    path.with_suffix(".mat").write_bytes(head + counts.T.tobytes())
    lines = [f"{path.name} 12 {fs} {counts.shape[1]} 12-May-2020 12:33:59"]
    for lead, samples in zip(LEADS, counts, strict=True):
        total = int(samples.astype(np.int64).sum())
        checksum = (total + 32768) % 65536 - 32768
        lines.append(f"{path.name}.mat 16+24 1000/mV 16 0 {samples[0]} {checksum} 0 {lead}")
    comments = [f"#Age: {age}", f"#Sex: {sex}", *([f"#Dx: {dx}"] if dx is not None else []), "#Rx: Unknown"]
    path.with_suffix(".hea").write_text("\n".join([*lines, *comments]) + "\n")


@pytest.fixture
def one_struct(tmp_path):
    """`one_struct("5,2,", sex="Female")`: the single record of a folder of structs."""

    def make(labels="1,,", **fields):
        write_reference(tmp_path, f"A0001,{labels}")
        write_struct(tmp_path / "TrainingSet1" / "A0001.mat", **fields)
        return read_all(Cpsc2018(tmp_path))["A0001"]

    return make


@pytest.fixture
def one_wfdb(tmp_path):
    """`one_wfdb(dx="59118001")`: the single record of a folder of WFDB records."""

    def make(ecg=None, **fields):
        write_wfdb(tmp_path / "A0001", some_ecg() if ecg is None else ecg, **fields)
        return read_all(Cpsc2018(tmp_path))["A0001"]

    return make


def stated(record):
    return sorted(label for label, value in record.labels.items() if value == 1)


# Real recordings


def test_every_real_struct_has_the_millivolts_that_scipy_reads(corpus):
    folder = corpus("cpsc2018")
    records = read_all(Cpsc2018(folder))
    assert records.keys() == STRUCTS.keys()
    for record_id, record in records.items():
        ecg = scipy.io.loadmat(folder / "TrainingSet1" / f"{record_id}.mat")["ECG"]["data"][0, 0]
        assert_millivolts(record, dict(zip(LEADS, ecg, strict=True)))


def test_every_real_wfdb_record_has_the_millivolts_that_wfdb_reads(corpus):
    folder = corpus("cpsc2018-wfdb")
    records = read_all(Cpsc2018(folder))
    assert records.keys() == WFDB.keys()
    for record_id, record in records.items():
        theirs = wfdb.rdrecord(str(folder / record_id))
        assert_millivolts(record, dict(zip(theirs.sig_name, theirs.p_signal.T, strict=True)))


@pytest.mark.parametrize(
    ("folder", "published", "vocabulary"), [("cpsc2018", STRUCTS, "CPSC"), ("cpsc2018-wfdb", WFDB, "SNOMED CT")]
)
def test_every_real_record_says_what_is_published_and_is_kept_whole(corpus, folder, published, vocabulary):
    for record_id, record in read_all(Cpsc2018(corpus(folder))).items():
        label, report, sex, age, samples = published[record_id]
        assert record.labels == {entry.label: int(entry.label == label) for entry in cpsc.CLASSES}
        assert (record.report, record.report_source) == (report, "made from statements")
        assert (record.sex, record.age, record.ecg.shape, record.fs_hz) == (sex, age, (12, samples), 500)
        assert [statement.vocabulary for statement in record.statements] == [vocabulary]
        assert (record.source, record.patient_id, record.split) == ("cpsc2018", record_id, split_by_hash("cpsc2018", record_id))


def test_the_documented_lead_order_is_that_of_the_signals(corpus):
    """Goldberger: aVR, aVL and aVF are means of I and II, whatever filter a hospital's device applied."""
    for record in read_all(Cpsc2018(corpus("cpsc2018"))).values():
        lead = dict(zip(LEADS, to_millivolts(record.ecg, record.mv_per_lsb), strict=True))
        one, two = lead["I"], lead["II"]
        derived = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
        for name, expected in derived.items():
            assert np.corrcoef(lead[name], expected)[0, 1] > 0.95, (record.record_id, name)


@pytest.mark.parametrize("folder", ["cpsc2018", "cpsc2018-wfdb"])
def test_a_worker_reads_what_the_planner_planned(corpus, folder):
    source = Cpsc2018(corpus(folder))
    plan = source.plan()
    body = pickle.dumps(source)
    assert len(body) < 1000
    worker = pickle.loads(body)
    for planned in plan.records:
        there = worker.read(pickle.loads(pickle.dumps(planned)))
        assert there.to_members() == source.read(planned).to_members()


# The two forms are one corpus


def same_but_for_the_form(struct_record, wfdb_record):
    for name in ("source", "record_id", "patient_id", "split", "labels", "report", "report_source", "sex", "age", "fs_hz"):
        assert getattr(struct_record, name) == getattr(wfdb_record, name), name
    ours, theirs = (to_millivolts(record.ecg, record.mv_per_lsb) for record in (struct_record, wfdb_record))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.00101)


def test_real_structs_in_wfdb_form_give_the_same_samples(corpus, tmp_path):
    folder = corpus("cpsc2018")
    expected = read_all(Cpsc2018(folder))
    for record_id, record in expected.items():
        ecg = scipy.io.loadmat(folder / "TrainingSet1" / f"{record_id}.mat")["ECG"]["data"][0, 0]
        dx = next(entry.snomed for entry in cpsc.CLASSES if record.labels[entry.label])
        sex = {"M": "Male", "F": "Female"}[record.sex]
        write_wfdb(tmp_path / "g1" / record_id, ecg, dx, sex, str(int(record.age)))
    found = read_all(Cpsc2018(tmp_path))
    assert found.keys() == expected.keys()
    for record_id, record in expected.items():
        same_but_for_the_form(record, found[record_id])


def test_real_wfdb_records_in_struct_form_give_the_same_samples(corpus, tmp_path):
    folder = corpus("cpsc2018-wfdb")
    expected = read_all(Cpsc2018(folder))
    rows = []
    for record_id, record in expected.items():
        theirs = wfdb.rdrecord(str(folder / record_id))
        sex = {"M": "Male", "F": "Female"}[record.sex]
        write_struct(tmp_path / "TrainingSet1" / f"{record_id}.mat", theirs.p_signal.T, sex, record.age)
        rows.append(f"{record_id},{next(entry.number for entry in cpsc.CLASSES if record.labels[entry.label])},,")
    write_reference(tmp_path, *rows)
    found = read_all(Cpsc2018(tmp_path))
    assert found.keys() == expected.keys()
    for record_id, record in expected.items():
        same_but_for_the_form(found[record_id], record)


@given(st.lists(st.sampled_from(cpsc.CLASSES), min_size=1, max_size=3, unique=True))
@settings(max_examples=25)
def test_any_labels_are_the_same_in_both_forms(tmp_path_factory, classes):
    folder, ecg = tmp_path_factory.mktemp("forms"), some_ecg(50)
    write_reference(folder / "a", ",".join(["A0001", *(str(entry.number) for entry in classes), "", "", ""][:4]))
    write_struct(folder / "a" / "A0001.mat", ecg)
    write_wfdb(folder / "b" / "A0001", ecg, ",".join(sorted(entry.snomed for entry in classes)))
    ours, theirs = (read_all(Cpsc2018(folder / form))["A0001"] for form in "ab")
    same_but_for_the_form(ours, theirs)
    assert stated(ours) == sorted(entry.label for entry in classes)


# Labels


def test_second_and_third_labels_count_too(one_struct):
    record = one_struct("5,2,7")
    assert [statement.code for statement in record.statements] == ["5", "2", "7"]
    assert stated(record) == ["AFIB", "PVC", "RBBB"]
    assert record.report == "Atrial fibrillation; right bundle branch block; premature ventricular contractions"


@pytest.mark.parametrize(
    ("number", "snomed", "label", "report"),
    [
        (1, "426783006", "NORM", "Normal ECG"),
        (2, "164889003", "AFIB", "Atrial fibrillation"),
        (3, "270492004", "1AVB", "First-degree atrioventricular block"),
        (4, "164909002", "LBBB", "Left bundle branch block"),
        (5, "59118001", "RBBB", "Right bundle branch block"),
        (6, "284470004", "PAC", "Premature atrial contractions"),
        (7, "164884008", "PVC", "Premature ventricular contractions"),
        (8, "429622005", "STD", "ST-segment depression"),
        (9, "164931005", "STE", "ST-segment elevation"),
    ],
)
def test_the_nine_classes_have_their_published_numbers_and_codes(tmp_path, number, snomed, label, report):
    write_reference(tmp_path / "a", f"A0001,{number},,")
    write_struct(tmp_path / "a" / "A0001.mat")
    write_wfdb(tmp_path / "b" / "A0001", some_ecg(50), dx=snomed)
    for form in "ab":
        record = read_all(Cpsc2018(tmp_path / form))["A0001"]
        assert (stated(record), record.report) == ([label], report)


def test_labels_that_a_tool_wrote_as_floats_are_the_same(one_struct):
    assert stated(one_struct("5.0,2.0,")) == ["AFIB", "RBBB"]


def test_a_recording_without_labels_is_unknown_and_not_normal(one_struct, one_wfdb, tmp_path):
    first = one_struct(",,")
    shutil.rmtree(tmp_path / "TrainingSet1")
    (tmp_path / "REFERENCE.csv").unlink()
    for record in (first, one_wfdb(dx=None), one_wfdb(dx="Unknown"), one_wfdb(dx="")):
        assert set(record.labels.values()) == {None}
        assert (record.statements, record.report, record.report_source) == ([], None, None)


@pytest.mark.parametrize("labels", ["0,,", "10,,", "1,x,", "1,-2,"])
def test_a_label_that_is_none_of_the_nine_rejects_its_row(tmp_path, labels):
    write_reference(tmp_path, f"A0001,{labels}", "A0002,2,,")
    for number in (1, 2):
        write_struct(tmp_path / f"A000{number}.mat")
    plan = Cpsc2018(tmp_path).plan()
    assert [planned.record_id for planned in plan.records] == ["A0002"]
    assert "REFERENCE.csv, Recording A0001: expected labels from 1 to 9" in plan.rejected[0].reason


def test_a_code_outside_the_nine_is_kept_as_a_statement_and_is_no_label(one_wfdb):
    record = one_wfdb(dx="59118001,10370003")
    assert [statement.code for statement in record.statements] == ["59118001", "10370003"]
    assert stated(record) == ["RBBB"]
    assert len(record.labels) == 9
    assert record.report == "Right bundle branch block"
    other = one_wfdb(dx="10370003")
    assert (set(other.labels.values()), other.report) == ({0}, None)


def test_a_dx_that_is_no_list_of_codes_is_rejected(tmp_path):
    write_wfdb(tmp_path / "A0001", some_ecg(), dx="AFIB and more")
    source = Cpsc2018(tmp_path)
    with pytest.raises(RecordError, match="A0001.hea: expected SNOMED CT codes"):
        source.read(source.plan().records[0])


# Files and folders


def test_a_recording_is_found_in_every_training_set_and_in_the_folder_itself(tmp_path):
    write_reference(tmp_path / "TrainingSet1", "A0001,1,,", "A0002,2,,")
    write_reference(tmp_path / "TrainingSet3", "A0002,2,,", "A0003,3,,", "A0004,4,,", "A0005,5,,")
    for number, place in enumerate(("TrainingSet1", "TrainingSet2", "TrainingSet3", "."), 1):
        write_struct(tmp_path / place / f"A000{number}.mat", some_ecg(50, number))
    source = Cpsc2018(tmp_path)
    plan = source.plan()
    assert [planned.record_id for planned in plan.records] == ["A0001", "A0002", "A0003", "A0004"]
    assert [absent.record_id for absent in plan.absent] == ["A0005"]
    assert {record_id: stated(record) for record_id, record in read_all(source).items()} == {
        "A0001": ["NORM"],
        "A0002": ["AFIB"],
        "A0003": ["1AVB"],
        "A0004": ["LBBB"],
    }
    assert set(source.provenance()["tables"]) == {"TrainingSet1/REFERENCE.csv", "TrainingSet3/REFERENCE.csv"}


@pytest.mark.parametrize("validation", ["validation_set", "ValidationSet", "Validation Set", "validation"])
@pytest.mark.parametrize("form", ["MATLAB", "WFDB"])
def test_the_validation_set_is_left_out_and_said(tmp_path, validation, form):
    """It repeats the first training recordings under the same names; one here is in no training set."""
    for place, numbers in (("TrainingSet1", range(1, 8)), (validation, range(1, 6)), (validation, [9])):
        for number in numbers:
            path = tmp_path / place / f"A000{number}"
            if form == "MATLAB":
                write_struct(path.with_suffix(".mat"), some_ecg(50, number))
            else:
                write_wfdb(path, some_ecg(50, number))
    if form == "MATLAB":
        write_reference(tmp_path / "TrainingSet1", *(f"A000{number},1,," for number in range(1, 8)))
        write_reference(tmp_path / validation, *(f"A000{number},2,," for number in (1, 2, 3, 4, 5, 9)))
    source = Cpsc2018(tmp_path)
    plan = source.plan()
    assert [planned.record_id for planned in plan.records] == [f"A000{number}" for number in range(1, 8)]
    assert (plan.absent, plan.rejected) == ([], [])
    assert all(planned.row["path"].startswith("TrainingSet1/") for planned in plan.records)
    said = source.provenance()
    assert (said["form"], said["excluded"]["folders"], said["excluded"]["recordings"]) == (form, [validation], 6)


def test_the_validation_set_alone_is_refused(tmp_path):
    write_reference(tmp_path / "validation_set", "A0001,1,,")
    write_struct(tmp_path / "validation_set" / "A0001.mat")
    with pytest.raises(RecordError, match="the validation set repeats recordings of the training set"):
        Cpsc2018(tmp_path / "validation_set").plan()


def test_a_recording_has_one_split_whatever_form_or_folder_it_is_in(tmp_path):
    numbers = range(1, 200)
    write_reference(tmp_path / "a", *(f"A{number:04d},1,," for number in numbers))
    for number in numbers:
        for path in (f"a/TrainingSet1/A{number:04d}.mat", f"b/g1/A{number:04d}.mat", f"b/g1/A{number:04d}.hea"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    splits = [{planned.record_id: planned.split for planned in Cpsc2018(tmp_path / form).plan().records} for form in "ab"]
    assert splits[0] == splits[1]
    assert set(splits[0].values()) == {"train", "val", "test"}


def test_a_recording_that_lies_in_two_places_is_rejected(tmp_path):
    write_reference(tmp_path, "A0001,1,,")
    for place in ("TrainingSet1", "TrainingSet2"):
        write_struct(tmp_path / place / "A0001.mat")
    plan = Cpsc2018(tmp_path).plan()
    assert plan.records == []
    assert "A0001: lies in TrainingSet1 and TrainingSet2; keep one of them" in plan.rejected[0].reason


def test_rows_that_differ_and_recordings_without_a_row_are_rejected(tmp_path):
    write_reference(tmp_path, "A0001,1,,", "A0001,2,,", "../A0003,1,,")
    for number in (1, 2):
        write_struct(tmp_path / f"A000{number}.mat")
    plan = Cpsc2018(tmp_path).plan()
    assert plan.records == []
    reasons = [rejected.reason for rejected in plan.rejected]
    assert any("A0001: expected its labels in REFERENCE.csv, found rows that differ" in reason for reason in reasons)
    assert any("A0002: expected its labels in REFERENCE.csv, found no row" in reason for reason in reasons)
    assert any("a Recording is no name such as A0001" in reason for reason in reasons)


def test_half_a_wfdb_record_is_absent_and_another_corpus_is_refused(tmp_path):
    write_wfdb(tmp_path / "g1" / "A0001", some_ecg(50))
    write_wfdb(tmp_path / "g2" / "A0002", some_ecg(50))
    (tmp_path / "g2" / "A0002.mat").unlink()
    write_wfdb(tmp_path / "other" / "JS00001", some_ecg(50))
    plan = Cpsc2018(tmp_path).plan()
    assert [planned.record_id for planned in plan.records] == ["A0001"]
    assert [absent.record_id for absent in plan.absent] == ["A0002"]
    assert "other/JS00001.hea: no recording of CPSC2018" in plan.rejected[0].reason


def test_a_folder_that_holds_neither_form_says_so(tmp_path):
    with pytest.raises(RecordError, match="expected REFERENCE.csv with TrainingSet1/A0001.mat, or A0001.hea"):
        Cpsc2018(tmp_path).plan()


def test_folders_that_are_linked_in_a_circle_are_walked_once(tmp_path):
    write_reference(tmp_path / "here", "A0001,1,,")
    write_struct(tmp_path / "there" / "A0001.mat")
    os.symlink(tmp_path / "there", tmp_path / "here" / "TrainingSet1")
    os.symlink(tmp_path / "here", tmp_path / "there" / "back")
    assert list(read_all(Cpsc2018(tmp_path / "here"))) == ["A0001"]


# Sex and age


@pytest.mark.parametrize(
    ("sex", "age", "expected"),
    [
        ("Female", 23, ("F", 23)),
        ("Male", np.nan, ("M", None)),
        ("Male", -1, ("M", None)),
        ("male", 104.0, ("M", 104)),
        ("", 5, (None, 5)),
        ("unknown", 5, (None, 5)),
    ],
)
def test_sex_and_age_are_known_or_none(one_struct, sex, age, expected):
    record = one_struct(sex=sex, age=age)
    assert (record.sex, record.age, record.age_note) == (*expected, None)


@pytest.mark.parametrize(
    ("age", "expected"), [("NaN", (None, None)), ("-1", (None, None)), ("92", (None, "over 89")), ("104", (104, None))]
)
def test_ages_of_headers_are_known_or_named(one_wfdb, age, expected):
    """PhysioNet's copy gives every age over 89 as 92."""
    record = one_wfdb(age=age)
    assert (record.age, record.age_note) == expected


# Signals


def test_samples_that_were_not_recorded_are_invalid_in_both_forms(one_struct, one_wfdb, tmp_path):
    ecg = some_ecg()
    ecg[11] = np.nan
    ecg[3, 7] = np.nan
    first = one_struct(ecg=ecg)
    assert_millivolts(first, dict(zip(LEADS, ecg, strict=True)))
    (tmp_path / "REFERENCE.csv").unlink()
    shutil.rmtree(tmp_path / "TrainingSet1")
    assert ((one_wfdb(ecg).ecg == INVALID) == (first.ecg == INVALID)).all()


def test_a_recording_of_144_seconds_is_kept_whole(one_struct):
    assert one_struct(ecg=some_ecg(72_000)).ecg.shape == (12, 72_000)


def test_another_sampling_rate_is_rejected(tmp_path):
    write_wfdb(tmp_path / "A0001", some_ecg(), fs=257)
    source = Cpsc2018(tmp_path)
    with pytest.raises(RecordError, match="A0001.hea: expected 500 Hz, found 257 Hz"):
        source.read(source.plan().records[0])


# MATLAB files


@pytest.mark.parametrize("order", [("sex", "age", "data"), ("data", "sex", "age"), ("extra", "age", "data", "sex")])
@pytest.mark.parametrize("compressed", [False, True])
def test_fields_are_found_by_name_and_not_by_position(tmp_path, order, compressed):
    ecg = some_ecg(40)
    values = {"sex": "Female", "age": np.array([[30.5]]), "data": ecg, "extra": {"nested": [1, 2]}}
    write_reference(tmp_path, "A0001,1,,")
    scipy.io.savemat(tmp_path / "A0001.mat", {"ECG": {name: values[name] for name in order}}, do_compression=compressed)
    record = read_all(Cpsc2018(tmp_path))["A0001"]
    assert (record.sex, record.age) == ("F", 30.5)
    assert_millivolts(record, dict(zip(LEADS, ecg, strict=True)))


@given(
    st.sampled_from(["f8", "f4", "i2", "u1", "i8", ">f8"]),
    st.integers(0, 5),
    st.integers(1, 7),
    st.text("Femalé☂", max_size=9),
    st.booleans(),
)
@settings(max_examples=60)
def test_a_struct_is_read_as_scipy_reads_it(tmp_path_factory, dtype, rows, columns, text, compressed):
    path = tmp_path_factory.mktemp("matlab") / "x.mat"
    numbers = np.arange(rows * columns).reshape(rows, columns).astype(dtype)
    scipy.io.savemat(path, {"before": 1.5, "ECG": {"text": text, "numbers": numbers}}, do_compression=compressed)
    theirs = scipy.io.loadmat(path)["ECG"][0, 0]
    ours = read_struct(path, "ECG", ("numbers", "text"), "x.mat")
    np.testing.assert_array_equal(ours["numbers"], theirs["numbers"])
    assert ours["text"] == ("" if theirs["text"].size == 0 else theirs["text"][0])


def element(kind, body):
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def array(of_class, shape, name, *content):
    flags, dimensions = struct.pack("<II", of_class, 0), struct.pack("<ii", *shape)
    return element(14, element(6, flags) + element(5, dimensions) + element(1, name) + b"".join(content))


def ecg_struct(data, shape=(1, 1), names=b"sex\0age\0data", sex=None):
    """A file with one struct; `data` is the array in its field of that name."""
    width = 4 if names == b"sex\0age\0data" else 5
    fields = b"".join(name.ljust(5, b"\0") for name in (b"sex", b"age", b"data")) if width == 4 else names
    sex = array(4, (1, 4), b"", element(16, b"Male")) if sex is None else sex
    age = array(6, (1, 1), b"", element(9, struct.pack("<d", 30)))
    return mat_file(array(2, shape, b"ECG", element(5, struct.pack("<i", 5)), element(1, fields), sex, age, data))


def mat_file(*elements, version=0x0100):
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", version) + b"IM" + b"".join(elements)


def doubles(shape, samples):
    return array(6, shape, b"", element(9, np.zeros((12, samples)).tobytes()))


def test_the_hand_made_struct_of_these_tests_is_one_that_scipy_reads(tmp_path):
    (tmp_path / "A0001.mat").write_bytes(ecg_struct(doubles((12, 40), 40)))
    assert scipy.io.loadmat(tmp_path / "A0001.mat")["ECG"]["data"][0, 0].shape == (12, 40)
    write_reference(tmp_path, "A0001,1,,")
    assert read_all(Cpsc2018(tmp_path))["A0001"].ecg.shape == (12, 40)


def nested(depth):
    """Cells within cells: an element in an element in an element."""
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + struct.pack("<II", 1, 0)
    return b"".join(struct.pack("<II", 14, (depth - level) * (len(head) + 8) - 8) + head for level in range(depth))


BOMB = zlib.compress(bytes(2**27))

HOSTILE = {
    "holds no ECG": mat_file(array(6, (1, 1), b"val", element(9, bytes(8)))),
    "holds ECG as an array of class 6": mat_file(array(6, (1, 1), b"ECG", element(9, bytes(8)))),
    "holds ECG as an array of class 2 and shape (20000, 20000)": ecg_struct(doubles((12, 40), 40), shape=(20000, 20000)),
    "claims the shape (12, 41) for data": ecg_struct(doubles((12, 41), 40)),
    "claims the shape (-12, -40) for data": ecg_struct(doubles((-12, -40), 40)),
    "claims the shape (46341, 46341) for data": ecg_struct(doubles((46341, 46341), 40)),
    "holds data as an array of class 1": ecg_struct(array(1, (1, 1), b"", doubles((12, 40), 40))),
    "holds data as an array of class 17": ecg_struct(array(17, (1, 1), b"", element(1, b"obj"))),
    "holds sex as an array of class 16": ecg_struct(doubles((12, 40), 40), sex=array(16, (1, 1), b"", element(1, b"f"))),
    "holds data without its numbers": ecg_struct(array(6, (12, 40), b"")),
    "data has shape (40, 12)": ecg_struct(doubles((40, 12), 40)),
    "data has shape (0, 0)": ecg_struct(array(6, (0, 0), b"", element(9, b""))),
    "data has text": ecg_struct(array(4, (1, 4), b"", element(16, b"Male"))),
    "lacks the field data": ecg_struct(doubles((12, 40), 40), names=b"sex\0\0age\0\0ecg\0\0"),
    "two fields of one name": ecg_struct(doubles((12, 40), 40), names=b"data\0age\0\0data\0"),
    "names of fields are damaged": ecg_struct(doubles((12, 40), 40), names=b"sex\0\0age\0\0data"),
    "fewer fields than names": ecg_struct(b""),
    "was cut": ecg_struct(doubles((12, 40), 40))[:-100],
    "decompresses to more than": mat_file(struct.pack("<II", 15, len(BOMB)) + BOMB),
    "is damaged where it is compressed": mat_file(struct.pack("<II", 15, 16) + b"no zlib stream!!"),
    "holds an element of type 0": mat_file(bytes(4096)),
    "holds age as an array of class 1": ecg_struct(nested(200_000), names=b"sex\0\0data\0age\0\0"),
    "is a MATLAB 7.3 file": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(512),
    "is a MATLAB 4 file": struct.pack("<5i4s", 30, 12, 40, 0, 4, b"val\0") + bytes(960),
    "is no MATLAB file": b"Recording,First_label\n" * 40,
}


@pytest.mark.parametrize("sentence", HOSTILE)
def test_a_file_that_is_no_such_struct_is_rejected_at_once(tmp_path, sentence):
    """Each in well under the two seconds that a test may take, and without the memory that it claims."""
    write_reference(tmp_path, "A0001,1,,")
    (tmp_path / "A0001.mat").write_bytes(HOSTILE[sentence])
    source = Cpsc2018(tmp_path)
    with pytest.raises(RecordError) as caught:
        source.read(source.plan().records[0])
    assert str(caught.value).startswith("A0001.mat: ")
    assert sentence in str(caught.value)


def test_a_compressed_struct_is_not_inflated_beyond_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.sources.matlab.LARGEST", 2**20)
    path = tmp_path / "A0001.mat"
    path.write_bytes(HOSTILE["decompresses to more than"])
    tracemalloc.start()
    with pytest.raises(RecordError, match="decompresses to more than 1048576 bytes"):
        read_struct(path, "ECG", ("data",), "A0001.mat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    write_reference(tmp_path, "A0001,1,,")
    with (tmp_path / "A0001.mat").open("wb") as file:
        file.write(ecg_struct(doubles((12, 40), 40)))
        file.truncate(2**26 + 1)
    source = Cpsc2018(tmp_path)
    with pytest.raises(RecordError, match="has more than 67108864 bytes"):
        source.read(source.plan().records[0])


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.booleans())
@settings(max_examples=200)
def test_a_struct_with_other_bytes_in_it_is_read_or_rejected(tmp_path_factory, place, other, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed" / "A0001.mat"
    if not path.is_file():
        write_reference(path.parent, "A0001,1,,")
        write_struct(path, some_ecg(8))
        path.with_suffix(".whole").write_bytes(path.read_bytes())
    whole = path.with_suffix(".whole").read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + other + (b"" if cut else whole[place + len(other) :]))
    source = Cpsc2018(path.parent)
    planned = source.plan().records[0]
    sentence = "A0001.mat: "
    try:
        assert source.read(planned).ecg.shape[0] == 12
    except RecordError as error:
        sentence = str(error)
    assert sentence.startswith("A0001.mat: ")
    assert "\n" not in sentence
