"""From stored counts to what a model reads: millivolts at its sampling rate, as long as it wants them.

Everything happens to a whole batch on the device that it lies on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgchat.errors import ModelError
from ecgchat.models.resample import rate_ratio, resample
from shards.record import INVALID


def counts_to_millivolts(
    ecg: Tensor, mv_per_lsb: Tensor, dtype: torch.dtype = torch.float32, has_invalid: bool = True
) -> Tensor:
    """Millivolts on the device that the counts lie on; samples that are not valid become 0.

    Args:
        ecg: (batch, 12, samples) int16.
        mv_per_lsb: (batch, 12) float.
        dtype: what the model computes in.
        has_invalid: False says that every sample is valid, and saves the search.
    """
    return _millivolts(ecg, mv_per_lsb, has_invalid).to(dtype)


def prepare_ecgs(
    ecg: Tensor,
    mv_per_lsb: Tensor,
    length: Tensor,
    fs_hz: Tensor,
    sampling_rate_hz: float,
    samples: int,
    dtype: torch.dtype,
    has_invalid: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """A loader's batch as a model wants it: in millivolts, at one sampling rate, cut or padded at the end to one length.

    A record at another rate is resampled as `shards.signal.resample` does it, as if it were alone: neither padding nor the
    records beside it change it. Sample 0 stays at time 0. Computing is in float32, whatever `dtype` is.

    The host waits for the device only where there is something to resample and `has_invalid`, once for each such rate.

    Args:
        ecg: (batch, 12, most samples) int16 counts, or float32 millivolts, which are never written to; `INVALID` or NaN where
            a sample is not valid and beyond a record's end.
        mv_per_lsb: (batch, 12) float, beside `ecg`; not read where that is in millivolts.
        length: (batch,) samples of each record that are there, 0 for padding. On the CPU.
        fs_hz: (batch,) sampling rate of each record, 0 for padding. On the CPU.
        sampling_rate_hz: the wanted rate.
        samples: the wanted length.
        dtype: what the model computes in.
        has_invalid: False says that there is no such sample in `ecg` at all, beyond a record's end either.

    Returns:
        (batch, 12, samples) millivolts, 0 where not valid, and (batch, 12, samples) bool, True where valid: None where all
        are known to be.

    Raises:
        ModelError: the signals are neither int16 nor float32, or a rate is in no ratio of small numbers to the wanted one.
    """
    if ecg.dtype not in (torch.int16, torch.float32):
        raise ModelError(f"ecg: expected counts in int16 or millivolts in float32, found {ecg.dtype}; convert the batch first")
    fs_hz = fs_hz.where(fs_hz > 0, sampling_rate_hz)  # padding has no rate, and needs no resampling
    rates = fs_hz.unique().tolist()
    if len(rates) == 1:
        millivolts, valid = _at_one_rate(ecg, mv_per_lsb, length, rates[0], sampling_rate_hz, samples, has_invalid)
        return millivolts.to(dtype), valid
    millivolts = torch.empty((*ecg.shape[:2], samples), dtype=dtype, device=ecg.device)
    valid = torch.ones(millivolts.shape, dtype=torch.bool, device=ecg.device)
    all_valid = True
    for rate in rates:
        rows = (fs_hz == rate).nonzero()[:, 0]
        there = rows.to(ecg.device, non_blocking=True)
        part, part_valid = _at_one_rate(
            ecg[there], mv_per_lsb[there], length[rows], rate, sampling_rate_hz, samples, has_invalid
        )
        millivolts[there] = part.to(dtype)
        if part_valid is not None:
            valid[there] = part_valid
            all_valid = False
    return millivolts, None if all_valid else valid


def _at_one_rate(
    ecg: Tensor, mv_per_lsb: Tensor, length: Tensor, fs_hz: float, sampling_rate_hz: float, samples: int, has_invalid: bool
) -> tuple[Tensor, Tensor | None]:
    """As `prepare_ecgs`, for rows that share a rate; float32."""
    ratio = rate_ratio(fs_hz, sampling_rate_hz)
    if ratio == 1:
        has_invalid |= ecg.shape[2] < samples
        ecg = _cut_or_pad(ecg, samples)
    millivolts, valid = _millivolts(ecg, mv_per_lsb, has_invalid), _valid(ecg) if has_invalid else None
    return (millivolts, valid) if ratio == 1 else resample(millivolts, valid, length, ratio, samples)


def _millivolts(ecg: Tensor, mv_per_lsb: Tensor, has_invalid: bool) -> Tensor:
    """Float32 millivolts, 0 where not valid; the very tensor given where it is that already."""
    if ecg.is_floating_point():
        return ecg.nan_to_num(0.0) if has_invalid else ecg
    millivolts = ecg.float()
    if has_invalid:
        F.threshold(millivolts, INVALID, 0.0, inplace=True)  # the smallest count there is; several times faster than a mask
    return millivolts.mul_(mv_per_lsb[:, :, None])


def _valid(ecg: Tensor) -> Tensor:
    return ~ecg.isnan() if ecg.is_floating_point() else ecg != INVALID


def _cut_or_pad(ecg: Tensor, samples: int) -> Tensor:
    missing = samples - ecg.shape[2]
    if missing <= 0:
        return ecg[:, :, :samples]
    return F.pad(ecg, (0, missing), value=torch.nan if ecg.is_floating_point() else INVALID)
