"""Retrieval and zero-shot figures against what they must be, each beside its chance."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from ecgchat.evaluation import retrieval, zero_shot
from ecgchat.prompts import FINDINGS, prompts
from shards.simulate.reports import REPORT_PHRASES


def test_perfect_pairs_are_always_found():
    space = torch.eye(20)
    results = retrieval(space, space, [str(i) for i in range(20)])
    assert all(row["value"] == 1 for row in results.values())
    assert results["ecg_to_text_recall_at_1"]["chance"] == pytest.approx(1 / 20)
    assert results["text_to_ecg_recall_at_10"]["chance"] == pytest.approx(0.5)


def test_a_record_with_the_same_text_counts_as_found_and_raises_chance():
    ecg = torch.eye(4)
    text = torch.eye(4)[[1, 0, 2, 3]]
    results = retrieval(ecg, text, ["a", "a", "b", "c"])
    assert results["ecg_to_text_recall_at_1"]["value"] == 1
    assert results["ecg_to_text_recall_at_1"]["chance"] == pytest.approx((0.5 + 0.5 + 0.25 + 0.25) / 4)


def test_random_embeddings_are_at_chance():
    generator = torch.Generator().manual_seed(0)
    ecg, text = (F.normalize(torch.randn(600, 8, generator=generator), dim=-1) for _ in range(2))
    row = retrieval(ecg, text, [str(i) for i in range(600)])["ecg_to_text_recall_at_10"]
    assert row["value"] == pytest.approx(row["chance"], abs=0.02)


def test_zero_shot_is_sklearns_auroc_over_the_known_labels():
    generator = torch.Generator().manual_seed(0)
    ecg = F.normalize(torch.randn(50, 8, generator=generator), dim=-1)
    direction = F.normalize(torch.randn(8, generator=generator), dim=-1)
    labels = [None if i % 7 == 0 else i % 2 for i in range(50)]
    results = zero_shot(ecg, {"A": direction, "B": direction}, {"A": labels, "B": [1] * 50})
    known = [i for i in range(50) if labels[i] is not None]
    assert results["A"]["value"] == pytest.approx(roc_auc_score([labels[i] for i in known], (ecg[known] @ direction).numpy()))
    assert "B" not in results
    assert results["macro"]["value"] == results["A"]["value"]


def test_prompts_are_not_the_phrases_of_the_reports():
    phrases = {phrase.lower() for phrases in REPORT_PHRASES.values() for phrase in phrases}
    assert not phrases & {asked.lower() for code in FINDINGS for asked in prompts(code)}
