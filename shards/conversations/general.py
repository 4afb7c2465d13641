"""What anybody who reads ECGs knows: questions that need no ECG, so that a model keeps the ability to answer without one.

Source of the limits: standard adult values, as in Surawicz et al., AHA/ACCF/HRS recommendations (2009), and Goldberger,
Clinical Electrocardiography.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.conversations.phrases import Questions


@dataclass(frozen=True)
class GeneralFact:
    """One thing to know: ways to ask, ways to answer."""

    questions: Questions
    answers: tuple[str, ...]


GENERAL_FACTS: tuple[GeneralFact, ...] = (
    GeneralFact(
        Questions(
            ("What is bradycardia?", "When is a heart rate called bradycardia?"), ("Which heart rate is called bradycardia?",)
        ),
        ("Bradycardia is a heart rate below 60 beats per minute.",),
    ),
    GeneralFact(
        Questions(
            ("What is tachycardia?", "When is a heart rate called tachycardia?"), ("Which heart rate is called tachycardia?",)
        ),
        ("Tachycardia is a heart rate above 100 beats per minute.",),
    ),
    GeneralFact(
        Questions(("What is a normal heart rate?", "Which heart rate is normal?"), ("When is a heart rate normal?",)),
        ("A normal heart rate at rest is 60 to 100 beats per minute.",),
    ),
    GeneralFact(
        Questions(("What is a normal PR interval?", "How long is a normal PR interval?"), ("Which PR interval is normal?",)),
        ("A normal PR interval is 120 to 200 ms.",),
    ),
    GeneralFact(
        Questions(("What is a normal QRS duration?", "How long is a normal QRS complex?"), ("Which QRS duration is normal?",)),
        ("A normal QRS complex is shorter than 120 ms.", "The QRS duration is normal below 120 ms."),
    ),
    GeneralFact(
        Questions(("What is the P wave?", "What does the P wave show?"), ("What is a P wave?",)),
        ("The P wave is the depolarization of the atria.",),
    ),
    GeneralFact(
        Questions(("What is the QRS complex?", "What does the QRS complex show?"), ("What is a QRS complex?",)),
        ("The QRS complex is the depolarization of the ventricles.",),
    ),
    GeneralFact(
        Questions(("What is the T wave?", "What does the T wave show?"), ("What is a T wave?",)),
        ("The T wave is the repolarization of the ventricles.",),
    ),
    GeneralFact(
        Questions(
            ("How many leads does a standard ECG have?", "How many leads are there?"), ("How many leads has a standard ECG?",)
        ),
        ("A standard ECG has twelve leads.", "There are twelve leads in a standard ECG."),
    ),
    GeneralFact(
        Questions(
            ("What is the standard paper speed of an ECG?", "Which paper speed is standard?"), ("What is the paper speed?",)
        ),
        ("The standard paper speed is 25 mm per second.",),
    ),
    GeneralFact(
        Questions(("What is the standard gain of an ECG?", "How many mm is one mV?"), ("Which gain is standard?",)),
        ("The standard gain is 10 mm per mV.",),
    ),
    GeneralFact(
        Questions(("Where is V1 placed?", "Where is the electrode V1?"), ("Where is the electrode V1 placed?",)),
        ("V1 is placed in the fourth intercostal space at the right border of the sternum.",),
    ),
    GeneralFact(
        Questions(("Where is V2 placed?", "Where is the electrode V2?"), ("Where is the electrode V2 placed?",)),
        ("V2 is placed in the fourth intercostal space at the left border of the sternum.",),
    ),
    GeneralFact(
        Questions(
            ("Which leads are the inferior leads?", "What are the inferior leads?"), ("Which of the leads are inferior?",)
        ),
        ("The inferior leads are II, III and aVF.",),
    ),
    GeneralFact(
        Questions(
            ("How do you know atrial fibrillation?", "What does atrial fibrillation show in an ECG?"),
            ("How does an ECG show atrial fibrillation?",),
        ),
        ("In atrial fibrillation there are no P waves and the rhythm is irregular.",),
    ),
    GeneralFact(
        Questions(
            ("What is a first degree AV block?", "When is it a first degree AV block?"),
            ("When is there a first degree AV block?",),
        ),
        ("In a first degree AV block the PR interval is longer than 200 ms.",),
    ),
)
"""Facts of general knowledge, each with its own ways to ask."""
