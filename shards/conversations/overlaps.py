"""Which findings say something of each other, so that the absence of one is not asked where the other is present.

PTB-XL's annotators name the main finding and leave out what goes with it: under a complete block nobody writes the
incomplete one, under an infarct not each ST and T change. That a code is not stated means little there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RELATED: tuple[frozenset[str], ...] = (
    frozenset(("CRBBB", "IRBBB", "IVCD", "ABQRS", "WPW")),
    frozenset(("CLBBB", "ILBBB", "LAFB", "LPFB", "IVCD", "ABQRS", "WPW")),
    frozenset(("1AVB", "2AVB", "3AVB", "LPR")),
    frozenset(("PVC", "PAC", "PRC(S)", "BIGU", "TRIGU", "SVARR", "SARRH")),
    frozenset(("AFIB", "AFLT", "SVARR", "SVTAC", "PSVT", "SARRH")),
    frozenset(("STACH", "SVTAC", "PSVT", "SVARR")),
    frozenset(("SBRAD", "SARRH")),
    frozenset(("AMI", "ASMI", "ALMI", "INJAS", "INJAL", "INJLA", "ISCAS", "ISCAL", "ISCAN", "ISCLA")),
    frozenset(("IMI", "ILMI", "IPMI", "IPLMI", "INJIN", "INJIL", "ISCIN", "ISCIL")),
    frozenset(("LMI", "ALMI", "ILMI", "IPLMI", "INJLA", "INJAL", "INJIL", "ISCLA", "ISCAL", "ISCIL")),
    frozenset(("PMI", "IPMI", "IPLMI")),
    frozenset(("LVH", "VCLVH", "HVOLT", "SEHYP")),
    frozenset(("RVH", "RAO/RAE")),
    frozenset(("LNGQT", "DIG", "EL")),
)
"""Findings of one group are never asked as absent where another one of the group is present or unknown."""

REPOLARISATION = frozenset(("STE_", "STD_", "ISC_", "NST_", "NDT", "NT_", "INVT", "LOWT", "TAB_"))
"""ST and T changes."""

WITH_REPOLARISATION = REPOLARISATION | {
    *("DIG", "EL", "LNGQT", "ANEUR", "LVH", "VCLVH", "RVH", "SEHYP", "CLBBB", "CRBBB", "ILBBB", "IVCD", "WPW", "PACE"),
    *("ISCAL", "ISCAN", "ISCAS", "ISCIL", "ISCIN", "ISCLA", "INJAL", "INJAS", "INJIL", "INJIN", "INJLA"),
    *("AMI", "ASMI", "ALMI", "IMI", "ILMI", "IPMI", "IPLMI", "LMI", "PMI"),
    *("STDEV", "STDEV-T", "STT-VH"),
}
"""Findings that change ST and T by themselves."""

INFARCTS = frozenset(("AMI", "ASMI", "ALMI", "IMI", "ILMI", "IPMI", "IPLMI", "LMI", "PMI"))
CONDUCTION = frozenset(("CLBBB", "CRBBB", "ILBBB", "IRBBB", "IVCD", "LAFB", "LPFB", "WPW"))

MEASURED_AS_PRESENT: dict[str, tuple[str, float, float]] = {
    "SBRAD": ("heart_rate", 0, 60),
    "STACH": ("heart_rate", 100, 1000),
    "1AVB": ("pr", 200, 1000),
    "LPR": ("pr", 200, 1000),
    "LNGQT": ("qtc", 450, 1000),
    "IVCD": ("qrs", 110, 1000),
    "ABQRS": ("qrs", 110, 1000),
}
"""Finding → a measurement and the range in which it speaks for the finding, whatever was stated."""


def absence_unsure(code: str, stated: frozenset[str], measurements: Mapping[str, Any]) -> bool:
    """Whether it cannot be said that a finding which is not stated is absent.

    Args:
        code: the finding.
        stated: codes of the record that are present or unknown.
        measurements: of the record, as in an ECG sample.
    """
    if any(code in group and group & stated for group in RELATED):
        return True
    if code in REPOLARISATION and stated & WITH_REPOLARISATION:
        return True
    # A paced or preexcited beat hides blocks and infarcts; an infarct or a block makes QRS abnormal.
    if stated & {"PACE", "WPW"} and code in INFARCTS | CONDUCTION | {"QWAVE", "ABQRS", "LVH", "RVH"}:
        return True
    if code in ("QWAVE", "ABQRS") and stated & (INFARCTS | CONDUCTION | {"LVH", "RVH", "QWAVE", "ABQRS"}):
        return True
    if code in INFARCTS and stated & {"QWAVE", "CLBBB"}:
        return True
    name, low, high = MEASURED_AS_PRESENT.get(code, ("", 0.0, 0.0))
    value = measurements.get(name)
    return value is not None and low < value < high
