"""Another sampling rate for many signals at once, on the device that they lie on.

The same filter, edges and gaps as `shards.signal.resample`, which does one record at a time while shards are built
(`scipy.signal.resample_poly` with padtype="line").
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgchat.errors import ModelError

LARGEST_TERM = 1000
"""Of the ratio of two sampling rates in lowest terms, as `shards.signal` has it."""

REACH = 10
"""Zero crossings of the filter's sinc on either side, as in scipy."""

KAISER_BETA = 5.0


def rate_ratio(fs_hz: float, sampling_rate_hz: float) -> Fraction:
    """Samples to make of each one.

    Args:
        fs_hz: the rate that an ECG has.
        sampling_rate_hz: the rate that it should have.

    Raises:
        ModelError: the two are in no ratio of numbers up to 1000.
    """
    exact = Fraction(sampling_rate_hz) / Fraction(fs_hz)
    ratio = exact.limit_denominator(LARGEST_TERM)
    # A millionth is 10 µs in a record of 10 s.
    if not 0 < ratio.numerator <= LARGEST_TERM or abs(ratio / exact - 1) > Fraction(1, 1_000_000):
        raise ModelError(
            f"sampling_rate_hz {sampling_rate_hz:g}: ECGs at {fs_hz:g} Hz cannot be brought to it, since the two are in no "
            f"ratio of numbers up to {LARGEST_TERM}; leave those ECGs out, or choose another rate"
        )
    return ratio


def resample(
    millivolts: Tensor, valid: Tensor | None, length: Tensor, ratio: Fraction, samples: int
) -> tuple[Tensor, Tensor | None]:
    """Bring signals to another sampling rate by a polyphase filter; sample 0 stays at time 0.

    A signal is continued on both sides by the straight line through its first and last sample, and gaps are bridged by
    straight lines; a new sample is not valid where its instant lies in a gap, next to one, or at or beyond the end.

    The device's matrix products have to be in full float32, as they are unless `torch.set_float32_matmul_precision` was
    called; under autocast they stay so.

    Args:
        millivolts: (batch, leads, most samples) float32, 0 where not valid; gaps in it are written over.
        valid: the same shape, bool; None where every sample is valid up to each length.
        length: (batch,) samples of each record that are there. On the CPU.
        ratio: the new rate by the old one.
        samples: how many to make of each signal.

    Returns:
        (batch, leads, samples) float32, 0 where not valid, and whether valid, None where all are.
    """
    _, leads, most = millivolts.shape
    up, down = ratio.numerator, ratio.denominator
    device = millivolts.device
    lengths = length.to(device, non_blocking=True)[:, None, None]
    beyond = torch.arange(most, device=device) >= lengths
    instants = torch.arange(0, samples * down, down, device=device)  # in steps of the common multiple of both rates
    there = (instants < lengths * up).expand(-1, leads, -1).clone()
    if valid is not None:
        before, after = instants // up, (instants + up - 1) // up
        _bridge_gaps(millivolts, valid, beyond, there, before.clamp(max=most - 1), after.clamp(max=most - 1))
    resampled = _filtered(millivolts, lengths, beyond, up, down, samples)
    if valid is None and int(length.min()) * up > (samples - 1) * down:
        return resampled, None
    return resampled.masked_fill_(~there, 0.0), there


def _bridge_gaps(signals: Tensor, valid: Tensor, beyond: Tensor, there: Tensor, before: Tensor, after: Tensor) -> None:
    """Draw straight lines over gaps, and mark in `there` the new samples whose neighbours, `before` and `after`, lie in one."""
    # Few signals have gaps, and bridging takes longer than the filter: worth one look at which they are.
    broken = (~(valid | beyond).all(2)).nonzero(as_tuple=True)
    known, outside = valid[broken], beyond[broken[0], 0]
    signals[broken] = _bridged(signals[broken], known).masked_fill_(outside, 0.0)
    whole = known | outside
    there[broken] &= whole[:, before] & whole[:, after]


def _bridged(signals: Tensor, valid: Tensor) -> Tensor:
    """(signals, samples) with straight lines over what is not valid; level before the first valid sample and after the last."""
    most = signals.shape[1]
    places = torch.arange(most, device=signals.device)
    before = places.where(valid, -1).cummax(1).values
    after = places.where(valid, most).flip(1).cummin(1).values.flip(1)
    before, after = before.where(before >= 0, after), after.where(after < most, before)
    share = (places - before) / (after - before).clamp(min=1)
    # A signal without any valid sample is 0 throughout, wherever it is read.
    return signals.gather(1, before.clamp(max=most - 1)).lerp(signals.gather(1, after.clamp(min=0)), share)


def _filtered(signals: Tensor, lengths: Tensor, beyond: Tensor, up: int, down: int, samples: int) -> Tensor:
    """(batch, leads, samples): each block of new samples is one product of a window of old ones with the filter's phases."""
    # A block as long as the filter: shorter ones gather each sample more often, longer ones multiply with more zeros.
    repeats = -(-2 * REACH * max(up, down) // (up * down))
    phases = _phases(up, down, repeats, signals.device)
    taps, block = phases.shape
    hop, blocks = repeats * down, -(-samples // block)
    continued = _continued(signals, lengths, beyond, REACH * max(up, down) // up, (blocks - 1) * hop + taps)
    with torch.autocast(signals.device.type, enabled=False):
        resampled = continued.unfold(2, taps, hop) @ phases
    return resampled.flatten(2)[:, :, :samples].contiguous()


def _continued(signals: Tensor, lengths: Tensor, beyond: Tensor, before: int, total: int) -> Tensor:
    """(batch, leads, total) that begin `before` samples early: outside, the line through the first and the last sample."""
    margins = (before, total - before - signals.shape[2])
    places = torch.arange(-before, total - before, dtype=torch.float32, device=signals.device)
    outside = F.pad(beyond.float(), margins, value=1.0)
    first, last = signals[:, :, :1], signals.gather(2, (lengths - 1).clamp(min=0).expand(-1, signals.shape[1], -1))
    slope = (last - first) / (lengths - 1).clamp(min=1)
    return F.pad(signals, margins).addcmul_(first, outside).addcmul_(slope, outside * places)


@lru_cache(maxsize=64)
def _phases(up: int, down: int, repeats: int, device: torch.device) -> Tensor:
    """(taps, repeats x up): what each old sample of a window adds to each new sample of a block.

    The window begins `reach` old samples before the block. The filter is a sinc that ends at the lower rate's Nyquist
    frequency, in a Kaiser window, as `scipy.signal.resample_poly` makes it.
    """
    half = REACH * max(up, down)
    reach = half // up
    fir = torch.sinc(torch.arange(-half, half + 1, dtype=torch.float64) / max(up, down))
    fir *= torch.kaiser_window(len(fir), periodic=False, beta=KAISER_BETA, dtype=torch.float64)
    fir *= up / fir.sum()
    new = torch.arange(repeats * up) * down  # in steps of the common multiple of both rates
    old = torch.arange(-reach, (int(new[-1]) + half) // up + 1) * up
    place = new - old[:, None] + half
    return fir[place.clamp(0, 2 * half)].where((place >= 0) & (place <= 2 * half), 0.0).float().to(device)
