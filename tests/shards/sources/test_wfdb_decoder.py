"""Any WFDB record: the millivolts that wfdb reads, by name, nothing invented, and one sentence where it cannot be read."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
from functools import cache

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.record import INVALID, LEADS, EcgRecord, RecordError, millivolts_per_unit, standard_lead, to_millivolts
from shards.sources.wfdb_decoder import WfdbSignal, acquired_at, decode_wfdb, record_length
from tests.conftest import SHARED
from tests.shards.sources.readings import assert_millivolts

FORMATS = SHARED / "ecg" / "wfdb-formats"
HEADERS = sorted(path.relative_to(FORMATS).with_suffix("").as_posix() for path in FORMATS.rglob("*.hea"))

NO_LEAD = {
    "03700181", "310derive", "310derive_2", "310derive_3", "311derive", "311derive_2", "311derive_3", "311derive_4",
    "binformats", "flac_3_constant", "flacformats", "p10143", "test01_00s", "test01_00s_frame",
    "test01_00s_skew", "test01_00s_skewframe", "multi-segment/p000878/3269321_0001",
    "multi-segment/s25047/s25047-2704-05-04-10-44n",
}  # fmt: skip
"""Records that name none of the twelve leads."""
NO_SIGNAL = {
    "1003": "no such file",
    "multi-segment/p000878/3269321_layout": "expected a number of samples",
    "multi-segment/s25047/3234460_layout": "expected a number of samples",
    "multi-segment/p000878/p000878-2137-10-26-16-57": "52725000 samples a lead, at most 4000000",
}


def as_wfdb_reads(path, **options):
    """Standard lead → millivolts, for the leads that are voltages."""
    names = wfdb.rdrecord(str(path), physical=True, **options)
    expanded = wfdb.rdrecord(str(path), physical=True, smooth_frames=False, **options)
    signals = names.p_signal.T if max(names.samps_per_frame) == 1 else expanded.e_p_signal
    leads = {}
    for name, unit, signal in zip(names.sig_name, names.units, signals, strict=True):
        if standard_lead(name) and millivolts_per_unit(unit):
            leads[standard_lead(name)] = signal * millivolts_per_unit(unit)
    return leads


def as_record(signal: WfdbSignal) -> EcgRecord:
    return EcgRecord("s", "r", "p", "n", "train", signal.fs_hz, signal.ecg, signal.mv_per_lsb)


def renamed(corpus, tmp_path, name, pattern):
    """A copy of a record with its channels named after leads, in the order of the header."""
    for file in corpus.glob(f"{name.split('_')[0]}*"):
        shutil.copyfile(file, tmp_path / file.name)
    leads = iter(LEADS)
    header = tmp_path / f"{name}.hea"
    header.write_text(re.sub(pattern, lambda match: next(leads), header.read_text()))
    return tmp_path / name


def write(folder, body, header, name="rec"):
    (folder / f"{name}.dat").write_bytes(body)
    (folder / f"{name}.hea").write_text(header)
    return folder / name


def write_leads(folder, leads, *, fs=500, gain="1000/mV", name="rec", extra=""):
    """Channel → int16 counts, in one file of format 16."""
    signals = np.stack(list(leads.values()), axis=1).astype("<i2")
    lines = [f"{name} {len(leads)} {fs} {len(signals)}{extra}"]
    for channel, counts in leads.items():
        total = int(np.sum(counts, dtype=np.int64)) & 0xFFFF
        lines.append(f"{name}.dat 16 {gain} 16 0 0 {total} 0 {channel}")
    return write(folder, signals.tobytes(), "\n".join(lines) + "\n", name)


def ramp(seed=0, samples=100):
    return np.random.default_rng(seed).integers(-3000, 3000, samples)


@pytest.mark.skipif(not HEADERS, reason="holds real recordings, which the project does not ship")
@pytest.mark.parametrize("name", HEADERS or ["none"])
def test_every_header_gives_the_millivolts_of_wfdb_or_one_sentence(name):
    path = FORMATS / name
    if name in NO_LEAD:
        with pytest.raises(RecordError, match=r"found the channels .*, none of the twelve leads in volts; leave"):
            decode_wfdb(path)
    elif name in NO_SIGNAL:
        with pytest.raises(RecordError, match=NO_SIGNAL[name]):
            decode_wfdb(path)
    else:
        assert_millivolts(as_record(decode_wfdb(path)), as_wfdb_reads(path))


def test_there_are_as_many_headers_as_the_samples_promise(corpus):
    corpus("wfdb-formats")
    assert len(HEADERS) == 59


@pytest.mark.parametrize("folder", ["code-15-wfdb", "ptb-xl", "mimic-iv-ecg", "cpsc2018-wfdb"])
def test_records_of_twelve_leads_are_read_as_wfdb_reads_them(corpus, folder):
    for header in sorted(corpus(folder).rglob("*.hea"))[:30]:
        path = header.with_suffix("")
        signal = decode_wfdb(path, every_lead=True)
        assert_millivolts(as_record(signal), as_wfdb_reads(path))
        assert signal.fs_hz == wfdb.rdheader(str(path)).fs
        assert signal.dropped_channels == []


def test_counts_of_16_bits_are_kept_exactly(corpus):
    path = corpus("wfdb-formats") / "s0010_re"
    stored = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(decode_wfdb(path).ecg, stored.d_signal.T[:12])
    assert set(decode_wfdb(path).mv_per_lsb) == {1 / 2000}
    assert decode_wfdb(path).dropped_channels == ["vx", "vy", "vz"]


def test_a_rate_of_300_hz_is_taken_from_the_header(corpus):
    assert decode_wfdb(corpus("code-15-wfdb") / "edge" / "9190_low_sample_rate").fs_hz == 300


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("binformats", r"sig \d, fmt \d+"),
        ("flacformats", r"sig \d, fmt \d+"),
        ("310derive", r"col \d"),
        ("310derive_2", r"col \d"),
        ("310derive_3", r"ch1"),
        ("311derive", r"col \d"),
        ("311derive_2", r"col \d"),
        ("311derive_3", r"ch1"),
        ("311derive_4", r"ch1"),
        ("test01_00s_skew", r"ECG_\d"),
    ],
)
def test_every_format_is_decoded_once_its_channels_are_leads(corpus, tmp_path, name, pattern):
    path = renamed(corpus("wfdb-formats"), tmp_path, name, pattern)
    signal = decode_wfdb(path)
    assert_millivolts(as_record(signal), as_wfdb_reads(path))
    # and a part of it is that part of the whole, in formats whose samples share bytes and in those of differences
    whole = to_millivolts(signal.ecg, signal.mv_per_lsb)
    for first, stop in ((1, 2), (7, 100), (101, 499)):
        part = decode_wfdb(path, (first, stop))
        for place in range(12):
            tolerance = max(signal.mv_per_lsb[place], part.mv_per_lsb[place])
            millivolts = to_millivolts(part.ecg, part.mv_per_lsb)[place]
            np.testing.assert_allclose(millivolts, whole[place, first:stop], rtol=0, atol=tolerance)


def test_a_part_of_a_record_whose_header_gives_no_length_is_that_part(corpus):
    path = corpus("wfdb-formats") / "a103l-no-len"
    assert record_length(path) == (82500, 250.0)
    np.testing.assert_array_equal(decode_wfdb(path, (500, 900)).ecg, decode_wfdb(path).ecg[:, 500:900])


@pytest.mark.parametrize(
    ("form", "samples", "needed"),
    [("212", 3, 5), ("310", 1, 2), ("310", 2, 4), ("310", 3, 4), ("311", 2, 3), ("311", 3, 4), ("24", 2, 6), ("16", 2, 4)],
)
def test_a_file_is_as_long_as_its_last_sample_needs(tmp_path, form, samples, needed):
    header = f"rec 1 500 {samples}\nrec.dat {form} 200/mV 10 0 0 0 0 II\n"
    assert decode_wfdb(write(tmp_path, bytes(needed), header)).ecg.shape == (12, samples)
    with pytest.raises(RecordError, match=f"expected {needed} bytes .* found {needed - 1}; the file was cut"):
        decode_wfdb(write(tmp_path, bytes(needed - 1), header))


def test_a_part_of_a_long_compressed_file_is_read_where_the_whole_is_too_long(corpus, tmp_path):
    path = renamed(corpus("wfdb-formats"), tmp_path, "flac_3_constant", r"col \d")
    with pytest.raises(RecordError, match="5600000 samples a lead, at most 4000000 are read at once; read it in windows"):
        decode_wfdb(path)
    part = decode_wfdb(path, (5_000_000, 5_001_000))
    assert part.ecg.shape == (12, 1000)
    assert [int(part.ecg[lead].min()) for lead in range(3)] == [25, 50, 75]


def test_leads_of_several_samples_a_frame_have_their_own_rate(corpus):
    signal = decode_wfdb(corpus("wfdb-formats") / "mixedsignals")
    assert signal.fs_hz == pytest.approx(249.89)
    assert signal.ecg.shape == (12, 4 * 14400)
    assert signal.dropped_channels == ["V", "ABP", "Pleth", "Resp"]


def test_leads_of_different_rates_are_refused(corpus, tmp_path):
    path = renamed(corpus("wfdb-formats"), tmp_path, "test01_00s_frame", r"ECG_\d")
    with pytest.raises(RecordError, match="expected leads of one sampling rate, found I 500 Hz, II 1000 Hz, III 500 Hz"):
        decode_wfdb(path)


def test_different_skews_shift_each_lead_and_leave_its_end_missing(tmp_path):
    counts = {"I": ramp(1), "II": ramp(2), "III": ramp(3)}
    path = write_leads(tmp_path, counts)
    header = path.with_suffix(".hea").read_text().splitlines()
    header[1], header[2] = header[1].replace(" 16 1000", " 16:7 1000"), header[2].replace(" 16 1000", " 16:2 1000")
    path.with_suffix(".hea").write_text("\n".join(header))
    for first, stop in ((0, 100), (0, 10), (91, 99)):
        ecg = decode_wfdb(path, (first, stop)).ecg
        for place, (lead, skew) in enumerate((("I", 7), ("II", 2), ("III", 0))):
            expected = np.append(counts[lead], [INVALID] * 10)[first + skew : stop + skew]
            np.testing.assert_array_equal(ecg[place], expected, err_msg=lead)


def test_a_missing_lead_is_missing_and_every_other_one_keeps_its_place(tmp_path):
    counts = {lead: ramp(place) for place, lead in enumerate(LEADS) if lead not in ("II", "aVF", "V3")}
    signal = decode_wfdb(write_leads(tmp_path, dict(reversed(counts.items()))))
    for place, lead in enumerate(LEADS):
        np.testing.assert_array_equal(signal.ecg[place], counts.get(lead, np.full(100, INVALID)), err_msg=lead)


def test_a_record_that_has_to_have_every_lead_names_the_one_it_lacks(tmp_path):
    path = write_leads(tmp_path, {lead: ramp() for lead in LEADS if lead != "aVL"})
    with pytest.raises(RecordError, match=r"rec.hea: expected the leads .* aVL missing"):
        decode_wfdb(path, every_lead=True)


@pytest.mark.parametrize(("unit", "millivolts"), [("/mV", 1.5), ("/uV", 0.0015), ("/V", 1500.0), ("", 1.5)])
def test_units_are_taken_by_their_name(tmp_path, unit, millivolts):
    path = write_leads(tmp_path, {"I": np.full(5, 1500)}, gain=f"1000{unit}")
    signal = decode_wfdb(path)
    np.testing.assert_allclose(to_millivolts(signal.ecg, signal.mv_per_lsb)[0], millivolts)


def test_a_lead_in_no_unit_of_voltage_is_dropped(tmp_path):
    path = write_leads(tmp_path, {"I": ramp(), "II": ramp()})
    path.with_suffix(".hea").write_text(path.with_suffix(".hea").read_text().replace("1000/mV", "1000/NU", 1))
    signal = decode_wfdb(path)
    assert signal.dropped_channels == ["I"]
    assert (signal.ecg[0] == INVALID).all()
    with pytest.raises(RecordError, match="found the channels I in NU, II: I, III"):
        decode_wfdb(path, every_lead=True)


def test_a_microvolt_sign_is_never_read_as_volts(tmp_path):
    path = write_leads(tmp_path, {"I": ramp()}, gain="1/µV")
    assert wfdb.rdheader(str(path)).units == ["V"]  # what wfdb makes of it: a million times as much
    with pytest.raises(RecordError, match="not a WFDB header .*a unit in µV is written uV"):
        decode_wfdb(path)


@pytest.mark.parametrize(
    ("gain", "lsb"), [("0/mV", 1 / 200), ("0", 1 / 200), ("500(20)/mV", 1 / 500), ("-500(20)/mV", 1 / 500)]
)
def test_gain_and_baseline_are_those_of_the_header_or_the_formats_defaults(tmp_path, gain, lsb):
    path = write_leads(tmp_path, {"I": ramp()}, gain=gain)
    signal = decode_wfdb(path)
    assert signal.mv_per_lsb[0] == lsb
    assert_millivolts(as_record(signal), as_wfdb_reads(path))


def test_without_a_baseline_the_zero_of_the_converter_is_0_mv(tmp_path):
    counts = ramp()
    total = int(counts.sum()) & 0xFFFF
    path = write(tmp_path, counts.astype("<i2").tobytes(), f"rec 1 500 100\nrec.dat 16 200/mV 16 1024 0 {total} 0 II\n")
    np.testing.assert_array_equal(decode_wfdb(path).ecg[1], counts - 1024)


@pytest.mark.parametrize(
    ("form", "stored"),
    [
        ("16", np.array([1, 2, -32768, 4], dtype="<i2").tobytes()),
        ("61", np.array([1, 2, -32768, 4], dtype=">i2").tobytes()),
        ("24", bytes([1, 0, 0, 2, 0, 0, 0, 0, 128, 4, 0, 0])),
        ("80", bytes([129, 130, 0, 132])),
        ("212", bytes([1, 0, 2, 0, 8, 4])),
    ],
)
def test_what_a_format_marks_as_not_recorded_is_invalid(tmp_path, form, stored):
    mark = {"16": -(2**15), "61": -(2**15), "24": -(2**23), "80": -(2**7), "212": -(2**11)}[form]
    path = write(tmp_path, stored, f"rec 1 500 4\nrec.dat {form} 1000/mV 16 0 0 {7 + mark} 0 V6\n")
    assert decode_wfdb(path).ecg[11].tolist() == [1, 2, INVALID, 4]


def test_counts_of_32_bits_are_quantised_without_clipping(tmp_path):
    counts = np.array([0, 2**30, -(2**30), 12345], dtype="<i4")
    total = int(counts.sum(dtype=np.int64)) & 0xFFFF
    path = write(tmp_path, counts.tobytes(), f"rec 1 500 4\nrec.dat 32 1000000/mV 32 0 0 {total} 0 V1\n")
    assert_millivolts(as_record(decode_wfdb(path)), as_wfdb_reads(path))


# --- segments


def test_a_gap_between_segments_is_invalid_and_gains_may_differ(corpus):
    path = corpus("wfdb-formats") / "multi-segment/s25047/s25047-2704-05-04-10-44"
    signal = decode_wfdb(path)
    assert signal.acquired == "2704-05-04 10:44:18.529000"
    assert (signal.ecg[1, :25740] == INVALID).all()
    part = decode_wfdb(path, (25_000, 26_000))
    assert (part.ecg[1, :740] == INVALID).all()
    assert part.mv_per_lsb[1] == 1 / 86  # exact: the gap and one segment have one gain
    np.testing.assert_array_equal(
        part.ecg[1, 740:], wfdb.rdrecord(str(path.parent / "3234460_0001"), physical=False).d_signal[:260, 0]
    )


def test_a_part_is_read_where_another_segment_is_absent(corpus):
    path = corpus("wfdb-formats") / "multi-segment/p000878/p000878-2137-10-26-16-57"
    signal = decode_wfdb(path, (0, 7500))
    expected = as_wfdb_reads(path, sampfrom=0, sampto=7500)
    assert_millivolts(as_record(signal), {"II": expected["II"]})
    with pytest.raises(RecordError, match="3269321_0003.hea: no such file"):
        decode_wfdb(path, (7000, 8000))


@settings(max_examples=25, deadline=None)
@given(first=st.integers(0, 1998), length=st.integers(1, 400))
def test_any_part_of_a_record_in_segments_is_that_part_of_the_whole(first, length):
    path = FORMATS / "multi-segment/041s/041s"
    if not path.with_suffix(".hea").is_file():
        pytest.skip("holds real recordings, which the project does not ship")
    stop = min(2000, first + length)
    np.testing.assert_array_equal(decode_wfdb(path, (first, stop)).ecg, whole_of(path).ecg[:, 4 * first : 4 * stop])


@cache
def whole_of(path):
    return decode_wfdb(path)


def segments(tmp_path, master, **pieces):
    for name, lead in pieces.items():
        write_leads(tmp_path, {lead: ramp(len(name))}, name=name)
    (tmp_path / "all.hea").write_text(master)
    return tmp_path / "all"


@pytest.mark.parametrize(
    ("master", "complaint"),
    [
        ("all/2 1 500 200\na 100\nall 100\n", "all.hea: is made of segments itself"),
        ("all/2 1 500 200\na 100\nb 100\n", "b.hea: no such file"),
        ("all/2 1 500 300\na 100\na 200\n", "a.hea: 100 samples, and all.hea gives it 200"),
        ("all/2 1 500 300\na 100\na 100\n", "all.hea: 300 samples, and its segments have 200"),
        ("all/1 1 250 100\na 100\n", "a.hea: 500 Hz, and all.hea 250 Hz"),
        ("all/3 1 500 100\na 100\n", "3 segments by its first line, 1 listed"),
        ("all/1 1 500 100\n~ 100\n", "all its segments are gaps"),
        ("all/1 1 500 100\n../a 100\n", "it names '../a', expected a file beside the header"),
        ("all/1 1 500 100\nhttp://host/a 100\n", "it names 'http://host/a', expected a file beside the header"),
        ("all/2 1 500 999999999999\na 100\n~ 999999999899\n", "999999999999 samples a lead, at most 4000000"),
        ("all/12 1 500 1200\n" + "a 100\n" * 12, "more than 10 segments to read at once; read it in windows"),
    ],
)
def test_segments_that_do_not_fit_are_named(tmp_path, master, complaint, monkeypatch):
    monkeypatch.setattr("shards.sources.wfdb_decoder.MOST_SEGMENTS", 10)
    with pytest.raises(RecordError, match=re.escape(complaint)):
        decode_wfdb(segments(tmp_path, master, a="II"))


# --- damage


@pytest.fixture
def plain(tmp_path):
    return write_leads(tmp_path, {"I": ramp(1), "II": ramp(2)})


def edit(path, old, new):
    header = path.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "name", ["../rec.dat", "/etc/passwd", "http://host/x.dat", "s3://bucket/x", "a/rec.dat", "..", "rec.dat::x"]
)
def test_a_header_that_names_a_file_elsewhere_is_refused_and_nothing_is_fetched(plain, name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("reached for the network"))
    edit(plain, "rec.dat", name)
    with pytest.raises(RecordError, match=r"rec.hea: not a WFDB header \(it names '.*', expected a file beside the header\)"):
        decode_wfdb(plain)


def test_a_folder_whose_name_chains_file_systems_is_refused(tmp_path):
    folder = tmp_path / "a::http"
    folder.mkdir()
    with pytest.raises(RecordError, match="'::' in a path"):
        decode_wfdb(write_leads(folder, {"I": ramp()}))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "rec 2 500 100",
            "rec 2 500 1000000000000",
            "rec.dat: expected 4000000000000 bytes (2 leads x 1000000000000 samples), found 400",
        ),
        ("rec 2 500 100", "rec 2 500 101", "rec.dat: expected 404 bytes (2 leads x 101 samples), found 400; the file was cut"),
        ("rec 2 500 100", "rec 2 500 0", "expected a number of samples, found none"),
        ("rec 2 500 100", "rec 2 0 100", "expected signals and a sampling rate, found none"),
        ("rec 2 500 100", "rec 3 500 100", "3 signals by its first line, 2 listed"),
        ("rec.dat 16 ", "rec.dat 17 ", "format 17 of rec.dat, expected one of 8, 80, 16"),
        ("rec.dat 16 ", "rec.dat 16x99999 ", "expected 1 to 10000 samples in a frame"),
        ("rec.dat 16 ", "rec.dat 516 ", "rec.dat: expected a FLAC file, found something else"),
        ("rec.dat 16 ", "rec.dat 16+8 ", "rec.dat: expected 408 bytes"),
        ("1000/mV", "1000(99999999999999999999)/mV", "expected counts for each mV, uV or V"),
        ("1000/mV", "0.0000000000000001/mV", "expected counts for each mV, uV or V"),
        (" II", " I", "lead I stands for more than one of the channels I, I"),
        (" II", " I" * 600, "a line of"),
        ("rec.dat 16 1000/mV 16 0 0", "x.dat 16 1000/mV 16 0 0", "x.dat: no such file"),
        ("rec.dat 16 1000/mV 16 0 0", "x" * 300 + ".dat 16 1000/mV 16 0 0", "expected a path below"),
        ("rec 2 500 100", "", "not a WFDB header"),
    ],
)
def test_what_a_header_claims_is_checked_before_anything_is_read(plain, old, new, complaint):
    edit(plain, old, new)
    with pytest.raises(RecordError, match=re.escape(complaint)):
        decode_wfdb(plain)


def test_files_whose_signals_do_not_stand_together_are_refused(tmp_path):
    path = write_leads(tmp_path, {"I": ramp(1), "II": ramp(2), "III": ramp(3)})
    shutil.copyfile(path.with_suffix(".dat"), tmp_path / "other.dat")
    lines = path.with_suffix(".hea").read_text().splitlines()
    path.with_suffix(".hea").write_text("\n".join([*lines[:2], lines[2].replace("rec.dat", "other.dat"), lines[3]]))
    with pytest.raises(RecordError, match="signals of one file do not stand together"):
        decode_wfdb(path)


def test_a_changed_signal_is_found_by_its_checksum_but_not_in_a_part(plain):
    body = bytearray(plain.with_suffix(".dat").read_bytes())
    body[100] ^= 1
    plain.with_suffix(".dat").write_bytes(body)
    with pytest.raises(RecordError, match=r"rec: lead I sums to \d+, its header says \d+"):
        decode_wfdb(plain)
    assert decode_wfdb(plain, (0, 99)).ecg.shape == (12, 99)


def test_a_header_of_noise_and_a_missing_one_are_named(tmp_path):
    (tmp_path / "rec.hea").write_bytes(b"\xff\x00nonsense\n")
    with pytest.raises(RecordError, match="rec.hea: not a WFDB header"):
        decode_wfdb(tmp_path / "rec")
    with pytest.raises(RecordError, match="other.hea: no such file"):
        decode_wfdb(tmp_path / "other")


@pytest.mark.parametrize("window", [(0, 101), (-1, 5), (5, 5), (7, 3)])
def test_frames_that_a_record_does_not_have_are_refused(plain, window):
    with pytest.raises(RecordError, match="asked for, it has 100"):
        decode_wfdb(plain, window)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_no_damage_raises_anything_but_one_sentence(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    path = write_leads(folder, {"I": ramp(1), "II": ramp(2)}, extra=" 12:00:00 01/02/2003")
    file = path.with_suffix(data.draw(st.sampled_from([".hea", ".hea", ".dat"])))
    body = bytearray(file.read_bytes())
    first = data.draw(st.integers(0, len(body)))
    words = st.sampled_from([b"999999999999999", b"-7", b"x0", b"\n", b"\x85", b"~", b"(", b"/", b":9999", b"#"])
    body[first : first + data.draw(st.integers(0, 20))] = data.draw(st.one_of(st.binary(max_size=8), words))
    file.write_bytes(body)
    for read in (decode_wfdb, record_length):
        with contextlib.suppress(RecordError):
            read(path)


@pytest.mark.parametrize(
    ("text", "acquired"),
    [
        ("17:27:45 15/08/1994", "1994-08-15 17:27:45"),
        (" 10:44:18.529 04/05/2704", "2704-05-04 10:44:18.529000"),
        ("17:27:45", None),
        ("12-May-2020 12:33:59", None),
        ("17:27:45 31/02/1994", None),
        ("", None),
    ],
)
def test_date_and_time_are_taken_where_both_are_there(text, acquired):
    assert acquired_at(text) == acquired


def test_the_time_of_a_part_is_that_of_its_first_sample(tmp_path):
    path = write_leads(tmp_path, {"I": ramp()}, fs=10, extra=" 23:59:55 31/12/1999")
    assert decode_wfdb(path).acquired == "1999-12-31 23:59:55"
    assert decode_wfdb(path, (50, 100)).acquired == "2000-01-01 00:00:00"
