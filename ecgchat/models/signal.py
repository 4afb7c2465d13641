"""From stored counts to what a model reads."""

from __future__ import annotations

import torch
from torch import Tensor

from shards.record import INVALID


def counts_to_millivolts(ecg: Tensor, mv_per_lsb: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Millivolts on the device that the counts lie on; samples that are not valid become 0.

    Args:
        ecg: (batch, 12, samples) int16.
        mv_per_lsb: (batch, 12) float.
        dtype: what the model computes in.
    """
    millivolts = ecg.float() * mv_per_lsb[:, :, None]
    return millivolts.masked_fill(ecg == INVALID, 0.0).to(dtype)
