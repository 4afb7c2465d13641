"""A corpus in millivolts with its leads in order raises no finding; each way of being wrong is named."""

import statistics
import time

import h5py
import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.plausibility import FEWEST_AMPLITUDES, findings, limb_leads, limb_residual, r_amplitude_mv
from shards.record import INVALID, LEADS, arrange_leads, quantise
from shards.simulate.case import draw_case, render
from tests.conftest import SHARED

HEADERS = {
    "ptb-xl": "ptb-xl/records500/**/*.hea",
    "mimic-iv-ecg": "mimic-iv-ecg/files/**/*.hea",
    "chapman": "chapman-shaoxing-ningbo/WFDBRecords/**/*.hea",
    "cpsc2018": "cpsc2018-wfdb/*.hea",
    "code-15": "code-15-wfdb/*.hea",
}
"""CODE-15's WFDB form labels its stored values mV, which are 2 × mV."""


@pytest.fixture(scope="module")
def corpora():
    """Corpus → its recordings as (12, samples) millivolts as labelled, leads by name, with their rate."""
    if not (SHARED / "ecg").is_dir():
        pytest.skip(f"{SHARED / 'ecg'} is absent: it holds real recordings, which the project does not ship")
    loaded = {name: [read(path) for path in sorted((SHARED / "ecg").glob(glob))] for name, glob in HEADERS.items()}
    loaded["sph"] = []
    for path in sorted((SHARED / "ecg/sph/records").glob("*.h5")):
        with h5py.File(path) as file:
            loaded["sph"].append((np.asarray(file["ecg"], float), 500.0))
    return loaded


def read(path):
    record = wfdb.rdrecord(str(path.with_suffix("")))
    return record.p_signal.T[arrange_leads(record.sig_name, path.name)], float(record.fs)


def verdict(recordings, factor=1.0, rows=None):
    """Findings on recordings whose millivolts are multiplied, and whose limb leads are rearranged."""
    amplitudes, residuals, samples = [], [], []
    for mv, fs_hz in recordings:
        mv = factor * mv
        if rows is not None:
            mv[:6] = [np.sign(row) * mv[abs(row) - 1] for row in rows]
        ecg, mv_per_lsb = quantise(mv)
        amplitudes.append(r_amplitude_mv(ecg, mv_per_lsb, fs_hz))
        residuals.append(limb_residual(ecg, mv_per_lsb))
        samples.append(mv)
    return findings(amplitudes, residuals, samples)


@pytest.fixture
def ecg():
    return quantise(render(draw_case(seed=4, number=2), 500))


# --- real corpora -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ptb-xl", "mimic-iv-ecg", "chapman", "cpsc2018", "sph"])
def test_a_corpus_as_published_raises_no_finding(corpora, name):
    assert len(corpora[name]) >= 6
    assert verdict(corpora[name]) == []


def test_code_15_labelled_mv_is_found_to_be_twice_that(corpora):
    (found,) = verdict(corpora["code-15"])
    assert "R amplitude: 1.67 mV in the median of 40 records" in found
    assert "probably 2 × mV, as in the TNMG family (CODE-15, SaMi-Trop)" in found


def test_code_15_taken_as_it_is_meant_raises_no_finding(corpora):
    assert verdict(corpora["code-15"], factor=0.5) == []


@pytest.mark.parametrize("name", ["ptb-xl", "mimic-iv-ecg", "chapman"])
@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (2, "the values are probably 2 × mV"),
        (0.5, "the values are probably half of what they should be"),
        (1000, "the values are probably µV taken as mV"),
        (0.001, "the values are probably V taken as mV"),
        (10, "the gain is probably wrong by a factor of about"),
    ],
)
def test_a_wrong_gain_is_found_with_its_likely_cause(corpora, name, factor, cause):
    amplitudes = [r_amplitude_mv(*quantise(mv), fs_hz) for mv, fs_hz in corpora[name]]
    (found,) = findings([None if value is None else factor * value for value in amplitudes], [])
    assert cause in found


@pytest.mark.parametrize("name", ["ptb-xl", "mimic-iv-ecg"])
@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((1, 2, 3, 4, 6, 5), "the rows named aVL, aVF look like aVF, aVL"),
        ((1, 2, 3, 5, 6, 4), "the rows named aVR, aVL, aVF look like aVL, aVF, aVR"),
        ((2, 1, 3, 4, 5, 6), "the rows named I, II look like II, I"),
        ((1, 3, 2, 4, 5, 6), "the rows named II, III look like III, II"),
        ((1, 2, 3, -4, 5, 6), "the row named aVR looks like -aVR"),
        ((-1, 2, 3, 4, 5, 6), "the row named I looks like -I"),
    ],
    ids=["MIMIC-IV-ECG read by position", "CODE-test read by position", "I and II", "II and III", "Cabrera's -aVR", "-I"],
)
def test_limb_leads_in_another_order_are_named(corpora, name, rows, sentence):
    (found,) = verdict(corpora[name][:30], rows=rows)
    assert sentence in found


def test_leads_at_different_gains_are_told_from_exchanged_ones(corpora):
    recordings = [(mv * np.array([1, 2.5, 1, 1, 0.4, 1] + [1] * 6)[:, None], fs_hz) for mv, fs_hz in corpora["ptb-xl"]]
    (found,) = verdict(recordings)
    assert "the leads were probably recorded at different gains, or not at the same time" in found


def test_leads_that_were_not_recorded_at_the_same_time_are_told_from_exchanged_ones(corpora):
    """As on paper in three columns: the augmented leads come later than the others."""
    recordings = [(np.vstack((mv[:3], np.roll(mv[3:6], 1250, axis=1), mv[6:])), fs_hz) for mv, fs_hz in corpora["ptb-xl"]]
    (found,) = verdict(recordings)
    assert "the leads were probably recorded at different gains, or not at the same time" in found


def test_gain_and_order_are_both_said_where_both_are_wrong(corpora):
    assert len(verdict(corpora["mimic-iv-ecg"], factor=2, rows=(1, 2, 3, 4, 6, 5))) == 2


def test_the_gain_is_not_judged_from_leads_that_are_not_what_their_names_say(corpora):
    """With lead I upside down the frontal vector comes out half as large again."""
    (found,) = verdict(corpora["ptb-xl"], rows=(-1, 2, 3, 4, 5, 6))
    assert found.startswith("limb leads:")


def test_electrodes_that_came_off_in_a_few_records_are_no_finding(corpora):
    recordings = corpora["ptb-xl"][:40]
    spoilt = [(np.vstack((mv[:3], mv[[3, 5, 4]], mv[6:])), fs_hz) for mv, fs_hz in recordings[:6]]
    assert verdict(spoilt + recordings[6:]) == []


# --- how much it takes to say something -------------------------------------------------------------------------------


def test_nothing_is_said_of_the_gain_of_a_few_records():
    assert findings([2.0] * (FEWEST_AMPLITUDES - 1), []) == []
    assert len(findings([2.0] * FEWEST_AMPLITUDES, [])) == 1


def test_records_without_a_number_do_not_count():
    assert findings([2.0] * 19 + [None] * 50, [None] * 50) == []


def test_an_empty_corpus_raises_no_finding():
    assert findings([], [], []) == []


def test_a_residual_without_samples_is_reported_without_an_order():
    (found,) = findings([], [1.0] * 10)
    assert "in 10 of 10 records" in found


def test_a_corpus_of_zero_amplitude_is_reported():
    (found,) = findings([0.0] * 30, [])
    assert "R amplitude: 0 mV in the median of 30 records" in found


@pytest.mark.parametrize("samples", [[], [np.zeros((12, 500))], [np.full((12, 500), np.nan)], [np.zeros((12, 0))]])
def test_samples_without_limb_leads_say_nothing_of_their_order(samples):
    assert limb_leads(samples) is None


def test_limb_leads_in_order_are_found_to_be_so():
    found = limb_leads([render(draw_case(seed=4, number=number), 500) for number in range(1, 4)])
    assert found.rows == LEADS[:6]
    assert found.residual < 1e-6


# --- the two numbers --------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.001, 1000), number=st.integers(1, 50))
def test_the_amplitude_scales_with_the_signal(factor, number):
    ecg, mv_per_lsb = quantise(render(draw_case(seed=4, number=number), 250))
    scaled = [factor * value for value in mv_per_lsb]
    assert r_amplitude_mv(ecg, scaled, 250) == pytest.approx(factor * r_amplitude_mv(ecg, mv_per_lsb, 250), rel=1e-4)
    assert limb_residual(ecg, scaled) == pytest.approx(limb_residual(ecg, mv_per_lsb), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(6, 12)))
def test_the_order_of_the_chest_leads_changes_nothing(order):
    ecg, mv_per_lsb = quantise(render(draw_case(seed=4, number=2), 250))
    rows = [*range(6), *order]
    scales = [mv_per_lsb[row] for row in rows]
    assert r_amplitude_mv(ecg[rows], scales, 250) == r_amplitude_mv(ecg, mv_per_lsb, 250)
    assert limb_residual(ecg[rows], scales) == limb_residual(ecg, mv_per_lsb)


@given(offsets=st.lists(st.integers(-3000, 3000), min_size=12, max_size=12))
def test_offsets_of_the_leads_change_nothing(offsets):
    ecg, mv_per_lsb = quantise(render(draw_case(seed=4, number=2), 250))
    moved = (ecg + np.array(offsets)[:, None]).astype(np.int16)
    assert r_amplitude_mv(moved, mv_per_lsb, 250) == pytest.approx(r_amplitude_mv(ecg, mv_per_lsb, 250), abs=1e-3)
    assert limb_residual(moved, mv_per_lsb) == pytest.approx(limb_residual(ecg, mv_per_lsb), abs=1e-3)


def test_the_amplitude_is_that_of_the_r_wave_along_the_axis_whatever_lead_it_falls_in():
    """An ECG of one R wave of 1 mV a second, along lead I (0°), II (60°) and elsewhere."""
    wave = np.tile(np.where(np.arange(500) == 250, 1.0, 0.0), 10)
    for degrees in (0, 60, 95, -60, 180):
        mv = np.zeros((12, 5000))
        mv[0], mv[1] = np.cos(np.radians(degrees)) * wave, np.cos(np.radians(degrees - 60)) * wave
        assert r_amplitude_mv(*quantise(mv + 1e-6), 500) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("lsb_mv", [0.001, 0.005, 0.02, 0.05])
def test_rounding_to_coarse_counts_is_no_residual(lsb_mv):
    mv = render(draw_case(seed=4, number=2), 500)
    assert limb_residual(np.rint(mv / lsb_mv).astype(np.int16), [lsb_mv] * 12) < 0.01


@pytest.mark.parametrize("lead", range(6))
def test_a_missing_or_flat_limb_lead_gives_no_residual(ecg, lead):
    counts, mv_per_lsb = ecg
    for value in (INVALID, 0, 7):
        changed = counts.copy()
        changed[lead] = value
        assert limb_residual(changed, mv_per_lsb) is None
        assert (r_amplitude_mv(changed, mv_per_lsb, 500) is None) == (lead < 2)


def test_seconds_with_invalid_samples_are_left_out(ecg):
    counts, mv_per_lsb = ecg
    changed = counts.copy()
    changed[:, 1000:1500] = INVALID
    assert r_amplitude_mv(changed, mv_per_lsb, 500) == pytest.approx(r_amplitude_mv(counts, mv_per_lsb, 500), rel=0.1)
    assert limb_residual(changed, mv_per_lsb) == pytest.approx(limb_residual(counts, mv_per_lsb), abs=0.01)


@pytest.mark.parametrize(
    ("samples", "fs_hz"), [(0, 500), (1, 500), (499, 500), (5000, 0.5), (5000, 1), (5000, 25), (5000, 1000)]
)
def test_records_of_any_length_and_rate_give_a_number_or_none(ecg, samples, fs_hz):
    counts, mv_per_lsb = ecg
    for value in (r_amplitude_mv(counts[:, :samples], mv_per_lsb, fs_hz), limb_residual(counts[:, :samples], mv_per_lsb)):
        assert value is None or (np.isfinite(value) and value >= 0)


def test_the_two_numbers_do_not_slow_a_build(ecg):
    """About 55 µs together on one core; reading a record takes hundreds."""
    counts, mv_per_lsb = ecg

    def seconds():
        start = time.perf_counter()
        r_amplitude_mv(counts, mv_per_lsb, 500)
        limb_residual(counts, mv_per_lsb)
        return time.perf_counter() - start

    assert statistics.median(seconds() for _ in range(300)) < 250e-6
