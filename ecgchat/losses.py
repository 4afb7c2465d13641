"""Losses as sums with counts, so that an average is over what was really there, on any number of ranks.

Contrastive and caption loss of CoCa (Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""(n, …) of this rank → (W n, …) of all ranks in rank order; gradients flow back to the rank that they belong to."""


def contrastive_loss(
    ecg_latent: Tensor, text_latent: Tensor, logit_scale: Tensor, weight: Tensor, gather: Gather, rank: int
) -> Tensor:
    """Sum over this rank's pairs of the symmetric InfoNCE loss against all pairs of the global batch.

    Each rank computes the rows of its own pairs only, so that memory grows with n times the global batch and not with its
    square; the sum over the ranks is the loss over the global batch.

    Args:
        ecg_latent: (n, latent width), normalised.
        text_latent: (n, latent width), normalised.
        logit_scale: scalar inverse temperature.
        weight: (n,) 1 for a pair, 0 for padding, which neither counts nor serves as a negative.
        gather: collects over the ranks.
        rank: of this process among those gathered.

    Returns:
        Scalar; divide by the pairs of the global batch.
    """
    all_ecg, all_text, all_weight = gather(ecg_latent), gather(text_latent), gather(weight)
    padding = torch.zeros_like(all_weight).masked_fill(all_weight == 0, float("-inf"))
    own = rank * len(weight) + torch.arange(len(weight), device=weight.device)
    # Padded rows would be -inf everywhere; their own place is kept finite and weighs nothing.
    unmasked = padding.expand(len(weight), -1).scatter(1, own[:, None], 0.0)
    ecg_to_text = logit_scale * ecg_latent @ all_text.T + unmasked  # (n, W n)
    text_to_ecg = logit_scale * text_latent @ all_ecg.T + unmasked
    losses = F.cross_entropy(ecg_to_text.float(), own, reduction="none")
    losses = losses + F.cross_entropy(text_to_ecg.float(), own, reduction="none")
    return (losses * weight).sum() / 2


def caption_loss(logits: Tensor, tokens: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Sum of the next-token losses of this rank's reports, and how many tokens it is over.

    Args:
        logits: (n, length - 1, vocabulary): position i is about token i + 1.
        tokens: (n, length) ids, padded on the right.
        pad_token_id: what the padding is made of.

    Returns:
        Two scalars: the sum and the count.
    """
    wanted = tokens[:, 1:]
    total = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=pad_token_id, reduction="sum")
    return total, (wanted != pad_token_id).sum()
