"""Which findings there are, how they go together, and how they are coded in SCP-ECG as PTB-XL does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from shards.simulate.beats import Conduction, Infarct

Outcome = TypeVar("Outcome")

Rhythm = Literal["SR", "SBRAD", "STACH", "AFIB"]

RATES: dict[Rhythm, tuple[float, float]] = {"SR": (62.5, 96.5), "SBRAD": (42, 57), "STACH": (104, 135), "AFIB": (62, 115)}
"""Heart rates in 1/min; they keep off the limits at 60 and 100, which breathing would cross."""

CODE_ORDER = ("NORM", "AMI", "IMI", "CLBBB", "CRBBB", "1AVB", "LVH", "PVC", "STE_", "SR", "SBRAD", "STACH", "AFIB")
"""Diagnoses, forms, rhythms: the order in which PTB-XL lists a record's codes."""

DIAGNOSES = frozenset(("NORM", "AMI", "IMI", "CLBBB", "CRBBB", "1AVB", "LVH"))
"""Codes that carry a likelihood, 100 here; forms and rhythms carry 0, which in PTB-XL means that none was given."""


@dataclass(frozen=True)
class Findings:
    """What one recording shows."""

    rhythm: Rhythm
    conduction: Conduction = "narrow"
    first_degree_block: bool = False
    premature_beats: bool = False
    infarct: Infarct | None = None
    hypertrophy: bool = False

    def __post_init__(self) -> None:
        """Refuses what the model cannot show at once."""
        if self.first_degree_block and self.rhythm == "AFIB":
            raise ValueError("first-degree AV block needs P waves, and atrial fibrillation has none; choose one of the two")
        if self.infarct and self.conduction == "CLBBB":
            raise ValueError("left bundle branch block hides an infarct's ST elevation; choose one of the two")
        if self.hypertrophy and (self.infarct or self.conduction != "narrow"):
            raise ValueError("hypertrophy is drawn only on narrow complexes without an infarct; choose one of the two")

    @property
    def codes(self) -> dict[str, float]:
        """SCP code → likelihood in per cent, in PTB-XL's order."""
        present = {
            self.rhythm: True,
            self.conduction: self.conduction != "narrow",
            "1AVB": self.first_degree_block,
            "PVC": self.premature_beats,
            "LVH": self.hypertrophy,
            "NORM": self == Findings("SR"),
            str(self.infarct): self.infarct is not None,
            "STE_": self.infarct is not None,
        }
        return {code: 100.0 if code in DIAGNOSES else 0.0 for code in CODE_ORDER if present.get(code, False)}


def draw_findings(rng: np.random.Generator) -> Findings:
    """Findings of one recording: each of them in about 10 % of all, none (NORM) in about 30 %."""
    rhythm, first_degree, conduction, premature, infarct, hypertrophy = (float(value) for value in rng.random(6))
    the_rhythm: Rhythm = _pick(rhythm, (("SBRAD", 0.1), ("STACH", 0.1), ("AFIB", 0.1)), "SR")
    the_conduction: Conduction = _pick(conduction, (("CLBBB", 0.1), ("CRBBB", 0.1)), "narrow")
    # The shares are those among the records that may have the finding, so that it has 10 % of all.
    with_st = the_conduction != "CLBBB"
    the_infarct: Infarct | None = _pick(infarct, (("AMI", 0.111), ("IMI", 0.111)), None) if with_st else None
    may_hypertrophy = the_conduction == "narrow" and the_infarct is None
    return Findings(
        rhythm=the_rhythm,
        conduction=the_conduction,
        first_degree_block=the_rhythm != "AFIB" and first_degree < 0.111,
        premature_beats=premature < 0.1,
        infarct=the_infarct,
        hypertrophy=may_hypertrophy and hypertrophy < 0.161,
    )


def _pick(drawn: float, shares: Sequence[tuple[Outcome, float]], otherwise: Outcome) -> Outcome:
    """The first outcome whose cumulated share exceeds a number drawn from 0 to 1."""
    for outcome, share in shares:
        if drawn < share:
            return outcome
        drawn -= share
    return otherwise
