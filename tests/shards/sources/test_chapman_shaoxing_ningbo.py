"""Chapman-Shaoxing-Ningbo: headers of two styles, signals behind 24 bytes, codes that the corpus's own list leaves out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb

from shards.build import BuildOptions, build
from shards.record import LEADS, RecordError, split_by_hash
from shards.sources.chapman_shaoxing_ningbo import ChapmanShaoxingNingbo
from shards.sources.vocabularies.snomed import NAMES, SAME_FINDING
from tests.shards.sources.readings import assert_millivolts, read_all

CONDITIONS = "ConditionNames_SNOMED-CT.csv"
SIGNAL = (np.arange(12)[:, None] * 1000 + np.arange(40)).astype("<i2")
HEAD = b"\x7f\x7fnot a sample, not one\x7f\x7f"[:24].ljust(24, b"\x7f")


def write_record(folder, name="JS00001", comments=(), style="16+24 1000/mV", place="01/010"):
    """A record as the publisher ships it: twelve leads of `SIGNAL` behind the 24 bytes of a MATLAB 4 matrix."""
    where = folder / "WFDBRecords" / place
    where.mkdir(parents=True, exist_ok=True)
    sums = SIGNAL.sum(axis=1, dtype=np.int16)
    signals = [
        f"{name}.mat {style} 16 0 {row[0]} {total} 0 {lead}" for lead, row, total in zip(LEADS, SIGNAL, sums, strict=True)
    ]
    (where / f"{name}.hea").write_text("\n".join([f"{name} 12 500 40", *signals, *comments]) + "\n")
    (where / f"{name}.mat").write_bytes(HEAD + SIGNAL.T.tobytes())


@pytest.fixture
def folder(corpus, tmp_path):
    """A folder with the published list of conditions and no record."""
    shutil.copyfile(corpus("chapman-shaoxing-ningbo") / CONDITIONS, tmp_path / CONDITIONS)
    return tmp_path


@pytest.fixture
def read(folder):
    """`read("#Dx: 1,2", …)`: the record with these comments."""

    def one(*comments, **rest):
        write_record(folder, comments=comments, **rest)
        return read_all(ChapmanShaoxingNingbo(folder))["JS00001"]

    return one


def present(record):
    return {name for name, value in record.labels.items() if value == 1}


def test_every_real_record_has_the_millivolts_that_wfdb_reads_lead_by_lead(corpus):
    folder = corpus("chapman-shaoxing-ningbo")
    records = read_all(ChapmanShaoxingNingbo(folder))
    assert len(records) == 24
    for record in records.values():
        expected = wfdb.rdrecord(str(folder / record.source_path))
        assert_millivolts(record, dict(zip(expected.sig_name, expected.p_signal.T, strict=True)))


def test_every_real_record_begins_with_the_sample_that_its_header_names(corpus):
    folder = corpus("chapman-shaoxing-ningbo")
    for record in read_all(ChapmanShaoxingNingbo(folder)).values():
        lines = (folder / f"{record.source_path}.hea").read_text().splitlines()[1:13]
        assert record.ecg[:, 0].tolist() == [int(line.split()[5]) for line in lines]


@pytest.mark.parametrize("style", ["16+24 1000/mV", "16x1+24 1000.0(0)/mV"])
def test_the_24_bytes_before_the_first_sample_are_no_samples(read, style):
    record = read(style=style)
    np.testing.assert_array_equal(record.ecg, SIGNAL)
    assert record.mv_per_lsb == [0.001] * 12


def test_flat_chest_leads_are_kept_and_the_quality_says_so(corpus):
    record = read_all(ChapmanShaoxingNingbo(corpus("chapman-shaoxing-ningbo")))["JS45542"]
    assert record.quality["flat_leads"] == ["V1", "V2", "V3", "V4", "V5", "V6"]


@pytest.mark.parametrize(
    "comments",
    [("#Age: 85", "#Sex: Male", "#Dx: 164889003,59118001"), ("# Age: 85", "# Sex: Male", "# Dx: 164889003, 59118001")],
)
def test_both_styles_of_header_say_the_same(read, comments):
    record = read(*comments)
    assert (record.age, record.sex) == (85.0, "M")
    assert [(statement.code, statement.vocabulary) for statement in record.statements] == [
        ("164889003", "SNOMED CT"),
        ("59118001", "SNOMED CT"),
    ]


def test_every_real_record_has_age_sex_and_statements(corpus):
    folder = corpus("chapman-shaoxing-ningbo")
    for record in read_all(ChapmanShaoxingNingbo(folder)).values():
        header = (folder / f"{record.source_path}.hea").read_text()
        assert record.age == float(re.search(r"Age: (\d+)", header)[1])
        assert record.sex == re.search(r"Sex: (\w)", header)[1]
        assert [statement.code for statement in record.statements] == re.search(r"Dx: ([\d,]+)", header)[1].split(",")
        assert record.report


@pytest.mark.parametrize("age", ["NaN", "Unknown", "", "-1", "999", "inf"])
def test_an_age_that_is_none_is_unknown(read, age):
    assert read(f"#Age: {age}").age is None


@pytest.mark.parametrize(("said", "sex"), [("Male", "M"), ("Female", "F"), ("female", "F"), ("Unknown", None), ("", None)])
def test_sex_is_known_or_unknown(read, said, sex):
    assert read(f"#Sex: {said}").sex == sex


def test_the_report_is_made_of_the_names_of_the_statements(read):
    record = read("#Dx: 426177001,164934002,251198002")
    assert record.report == "Sinus Bradycardia, T wave Change, clockwise rotation"
    assert record.report_source == "made from statements"


def test_labels_are_the_publishers_acronyms_and_what_is_not_stated_is_absent(read):
    record = read("#Dx: 426177001,164934002")
    assert present(record) == {"SB", "TWC"}
    assert record.labels["AFIB"] == 0
    assert None not in record.labels.values()


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("164909002", "left bundle branch block"),
        ("164865005", "myocardial infarction"),
        ("698252002", "nonspecific intraventricular conduction disorder"),
        ("195101003", "wandering atrial pacemaker"),
    ],
)
def test_a_code_that_several_findings_of_the_list_share_has_the_name_of_what_it_means(read, code, label):
    record = read(f"#Dx: {code}")
    assert present(record) == {label}
    assert record.report == label
    assert not record.labels.keys() & {"LBBB", "LBBBB", "LFBBB", "MI", "MIFW", "MILW", "IDC", "IVB", "WAVN", "SAAWR"}


@pytest.mark.parametrize(("code", "label"), [("164890007", "Atrial Flutter"), ("164930006", "ST extension")])
def test_acronyms_that_mean_something_else_elsewhere_are_no_labels(read, code, label):
    record = read(f"#Dx: {code}")
    assert present(record) == {label}
    assert not record.labels.keys() & {"AF", "STE"}


@pytest.mark.parametrize("code", [code for code in NAMES if code not in SAME_FINDING])
def test_every_built_in_code_has_a_name_and_a_label_of_its_own(read, code):
    record = read(f"#Dx: {code}")
    assert record.report == NAMES[code]
    assert len(present(record)) == 1


@pytest.mark.parametrize(("code", "other"), SAME_FINDING.items())
def test_two_codes_for_one_finding_set_one_label(read, code, other):
    assert present(read(f"#Dx: {code}")) == present(read(f"#Dx: {other}"))
    assert present(read(f"#Dx: {code},{other}")) == present(read(f"#Dx: {other}"))


def test_a_code_that_nobody_knows_is_kept_as_it_is(read):
    record = read("#Dx: 426177001,999999999")
    assert present(record) == {"SB", "999999999"}
    assert record.report == "Sinus Bradycardia, 999999999"
    assert record.statements[1].code == "999999999"


@pytest.mark.parametrize("comments", [(), ("#Dx: Unknown",), ("#Dx:",)])
def test_a_record_without_statements_has_unknown_labels_and_no_report(read, comments):
    record = read(*comments)
    assert set(record.labels.values()) == {None}
    assert (record.report, record.report_source, record.statements) == (None, None, [])


def test_a_code_given_twice_is_one_statement(read):
    assert [statement.code for statement in read("#Dx: 426177001,426177001").statements] == ["426177001"]


def test_a_dx_that_holds_no_codes_rejects_the_record_without_repeating_it(read):
    with pytest.raises(RecordError, match=r"JS00001.hea: expected SNOMED CT codes with commas between them as Dx") as caught:
        read("#Dx: Jane Doe")
    assert "Jane" not in str(caught.value)


def test_the_date_of_the_conversion_is_no_time_of_recording(corpus):
    assert read_all(ChapmanShaoxingNingbo(corpus("chapman-shaoxing-ningbo")))["JS00001"].acquired is None


def test_a_split_depends_on_the_record_and_not_on_the_order_of_the_walk(folder, monkeypatch):
    for number in range(40):
        write_record(folder, f"JS{number:05}", place=f"{number % 3 + 1:02}/{number % 5:03}")
    forward = ChapmanShaoxingNingbo(folder).plan()
    walk = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: reversed(list(walk(self, pattern))))
    backward = ChapmanShaoxingNingbo(folder).plan()
    assert forward == backward
    assert {record.split for record in forward.records} == {"train", "val", "test"}
    assert all(record.split == split_by_hash("chapman-shaoxing-ningbo", record.record_id) for record in forward.records)


def test_a_record_is_its_own_patient(read):
    assert read().patient_id == "JS00001"


@pytest.mark.parametrize(("gone", "end"), [("hea", ".hea"), ("mat", ".mat")])
def test_half_a_record_is_absent(folder, gone, end):
    write_record(folder, "JS00001")
    write_record(folder, "JS00002")
    (folder / f"WFDBRecords/01/010/JS00001.{gone}").unlink()
    plan = ChapmanShaoxingNingbo(folder).plan()
    assert [record.record_id for record in plan.records] == ["JS00002"]
    assert [(absent.record_id, f"{end} not in" in absent.reason) for absent in plan.absent] == [("JS00001", True)]


def test_a_name_that_stands_in_two_folders_is_read_once_and_said(folder):
    write_record(folder, "JS00001", place="02/020")
    write_record(folder, "JS00001", place="01/010")
    plan = ChapmanShaoxingNingbo(folder).plan()
    assert [record.row["path"] for record in plan.records] == ["WFDBRecords/01/010/JS00001"]
    assert "WFDBRecords/01/010/JS00001 has the same name" in plan.rejected[0].reason


def test_a_cut_signal_is_refused(folder):
    write_record(folder)
    signal = folder / "WFDBRecords/01/010/JS00001.mat"
    signal.write_bytes(signal.read_bytes()[:-2])
    source = ChapmanShaoxingNingbo(folder)
    with pytest.raises(RecordError, match="JS00001"):
        source.read(source.plan().records[0])


def test_a_folder_without_records_stops_with_what_was_expected(folder):
    with pytest.raises(RecordError, match="WFDBRecords: no such folder; expected WFDBRecords/NN/NNN"):
        ChapmanShaoxingNingbo(folder).plan()


@pytest.mark.parametrize("row", ["SB,Sinus Bradycardia,none", ",Sinus Bradycardia,426177001", "SB,,426177001"])
def test_a_list_of_conditions_that_is_none_stops(folder, row):
    (folder / CONDITIONS).write_text(f"Acronym Name,Full Name,Snomed_CT\n{row}\n")
    with pytest.raises(RecordError, match="expected an acronym, a name and a SNOMED CT code in each row"):
        ChapmanShaoxingNingbo(folder)


def test_a_build_of_the_real_sample_keeps_all(corpus, tmp_path):
    manifest = build(ChapmanShaoxingNingbo(corpus("chapman-shaoxing-ningbo")), str(tmp_path / "set"), BuildOptions())
    assert (manifest["counts"]["records"], manifest["counts"]["patients"], manifest["counts"]["rejected"]) == (24, 24, 0)
    assert manifest["counts"]["label"]["SB"] == 4
    assert [*manifest["provenance"]["tables"]] == [CONDITIONS]
