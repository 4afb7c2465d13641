"""How many words generated texts share with their references: BLEU-1, BLEU-4 and ROUGE-L, without regard to case.

BLEU (Papineni et al., 2002) is sacreBLEU's (Post, 2018) with its standard tokens (13a) and smoothing (exp), of a whole
corpus. ROUGE-L (Lin, 2004) is the F1 of `rouge_score` without stemming, averaged over the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped, unused-ignore]
from sacrebleu.metrics.bleu import BLEU

MOST_WORDS = 4
"""Longest run of words that BLEU-4 compares."""


@dataclass(frozen=True)
class OverlapCounts:
    """What the scores are counted from, text by text, so that the score of a resample costs a sum."""

    matches: NDArray[np.int64]
    """(texts, 4) runs of one to four words that the reference has too."""
    runs: NDArray[np.int64]
    """(texts, 4) runs of one to four words."""
    words: NDArray[np.int64]
    """(texts,) words of the generated text."""
    reference_words: NDArray[np.int64]
    """(texts,)"""
    rouge_l: NDArray[np.float64]
    """(texts,) F1, 0 to 1."""

    @classmethod
    def of(cls, generated: Sequence[str], references: Sequence[str]) -> OverlapCounts:
        """Counts of texts and their references, in the same order.

        Raises:
            ValueError: the two differ in length.
        """
        if len(generated) != len(references):
            raise ValueError(f"expected a reference for each text, found {len(references)} for {len(generated)} texts")
        # The effective order changes only the sentence's score, which is not used, and saves sacreBLEU's warning.
        bleu = BLEU(lowercase=True, effective_order=True, max_ngram_order=MOST_WORDS)
        rouge = RougeScorer(["rougeL"], use_stemmer=False)
        pairs = list(zip(generated, references, strict=True))
        scores = [bleu.sentence_score(text, [reference]) for text, reference in pairs]
        return cls(
            matches=np.array([score.counts for score in scores], np.int64).reshape(-1, MOST_WORDS),
            runs=np.array([score.totals for score in scores], np.int64).reshape(-1, MOST_WORDS),
            words=np.array([score.sys_len for score in scores], np.int64),
            reference_words=np.array([score.ref_len for score in scores], np.int64),
            rouge_l=np.array([rouge.score(reference, text)["rougeL"].fmeasure for text, reference in pairs], np.float64),
        )

    def score(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """`bleu_1`, `bleu_4` and `rouge_l`, 0 to 1, of any multiset of row numbers; 0 for none."""
        if not len(rows):
            return {"bleu_1": 0.0, "bleu_4": 0.0, "rouge_l": 0.0}
        return {
            "bleu_1": self._bleu(rows, 1),
            "bleu_4": self._bleu(rows, MOST_WORDS),
            "rouge_l": float(self.rouge_l[rows].mean()),
        }

    def _bleu(self, rows: NDArray[np.int64], order: int) -> float:
        score = BLEU.compute_bleu(
            correct=self.matches[rows, :order].sum(axis=0).tolist(),
            total=self.runs[rows, :order].sum(axis=0).tolist(),
            sys_len=int(self.words[rows].sum()),
            ref_len=int(self.reference_words[rows].sum()),
            smooth_method="exp",
            max_ngram_order=order,
        )
        # Its exponential of a sum of logarithms ends a rounding above 1 for equal texts.
        return min(1.0, score.score / 100)
