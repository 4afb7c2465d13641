"""The ECG tower: a one-dimensional vision transformer over patches of the twelve leads.

Architecture of ECG-Chat's ECG-CoCa (Zhao et al., ECG-Chat, arXiv 2408.08849): patches by a strided convolution without
bias, a class token in front, learned positions, a norm, pre-norm blocks, a norm, and a projection of the class token.
Published size: width 768, 12 layers, 12 heads, patches of 50 samples, 10 s at 500 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ecgchat.models.blocks import Block
from shards.record import LEADS


@dataclass(frozen=True)
class EcgTowerConfig:
    """What ECG the tower reads, and its size."""

    sampling_rate_hz: float = 500
    duration_s: float = 10
    patch_samples: int = 50
    """Samples of a patch; the length of the ECG is a multiple of it."""
    width: int = 768
    layers: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        if min(self.samples, self.patch_samples, self.width, self.layers, self.heads) < 1:
            raise ValueError("model.ecg: rate, duration, patch, width, layers and heads are all at least 1")
        if self.samples % self.patch_samples:
            raise ValueError(
                f"model.ecg.patch_samples {self.patch_samples} does not divide the {self.samples} samples of "
                f"{self.duration_s:g} s at {self.sampling_rate_hz:g} Hz; choose a divisor"
            )
        if self.width % self.heads:
            raise ValueError(f"model.ecg.heads {self.heads} does not divide model.ecg.width {self.width}; choose a divisor")

    @property
    def samples(self) -> int:
        """Samples of each lead."""
        return round(self.sampling_rate_hz * self.duration_s)

    @property
    def patches(self) -> int:
        """Patches of an ECG, which is also its number of patch tokens."""
        return self.samples // self.patch_samples


class EcgTowerOutput(NamedTuple):
    """What the tower knows of an ECG, in the two forms that two kinds of reader were trained on."""

    latent: Tensor
    """(batch, latent width): the projected class token, not normalised."""
    patch_tokens_after_norm: Tensor
    """(batch, patches, width): without the class token, after the last norm. The caption decoder reads these."""
    all_tokens_before_norm: Tensor
    """(batch, 1 + patches, width): class token first, before the last norm. ECG-Chat and GEM feed these to an LLM."""


class EcgTower(nn.Module):
    """ECG → latent and tokens.

    Args:
        config: what it reads, and its size.
        latent_width: channels of the space that ECG and text share.
    """

    def __init__(self, config: EcgTowerConfig, latent_width: int) -> None:
        super().__init__()
        self.patch = nn.Conv1d(len(LEADS), config.width, config.patch_samples, config.patch_samples, bias=False)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(1 + config.patches, config.width))
        self.norm_first = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm_last = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, latent_width, bias=False)

    @torch.no_grad()
    def initialise(self) -> None:
        """Random class token and positions, of deviation 1 / sqrt(width)."""
        for parameter in (self.class_token, self.positions):
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)

    def forward(self, millivolts: Tensor) -> EcgTowerOutput:
        """(batch, 12, samples) in millivolts."""
        patches = self.patch(millivolts).transpose(1, 2)  # (batch, patches, width)
        class_token = self.class_token.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = self.norm_first(torch.cat([class_token, patches], dim=1) + self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        normed = self.norm_last(tokens)
        return EcgTowerOutput(self.projection(normed[:, 0]), normed[:, 1:], tokens)
