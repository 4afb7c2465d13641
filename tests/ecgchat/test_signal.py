"""Batches as models want them: millivolts, one sampling rate, one length, and which samples are valid.

What a single record becomes is `shards.signal.resample`'s to say, which is tested against scipy and recordings by itself.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgchat.errors import ModelError
from ecgchat.models.signal import counts_to_millivolts, prepare_ecgs
from shards.record import INVALID
from shards.signal import resample
from shards.simulate.case import draw_case, render
from shards.sources.ptb_xl import PtbXl
from shards.sources.sami_trop import SamiTrop

RATES = [(500, 400), (400, 500), (1000, 500), (500, 250), (257, 500), (360, 500)]


@dataclass(frozen=True)
class Recording:
    """Counts as a shard holds them."""

    counts: np.ndarray
    mv_per_lsb: np.ndarray
    fs_hz: float

    @property
    def millivolts(self):
        return np.where(self.counts == INVALID, np.nan, self.counts * self.mv_per_lsb[:, None].astype(np.float64))

    def at(self, fs_hz):
        """The same samples, as if they had been taken at another rate."""
        return Recording(self.counts, self.mv_per_lsb, fs_hz)

    def first(self, samples):
        return Recording(self.counts[:, :samples], self.mv_per_lsb, self.fs_hz)

    def without(self, *gaps):
        counts = self.counts.copy()
        for lead, gap in gaps:
            counts[lead, gap] = INVALID
        return Recording(counts, self.mv_per_lsb, self.fs_hz)


PADDING = Recording(np.empty((12, 0), np.int16), np.zeros(12, np.float32), 0)


def read(source, count):
    records = map(source.read, source.plan().records[:count])
    return [Recording(record.ecg, np.float32(record.mv_per_lsb), record.fs_hz) for record in records]


@pytest.fixture(scope="module")
def ptb_xl(ptb_xl_folder):
    return read(PtbXl(ptb_xl_folder), 8)


@pytest.fixture(scope="module")
def simulated():
    cases = [render(draw_case(seed=4, number=number), 500) for number in range(1, 5)]
    return [Recording(np.rint(mv * 1000).astype(np.int16), np.full(12, 0.001, np.float32), 500) for mv in cases]


def batch_of(recordings, in_millivolts=False, most=None):
    """What a loader makes of them, in the order in which `prepare_ecgs` takes it."""
    most = most or max(recording.counts.shape[1] for recording in recordings)
    ecg = np.full((len(recordings), 12, most), INVALID, np.int16)
    for row, recording in zip(ecg, recordings, strict=True):
        row[:, : recording.counts.shape[1]] = recording.counts
    scale = np.stack([recording.mv_per_lsb for recording in recordings])
    if in_millivolts:
        ecg = np.where(ecg == INVALID, np.float32(np.nan), ecg * scale[:, :, None])
    return (
        torch.from_numpy(ecg),
        torch.from_numpy(scale),
        torch.tensor([recording.counts.shape[1] for recording in recordings]),
        torch.tensor([recording.fs_hz for recording in recordings], dtype=torch.float32),
    )


def prepared(recordings, target_hz, samples, dtype=torch.float32, in_millivolts=False, most=None, has_invalid=True):
    return prepare_ecgs(*batch_of(recordings, in_millivolts, most), target_hz, samples, dtype, has_invalid)


def expected(recording, target_hz, samples):
    """(12, samples) millivolts, NaN where not valid, of one record alone."""
    mv = recording.millivolts
    if mv.shape[1] and recording.fs_hz != target_hz:
        mv = resample(mv, recording.fs_hz, target_hz)
    whole = np.full((12, samples), np.nan)
    whole[:, : mv.shape[1]] = mv[:, :samples]
    return whole


def check(recordings, target_hz, samples, atol=1e-4, **options):
    millivolts, valid = prepared(recordings, target_hz, samples, **options)
    wanted = np.stack([expected(recording, target_hz, samples) for recording in recordings])
    if valid is None:
        assert not np.isnan(wanted).any()
    else:
        np.testing.assert_array_equal(valid.numpy(), ~np.isnan(wanted))
    np.testing.assert_allclose(millivolts.numpy(), np.nan_to_num(wanted), rtol=0, atol=atol)
    return millivolts, valid


# --- counts to millivolts ---------------------------------------------------------------------------------------------


def test_counts_become_what_they_stand_for_to_the_last_bit_with_and_without_the_search_for_invalid_ones(ptb_xl):
    ecg, scale, _, _ = batch_of(ptb_xl)
    for has_invalid in (True, False):
        assert torch.equal(counts_to_millivolts(ecg, scale, has_invalid=has_invalid), ecg.float() * scale[:, :, None])


def test_records_at_the_wanted_rate_pass_to_the_last_bit(ptb_xl):
    ecg, scale, _, _ = batch_of(ptb_xl)
    millivolts, valid = prepared(ptb_xl, 500, 5000, has_invalid=False)
    assert torch.equal(millivolts, ecg.float() * scale[:, :, None])
    assert valid is None


@pytest.mark.parametrize("in_millivolts", [False, True])
@pytest.mark.parametrize("samples", [3000, 5000, 6000])
def test_records_at_the_wanted_rate_are_cut_or_padded_at_the_end(ptb_xl, samples, in_millivolts):
    gap = ptb_xl[1].without((0, slice(None)), (3, slice(100, 200)))
    check([ptb_xl[0], gap, ptb_xl[2].first(2500), PADDING], 500, samples, atol=1e-6, in_millivolts=in_millivolts)


def test_millivolts_at_the_wanted_rate_are_not_copied(ptb_xl):
    batch = batch_of(ptb_xl, in_millivolts=True)
    assert prepare_ecgs(*batch, 500, 5000, torch.float32, has_invalid=False)[0].data_ptr() == batch[0].data_ptr()


# --- another rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fs_hz", "target_hz"), RATES)
def test_recordings_become_what_resampling_one_by_one_makes_of_them(ptb_xl, fs_hz, target_hz):
    samples = 5000 * target_hz // fs_hz
    millivolts, valid = check([recording.at(fs_hz) for recording in ptb_xl], target_hz, samples, 1e-5, has_invalid=False)
    assert millivolts.is_contiguous()
    assert valid is None


def test_recordings_of_another_recorder_become_what_resampling_one_by_one_makes_of_them(recordings):
    check(read(SamiTrop(recordings("sami-trop")), 8), 500, 5000)


@pytest.mark.parametrize("in_millivolts", [False, True])
@pytest.mark.parametrize(("fs_hz", "target_hz"), RATES)
def test_gaps_missing_leads_short_records_and_padding_in_one_batch_are_as_if_each_were_alone(
    ptb_xl, simulated, fs_hz, target_hz, in_millivolts
):
    rows = [
        ptb_xl[0],
        ptb_xl[1].without((0, slice(1000, 1100)), (0, slice(1101, 1102)), (5, slice(4999, 5000)), (11, slice(0, 3))),
        ptb_xl[2].without((6, slice(None)), (7, slice(1, None)), (8, slice(None, 4999))),
        PADDING,
        ptb_xl[3].first(1234),
        simulated[0].first(2001).without((2, slice(1900, None)), (3, slice(None)), (4, slice(0, 2000))),
        simulated[1].first(30),
    ]
    rows = [row.at(fs_hz) if row.fs_hz else row for row in rows]
    check(rows, target_hz, 5000 * target_hz // fs_hz, 2e-5, in_millivolts=in_millivolts)


def test_records_of_many_rates_in_one_batch_are_as_if_each_were_alone(ptb_xl, simulated):
    rates = [500, 400, 257, PADDING, 360, 1000, 400, 1000 / 3, 500]
    rows = [ptb_xl[i % 8].at(rate) if rate is not PADDING else PADDING for i, rate in enumerate(rates)]
    rows[6] = rows[6].first(4000).without((1, slice(500, 700)))
    check(rows, 500, 5000, 2e-5)
    _, valid = prepared([ptb_xl[0], ptb_xl[1].at(400)], 500, 5000, has_invalid=False)
    assert valid is None


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(2, 400), st.sampled_from([100, 250, 257, 400, 500, 1000])), min_size=1, max_size=5),
    gaps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11), st.integers(0, 399), st.integers(1, 60)), max_size=5),
    samples=st.integers(1, 700),
    target_hz=st.sampled_from([100, 250, 500]),
)
def test_whatever_the_lengths_rates_and_gaps_a_batch_is_its_records_one_by_one(simulated, shapes, gaps, samples, target_hz):
    rows = [simulated[i % 4].first(length).at(rate) for i, (length, rate) in enumerate(shapes)]
    for row, lead, start, length in gaps:
        if row < len(rows):
            rows[row] = rows[row].without((lead, slice(start, start + length)))
    check(rows, target_hz, samples, 2e-5, most=400)


def test_a_record_does_not_depend_on_the_others_nor_on_how_long_they_are(ptb_xl):
    record = ptb_xl[0].first(2000).without((4, slice(300, 400)))
    loud = Recording(np.full((12, 5000), 32767, np.int16), np.ones(12, np.float32), 500)
    alone, alone_valid = prepared([record], 400, 4000)
    among, among_valid = prepared([loud, record, loud.at(360), PADDING], 400, 4000)
    assert torch.equal(among_valid[1], alone_valid[0])
    assert torch.allclose(among[1], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fs_hz", [250, 257, 360, 400, 1000])
def test_positions_mean_seconds_at_every_rate(fs_hz):
    def tone(rate):
        return np.tile(np.sin(2 * np.pi * 7 * np.arange(round(10 * rate)) / rate), (12, 1))

    wave = Recording(np.rint(tone(fs_hz) * 10_000).astype(np.int16), np.full(12, 1e-4, np.float32), fs_hz)
    millivolts, _ = prepared([wave], 500, 5000)
    inner = slice(100, -100)
    np.testing.assert_allclose(millivolts[0, :, inner].numpy(), tone(500)[:, inner], atol=2e-3)


def test_a_level_stays_that_level_to_its_very_ends():
    level = Recording(np.full((12, 777), 2000, np.int16), np.full(12, 0.001, np.float32), 400)
    millivolts, valid = prepared([level], 500, 1500, most=1200)
    assert valid.sum(2).unique().tolist() == [972]
    assert torch.allclose(millivolts[valid], torch.tensor(2.0), atol=2e-3)
    assert not millivolts[~valid].any()


def test_a_record_of_one_sample_becomes_that_sample():
    one = Recording(np.full((12, 1), 2000, np.int16), np.full(12, 0.001, np.float32), 500)
    millivolts, valid = prepared([one], 400, 10, most=50)
    assert valid[:, :, 0].all()
    assert not valid[:, :, 1:].any()
    assert torch.allclose(millivolts[:, :, 0], torch.tensor(2.0), atol=5e-3)


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_hz", [400, 500])
def test_padding_is_zeros_and_nowhere_valid(ptb_xl, target_hz):
    for rows in ([PADDING, PADDING], [PADDING, ptb_xl[0], PADDING]):
        millivolts, valid = prepared(rows, target_hz, 1000, most=5000)
        assert not millivolts[[0, -1]].any()
        assert not valid[[0, -1]].any()


@pytest.mark.parametrize("rates", [(500, 500), (400, 400), (500, 400), (1000, 257)])
def test_a_mask_is_given_as_soon_as_one_record_ends_before_the_wanted_length(ptb_xl, rates):
    rows = [recording.at(rate) for recording, rate in zip(ptb_xl, rates, strict=False)]
    made = [-(-5000 * 500 // rate) for rate in rates]
    assert prepared(rows, 500, min(made), has_invalid=False)[1] is None
    _, valid = prepared(rows, 500, min(made) + 1, has_invalid=False)
    assert valid.sum(2)[:, 0].tolist() == [min(count, min(made) + 1) for count in made]


def test_a_batch_of_none_is_one():
    batch = (torch.empty(0, 12, 100, dtype=torch.int16), torch.empty(0, 12), torch.empty(0), torch.empty(0))
    assert prepare_ecgs(*batch, 500, 80, torch.float32)[0].shape == (0, 12, 80)


@pytest.mark.parametrize("in_millivolts", [False, True])
def test_the_batch_is_left_as_it_was(ptb_xl, in_millivolts):
    rows = [ptb_xl[0].without((0, slice(10, 20))), ptb_xl[1]]
    for target_hz in (400, 500):
        batch = batch_of(rows, in_millivolts)
        prepare_ecgs(*batch, target_hz, 5000, torch.float32)
        assert torch.equal(batch[0].nan_to_num(7), batch_of(rows, in_millivolts)[0].nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_numbers_are_rounded_once_at_the_end(ptb_xl, dtype):
    for rows in ([ptb_xl[0]], [ptb_xl[0].at(400)], [ptb_xl[0], ptb_xl[1].at(400)]):
        exact, _ = prepared(rows, 500, 5000)
        with torch.autocast("cpu", torch.bfloat16):
            narrow, _ = prepared(rows, 500, 5000, dtype)
        assert torch.equal(narrow, exact.to(dtype))


@pytest.mark.gpu
def test_a_gpu_makes_of_a_batch_what_the_cpu_makes_of_it(ptb_xl):
    rows = [ptb_xl[0], ptb_xl[1].at(400), ptb_xl[2].at(257).first(2000).without((3, slice(100, 200))), PADDING]
    millivolts, valid = prepared(rows, 500, 5000)
    ecg, scale, length, fs_hz = batch_of(rows)
    on_gpu, valid_on_gpu = prepare_ecgs(ecg.cuda(), scale.cuda(), length, fs_hz, 500, 5000, torch.float32)
    assert torch.equal(valid_on_gpu.cpu(), valid)
    assert torch.allclose(on_gpu.cpu(), millivolts, rtol=0, atol=2e-5)


# --- what cannot be done ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs_hz", [499.871, 0.1, 999_983.0])
def test_a_rate_that_cannot_be_reached_is_named(ptb_xl, fs_hz):
    with pytest.raises(ModelError, match=f"sampling_rate_hz 500: ECGs at {fs_hz:g} Hz cannot be brought to it"):
        prepared([ptb_xl[0], ptb_xl[1].at(fs_hz)], 500, 5000)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64])
def test_signals_that_are_neither_counts_nor_millivolts_are_refused(ptb_xl, dtype):
    ecg, *others = batch_of(ptb_xl)
    with pytest.raises(ModelError, match=f"ecg: expected counts in int16 or millivolts in float32, found {dtype}"):
        prepare_ecgs(ecg.to(dtype), *others, 500, 5000, torch.float32)
