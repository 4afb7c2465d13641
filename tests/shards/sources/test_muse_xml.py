"""MUSE XML: the rhythm by its type, units for each lead, no lead made up, no names in the report, no entity expanded."""

from __future__ import annotations

import base64
import pickle
from xml.sax.saxutils import escape

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.record import INVALID, LEADS, RecordError, split_by_hash, to_millivolts
from shards.sources.muse_xml import MuseXml
from tests.shards.sources.readings import assert_millivolts, read_all

STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DOCTYPE = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">'
DEMOGRAPHICS = {"PatientID": "123456", "PatientAge": "61", "AgeUnits": "YEARS", "Gender": "FEMALE"}
MEASURED = {
    "VentricularRate": 62,
    "AtrialRate": 62,
    "PRInterval": 160,
    "QRSDuration": 92,
    "QTInterval": 400,
    "QTCorrected": 406,
    "PAxis": 45,
    "RAxis": -12,
    "TAxis": 30,
}
DIAGNOSIS = (("Normal sinus rhythm", "ENDSLINE"), ("with sinus", None), ("arrhythmia", "ENDSLINE"), ("Normal ECG", "ENDSLINE"))


def tags(values):
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def lead_data(name, counts, **changed):
    body = np.asarray(counts, dtype="<i2").tobytes()
    fields = {
        "LeadByteCountTotal": len(body),
        "LeadTimeOffset": 0,
        "LeadSampleCountTotal": len(counts),
        "LeadAmplitudeUnitsPerBit": "4.88",
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadID": name,
        "LeadSampleSize": 2,
        "WaveFormData": "\n" + base64.encodebytes(body).decode(),
    }
    return f"<LeadData>{tags({**fields, **changed})}</LeadData>"


def waveform(kind, leads, base="500", exponent="0"):
    return (
        f"<Waveform>{tags({'WaveformType': kind, 'SampleBase': base, 'SampleExponent': exponent})}{''.join(leads)}</Waveform>"
    )


def document(waveforms, *, doctype=DOCTYPE, diagnosis=DIAGNOSIS, encoding="ISO-8859-1", **demographics):
    statements = "".join(
        f"<DiagnosisStatement>{tags({'StmtFlag': flag}) if flag else ''}{tags({'StmtText': text})}</DiagnosisStatement>"
        for text, flag in diagnosis
    )
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n{doctype}\n<RestingECG>'
        f"<PatientDemographics>{tags({**DEMOGRAPHICS, **demographics})}</PatientDemographics>"
        f"<TestDemographics>{tags({'AcquisitionTime': '12:34:56', 'AcquisitionDate': '01-31-2012'})}</TestDemographics>"
        f"<RestingECGMeasurements>{tags(MEASURED)}</RestingECGMeasurements>"
        f"<Diagnosis>{statements}</Diagnosis>{''.join(waveforms)}</RestingECG>"
    )
    return text.encode(encoding)


def ramp(seed=0, samples=50):
    return np.random.default_rng(seed).integers(-3000, 3000, samples)


def rhythm(**changed):
    return waveform("Rhythm", [lead_data(name, ramp(place), **changed) for place, name in enumerate(STORED)])


def median():
    return waveform("Median", [lead_data(name, ramp(99, 30)) for name in STORED])


@pytest.fixture
def read(tmp_path):
    """`read(bytes)`: the record of a file."""

    def record(body):
        (tmp_path / "ecg.xml").write_bytes(body)
        source = MuseXml(tmp_path)
        [planned] = source.plan().records
        return pickle.loads(pickle.dumps(source)).read(pickle.loads(pickle.dumps(planned)))

    return record


def test_real_signals_come_back_as_they_were_written(corpus, read, tmp_path):
    for header in sorted(corpus("ptb-xl").rglob("*_hr.hea"))[:3]:
        stored = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
        counts = {name: stored.d_signal[:, stored.sig_name.index(name)] for name in STORED}
        leads = [lead_data(name, counts[name], LeadAmplitudeUnitsPerBit="1") for name in STORED]
        record = read(document([median(), waveform("Rhythm", leads)]))
        assert_millivolts(record, {name: values / 1000 for name, values in counts.items()})
        assert record.ecg.shape == (12, 5000)


def test_what_the_file_says_is_kept(read):
    record = read(document([median(), rhythm()]))
    assert (record.patient_id, record.age, record.sex) == ("123456", 61.0, "F")
    assert record.acquired == "2012-01-31 12:34:56"
    assert record.split == split_by_hash("muse-xml", "123456")
    assert (record.report, record.report_source) == (
        "Normal sinus rhythm; with sinus arrhythmia; Normal ECG",
        "publisher",
    )
    assert record.measurements == {
        "heart_rate": 62.0,
        "pr": 160.0,
        "qrs": 92.0,
        "qt": 400.0,
        "qtc": 406.0,
        "p_axis": 45.0,
        "qrs_axis": -12.0,
        "t_axis": 30.0,
        "source": "publisher",
    }
    assert record.fs_hz == 500


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_rhythm_is_taken_by_its_type_wherever_it_stands(read, order):
    parts = (median(), rhythm())
    record = read(document([parts[place] for place in order]))
    np.testing.assert_array_equal(record.ecg[0], ramp(0))
    assert record.ecg.shape == (12, 50)


@pytest.mark.parametrize("parts", [(median,), (rhythm, rhythm), ()])
def test_without_one_rhythm_a_file_is_refused(read, parts):
    with pytest.raises(RecordError, match="ecg.xml: expected one Waveform of WaveformType Rhythm, found"):
        read(document([part() for part in parts]))


def test_leads_that_muse_does_not_store_are_missing_and_no_other_one_moves(read):
    names = [name for name in STORED if name != "V2"]
    record = read(document([waveform("Rhythm", [lead_data(name, ramp(len(name + "x"))) for name in (*names[::-1], "V3R")])]))
    for place, lead in enumerate(LEADS):
        expected = ramp(len(lead + "x")) if lead in names else np.full(50, INVALID)
        np.testing.assert_array_equal(record.ecg[place], expected, err_msg=lead)
    assert record.dropped_channels == ["V3R"]


@pytest.mark.parametrize(
    ("per_bit", "unit", "lsb"),
    [
        ("4.88", "MICROVOLTS", 0.00488),
        ("4,88", "MICROVOLTS", 0.00488),
        ("0.005", "MILLIVOLTS", 0.005),
        ("2", "microvolts", 0.002),
    ],
)
def test_resolution_and_unit_are_those_of_each_lead(read, per_bit, unit, lsb):
    odd = lead_data("II", ramp(1), LeadAmplitudeUnitsPerBit=per_bit, LeadAmplitudeUnits=unit)
    record = read(document([waveform("Rhythm", [lead_data("I", ramp(0)), odd])]))
    assert record.mv_per_lsb[:2] == [0.00488, lsb]
    np.testing.assert_allclose(to_millivolts(record.ecg, record.mv_per_lsb)[1], ramp(1) * lsb)


@pytest.mark.parametrize(("base", "exponent", "rate"), [("500", "0", 500.0), ("25", "1", 250.0), ("5000", "-1", 500.0)])
def test_the_rate_is_base_times_ten_to_the_exponent(read, base, exponent, rate):
    assert read(document([waveform("Rhythm", [lead_data("I", ramp())], base, exponent)])).fs_hz == rate


def test_the_least_count_is_a_sample_that_was_not_recorded(read):
    record = read(document([waveform("Rhythm", [lead_data("I", [1, -32768, -32767])])]))
    assert record.ecg[0].tolist() == [1, INVALID, -32767]
    assert record.mv_per_lsb[0] == 0.00488


@pytest.mark.parametrize(
    "person",
    [
        "Confirmed by SMITH MD, JOHN (27) on 2/1/2012 3:04:05 PM",
        "Electronically signed by X",
        "Referred by: DR. Y",
        "Overread by Z",
    ],
)
def test_a_line_that_names_a_person_is_left_out_of_the_report(read, person):
    record = read(document([rhythm()], diagnosis=[("Normal ECG", "ENDSLINE"), (person, "ENDSLINE")]))
    assert record.report == "Normal ECG"


def test_a_file_without_a_diagnosis_has_no_report(read):
    record = read(document([rhythm()], diagnosis=[]))
    assert (record.report, record.report_source) == (None, None)


@pytest.mark.parametrize(
    ("age", "units", "years"), [("18", "MONTHS", 1.5), ("61", "", 61.0), ("", "YEARS", None), ("5", "MOONS", None)]
)
def test_an_age_is_brought_to_years(read, age, units, years):
    assert read(document([rhythm()], PatientAge=age, AgeUnits=units)).age == years


def test_a_measurement_that_is_no_interval_and_no_angle_is_unknown(read, monkeypatch):
    monkeypatch.setitem(MEASURED, "PAxis", 32767)
    monkeypatch.setitem(MEASURED, "PRInterval", "")
    measurements = read(document([rhythm()])).measurements
    assert (measurements["p_axis"], measurements["pr"], measurements["qt"]) == (None, None, 400.0)


def test_letters_beyond_ascii_are_read_in_the_files_encoding(read):
    for encoding in ("ISO-8859-1", "UTF-8", "UTF-16"):
        record = read(document([rhythm()], diagnosis=[("Rythme régulier", "ENDSLINE")], encoding=encoding))
        assert record.report == "Rythme régulier"


def test_a_record_without_a_patient_is_its_own(read):
    assert read(document([rhythm()], PatientID="")).patient_id == "ecg"


def test_a_patient_past_the_beginning_is_not_overlooked(read):
    filler = f"<!--{'x' * 70_000}-->"
    with pytest.raises(RecordError, match="PatientID is not within the first 65536 bytes"):
        read(document([rhythm()], doctype=DOCTYPE + filler))


def test_a_folder_becomes_shards(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.XML").write_bytes(document([median(), rhythm()], PatientID=str(number)))
    build(MuseXml(tmp_path), str(tmp_path / "set"), BuildOptions(records_per_shard=16))
    rows = ShardSet.open(str(tmp_path / "set")).index.to_pylist()
    assert sorted(row["record_id"] for row in rows) == ["0", "1", "2", "3"]
    assert {row["missing_leads"] for row in rows} == {4}


def test_a_table_adds_labels_and_splits(tmp_path):
    (tmp_path / "ecg.xml").write_bytes(document([rhythm()]))
    (tmp_path / "said.csv").write_text("record,label:AF,split\necg,1,test\n")
    record = read_all(MuseXml(tmp_path, table=tmp_path / "said.csv"))["ecg"]
    assert (record.labels, record.split, record.patient_id) == ({"AF": 1}, "test", "123456")


# --- damage and attacks

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))
DECLARES = "declares entities or elements of its own"


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-8", "UTF-16"])
@pytest.mark.parametrize(
    "subset",
    [
        LAUGHS,
        '<!ENTITY x SYSTEM "file:///etc/passwd">',
        '<!ENTITY % p SYSTEM "http://host/x.dtd"> %p;',
        "<!ELEMENT a ANY>",
        " ",
    ],
)
def test_a_document_that_declares_anything_is_refused_in_any_encoding(read, subset, encoding):
    body = document([rhythm()], doctype=f"<!DOCTYPE RestingECG [{subset}]>", encoding=encoding)
    with pytest.raises(RecordError, match=DECLARES):
        read(body)


def test_an_external_entity_is_never_opened(read, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    body = document([rhythm()], diagnosis=[("ENTITY", "ENDSLINE")]).replace(b"ENTITY", b"a &x; b")
    record = read(body)  # the external DTD could declare it; it is not fetched, so that the entity stands for nothing
    assert record.report == "a b"


@pytest.mark.parametrize("encoding", [b"cp037", b"utf-7", b"rot13", b"undefined", b"hex", b"x"])
def test_an_odd_encoding_is_refused(read, encoding):
    body = document([rhythm()]).replace(b"ISO-8859-1", encoding)
    with pytest.raises(RecordError, match="not an XML file"):
        read(body)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"WaveFormData": "AAA"}, "lead I: WaveFormData is not base64"),
        ({"WaveFormData": "*" + base64.b64encode(bytes(100)).decode()}, "lead I: WaveFormData is not base64"),
        ({"WaveFormData": "AAAA"}, "lead I: WaveFormData has 3 bytes, expected 2 for each of LeadSampleCountTotal 50"),
        ({"LeadSampleCountTotal": "10000000000"}, "WaveFormData has 100 bytes, expected 2 for each"),
        ({"LeadSampleCountTotal": ""}, "WaveFormData has 100 bytes, expected 2 for each"),
        ({"LeadAmplitudeUnits": "VOLTS"}, "LeadAmplitudeUnits is 'VOLTS', expected MICROVOLTS or MILLIVOLTS"),
        ({"LeadAmplitudeUnitsPerBit": "0"}, "LeadAmplitudeUnitsPerBit is no number above 0"),
        ({"LeadAmplitudeUnitsPerBit": "nan"}, "LeadAmplitudeUnitsPerBit is no number above 0"),
        ({"LeadSampleSize": "4"}, "expected samples of 2 bytes from time 0 on"),
        ({"LeadTimeOffset": "100"}, "expected samples of 2 bytes from time 0 on"),
        ({"LeadID": "I"}, "lead I stands for more than one of the channels"),
        ({"LeadID": "X"}, "holds none of the twelve leads"),
    ],
)
def test_a_damaged_lead_is_named(read, changed, complaint):
    with pytest.raises(RecordError, match=complaint.replace("*", r"\*")):
        read(document([median(), rhythm(**changed)]))


def test_leads_of_different_length_are_refused(read):
    with pytest.raises(RecordError, match="expected leads of one length, found I 50, II 49 samples"):
        read(document([waveform("Rhythm", [lead_data("I", ramp()), lead_data("II", ramp(0, 49))])]))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not an XML file"),
        (b"\x89PNG\r\n\x1a\n", "not an XML file"),
        (document([rhythm()])[:-30], "not an XML file"),
        (b"<svg/>", "is a <svg>, expected a <RestingECG>"),
        (b"<RestingECG>" + b"<a>" * 5000, "deeper than 64"),
        (b"<RestingECG>" + b"<a/>" * 300_000 + b"</RestingECG>", "more than 200000 elements"),
        (b" " * 16_000_001, "longer than 16000000 bytes"),
    ],
)
def test_what_is_no_muse_file_is_refused(read, body, complaint):
    with pytest.raises(RecordError, match=complaint):
        read(body)


def test_a_rate_that_is_none_is_refused(read):
    for base, exponent in (("0", "0"), ("500", "12"), ("", "0"), ("500", "nan"), ("-500", "0")):
        with pytest.raises(RecordError, match="SampleBase and SampleExponent give no sampling rate"):
            read(document([waveform("Rhythm", [lead_data("I", ramp())], base, exponent)]))


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 9000), length=st.integers(0, 30), put=st.binary(max_size=12))
def test_no_damage_raises_anything_but_one_sentence(first, length, put, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    body = document([median(), rhythm()])
    (folder / "ecg.xml").write_bytes(body[:first] + put + body[first + length :])
    source = MuseXml(folder)
    [planned] = source.plan().records
    try:
        record = source.read(planned)
    except RecordError:
        return
    assert record.ecg.shape[0] == 12


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"expected files \*.xml, found none"):
        MuseXml(tmp_path).plan()
