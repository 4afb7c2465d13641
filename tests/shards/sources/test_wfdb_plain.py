"""The fast way to read plain records gives what the general decoder gives, bit for bit, and leaves the rest to it."""

import shutil

import numpy as np
import pytest

from shards.record import INVALID
from shards.sources.wfdb_decoder import decode_wfdb
from shards.sources.wfdb_plain import read_plain


@pytest.fixture
def record(corpus, tmp_path):
    """A copy of a real plain record that a test may change: its path without extension."""
    for end in (".hea", ".dat"):
        shutil.copy((corpus("ptb-xl") / "records500/00000/00001_hr").with_suffix(end), tmp_path)
    return tmp_path / "00001_hr"


@pytest.mark.parametrize(
    ("folder", "plain"),
    [("ptb-xl", 88), ("mimic-iv-ecg", 60), ("chapman-shaoxing-ningbo", 24), ("cpsc2018-wfdb", 6), ("code-15-wfdb", 49)],
)
def test_every_plain_record_is_read_as_the_general_decoder_reads_it(corpus, folder, plain):
    read = 0
    for header in corpus(folder).rglob("*.hea"):
        fast = read_plain(header.with_suffix(""))
        if fast is None:
            continue
        read += 1
        full = decode_wfdb(header.with_suffix(""), every_lead=True)
        assert fast.ecg.dtype == full.ecg.dtype
        np.testing.assert_array_equal(fast.ecg, full.ecg)
        assert (fast.mv_per_lsb, fast.fs_hz, fast.comments) == (full.mv_per_lsb, full.fs_hz, full.comments)
        assert (fast.dropped_channels, fast.acquired) == (full.dropped_channels, full.acquired)
    assert read == plain


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".dat 16 ", ".dat 212 "),
        (".dat 16 ", ".dat 16x2 "),
        (".dat 16 ", ".dat 16:3 "),
        ("00001_hr.dat", "../00001_hr.dat"),
        ("/mV", "/mmHg"),
        ("1000.0(0)/mV", "0(0)/mV"),
        (" AVL", " AVX"),
        (" AVL", " AVF"),
        ("12 500 5000", "12 500 50000"),
        ("12 500 5000", "12 500/250 5000"),
        ("12 500 5000", "12 0 5000"),
        ("13047", "13048"),
    ],
)
def test_whatever_is_not_plain_or_not_as_its_header_says_is_left_to_the_general_decoder(record, old, new):
    header = record.with_suffix(".hea")
    assert read_plain(record) is not None
    header.write_text(header.read_text().replace(old, new))
    assert read_plain(record) is None


def test_a_cut_or_absent_file_is_left_to_the_general_decoder(record):
    data = record.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:-2])
    assert read_plain(record) is None
    data.unlink()
    assert read_plain(record) is None
    record.with_suffix(".hea").unlink()
    assert read_plain(record) is None


@pytest.mark.parametrize("baseline", [0, 5, -3])
def test_a_baseline_is_taken_off_and_what_was_not_recorded_is_invalid(record, baseline):
    data, header = record.with_suffix(".dat"), record.with_suffix(".hea")
    frames = np.fromfile(data, "<i2").reshape(-1, 12)
    frames[100, 3] = INVALID
    frames.tofile(data)
    lines = header.read_text().splitlines()
    for lead in range(12):
        fields = lines[1 + lead].replace("(0)", f"({baseline})").split(" ")
        fields[6] = str(int(frames[:, lead].astype(np.int64).sum() & 0xFFFF))
        lines[1 + lead] = " ".join(fields)
    header.write_text("\n".join(lines) + "\n")
    fast, full = read_plain(record), decode_wfdb(record, every_lead=True)
    np.testing.assert_array_equal(fast.ecg, full.ecg)
    assert fast.ecg[3, 100] == INVALID
    assert fast.ecg[0, 0] == frames[0, 0] - baseline
