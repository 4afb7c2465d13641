"""What to ask an ECG-text model about a finding, in words that the reports of training do not use.

Keys are SCP-ECG statement codes as PTB-XL uses them; the descriptions are standard cardiology.
"""

from __future__ import annotations

TEMPLATES = (
    "an electrocardiogram showing {}",
    "{}",
    "the tracing has {}",
    "there is {} here",
    "this patient has {}",
)
"""A finding is asked in several frames whose embeddings are averaged, as CLIP does (Radford et al., 2021, section 3.1.4)."""

FINDINGS = {
    "NORM": "no abnormality at all",
    "SBRAD": "a slow sinus rate, bradycardia",
    "STACH": "a fast sinus rate, tachycardia",
    "AFIB": "atrial fibrillation, an irregular rhythm without P waves",
    "AFLT": "atrial flutter with sawtooth waves",
    "SARRH": "sinus arrhythmia",
    "PVC": "ventricular extrasystoles, premature wide beats",
    "PAC": "atrial extrasystoles",
    "1AVB": "a prolonged PR interval, AV block of the first degree",
    "CLBBB": "complete left bundle branch block with a broad QRS",
    "CRBBB": "complete right bundle branch block with a broad QRS",
    "IRBBB": "incomplete right bundle branch block",
    "LAFB": "left anterior fascicular block",
    "IVCD": "an intraventricular conduction delay",
    "AMI": "anterior infarction with ST elevation in the chest leads",
    "IMI": "inferior infarction with ST elevation in the inferior leads",
    "ASMI": "anteroseptal infarction",
    "LVH": "left ventricular hypertrophy with high voltage",
    "RVH": "right ventricular hypertrophy",
    "STE_": "ST segments that are elevated in some leads, as by an infarct",
    "NDT": "T wave changes that are not diagnostic",
    "NST_": "ST segment changes that are not specific",
    "LNGQT": "a long QT interval",
    "ABQRS": "an abnormal QRS complex",
    "DIG": "a digitalis effect",
    "LVOLT": "low voltage",
}


def prompts(code: str) -> list[str]:
    """The questions about a finding, one for each frame."""
    return [template.format(FINDINGS[code]) for template in TEMPLATES]
