"""The wording of questions and answers: what training hears, and other ways to ask that only evaluation hears.

`{name}`, `{part}`, `{value}`, `{findings}`, `{first}`, `{second}` and `{which}` are filled in from the record, `{is}` by
the number of the name. Evaluation asks in words that mostly occur in training too, but never in a sentence of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phrasing = Literal["training", "evaluation"]


@dataclass(frozen=True)
class Questions:
    """Ways to ask for one thing."""

    training: tuple[str, ...]
    evaluation: tuple[str, ...]

    def of(self, phrasing: Phrasing) -> tuple[str, ...]:
        """The ways of one phrasing."""
        return self.training if phrasing == "training" else self.evaluation


_INTERVAL = Questions(
    training=(
        "How long is the {part}?",
        "What is the {name}?",
        "Give the {name} in ms.",
        "Can you tell me the {name}?",
        "How many ms is the {name} of this ECG?",
    ),
    evaluation=("What is the {name} of this ECG?", "How many ms is the {name}?", "Can you give me the {name} in ms?"),
)
_INTERVAL_SAID = ("The {name} is {value} ms.", "The {name} of this ECG is {value} ms.", "This ECG has a {name} of {value} ms.")

INTERVALS = {"pr": "PR interval", "qrs": "QRS duration", "qt": "QT interval", "qtc": "QTc interval"}
"""Kind of question → what it asks for, in ms."""

QUESTIONS: dict[str, Questions] = {
    "rhythm": Questions(
        training=(
            "What is the rhythm?",
            "What rhythm does this ECG show?",
            "Which rhythm is it?",
            "Name the rhythm of this ECG.",
            "Can you tell me the rhythm?",
            "What is the rhythm in this ECG?",
            "Tell me the rhythm of this ECG.",
            "Which rhythm do you see in this ECG?",
            "Which rhythm does it show?",
            "What rhythm is this?",
            "Name the rhythm.",
        ),
        evaluation=("What is the rhythm of this ECG?", "Which rhythm does this ECG show?", "Can you name the rhythm?"),
    ),
    "rate_class": Questions(
        training=(
            "Is the heart rate slow, normal or fast?",
            "Is the rate slow, normal or fast?",
            "Does this ECG show a slow, a normal or a fast heart rate?",
            "Is this a slow, normal or fast heart rate?",
        ),
        evaluation=("Is the heart rate of this ECG slow, normal or fast?", "Is this a slow, a normal or a fast rate?"),
    ),
    "rate": Questions(
        training=(
            "What is the heart rate?",
            "How many beats per minute are there?",
            "Give the heart rate in beats per minute.",
            "Can you tell me the heart rate?",
            "What heart rate does this ECG show?",
        ),
        evaluation=("What is the heart rate of this ECG?", "How many beats per minute does this ECG show?"),
    ),
    **dict.fromkeys(INTERVALS, _INTERVAL),
    "finding": Questions(
        training=(
            "{Is} there {name}?",
            "Does this ECG show {name}?",
            "Do you see {name}?",
            "{Is} {name} present?",
            "Can you see {name} in this ECG?",
        ),
        evaluation=("{Is} there {name} in this ECG?", "Do you see {name} in this ECG?", "Can you see {name}?"),
    ),
    "findings": Questions(
        training=(
            "What are the findings?",
            "What findings does this ECG show?",
            "List the findings of this ECG.",
            "Which abnormal findings are there?",
            "What is abnormal in this ECG?",
            "What are the findings of this ECG?",
            "Which findings do you see?",
            "List the abnormal findings.",
        ),
        evaluation=("What are the abnormal findings of this ECG?", "Which findings does this ECG show?", "List the findings."),
    ),
    "report": Questions(
        training=(
            "Write the report of this ECG.",
            "Please write a report.",
            "Report this ECG.",
            "Describe this ECG.",
            "Give a report of this ECG.",
            "What is the report of this ECG?",
            "Please write a report of this ECG.",
            "Write a report.",
            "Please give the report.",
            "Please report this ECG.",
        ),
        evaluation=("Please write the report of this ECG.", "Please give a report of this ECG."),
    ),
    "change:rhythm": Questions(
        training=(
            "Has the rhythm changed from the first ECG to the second?",
            "Has the rhythm changed?",
            "Is the rhythm different in the second ECG?",
        ),
        evaluation=(
            "Has the rhythm of the second ECG changed from the first?",
            "Is the rhythm of the second ECG different from the first?",
        ),
    ),
    "change:rate": Questions(
        training=(
            "Which of the two ECGs has the faster heart rate?",
            "Is the heart rate faster in the first ECG or in the second?",
            "Which ECG shows the faster heart rate, the first or the second?",
        ),
        evaluation=("Is the rate faster in the first ECG or in the second?", "Which of the two ECGs shows the faster rate?"),
    ),
}
"""Kind (for `change` with what has changed) → ways to ask; `{Is}` begins a sentence."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "rhythm": ("The rhythm is {name}.", "This ECG shows {name}.", "It is {name}."),
    "rate_class=slow": ("The heart rate is slow, below 60 beats per minute.", "The rate is slow.", "It is a slow heart rate."),
    "rate_class=normal": (
        "The heart rate is normal, between 60 and 100 beats per minute.",
        "The rate is normal.",
        "It is a normal heart rate.",
    ),
    "rate_class=fast": (
        "The heart rate is fast, above 100 beats per minute.",
        "The rate is fast.",
        "It is a fast heart rate.",
    ),
    "rate": ("The heart rate is about {value} beats per minute.", "This ECG shows about {value} beats per minute."),
    **dict.fromkeys(INTERVALS, _INTERVAL_SAID),
    "finding=yes": ("Yes, there {is} {name}.", "Yes, this ECG shows {name}.", "Yes, {name} {is} present."),
    "finding=no": ("No, there {is} no {name}.", "No, this ECG does not show {name}.", "No, {name} {is} not present."),
    "findings": ("This ECG shows {findings}.", "Findings: {findings}.", "I see {findings}."),
    "findings=[]": ("No abnormal findings.", "There are no abnormal findings.", "This ECG shows no abnormal findings."),
    "change:rhythm=yes": (
        "Yes, the rhythm has changed from {first} to {second}.",
        "Yes, the first ECG shows {first}, the second {second}.",
    ),
    "change:rhythm=no": ("No, both ECGs show {first}.", "No, the rhythm is {first} in both."),
    "change:rate": ("The {which} ECG has the faster heart rate.", "The heart rate is faster in the {which} ECG."),
}
"""Kind, with the expected answer where the words depend on it → ways to answer, the same in both phrasings."""
