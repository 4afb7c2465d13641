"""Plain English names of SCP-ECG codes as PTB-XL gives them: what questions and answers call a rhythm or a finding.

Names stand without an article, so that they fit "Is there …?" as well as "there is no …".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RHYTHMS: dict[str, str] = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AFIB": "atrial fibrillation",
    "AFLT": "atrial flutter",
    "SARRH": "sinus arrhythmia",
    "SVTAC": "supraventricular tachycardia",
    "PSVT": "paroxysmal supraventricular tachycardia",
    "PACE": "pacemaker rhythm",
    "SVARR": "supraventricular arrhythmia",
    "BIGU": "bigeminy",
    "TRIGU": "trigeminy",
}
"""Rhythm code → name. All but sinus rhythm are findings too."""

FINDINGS: dict[str, str] = {
    **{code: name for code, name in RHYTHMS.items() if code != "SR"},
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "ILBBB": "incomplete left bundle branch block",
    "IRBBB": "incomplete right bundle branch block",
    "IVCD": "intraventricular conduction delay",
    "LAFB": "left anterior fascicular block",
    "LPFB": "left posterior fascicular block",
    "WPW": "Wolff-Parkinson-White pattern",
    "1AVB": "first degree AV block",
    "2AVB": "second degree AV block",
    "3AVB": "third degree AV block",
    "LPR": "prolonged PR interval",
    "PVC": "ventricular premature beats",
    "PAC": "atrial premature beats",
    "AMI": "anterior myocardial infarction",
    "ASMI": "anteroseptal myocardial infarction",
    "ALMI": "anterolateral myocardial infarction",
    "IMI": "inferior myocardial infarction",
    "ILMI": "inferolateral myocardial infarction",
    "IPMI": "inferoposterior myocardial infarction",
    "IPLMI": "inferoposterolateral myocardial infarction",
    "LMI": "lateral myocardial infarction",
    "PMI": "posterior myocardial infarction",
    "LVH": "left ventricular hypertrophy",
    "VCLVH": "left ventricular hypertrophy by voltage",
    "RVH": "right ventricular hypertrophy",
    "SEHYP": "septal hypertrophy",
    "LAO/LAE": "left atrial enlargement",
    "RAO/RAE": "right atrial enlargement",
    "STE_": "ST elevation",
    "STD_": "ST depression",
    "ISC_": "non-specific ischemia",
    "NST_": "non-specific ST changes",
    "NDT": "non-diagnostic T wave changes",
    "NT_": "non-specific T wave changes",
    "INVT": "inverted T waves",
    "LOWT": "low T waves",
    "TAB_": "T wave abnormality",
    "LNGQT": "long QT interval",
    "DIG": "digitalis effect",
    "EL": "electrolyte or drug effect",
    "QWAVE": "pathological Q waves",
    "ABQRS": "QRS abnormality",
    "LVOLT": "low QRS voltage",
    "HVOLT": "high QRS voltage",
}
"""Finding code → name; NORM is the absence of findings and not asked for."""


def is_or_are(name: str) -> str:
    """The verb that goes with a finding: every plural of the table ends in `s`, no singular does."""
    return "are" if name.endswith("s") else "is"


def listed(codes: Sequence[str], names: Mapping[str, str] = FINDINGS) -> str:
    """Names in a sentence: `A`, `A and B`, `A, B and C`."""
    words = [names[code] for code in codes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
