"""From a publisher's folder to shards: what is kept, what is left out and said, and that the bytes depend on nothing else."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset
import wfdb

from shards.build import BuildOptions, build
from shards.dataset import DatasetError, ShardSet
from shards.record import LEADS, RecordError, to_millivolts
from shards.sources.ptb_xl import PtbXl
from shards.verify import verify
from shards.workers import in_processes, in_this_process
from tests.shards.rewriting import edit_row

SMALL = BuildOptions(records_per_shard=16)


@pytest.fixture(scope="module")
def real(ptb_xl_folder, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("real") / "set")
    build(PtbXl(ptb_xl_folder), uri, SMALL)
    return ShardSet.open(uri)


@pytest.fixture
def corpus(simulated_folder, tmp_path):
    """A copy of the simulated corpus that a test may damage."""
    return Path(shutil.copytree(simulated_folder, tmp_path / "corpus"))


def read_all(data):
    urls = [f"{data.store.uri.removeprefix('file://')}/{shard['name']}" for shard in data.manifest["shards"]]
    return list(webdataset.WebDataset(urls, shardshuffle=False).decode())


def test_the_stock_webdataset_reader_reads_the_millivolts_that_wfdb_reads(real, ptb_xl_folder):
    samples = read_all(real)
    assert len(samples) == 80
    for sample in samples:
        record = wfdb.rdrecord(str(ptb_xl_folder / sample["json"]["source_path"]))
        by_name = {name.upper(): record.p_signal[:, i] for i, name in enumerate(record.sig_name)}
        millivolts = to_millivolts(sample["ecg.npy"], sample["json"]["mv_per_lsb"])
        for lead, values in zip(LEADS, millivolts, strict=True):
            np.testing.assert_allclose(values, by_name[lead.upper()], atol=0.0005)


def test_absent_files_are_counted_apart_from_rejections(real):
    counts = real.manifest["counts"]
    assert (counts["records"], counts["absent"], counts["rejected"]) == (80, 2, 0)
    assert [row["record_id"] for row in real.manifest["absent"]] == ["81", "82"]


def test_published_folds_become_splits_and_no_shard_mixes_them(real, ptb_xl_folder):
    with (ptb_xl_folder / "ptbxl_database.csv").open(newline="") as file:
        fold = {row["ecg_id"]: int(row["strat_fold"]) for row in csv.DictReader(file)}
    for row in real.index.to_pylist():
        expected = {9: "val", 10: "test"}.get(fold[row["record_id"]], "train")
        assert row["split"] == expected
        assert row["shard"].startswith(expected)


def test_german_reports_are_kept_and_english_is_made_from_the_statements(real):
    [sample] = [sample for sample in read_all(real) if sample["json"]["record_id"] == "2"]
    description = sample["json"]
    assert description["report_original"] == "sinusbradykardie sonst normales ekg"
    assert description["report_language"] == "de"
    assert description["report"] == "normal ECG, sinus bradycardia"
    assert description["report_source"] == "made from statements"
    assert description["labels"]["SBRAD"] == 1
    assert description["labels"]["AFIB"] == 0
    assert description["sex"] == "M"


def test_a_diagnosis_with_likelihood_zero_is_unknown_and_not_absent(corpus, tmp_path):
    edit_row(corpus, "1", scp_codes="{'NORM': 0.0, 'SR': 0.0}")
    record = PtbXl(corpus, 100).read(planned(corpus, "1"))
    assert record.labels["NORM"] is None
    assert record.labels["SR"] == 1


def test_the_stand_in_for_old_age_is_named_and_is_no_number(corpus):
    edit_row(corpus, "1", age="300")
    record = PtbXl(corpus, 100).read(planned(corpus, "1"))
    assert (record.age, record.age_note) == (None, "over 89")


def test_simulated_records_carry_their_exact_measurements(simulated_shards):
    sample = next(iter(read_all(ShardSet.open(simulated_shards))))["json"]
    assert sample["measurements"]["source"] == "simulation"
    assert 30 < sample["measurements"]["heart_rate"] < 220
    assert sample["report_source"] == "publisher"
    assert sample["source"] == "simulated-ptb-xl"


def test_parallel_serial_and_repeated_builds_are_byte_identical(simulated_folder, tmp_path):
    contents = []
    for name, runner in (("serial", in_this_process), ("again", in_this_process), ("parallel", in_processes(2))):
        build(PtbXl(simulated_folder, 100), str(tmp_path / name), SMALL, runner)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1] == contents[2]


def test_a_rejected_record_moves_no_boundary(corpus, tmp_path):
    build(PtbXl(corpus, 100), str(tmp_path / "whole"), SMALL)
    truncate(corpus / "records100/00000/00005_lr.dat")
    build(PtbXl(corpus, 100), str(tmp_path / "damaged"), BuildOptions(records_per_shard=16, max_rejected=0.5))
    whole, damaged = (ShardSet.open(str(tmp_path / name)).index.to_pylist() for name in ("whole", "damaged"))
    place = {row["record_id"]: row["shard"] for row in whole}
    assert len(damaged) == len(whole) - 1
    assert all(place[row["record_id"]] == row["shard"] for row in damaged)


def test_a_truncated_signal_file_is_rejected_with_its_name_and_size(corpus, tmp_path):
    truncate(corpus / "records100/00000/00005_lr.dat")
    manifest = build(PtbXl(corpus, 100), str(tmp_path / "set"), BuildOptions(max_rejected=0.5))
    [rejected] = manifest["rejected"]
    assert rejected["record_id"] == "5"
    assert "00005_lr.dat: expected 24000 bytes (12 leads x 1000 samples), found 12000" in rejected["reason"]
    assert "fetch it again" in rejected["reason"]


def test_past_the_tolerance_the_build_stops_with_the_first_reasons(corpus, tmp_path):
    for number in (5, 6, 7):
        truncate(corpus / f"records100/00000/0000{number}_lr.dat")
    with pytest.raises(
        DatasetError, match=r"3 records were rejected, more than --max-rejected 0.01 allows: .*_lr.dat: expected"
    ):
        build(PtbXl(corpus, 100), str(tmp_path / "set"), BuildOptions(records_per_shard=200))
    with pytest.raises(DatasetError, match="no manifest.json, so there is no data set here"):
        ShardSet.open(str(tmp_path / "set"))


def test_a_changed_signal_is_found_by_its_checksum(corpus, tmp_path):
    file = corpus / "records100/00000/00005_lr.dat"
    body = bytearray(file.read_bytes())
    body[100] ^= 1
    file.write_bytes(body)
    with pytest.raises(RecordError, match=r"00005_lr: lead .* sums to \d+, its header says \d+"):
        PtbXl(corpus, 100).read(planned(corpus, "5"))


def test_a_wrong_lead_name_is_rejected_with_the_leads_expected(corpus):
    header = corpus / "records100/00000/00005_lr.hea"
    header.write_text(header.read_text().replace(" AVL", " AVX"))
    with pytest.raises(RecordError, match=r"00005_lr.hea: expected the leads .* aVL missing"):
        PtbXl(corpus, 100).read(planned(corpus, "5"))


def test_a_header_that_points_out_of_its_folder_is_rejected(corpus):
    header = corpus / "records100/00000/00005_lr.hea"
    header.write_text(header.read_text().replace("00005_lr.dat", "../secret.dat"))
    with pytest.raises(RecordError, match="00005_lr.hea: not a WFDB header"):
        PtbXl(corpus, 100).read(planned(corpus, "5"))


def test_a_header_of_noise_is_rejected(corpus):
    (corpus / "records100/00000/00005_lr.hea").write_bytes(b"\xff\x00nonsense\n")
    with pytest.raises(RecordError, match="00005_lr.hea: not a WFDB header"):
        PtbXl(corpus, 100).read(planned(corpus, "5"))


@pytest.mark.parametrize("missing", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_missing_table_is_named(corpus, missing):
    (corpus / missing).unlink()
    with pytest.raises(RecordError, match=f"{missing}: no such file; expected a PTB-XL folder"):
        PtbXl(corpus, 100).plan()


def test_a_missing_column_is_named(corpus):
    table = corpus / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("strat_fold", "fold", 1))
    with pytest.raises(RecordError, match="column strat_fold missing"):
        PtbXl(corpus, 100).plan()


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("scp_codes", "__import__('os')", "scp_codes is"),
        ("patient_id", "nobody", "expected a number as patient_id"),
    ],
)
def test_a_bad_field_rejects_its_record(corpus, column, value, complaint):
    edit_row(corpus, "1", **{column: value})
    with pytest.raises(RecordError, match=complaint):
        PtbXl(corpus, 100).read(planned(corpus, "1"))


def test_a_bad_fold_rejects_its_row_and_the_build_goes_on(corpus, tmp_path):
    edit_row(corpus, "1", strat_fold="11")
    manifest = build(PtbXl(corpus, 100), str(tmp_path / "set"), SMALL)
    assert manifest["counts"]["rejected"] == 1
    assert "strat_fold '11'" in manifest["rejected"][0]["reason"]


def test_another_rate_than_published_is_refused(corpus):
    with pytest.raises(RecordError, match="sampling rate 250 Hz: PTB-XL is published at 500 and 100 Hz"):
        PtbXl(corpus, 250)


def test_a_data_set_is_never_written_over_another(simulated_folder, simulated_shards):
    with pytest.raises(DatasetError, match="holds a data set already"):
        build(PtbXl(simulated_folder, 100), simulated_shards, SMALL)


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_the_tolerance_is_a_fraction(fraction):
    with pytest.raises(DatasetError, match="expected a fraction from 0 to 1"):
        BuildOptions(max_rejected=fraction)


def test_verify_is_content_with_what_was_built(simulated_shards):
    assert verify(ShardSet.open(simulated_shards)) == []


def test_verify_names_a_changed_shard(simulated_folder, tmp_path):
    build(PtbXl(simulated_folder, 100), str(tmp_path / "set"), SMALL)
    shard = tmp_path / "set" / "train-000001.tar"
    body = bytearray(shard.read_bytes())
    body[5000] ^= 255
    shard.write_bytes(body)
    (tmp_path / "set" / "val-000000.tar").unlink()
    problems = verify(ShardSet.open(str(tmp_path / "set")))
    assert len(problems) == 2
    assert "train-000001.tar" in problems[0]
    assert "sha256 is not the manifest's" in problems[0]
    assert "val-000000.tar: no such object" in problems[1]


def test_an_index_that_is_not_the_manifests_is_refused(simulated_folder, tmp_path):
    build(PtbXl(simulated_folder, 100), str(tmp_path / "set"), SMALL)
    (tmp_path / "set" / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"index.parquet: not the index that manifest.json names"):
        ShardSet.open(str(tmp_path / "set"))


def test_no_patient_number_stands_in_the_index(simulated_shards):
    data = ShardSet.open(simulated_shards)
    patients = {sample["json"]["patient_id"] for sample in read_all(data)}
    assert not patients & set(data.index["patient_hash"].to_pylist())


def planned(folder, record_id):
    return next(record for record in PtbXl(folder, 100).plan().records if record.record_id == record_id)


def truncate(file):
    body = file.read_bytes()
    file.write_bytes(body[: len(body) // 2])


def test_the_manifest_counts_what_the_index_holds(simulated_shards):
    data = ShardSet.open(simulated_shards)
    counts = data.manifest["counts"]
    assert sum(counts["split"].values()) == counts["records"] == data.index.num_rows == 120
    assert sum(shard["samples"] for shard in data.manifest["shards"]) == 120
    assert data.manifest["provenance"]["simulation"]["seed"] == 3
    assert json.loads(json.dumps(data.manifest)) == data.manifest
