"""The nine classes of CPSC2018: number, label, SNOMED CT code and plain English.

Numbers: the challenge's page (http://2018.icbeb.org). SNOMED CT: the conversion of the PhysioNet/CinC Challenge 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CpscClass:
    """One finding that the challenge asked for."""

    number: int
    label: str
    snomed: str
    english: str


CLASSES = (
    CpscClass(1, "NORM", "426783006", "normal ECG"),
    CpscClass(2, "AFIB", "164889003", "atrial fibrillation"),
    CpscClass(3, "1AVB", "270492004", "first-degree atrioventricular block"),
    CpscClass(4, "LBBB", "164909002", "left bundle branch block"),
    CpscClass(5, "RBBB", "59118001", "right bundle branch block"),
    CpscClass(6, "PAC", "284470004", "premature atrial contractions"),
    CpscClass(7, "PVC", "164884008", "premature ventricular contractions"),
    CpscClass(8, "STD", "429622005", "ST-segment depression"),
    CpscClass(9, "STE", "164931005", "ST-segment elevation"),
)

BY_NUMBER = {str(entry.number): entry for entry in CLASSES}
BY_SNOMED = {entry.snomed: entry for entry in CLASSES}


def labels(found: Sequence[CpscClass] | None) -> dict[str, int | None]:
    """All nine: 1 found, 0 not found; unknown where nobody said what there is (`None`)."""
    stated = {entry.label for entry in found or ()}
    return {entry.label: None if found is None else int(entry.label in stated) for entry in CLASSES}


def describe(found: Sequence[CpscClass]) -> str | None:
    """English, in the order of the classes: `Atrial fibrillation; right bundle branch block`; None where nothing is found."""
    text = "; ".join(entry.english for entry in sorted(set(found), key=lambda entry: entry.number))
    return text[:1].upper() + text[1:] or None
