"""SNOMED CT codes of ECG findings that a corpus's own list leaves out, shares between findings, or misspells.

Names are those of the PhysioNet/Computing in Cardiology Challenge 2021 (`dx_mapping_scored.csv`, `dx_mapping_unscored.csv`)
and of the corpora that use the codes. A code of 15 digits belongs to SNOMED's extension for the United States.
"""

from __future__ import annotations

VOCABULARY = "SNOMED CT"

NAMES = {
    "106068003": "atrial rhythm",
    "10370003": "pacing rhythm",
    "111288001": "ventricular flutter",
    "164896001": "ventricular fibrillation",
    "17366009": "atrial arrhythmia",
    "233892002": "ectopic atrial tachycardia",
    "251120003": "incomplete left bundle branch block",
    "251166008": "atrioventricular nodal reentrant tachycardia",
    "251170000": "blocked premature atrial contraction",
    "251187003": "atrial escape beat",
    "251205003": "prolonged P wave",
    "251223006": "tall P wave",
    "29320008": "ectopic rhythm",
    "365413008": "poor R wave progression",
    "418818005": "Brugada syndrome",
    "425856008": "paroxysmal ventricular tachycardia",
    "426183003": "Mobitz type II atrioventricular block",
    "426627000": "bradycardia",
    "426648003": "junctional tachycardia",
    "426664006": "accelerated junctional rhythm",
    "427172004": "premature ventricular contractions",
    "445118002": "left anterior fascicular block",
    "445211001": "left posterior fascicular block",
    "446813000": "left atrial hypertrophy",
    "49578007": "shortened PR interval",
    "50799005": "atrioventricular dissociation",
    "54329005": "acute anterior myocardial infarction",
    "55827005": "left ventricular hypertrophy",
    "55930002": "ST segment changes",
    "5609005": "sinus arrest",
    "57054005": "acute myocardial infarction",
    "61277005": "accelerated idioventricular rhythm",
    "61721007": "counterclockwise vectorcardiographic loop",
    "6374002": "bundle branch block",
    "63593006": "supraventricular premature beats",
    "65778007": "sinoatrial block",
    "67741000119109": "left atrial enlargement",
    "67751000119106": "right atrial enlargement",
    "713426002": "incomplete right bundle branch block",
    "713427006": "complete right bundle branch block",
    "733534002": "complete left bundle branch block",
    "74390002": "Wolff-Parkinson-White pattern",
    "77867006": "shortened QT interval",
    "81898007": "ventricular escape rhythm",
    # One code for several findings in the list of Chapman-Shaoxing-Ningbo: what the code itself means.
    "164865005": "myocardial infarction",
    "164909002": "left bundle branch block",
    "195101003": "wandering atrial pacemaker",
    "698252002": "nonspecific intraventricular conduction disorder",
    # Misspelt in that list.
    "251198002": "clockwise rotation",
    "251199005": "counterclockwise rotation",
}
"""Code → name."""

SAME_FINDING = {
    # The Challenge scores each of these pairs as one diagnosis.
    "427172004": "17338001",
    "63593006": "284470004",
    "713427006": "59118001",
    "733534002": "164909002",
    # Two codes with one name.
    "251166008": "233896004",
    "426183003": "28189009",
    "55827005": "164873001",
}
"""Code → another code for the same finding. Publishers used both, so the absence of one is no absence of the finding."""
