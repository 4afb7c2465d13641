"""Leads by name, units by name, and counts kept exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.record import (
    INVALID,
    LEADS,
    RecordError,
    arrange_leads,
    keep_digital,
    millivolts_per_unit,
    quantise,
    sample_key,
    signal_quality,
    standard_lead,
    to_millivolts,
)


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("AVR", "aVR"),
        ("avl", "aVL"),
        ("DI", "I"),
        ("DII", "II"),
        ("DIII", "III"),
        ("lead v1", "V1"),
        (" V6 ", "V6"),
        ("ECG I", "I"),
    ],
)
def test_publishers_names_mean_standard_leads(name, lead):
    assert standard_lead(name) == lead


@pytest.mark.parametrize("name", ["", "V7", "X", "resp", "MLII", "D", "IV"])
def test_other_channels_are_no_lead(name):
    assert standard_lead(name) is None


def test_leads_are_arranged_by_name_and_not_by_position():
    mimic = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert [mimic[i] for i in arrange_leads(mimic, "x")] == list(LEADS)


def test_a_missing_lead_is_named():
    with pytest.raises(RecordError, match=r"r.hea: expected the leads I, .*V6 missing; mend"):
        arrange_leads([*LEADS[:11], "V66"], "r.hea")


def test_a_lead_given_twice_is_named():
    with pytest.raises(RecordError, match="lead I stands for more than one"):
        arrange_leads([*LEADS, "DI"], "r.hea")


def test_units_are_converted_by_their_name():
    assert [millivolts_per_unit(unit) for unit in ("mV", "uV", "µV", "V", "mmHg")] == [1, 1e-3, 1e-3, 1e3, None]


@given(arrays(np.int16, (12, 7), elements=st.integers(-32767, 32767)))
def test_sixteen_bit_counts_are_kept_exactly(counts):
    ecg, scale = keep_digital(counts, np.zeros(12, int), np.full(12, 0.001), np.zeros(counts.shape, bool))
    assert np.array_equal(ecg, counts)
    assert scale == [0.001] * 12


def test_counts_that_leave_the_range_less_their_baseline_are_quantised_and_never_clipped():
    counts = np.zeros((12, 3), int)
    counts[4] = [32000, -32000, 0]
    baseline = np.full(12, -5000)
    ecg, scale = keep_digital(counts, baseline, np.full(12, 0.005), np.zeros(counts.shape, bool))
    expected = (counts + 5000) * 0.005
    assert np.all(np.abs(to_millivolts(ecg, scale) - expected) <= np.array(scale)[:, None] / 2 + 1e-12)


@given(arrays(np.float64, (12, 5), elements=st.floats(-80, 80)))
def test_float_signals_are_at_most_half_a_step_off(signal):
    ecg, scale = quantise(signal)
    step = np.array(scale)[:, None]
    assert np.all(np.abs(to_millivolts(ecg, scale) - signal) <= step / 2 + 1e-12)
    assert np.all(step[np.abs(signal).max(axis=1) < 32] == 0.001)


def test_what_is_not_a_number_becomes_invalid():
    signal = np.zeros((12, 3))
    signal[2] = [np.nan, np.inf, 0]
    ecg, scale = quantise(signal)
    assert ecg[2].tolist() == [INVALID, INVALID, 0]
    assert np.isnan(to_millivolts(ecg, scale)[2]).tolist() == [True, True, False]


def test_quality_names_flat_missing_and_clipped_leads():
    ecg = np.tile(np.arange(10, dtype=np.int16), (12, 1))
    ecg[1] = 5
    ecg[3, :2] = 32767
    ecg[6] = INVALID
    quality = signal_quality(ecg)
    assert quality["flat_leads"] == ["II"]
    assert quality["missing_leads"] == ["V1"]
    assert quality["clipped_leads"] == ["aVR"]
    assert quality["invalid_fraction"] == pytest.approx(1 / 12, abs=1e-6)


def test_a_key_holds_no_dot():
    assert sample_key("ptb-xl", "a.b/c 1") == "ptb-xl-a_b_c_1"
