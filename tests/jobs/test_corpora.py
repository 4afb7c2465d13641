"""Every corpus, as a user builds it: the command, `verify`, and the stock WebDataset reader on each shard."""

import json
import shutil

import numpy as np
import pytest
import webdataset

from shards.dataset import ShardSet
from tests.shards.sources import test_code_full as code_full
from tests.shards.sources import test_muse_xml as muse
from tests.shards.sources import test_tnmg_json as tnmg

CORPORA = [
    ("ptb-xl", "ptb-xl", 80, 2, 0),
    ("mimic-iv-ecg", "mimic-iv-ecg", 60, 0, 0),
    ("chapman-shaoxing-ningbo", "chapman-shaoxing-ningbo", 24, 0, 0),
    ("sph", "sph", 6, 0, 0),
    ("cpsc2018", "cpsc2018", 5, 0, 0),
    ("cpsc2018", "cpsc2018-wfdb", 6, 0, 0),
    ("code-15", "code-15", 6, 0, 0),
    ("code-test", "code-test/one-exam", 1, 0, 0),
    ("sami-trop", "sami-trop", 9, 0, 0),
    ("wfdb", "code-15-wfdb", 49, 0, 0),
]
"""Source, folder, and how many records are built, absent and rejected."""


@pytest.mark.parametrize(("source", "folder", "built", "absent", "rejected"), CORPORA)
def test_a_real_corpus_is_built_verified_and_read_by_the_stock_reader(
    ecgchat, recordings, tmp_path, source, folder, built, absent, rejected
):
    data = build_and_verify(ecgchat, source, recordings(folder), tmp_path / "set", "--max-rejected", "0.05")
    counts = data.manifest["counts"]
    assert (counts["records"], counts["absent"], counts["rejected"]) == (built, absent, rejected)


def test_a_made_muse_folder_is_built_verified_and_read_by_the_stock_reader(ecgchat, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "exam.xml").write_bytes(muse.document([muse.median(), muse.rhythm()]))
    data = build_and_verify(ecgchat, "muse-xml", corpus, tmp_path / "set", "--derive-leads")
    assert data.index["missing_leads"].to_pylist() == [0]
    assert data.manifest["provenance"]["signal"]["derive_leads"] is True


def test_a_made_tnmg_folder_is_built_verified_and_read_by_the_stock_reader(ecgchat, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "exam.json").write_text(json.dumps(tnmg.content()))
    data = build_and_verify(ecgchat, "tnmg-json", corpus, tmp_path / "set")
    assert data.index["missing_leads"].to_pylist() == [4]


def test_a_made_code_folder_is_built_verified_and_read_by_the_stock_reader(ecgchat, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    exams = {number: code_full.render(code_full.draw_case(5, number), 400) for number in range(1, 13)}
    code_full.write_signals(corpus, exams, factor=2.0)
    code_full.write_table(corpus, [code_full.row(exam) for exam in exams])
    assert build_and_verify(ecgchat, "code", corpus, tmp_path / "set").index.num_rows == 12


def build_and_verify(ecgchat, source, corpus, out, *options):
    """Build with the command, let `verify` and the stock reader read it, and open it."""
    said = ecgchat("shards", "build", source, corpus, "--out", out, "--workers", 0, "--records-per-shard", 16, *options)
    assert said.status == 0, said.err
    verified = ecgchat("shards", "verify", out)
    assert verified.status == 0, verified.out
    data = ShardSet.open(str(out))
    shards = [str(out / shard["name"]) for shard in data.manifest["shards"]]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == data.index["key"].to_pylist()
    for sample, row in zip(samples, data.index.to_pylist(), strict=True):
        assert (sample["ecg.npy"].dtype, sample["ecg.npy"].shape) == (np.int16, (12, row["samples"]))
        assert (sample["json"]["split"], sample["json"]["record_id"]) == (row["split"], row["record_id"])
    return data


def test_values_of_2_mv_called_mv_are_reported_with_their_cause(ecgchat, recordings, tmp_path):
    corpus = recordings("code-15-wfdb")
    said = ecgchat("shards", "build", "wfdb", corpus, "--out", tmp_path / "set", "--workers", 0, "--max-rejected", 0.05)
    assert "the values are probably 2 × mV, as in the TNMG family" in said.text


def test_leads_taken_by_position_would_be_reported(ecgchat, recordings, tmp_path):
    """MIMIC-IV-ECG's headers name aVF before aVL; with the names exchanged, the limb leads do not fit one another."""
    corpus = shutil.copytree(recordings("mimic-iv-ecg"), tmp_path / "corpus")
    for header in corpus.rglob("*.hea"):
        header.write_text(header.read_text().replace(" aVF", " x").replace(" aVL", " aVF").replace(" x", " aVL"))
    said = ecgchat("shards", "build", "mimic-iv-ecg", corpus, "--out", tmp_path / "set", "--workers", 0)
    assert "the rows named aVL, aVF look like aVF, aVL" in said.text
