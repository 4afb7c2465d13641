"""How well an encoder puts ECGs beside their texts: retrieval, and findings without a classifier. Each with its chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

RANKS = (1, 5, 10)


def retrieval(ecg: Tensor, text: Tensor, text_id: Sequence[str]) -> dict[str, dict[str, float]]:
    """Recall at 1, 5 and 10, ECG → text and text → ECG. A record with the same text counts as found.

    Args:
        ecg: (records, width), normalised.
        text: (records, width), normalised; row i belongs to ECG i.
        text_id: (records,) equal for equal texts.

    Returns:
        Name → value and chance: that of a random order, which equal texts raise.
    """
    ids = np.unique(np.asarray(text_id), return_inverse=True)[1]
    same = torch.from_numpy(ids[:, None] == ids[None, :])
    similarity = ecg @ text.T
    results = {}
    for name, scores in (("ecg_to_text", similarity), ("text_to_ecg", similarity.T)):
        best = scores.masked_fill(~same, float("-inf")).max(dim=1).values
        ahead = ((scores > best[:, None]) & ~same).sum(dim=1)
        for rank in RANKS:
            results[f"{name}_recall_at_{rank}"] = {
                "value": float((ahead < rank).float().mean()),
                "chance": float(np.mean([_chance(len(ids), int(matches), rank) for matches in same.sum(dim=1)])),
            }
    return results


def zero_shot(
    ecg: Tensor, prompts: Mapping[str, Tensor], labels: Mapping[str, Sequence[int | None]]
) -> dict[str, dict[str, Any]]:
    """AUROC of each finding, scored by the similarity of an ECG to the finding's prompt.

    Args:
        ecg: (records, width), normalised.
        prompts: finding → (width,), normalised.
        labels: finding → (records,) 1, 0, or None where unknown; those are left out.

    Returns:
        Finding → value, chance, and how many have it; findings that all or none have are absent. `macro` is their mean.
    """
    results: dict[str, dict[str, Any]] = {}
    for finding, direction in prompts.items():
        known = [i for i, label in enumerate(labels[finding]) if label is not None]
        truth = [labels[finding][i] for i in known]
        if 0 < sum(map(bool, truth)) < len(truth):
            scores = (ecg[known] @ direction).numpy()
            results[finding] = {"value": float(roc_auc_score(truth, scores)), "chance": 0.5, "positive": sum(map(bool, truth))}
    if results:
        results["macro"] = {"value": float(np.mean([row["value"] for row in results.values()])), "chance": 0.5}
    return results


def _chance(records: int, matches: int, rank: int) -> float:
    """Probability that one of `matches` lies among the first `rank` of a random order: 1 - C(n - m, k) / C(n, k)."""
    missed = 1.0
    for i in range(min(rank, records)):
        missed *= max(0, records - matches - i) / (records - i)
    return 1 - missed
