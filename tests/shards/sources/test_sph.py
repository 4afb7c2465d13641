"""Source `sph`: real records where they lie, then small folders in the published layout."""

import csv
import io
import pickle
import shutil
import tarfile
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.record import INVALID, LEADS, RecordError, quantise, to_millivolts
from shards.sources.sph import Sph
from shards.sources.vocabularies import aha
from tests.shards.sources.readings import assert_millivolts, read_all

PUBLISHED = {
    "A00001": (["22", "23"], "Sinus bradycardia; sinus arrhythmia", "M", 55, "2020-03-04", 5000),
    "A00002": (["1"], "Normal ECG", "M", 32, "2019-09-03", 6000),
    "A00003": (["1"], "Normal ECG", "M", 63, "2020-07-16", 6500),
    "A00004": (["23"], "Sinus arrhythmia", "M", 31, "2020-07-14", 5000),
    "A00005": (["146"], "ST deviation with T-wave change", "M", 47, "2020-01-07", 5500),
    "A00006": (["1"], "Normal ECG", "F", 46, "2019-08-31", 5000),
}


def write_record(folder, record_id, ecg, dataset="ecg"):
    (folder / "records").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "records" / f"{record_id}.h5", "w") as file:
        file.create_dataset(dataset, data=ecg, compression="gzip", chunks=True)


def write_table(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "N", "Date"])
        table.writeheader()
        table.writerows(rows)


def row(record_id, code="1", patient="S00001", samples=600, **other):
    return {"ECG_ID": record_id, "AHA_Code": code, "Patient_ID": patient, "Age": 50, "Sex": "F", "N": samples, **other}


def some_ecg(samples=600, seed=0, dtype=np.float16):
    return np.random.default_rng(seed).normal(0, 0.5, (12, samples)).astype(dtype)


@pytest.fixture
def one(tmp_path):
    """`one(code="145+362")`: the single record of a folder that holds it."""

    def make(ecg=None, **fields):
        ecg = some_ecg() if ecg is None else ecg
        write_table(tmp_path, [row("A00001", samples=ecg.shape[1]) | fields])
        write_record(tmp_path, "A00001", ecg)
        return read_all(Sph(tmp_path))["A00001"]

    return make


def rejection(folder):
    """The one sentence with which the one record of a folder is rejected, by its row or by its file."""
    source = Sph(folder)
    plan = source.plan()
    if plan.rejected:
        assert plan.records == []
        return plan.rejected[0].reason
    with pytest.raises(RecordError) as caught:
        source.read(plan.records[0])
    return str(caught.value)


# Real records


def test_every_real_record_has_the_millivolts_that_h5py_reads(corpus):
    folder = corpus("sph")
    records = read_all(Sph(folder))
    assert records.keys() == PUBLISHED.keys()
    for record_id, record in records.items():
        with h5py.File(folder / "records" / f"{record_id}.h5") as file:
            ecg = file["ecg"][:].astype(np.float64)
        assert_millivolts(record, dict(zip(LEADS, ecg, strict=True)))


def test_the_documented_lead_order_is_that_of_the_signals(corpus):
    """Einthoven and Goldberger: III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2."""
    for record in read_all(Sph(corpus("sph"))).values():
        lead = dict(zip(LEADS, to_millivolts(record.ecg, record.mv_per_lsb), strict=True))
        one, two = lead["I"], lead["II"]
        derived = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
        for name, expected in derived.items():
            assert np.std(lead[name] - expected) < 0.05 * np.std(lead[name]), (record.record_id, name)


def test_every_real_row_says_what_the_table_says(corpus):
    for record_id, record in read_all(Sph(corpus("sph"))).items():
        codes, report, sex, age, date, samples = PUBLISHED[record_id]
        assert [statement.code for statement in record.statements] == codes
        assert {statement.vocabulary for statement in record.statements} == {"AHA"}
        assert (record.report, record.report_source) == (report, "made from statements")
        assert (record.sex, record.age, record.acquired, record.ecg.shape) == (sex, age, date, (12, samples))
        assert (record.source, record.fs_hz, record.source_path) == ("sph", 500.0, f"records/{record_id}.h5")
        stated = {aha.PRIMARY[int(code)][0] for code in codes}
        assert record.labels == {label: int(label in stated) for label, _ in aha.PRIMARY.values()}


def test_records_longer_than_ten_seconds_are_kept_whole(corpus, one):
    assert {record.ecg.shape[1] for record in read_all(Sph(corpus("sph"))).values()} == {5000, 5500, 6000, 6500}
    assert one(some_ecg(28_000)).ecg.shape == (12, 28_000)


def test_a_worker_reads_what_the_planner_planned(corpus):
    source = Sph(corpus("sph"))
    plan = source.plan()
    body = pickle.dumps(source)
    assert len(body) < 10_000
    worker = pickle.loads(body)
    for planned in plan.records:
        there = worker.read(pickle.loads(pickle.dumps(planned)))
        assert there.to_members() == source.read(planned).to_members()


def test_provenance_names_corpus_licence_and_tables(corpus, tmp_path):
    said = Sph(corpus("sph")).provenance()
    assert said["licence"] == "CC BY 4.0"
    assert list(said["tables"]) == ["metadata.csv"]
    write_table(tmp_path, [])
    (tmp_path / "code.csv").write_text("Category,Code,Description\nA,1,Normal ECG\n")
    assert set(Sph(tmp_path).provenance()["tables"]) == {"metadata.csv", "code.csv"}


# Signals


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 2000))
def test_a_float16_signal_is_at_most_half_a_step_off(seed, amplitude):
    """The law holds to the largest amplitude that is published, 1590 mV."""
    millivolts = (np.random.default_rng(seed).normal(0, amplitude, (12, 50))).astype(np.float16)
    ecg, scale = quantise(millivolts)
    error = np.abs(to_millivolts(ecg, scale) - millivolts.astype(np.float64))
    assert (error <= np.array(scale)[:, None] * 0.5001).all()


def test_a_record_with_large_amplitudes_is_not_clipped(one):
    ecg = some_ecg()
    ecg[3, 100] = 1590
    record = one(ecg)
    assert_millivolts(record, dict(zip(LEADS, ecg.astype(np.float64), strict=True)))
    assert record.mv_per_lsb[0] == 0.001
    assert record.mv_per_lsb[3] > 0.001


def test_samples_that_are_no_number_are_marked_invalid(one):
    ecg = some_ecg()
    ecg[0, :10] = np.nan
    ecg[1, 5] = np.inf
    ecg[2, 6] = -np.inf
    found = np.argwhere(one(ecg).ecg == INVALID).tolist()
    assert found == [[0, sample] for sample in range(10)] + [[1, 5], [2, 6]]


@pytest.mark.parametrize(
    ("ecg", "samples", "sentence"),
    [
        (some_ecg(600), 601, "A00001.h5: ecg has shape (12, 600), expected (12, 601)"),
        (some_ecg(600)[:11], 600, "ecg has shape (11, 600)"),
        (some_ecg(600).T, 600, "ecg has shape (600, 12)"),
        (np.float16(1), 600, "ecg has shape ()"),
        ((some_ecg(600) * 1000).astype(np.int16), 600, "type int16, expected float millivolts"),
    ],
)
def test_a_file_that_is_not_as_the_table_says_is_rejected(tmp_path, ecg, samples, sentence):
    write_table(tmp_path, [row("A00001", samples=samples)])
    (tmp_path / "records").mkdir()
    with h5py.File(tmp_path / "records" / "A00001.h5", "w") as file:
        file["ecg"] = ecg
    assert sentence in rejection(tmp_path)


def test_a_file_without_the_dataset_and_one_that_is_no_hdf5_are_rejected(tmp_path):
    write_table(tmp_path / "lacking", [row("A00001")])
    write_record(tmp_path / "lacking", "A00001", some_ecg(), dataset="signal")
    assert "A00001.h5: expected the dataset 'ecg'" in rejection(tmp_path / "lacking")
    write_table(tmp_path / "broken", [row("A00001")])
    write_record(tmp_path / "broken", "A00001", some_ecg())
    (tmp_path / "broken" / "records" / "A00001.h5").write_bytes(b"no hdf5 at all")
    assert "A00001.h5: not a readable HDF5 file" in rejection(tmp_path / "broken")


def test_a_compressed_signal_that_would_unfold_into_far_more_is_rejected(tmp_path):
    """The HDF5 library inflates a chunk to whatever it holds, and only then looks how large it should be."""
    write_table(tmp_path, [row("A00001")])
    write_record(tmp_path, "A00001", some_ecg())
    with h5py.File(tmp_path / "records" / "A00001.h5", "w") as file:
        dataset = file.create_dataset("ecg", (12, 600), "f2", chunks=(12, 600), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**25), 9))
    assert "A00001.h5: /ecg cannot be decoded (a chunk of 14400 bytes is stored in" in rejection(tmp_path)


# The table


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"AHA_Code": "22;;23"}, "AHA_Code, statement 2 of 3: expected AHA codes such as 145 or 145+362, found nothing"),
        ({"AHA_Code": ""}, "AHA_Code, statement 1 of 1: expected AHA codes such as 145 or 145+362, found nothing"),
        ({"AHA_Code": "1;sinus"}, "AHA_Code, statement 2 of 2: expected AHA codes such as 145 or 145+362, found other text"),
        ({"AHA_Code": "362"}, "AHA_Code, statement 1 of 1: expected a primary code first, found the modifier 362"),
        ({"AHA_Code": "145+22"}, "AHA_Code, statement 1 of 1: expected modifiers behind +, found the primary code 22"),
        ({"AHA_Code": "145+"}, "AHA_Code, statement 1 of 1: expected AHA codes"),
        ({"N": "5000.5"}, "expected 1 to 300000 samples as N"),
        ({"N": "1e300"}, "expected 1 to 300000 samples as N"),
        ({"N": "0"}, "expected 1 to 300000 samples as N"),
        ({"Patient_ID": " "}, "Patient_ID is empty"),
    ],
)
def test_a_bad_field_rejects_its_row_in_a_sentence_that_names_it(tmp_path, fields, sentence):
    write_table(tmp_path, [row("A00001") | fields, row("A00002", "22")])
    for record_id in ("A00001", "A00002"):
        write_record(tmp_path, record_id, some_ecg())
    plan = Sph(tmp_path).plan()
    assert [planned.record_id for planned in plan.records] == ["A00002"]
    assert [rejected.record_id for rejected in plan.rejected] == ["A00001"]
    assert plan.rejected[0].reason.startswith("metadata.csv, ECG_ID A00001: ")
    assert sentence in plan.rejected[0].reason


def test_an_id_that_is_a_path_or_stands_twice_rejects_its_row(tmp_path):
    write_table(tmp_path, [row("../records/A00001"), row("A00001"), row("A00001", "22")])
    write_record(tmp_path, "A00001", some_ecg())
    plan = Sph(tmp_path).plan()
    assert [planned.record_id for planned in plan.records] == ["A00001"]
    assert [rejected.record_id for rejected in plan.rejected] == ["row 1", "A00001"]
    assert "row 1: expected letters and digits as ECG_ID" in plan.rejected[0].reason
    assert "row 3: ECG_ID A00001 stands in an earlier row too" in plan.rejected[1].reason


def test_a_row_whose_file_is_not_there_is_absent(tmp_path):
    write_table(tmp_path, [row("A00001"), row("A00002")])
    write_record(tmp_path, "A00001", some_ecg())
    plan = Sph(tmp_path).plan()
    assert [absent.record_id for absent in plan.absent] == ["A00002"]
    assert "A00002.h5 not in records" in plan.absent[0].reason


def test_a_folder_without_table_column_or_signals_says_so(tmp_path):
    (tmp_path / "records").mkdir()
    with pytest.raises(RecordError, match="metadata.csv: no such file"):
        Sph(tmp_path).plan()
    (tmp_path / "metadata.csv").write_text("ECG_ID,AHA_Code,Patient_ID,Age,Sex,N\n")
    with pytest.raises(RecordError, match="column Date missing"):
        Sph(tmp_path).plan()
    write_table(tmp_path, [row("A00001")])
    (tmp_path / "records").rmdir()
    with pytest.raises(RecordError, match="expected records/ or records.tar.gz beside metadata.csv"):
        Sph(tmp_path).plan()


def test_all_records_of_a_patient_are_in_one_split(tmp_path):
    rows = [row(f"A{number:05d}", patient=f"S{number % 40:05d}") for number in range(120)]
    write_table(tmp_path, rows)
    (tmp_path / "records").mkdir()
    for fields in rows:
        (tmp_path / "records" / f"{fields['ECG_ID']}.h5").touch()
    splits = {}
    for planned in Sph(tmp_path).plan().records:
        splits.setdefault(planned.row["Patient_ID"], set()).add(planned.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("fields", "age", "sex"),
    [
        ({"Age": "", "Sex": ""}, None, None),
        ({"Age": "-3", "Sex": "x"}, None, None),
        ({"Age": "nan", "Sex": "m"}, None, "M"),
        ({"Age": "95", "Sex": "F"}, 95, "F"),
    ],
)
def test_an_age_or_sex_that_is_none_is_unknown(one, fields, age, sex):
    record = one(**fields)
    assert (record.age, record.sex) == (age, sex)


# Statements


def test_a_modifier_stays_with_its_statement_and_is_no_finding_of_its_own(one):
    record = one(AHA_Code="60+310+341;145+362;147+367")
    assert [statement.code for statement in record.statements] == ["60+310+341", "145+362", "147+367"]
    assert sorted(label for label, value in record.labels.items() if value) == ["PVC", "STDEV", "TAB_"]
    assert len(record.labels) == 44
    assert record.report == (
        "Ventricular premature complex(es), frequent, in a bigeminal pattern; ST deviation, depression; "
        "T-wave abnormality, inversion"
    )


def test_without_code_csv_the_built_in_list_describes_every_published_code(one):
    record = one(AHA_Code=";".join(str(code) for code in aha.PRIMARY))
    assert all(record.labels.values())
    assert "AHA statement" not in record.report
    assert (len(aha.PRIMARY), len(aha.MODIFIERS)) == (44, 15)
    assert len({label for label, _ in aha.PRIMARY.values()}) == 44
    assert all(code in aha.ADDITIONS for code in aha.MODIFIERS)
    assert not any(code in aha.ADDITIONS for code in aha.PRIMARY)


def test_the_publishers_descriptions_win_where_they_are_there(tmp_path, one):
    (tmp_path / "code.csv").write_text("Category,Code,Description\nC,22,Slow sinus rhythm\nMod,362,Depressed\nL,145,\n")
    record = one(AHA_Code="22;145+362")
    assert record.report == "Slow sinus rhythm; ST deviation, depressed"
    assert {label for label, value in record.labels.items() if value} == {"SBRAD", "STDEV"}


def test_a_broken_code_csv_stops_the_build(tmp_path):
    write_table(tmp_path, [])
    (tmp_path / "code.csv").write_text("Category,Code,Description\nC,twenty-two,Sinus bradycardia\n")
    with pytest.raises(RecordError, match="code.csv, row 1: Code is no number"):
        Sph(tmp_path)


def test_an_unknown_code_is_kept_and_named_by_its_number(one):
    record = one(AHA_Code="107+321;22")
    assert [statement.code for statement in record.statements] == ["107+321", "22"]
    assert record.labels["AHA-107"] == 1
    assert len(record.labels) == 45
    assert record.report == "AHA statement 107, AHA statement 321; sinus bradycardia"


def test_a_statement_that_is_given_twice_counts_once(one):
    """Two published records say `1;1`."""
    record = one(AHA_Code="1;1")
    assert [statement.code for statement in record.statements] == ["1"]
    assert record.report == "Normal ECG"


@given(
    st.lists(
        st.builds(
            aha.AhaStatement,
            st.one_of(st.integers(0, 199), st.integers(500, 999)),
            st.lists(st.sampled_from(aha.ADDITIONS), max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_what_is_written_in_the_grammar_is_parsed_back(statements):
    text = " ; ".join(statement.code for statement in statements)
    assert aha.parse_statements(text, "here") == statements
    assert {label for label, value in aha.labels(statements).items() if value} == {entry.label for entry in statements}


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_in_one_sentence_that_does_not_repeat_it(text):
    try:
        sentence = ""
        assert aha.parse_statements(text, "metadata.csv")
    except RecordError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence) < 200


# The archive


def pack(folder, archive, mode="w:", names=None):
    """records/ of a folder as the publisher packs it."""
    with tarfile.open(archive, mode) as tar:
        tar.add(folder / "records", "records", recursive=False)
        for path in sorted((folder / "records").iterdir()):
            tar.add(path, (names or "records/{}").format(path.name))


@pytest.mark.parametrize("archive", ["records.tar.gz", "records.tar"])
@pytest.mark.parametrize("names", ["records/{}", "./records/{}"])
def test_records_are_read_where_they_lie_in_the_publishers_archive(corpus, tmp_path, archive, names):
    folder = corpus("sph")
    shutil.copy(folder / "metadata.csv", tmp_path)
    pack(folder, tmp_path / archive, names=names)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    expected, found = read_all(Sph(folder)), read_all(pickle.loads(pickle.dumps(Sph(tmp_path))))
    assert found.keys() == expected.keys()
    for record_id, record in expected.items():
        assert found[record_id].to_members() == record.to_members()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_compressed_archive_is_refused_with_how_to_unpack_it(tmp_path):
    write_table(tmp_path / "sph", [row("A00001")])
    write_record(tmp_path, "A00001", some_ecg())
    pack(tmp_path, tmp_path / "sph" / "records.tar.gz", "w:gz")
    with pytest.raises(RecordError, match="records.tar.gz: is compressed.*tar -xzf records.tar.gz"):
        Sph(tmp_path / "sph").plan()


def add(tar, name, body=b"", **fields):
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    for field, value in fields.items():
        setattr(entry, field, value)
    tar.addfile(entry, io.BytesIO(body))


def test_only_regular_files_below_records_count_in_an_archive(tmp_path):
    """Links, devices and names that lead elsewhere are passed over; what they would name is absent."""
    write_record(tmp_path / "other", "A00009", some_ecg())
    body = (tmp_path / "other" / "records" / "A00009.h5").read_bytes()
    with tarfile.open(tmp_path / "records.tar.gz", "w:") as tar:
        add(tar, "records/A00001.h5", type=tarfile.SYMTYPE, linkname=str(tmp_path / "other/records/A00009.h5"))
        add(tar, "records/A00002.h5", type=tarfile.LNKTYPE, linkname="records/A00007.h5")
        add(tar, "records/A00003.h5", type=tarfile.CHRTYPE)
        add(tar, "../records/A00004.h5", body)
        add(tar, "/records/A00005.h5", body)
        add(tar, "records/sub/A00006.h5", body)
        add(tar, "records/A00007.h5", body)
        add(tar, "records/._A00008.h5", body)
    write_table(tmp_path, [row(f"A0000{number}") for number in range(1, 9)])
    source = Sph(tmp_path)
    plan = source.plan()
    assert [planned.record_id for planned in plan.records] == ["A00007"]
    assert len(plan.absent) == 7
    assert source.read(plan.records[0]).ecg.shape == (12, 600)


def test_a_long_name_or_an_extended_header_does_not_derail_an_archive(tmp_path):
    write_table(tmp_path, [row("A00001")])
    write_record(tmp_path / "other", "A00001", some_ecg())
    body = (tmp_path / "other" / "records" / "A00001.h5").read_bytes()
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "records.tar", "w:", format=form) as tar:
            add(tar, "records/" + "long" * 60, b"x" * 700)
            add(tar, "records/A00001.h5", body, pax_headers={"comment": "é" * 300})
        assert read_all(Sph(tmp_path))["A00001"].ecg.shape == (12, 600)


def test_an_archive_that_was_cut_loses_the_records_behind_the_cut(tmp_path):
    write_table(tmp_path, [row("A00001"), row("A00002"), row("A00003")])
    for number in (1, 2, 3):
        write_record(tmp_path / "other", f"A0000{number}", some_ecg(seed=number))
    pack(tmp_path / "other", tmp_path / "records.tar.gz")
    whole = (tmp_path / "records.tar.gz").read_bytes()
    (tmp_path / "records.tar.gz").write_bytes(whole[: whole.index(b"records/A00002.h5") + 1000])
    source = Sph(tmp_path)
    plan = source.plan()
    assert [absent.record_id for absent in plan.absent] == ["A00003"]
    assert source.read(plan.records[0]).record_id == "A00001"
    with pytest.raises(RecordError, match="records/A00002.h5: expected .* it was cut"):
        source.read(plan.records[1])


@pytest.mark.parametrize("size", [-512, 2**80, 2**40])
def test_an_archive_that_claims_impossible_sizes_neither_hangs_nor_fills_memory(tmp_path, size):
    write_table(tmp_path, [row("A00001")])
    entry = tarfile.TarInfo("records/A00001.h5")
    entry.size = size
    (tmp_path / "records.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    source = Sph(tmp_path)
    with pytest.raises(RecordError, match="records.tar"):
        source.read(source.plan().records[0])


def test_an_archive_that_is_none_is_refused(tmp_path):
    write_table(tmp_path, [row("A00001")])
    (tmp_path / "records.tar").write_bytes(b"no tar " * 200)
    with pytest.raises(RecordError, match="records.tar: expected a tar entry 0 bytes in"):
        Sph(tmp_path).plan()


def test_a_member_that_is_no_hdf5_or_links_elsewhere_is_rejected(tmp_path):
    write_table(tmp_path, [row("A00001"), row("A00002"), row("A00003")])
    write_record(tmp_path / "other", "A00001", some_ecg(), dataset="signal")
    (tmp_path / "other" / "records" / "A00002.h5").write_bytes(b"no hdf5 at all")
    write_record(tmp_path / "elsewhere", "A00003", some_ecg())
    with h5py.File(tmp_path / "other" / "records" / "A00003.h5", "w") as file:
        file["ecg"] = h5py.ExternalLink(str(tmp_path / "elsewhere" / "records" / "A00003.h5"), "ecg")
    pack(tmp_path / "other", tmp_path / "records.tar")
    source = Sph(tmp_path)
    sentences = ["expected the dataset 'ecg'", "not a readable HDF5 file", "expected the dataset 'ecg' in the file itself"]
    for planned, sentence in zip(source.plan().records, sentences, strict=True):
        with pytest.raises(RecordError, match=sentence):
            source.read(planned)
