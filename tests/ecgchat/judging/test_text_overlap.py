"""BLEU and ROUGE-L from counts are those of the libraries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from ecgchat.judging.text_overlap import OverlapCounts

WORDS = st.lists(st.sampled_from(["sinus", "Sinus", "rhythm", "lbbb.", "70/min", "°", ","]), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)


@given(PAIRS, st.data())
def test_any_multiset_of_rows_scores_as_sacrebleu_does(pairs, data):
    rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=8))
    generated, references = ([pair[side] for pair in pairs] for side in (0, 1))
    score = OverlapCounts.of(generated, references).score(np.array(rows))
    texts, truth = [generated[row] for row in rows], [references[row] for row in rows]
    for name, order in (("bleu_1", 1), ("bleu_4", 4)):
        corpus = BLEU(lowercase=True, max_ngram_order=order).corpus_score(texts, [truth]).score
        assert score[name] == pytest.approx(corpus / 100, abs=1e-9)
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in zip(texts, truth, strict=True)]
    assert score["rouge_l"] == pytest.approx(np.mean(rouge))
    assert all(0 <= value <= 1 for value in score.values())


def test_equal_texts_score_1_whatever_their_case():
    texts = ["Sinus rhythm at 70 bpm.", "Complete left bundle branch block."]
    score = OverlapCounts.of([text.upper() for text in texts], texts).score(np.arange(2))
    assert score == {"bleu_1": 1.0, "bleu_4": 1.0, "rouge_l": 1.0}


@pytest.mark.parametrize("text", ["", "   ", "心房細動", "..."])
def test_a_text_without_a_common_word_scores_0(text):
    assert OverlapCounts.of([text], ["sinus rhythm"]).score(np.arange(1)) == {"bleu_1": 0.0, "bleu_4": 0.0, "rouge_l": 0.0}


def test_no_texts_score_0():
    assert OverlapCounts.of([], []).score(np.arange(0)) == {"bleu_1": 0.0, "bleu_4": 0.0, "rouge_l": 0.0}


def test_every_text_needs_a_reference():
    with pytest.raises(ValueError, match="a reference for each text"):
        OverlapCounts.of(["a"], [])
