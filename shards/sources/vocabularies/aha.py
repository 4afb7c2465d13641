"""AHA/ACC/HRS statements, as Shandong Provincial Hospital codes its ECGs: the list, its grammar, and English made of it.

A coded ECG is statements joined by `;`, each a primary code with any number of modifiers behind `+`: `60+310;145+362`.
Codes and descriptions: Mason et al., Recommendations for the standardization and interpretation of the
electrocardiogram, part II, Circulation 115:1325 (2007); the 44 primary statements and 15 modifiers of Liu et al.,
Scientific Data 9:272 (2022).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shards.record import RecordError

ADDITIONS = range(200, 500)
"""Secondary statements, modifiers and comparisons: codes that say more of a primary statement and never stand alone."""

PRIMARY: dict[int, tuple[str, str]] = {
    1: ("NORM", "Normal ECG"),
    21: ("STACH", "Sinus tachycardia"),
    22: ("SBRAD", "Sinus bradycardia"),
    23: ("SARRH", "Sinus arrhythmia"),
    30: ("PAC", "Atrial premature complex(es)"),
    31: ("NCPAC", "Atrial premature complexes, nonconducted"),
    36: ("JPC", "Junctional premature complex(es)"),
    37: ("JESC", "Junctional escape complex(es)"),
    50: ("AFIB", "Atrial fibrillation"),
    51: ("AFLT", "Atrial flutter"),
    54: ("JTACH", "Junctional tachycardia"),
    60: ("PVC", "Ventricular premature complex(es)"),
    80: ("SPR", "Short PR interval"),
    81: ("AVRATIO", "AV conduction ratio N:D"),
    82: ("LPR", "Prolonged PR interval"),
    83: ("2AVB-I", "Second-degree AV block, Mobitz type I (Wenckebach)"),
    84: ("2AVB-II", "Second-degree AV block, Mobitz type II"),
    85: ("2AVB-2:1", "2:1 AV block"),
    86: ("AVB-VAR", "AV block, varying conduction"),
    87: ("AVB-HIGH", "AV block, advanced (high-grade)"),
    88: ("3AVB", "AV block, complete (third-degree)"),
    101: ("LAFB", "Left anterior fascicular block"),
    102: ("LPFB", "Left posterior fascicular block"),
    104: ("LBBB", "Left bundle-branch block"),
    105: ("IRBBB", "Incomplete right bundle-branch block"),
    106: ("RBBB", "Right bundle-branch block"),
    108: ("PREEX", "Ventricular preexcitation"),
    120: ("RAD", "Right-axis deviation"),
    121: ("LAD", "Left-axis deviation"),
    125: ("LVOLT", "Low voltage"),
    140: ("LAO/LAE", "Left atrial enlargement"),
    142: ("LVH", "Left ventricular hypertrophy"),
    143: ("RVH", "Right ventricular hypertrophy"),
    145: ("STDEV", "ST deviation"),
    146: ("STDEV-T", "ST deviation with T-wave change"),
    147: ("TAB_", "T-wave abnormality"),
    148: ("LNGQT", "Prolonged QT interval"),
    152: ("TUFUS", "TU fusion"),
    153: ("STT-VH", "ST-T change due to ventricular hypertrophy"),
    155: ("EREPOL", "Early repolarization"),
    160: ("AMI", "Anterior MI"),
    161: ("IMI", "Inferior MI"),
    165: ("ASMI", "Anteroseptal MI"),
    166: ("EAMI", "Extensive anterior MI"),
}
"""Code → (name of its label, description). A label has the name of PTB-XL's statement where that says the same, and of
CPSC's and CODE's bundle branch blocks, which like AHA's do not say whether they are complete."""

MODIFIERS: dict[int, str] = {
    308: "Occasional",
    310: "Frequent",
    330: "Acute",
    331: "Recent",
    332: "Old",
    340: "Couplets",
    341: "In a bigeminal pattern",
    342: "In a trigeminal pattern",
    346: "With a rapid ventricular response",
    347: "With a slow ventricular response",
    349: "With aberrancy",
    350: "Polymorphic",
    362: "Depression",
    363: "Elevation",
    367: "Inversion",
}

DESCRIPTIONS: dict[int, str] = {**{code: description for code, (_, description) in PRIMARY.items()}, **MODIFIERS}


@dataclass(frozen=True)
class AhaStatement:
    """A primary statement with what modifies it."""

    primary: int
    modifiers: tuple[int, ...] = ()

    @property
    def code(self) -> str:
        """As published: `145+362`."""
        return "+".join(str(code) for code in (self.primary, *self.modifiers))

    @property
    def label(self) -> str:
        """Name of the label of its primary code; `AHA-107` where the code is not of the list."""
        return PRIMARY[self.primary][0] if self.primary in PRIMARY else f"AHA-{self.primary}"


def parse_statements(text: str, where: str) -> list[AhaStatement]:
    """The statements of a coded ECG, in their order, each once.

    Args:
        text: `60+310;145+362`.
        where: the file, row and field, for the sentence of an error.

    Raises:
        RecordError: a statement is no number, lacks its primary code, or adds what is no modifier.
    """
    parts = text.split(";")
    parsed = [_parse_one(part, f"{where}, statement {number} of {len(parts)}") for number, part in enumerate(parts, 1)]
    return list(dict.fromkeys(parsed))


def _parse_one(text: str, where: str) -> AhaStatement:
    if not re.fullmatch(r"\s*[0-9]{1,3}\s*(\+\s*[0-9]{1,3}\s*)*", text):
        found = "other text" if text.strip() else "nothing"
        raise RecordError(f"{where}: expected AHA codes such as 145 or 145+362, found {found}; fetch the table again")
    primary, *modifiers = (int(code.strip()) for code in text.split("+"))
    if primary in ADDITIONS:
        raise RecordError(f"{where}: expected a primary code first, found the modifier {primary}; fetch the table again")
    wrong = [code for code in modifiers if code not in ADDITIONS]
    if wrong:
        raise RecordError(f"{where}: expected modifiers behind +, found the primary code {wrong[0]}; fetch the table again")
    return AhaStatement(primary, tuple(modifiers))


def labels(statements: Sequence[AhaStatement]) -> dict[str, int | None]:
    """Every primary statement of the list: 1 stated, 0 not stated, for cardiologists coded from the whole list.

    A code that is not of the list is a label of its own, of the records that state it; of others it is unknown.
    """
    stated = {statement.label: 1 for statement in statements}
    return {**dict.fromkeys((label for label, _ in PRIMARY.values()), 0), **stated}


def describe(statements: Sequence[AhaStatement], descriptions: Mapping[int, str]) -> str:
    """English: `ST deviation, depression; sinus bradycardia`. A code without a description is named by its number."""
    text = "; ".join(
        ", ".join(_inside_a_sentence(descriptions.get(code, f"AHA statement {code}")) for code in codes)
        for codes in ((statement.primary, *statement.modifiers) for statement in statements)
    )
    return text[:1].upper() + text[1:]


def _inside_a_sentence(description: str) -> str:
    """`Normal ECG` → `normal ECG`; `ST deviation` and `T-wave abnormality` stay."""
    text = " ".join(description.split())
    return text[0].lower() + text[1:] if re.match(r"[A-Z][a-z]", text) else text
