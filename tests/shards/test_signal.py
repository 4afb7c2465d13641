"""The optional signal steps: published filters, leads from leads, another sampling rate, gaps that stay gaps."""

import numpy as np
import pytest
import scipy.signal
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.record import LEADS, RecordError
from shards.signal import baseline_filter, derive_leads, remove_baseline, remove_powerline, resample
from shards.simulate.case import draw_case, render

GAPS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 999), st.integers(1, 60)), max_size=6)


@pytest.fixture(scope="module")
def simulated():
    return render(draw_case(seed=4, number=2), 500)


@pytest.fixture(scope="module")
def cut_recordings(ptb_xl_folder):
    """(12, 5000) millivolts of twenty recordings of PTB-XL."""
    headers = sorted((ptb_xl_folder / "records500").rglob("*.hea"))[:20]
    return [wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T for header in headers]


def tone(frequency_hz, fs_hz, seconds=10.0):
    return np.tile(np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * fs_hz)) / fs_hz), (12, 1))


def with_gaps(mv, gaps):
    mv = mv.copy()
    for lead, start, length in gaps:
        mv[lead, start : start + length] = np.nan
    return mv


# --- baseline ---------------------------------------------------------------------------------------------------------


def test_the_baseline_filter_at_400_hz_has_the_published_coefficients():
    published = [
        [0.987384098, -0.987384098, 0, 1, -0.9811136421, 0],
        [1, -1.9999836002, 1, 1, -1.9935172217, 0.9936545538],
    ]
    np.testing.assert_allclose(baseline_filter(400.0), published, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fs_hz", [300.0, 400.0, 500.0, 1000.0])
def test_the_baseline_filter_has_the_published_gains_at_every_rate(fs_hz):
    frequencies = [0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 2, 10]
    published = [-46.5, -41.5, -41.7, -38.7, -14.5, -0.50, -0.08, -0.44, -0.03]
    _, response = scipy.signal.sosfreqz(baseline_filter(fs_hz), frequencies, fs=fs_hz)
    np.testing.assert_allclose(20 * np.log10(np.abs(response)), published, atol=0.06)


def test_baseline_removal_takes_breathing_out_and_leaves_what_is_faster_without_delay():
    fast, slow = tone(10, 400), tone(0.15, 400)
    after = remove_baseline(fast + slow, 400)
    inner = slice(1200, -1200)
    # Twice the single pass: 0.03 dB lost at 10 Hz twice, more than 80 dB taken at 0.15 Hz.
    np.testing.assert_allclose(after[:, inner], fast[:, inner] * 10 ** (-0.06 / 20), atol=0.01)


def test_baseline_removal_of_a_record_of_a_few_samples_is_refused_in_one_sentence():
    with pytest.raises(RecordError, match="--remove-baseline: expected at least 15 samples to filter, found 9"):
        remove_baseline(np.ones((12, 9)), 400)


def test_baseline_removal_takes_the_shortest_record_it_says_it_takes():
    assert remove_baseline(np.ones((12, 15)), 400).shape == (12, 15)


def test_baseline_removal_of_a_record_slower_than_its_filter_is_refused():
    with pytest.raises(RecordError, match="--remove-baseline: expected more than 1.6 Hz, found 1 Hz"):
        remove_baseline(np.ones((12, 500)), 1.0)


# --- mains ------------------------------------------------------------------------------------------------------------


def test_the_notch_at_60_hz_is_the_published_filter_run_both_ways(simulated):
    numerator, denominator = [0.98453371, -1.15738879, 0.98453371], [1, -1.15738879, 0.96906742]
    expected = scipy.signal.filtfilt(numerator, denominator, simulated, axis=1)
    np.testing.assert_allclose(remove_powerline(simulated, 400, 60), expected, atol=1e-5)


def test_the_notch_takes_the_hum_and_leaves_what_is_beside_it():
    after = remove_powerline(tone(50, 500) + tone(40, 500), 500, 50)
    np.testing.assert_allclose(after[:, 1000:-1000], tone(40, 500)[:, 1000:-1000], atol=0.02)


@pytest.mark.parametrize("frequency_hz", [50.0, 60.0])
def test_a_notch_at_or_above_half_the_rate_is_refused_with_its_flag(frequency_hz):
    with pytest.raises(RecordError, match=f"--powerline {frequency_hz:g}: at 100 Hz a record holds only what is below 50 Hz"):
        remove_powerline(np.ones((12, 1000)), 100, frequency_hz)


def test_a_notch_on_a_record_of_a_few_samples_is_refused_in_one_sentence():
    with pytest.raises(RecordError, match="--powerline: expected at least 10 samples to filter, found 9"):
        remove_powerline(np.ones((12, 9)), 400, 60)


# --- sampling rate ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, 3000), rates=st.sampled_from([(500, 400), (400, 500), (500, 100), (257, 500), (1000, 500)]))
def test_the_number_of_samples_is_the_ratio_of_the_rates_rounded_up(samples, rates):
    fs_hz, target_hz = rates
    assert resample(np.zeros((12, samples)), fs_hz, target_hz).shape == (12, -(-samples * target_hz // fs_hz))


def test_a_record_without_samples_has_none_at_another_rate():
    assert resample(np.zeros((12, 0)), 500, 400).shape == (12, 0)


@pytest.mark.parametrize(("fs_hz", "target_hz"), [(500, 400), (400, 500), (500, 100), (100, 500), (257.5, 500)])
def test_a_sine_keeps_its_frequency_size_and_place_at_another_rate(fs_hz, target_hz):
    expected = tone(7, target_hz)
    found = resample(tone(7, fs_hz), fs_hz, target_hz)[:, : expected.shape[1]]
    inner = slice(target_hz // 2, -target_hz // 2)
    np.testing.assert_allclose(found[:, inner], expected[:, inner], atol=0.005)


def test_the_same_rate_leaves_the_signal_as_it_is(simulated):
    assert resample(simulated, 500, 500) is simulated


def test_what_is_faster_than_the_new_rate_holds_is_taken_out_and_not_folded_down():
    assert np.abs(resample(tone(90, 500), 500, 100)[:, 100:-100]).max() < 0.02


def test_the_edges_of_a_real_recording_are_as_right_as_its_middle(cut_recordings):
    """Zeros beyond the edges would make errors of 16 µV in the median record."""
    worst = []
    for mv in cut_recordings:
        whole, cut = resample(mv, 500, 400), resample(mv[:, 1000:4000], 500, 400)
        apart = np.abs(cut - whole[:, 800:3200])
        worst.append(max(apart[:, :8].max(), apart[:, -8:].max()))
    assert np.median(worst) < 0.003


@pytest.mark.parametrize(("fs_hz", "target_hz"), [(500.0, 499.9), (360.0123, 500.0), (100.0, 999.9)])
def test_rates_without_a_ratio_of_small_numbers_are_refused_with_both_named(fs_hz, target_hz):
    with pytest.raises(RecordError, match=f"--rate {target_hz:g}: {fs_hz!r} Hz and .* Hz are not in a ratio"):
        resample(np.zeros((12, 100)), fs_hz, target_hz)


def test_a_rate_that_would_blow_a_record_up_is_refused():
    """A header that says 1 Hz would make 500 samples of each."""
    with pytest.raises(RecordError, match="--rate 500: from 1 Hz it would make 500 samples of each, expected at most 40"):
        resample(np.zeros((12, 5000)), 1.0, 500.0)


# --- gaps -------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(gaps=GAPS)
def test_filters_mark_the_same_samples_invalid_as_before_and_no_others(gaps):
    mv = with_gaps(render(draw_case(seed=4, number=2), 100), gaps)
    for after in (remove_baseline(mv, 100), remove_powerline(mv, 130, 50)):
        np.testing.assert_array_equal(np.isnan(after), np.isnan(mv))


@settings(max_examples=25, deadline=None)
@given(gaps=GAPS, target_hz=st.sampled_from([80, 125, 200, 500]))
def test_a_sample_at_another_rate_is_invalid_exactly_where_its_neighbours_were(gaps, target_hz):
    mv = with_gaps(render(draw_case(seed=4, number=2), 100), gaps)
    after = resample(mv, 100, target_hz)
    instants = np.arange(after.shape[1]) * 100 / target_hz
    before, behind = np.floor(instants).astype(int), np.minimum(np.ceil(instants).astype(int), 999)
    np.testing.assert_array_equal(np.isnan(after), np.isnan(mv[:, before]) | np.isnan(mv[:, behind]))


def test_a_gap_does_not_reach_beyond_itself(simulated):
    """Zeros in place of the gap would ring: 0.05 mV beside it at another rate, 0.5 mV for a second in the high-pass."""
    mv = simulated + 3.0
    holed = mv.copy()
    holed[:, 2000:2050] = np.nan
    assert np.nanmax(np.abs(resample(holed, 500, 400) - resample(mv, 500, 400))) < 0.02
    assert np.nanmax(np.abs(remove_baseline(holed, 500) - remove_baseline(mv, 500))) < 0.02


def test_a_lead_without_any_valid_sample_stays_so(simulated):
    mv = simulated.copy()
    mv[7] = np.nan
    for after in (resample(mv, 500, 400), remove_baseline(mv, 500), remove_powerline(mv, 500, 50)):
        assert np.isnan(after[7]).all()
        assert np.isfinite(np.delete(after, 7, axis=0)).all()


def test_no_step_writes_into_what_it_was_given(simulated):
    mv = simulated.copy()
    mv[2], mv[5, 100:200] = np.nan, np.nan
    before = mv.copy()
    for step in (lambda x: resample(x, 500, 400), lambda x: remove_baseline(x, 500), derive_leads):
        step(mv)
        np.testing.assert_array_equal(mv, before)


# --- leads ------------------------------------------------------------------------------------------------------------


@given(kept=st.sets(st.integers(0, 5), min_size=2, max_size=6))
def test_any_two_limb_leads_determine_the_other_four(kept):
    whole = render(draw_case(seed=4, number=2), 100)
    mv = whole.copy()
    mv[[lead for lead in range(6) if lead not in kept]] = np.nan
    np.testing.assert_allclose(derive_leads(mv), whole, atol=1e-12)


def test_a_lead_that_is_there_is_never_touched_even_where_the_others_contradict_it(simulated):
    mv = simulated.copy()
    mv[3] = 42.0
    mv[4] = np.nan
    after = derive_leads(mv)
    np.testing.assert_array_equal(np.delete(after, 4, axis=0), np.delete(mv, 4, axis=0))
    np.testing.assert_allclose(after[4], mv[0] - mv[1] / 2, atol=1e-12)


def test_a_lead_that_is_there_in_part_is_not_filled_up(simulated):
    mv = simulated.copy()
    mv[2, :4000] = np.nan
    np.testing.assert_array_equal(derive_leads(mv), mv)


def test_one_limb_lead_alone_determines_nothing(simulated):
    mv = simulated.copy()
    mv[1:6] = np.nan
    np.testing.assert_array_equal(derive_leads(mv), mv)


def test_chest_leads_are_never_invented(simulated):
    mv = simulated.copy()
    mv[2:] = np.nan
    after = derive_leads(mv)
    assert [lead for lead, row in zip(LEADS, after, strict=True) if np.isnan(row).all()] == list(LEADS[6:])


def test_a_derived_lead_is_invalid_where_one_it_comes_from_is(simulated):
    mv = simulated.copy()
    mv[2:6] = np.nan
    mv[0, 10:20] = np.nan
    assert np.isnan(derive_leads(mv)[2]).sum() == 10


def test_real_recordings_without_their_derived_leads_get_them_back(cut_recordings):
    """PTB-XL's own III, aVR, aVL and aVF, but for its rounding to whole counts."""
    for mv in cut_recordings:
        bare = mv.copy()
        bare[2:6] = np.nan
        np.testing.assert_allclose(derive_leads(bare), mv, atol=0.0021)
