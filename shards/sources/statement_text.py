"""What becomes of the words of a report: rules on whole phrases, for statements as an ECG cart or a study prints them.

A rule drops a statement that says nothing about the heart, or writes a phrase out. Phrases are matched ignoring case, at the
bounds of words or of the whole statement, so that `arrhythmia`, `ischemia` and `limits` hold no `MI` and a conduction
defect is no administrative note. What no rule names stays as published. The statements are those of the Glasgow
interpretation program that MIMIC-IV-ECG's carts ran, and of PTB-XL's English reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class TextRule:
    """A phrase and what becomes of it."""

    phrase: str
    """Regular expression, matched ignoring case: anywhere, where `becomes` is a text, else against the whole statement."""
    becomes: str | None
    """What stands in the phrase's place, or None: the statement that the phrase is, is dropped."""
    why: str

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.phrase, re.IGNORECASE)

    def apply(self, statement: str) -> str:
        """The statement with the rule applied, single blanks between its words; empty where it is dropped."""
        if self.becomes is None:
            return "" if self._pattern.fullmatch(statement) else statement
        return " ".join(self._pattern.sub(self.becomes, statement).split())


FRAME_RULES = (
    TextRule(r"-{3,}|\*{3,}", " ", "a frame around notes and alarms, no words"),
    TextRule(r"^summary:", "", "heading of the line that says normal or abnormal"),
    TextRule(r"(?<![. ])[. ]+$", "", "the joint between statements does the work of the full stop"),
)
"""First, so that the rules after them meet bare statements."""

NOTE_RULES = (
    TextRule(r"(?:warning: )?data quality may affect interpretation", None, "quality of the recording"),
    TextRule(r"poor quality data, interpretation may be affected", None, "quality of the recording"),
    TextRule(r"recording unsuitable for analysis - please repeat", None, "quality of the recording"),
    TextRule(r"all 12 leads are missing", None, "quality of the recording"),
    TextRule(r"analysis error", None, "the program failed"),
    TextRule(r"possible measurement error", None, "doubt of the program about itself"),
    TextRule(r"(?:report|interpretation) made without knowing patient's (?:sex|age|gender)(?: or age)?", None, "data entry"),
    TextRule(r"age not entered, assumed to be \d+ years old[\w ]*", None, "data entry"),
    TextRule(r"pediatric criteria used", None, "choice of criteria"),
    TextRule(r"pediatric ecg interpretation", None, "heading"),
    TextRule(r"suspect (?:arm|limb) lead reversal(?: - only [\w, -]+ analyzed)?", None, "cables"),
    TextRule(r"suspect (?:arm|limb) lead reversal, interpretation assumes no reversal", None, "cables"),
    TextRule(r"lead\(s\) unsuitable for analysis:[\w, ]*", None, "cables; a list of leads follows"),
    TextRule(r"possible faulty [\w, ]+ - omitted from analysis", None, "cables"),
    TextRule(r"possible sequence error: [\w, ]+ omitted", None, "cables"),
    TextRule(r"pacer detection suspended due to external noise ?- ?review advised", None, "noise"),
    TextRule(r"if rhythm is confirmed, the following report may not be valid", None, "a reservation about other lines"),
)
"""Statements about the recording, the program or the data entry, whole."""

PHRASE_RULES = (
    TextRule(r" ?[-,] age (?:undetermined|indeterminate)\b", "", "says that nothing is said"),
    TextRule(r" - no further analysis\b", "", "about the program, behind a finding"),
    TextRule(r"\bRBBB\b", "right bundle branch block", "abbreviation"),
    TextRule(r"\bLBBB\b", "left bundle branch block", "abbreviation"),
    TextRule(r"\bLVH\b", "left ventricular hypertrophy", "abbreviation"),
    TextRule(r"\bRVH\b", "right ventricular hypertrophy", "abbreviation"),
    TextRule(r"\bMI\b", "myocardial infarction", "abbreviation"),
    TextRule(r"\bLAFB\b", "left anterior fascicular block", "abbreviation"),
    TextRule(r"\bPVCs\b|\bPVC\(s\)", "premature ventricular complexes", "abbreviation, of one or more"),
    TextRule(r"\bPVC\b(?!\(s\))", "premature ventricular complex", "abbreviation"),
    TextRule(r"\bPACs\b|\bPAC\(s\)", "premature atrial complexes", "abbreviation, of one or more"),
    TextRule(r"\bPAC\b(?!\(s\))", "premature atrial complex", "abbreviation"),
)
"""Words and phrases within a finding."""

CART_RULES = FRAME_RULES + NOTE_RULES + PHRASE_RULES
"""For the statements of MIMIC-IV-ECG's carts, one a cell."""

PTB_XL_RULES = (
    TextRule(r"(?:\b4\.46 )?\bunconfirmed(?: report)?[. ]*$", "", "version and state of the reporting program, at the end"),
    TextRule(r",? age undetermined\b", "", "says that nothing is said"),
    TextRule(r"\bnormales\b", "normal", "a German word left in English text"),
    TextRule(r"\be[ck]g\b", "ECG", "one spelling"),
)
"""For PTB-XL's English reports, each one text."""


def clean_statements(cells: Iterable[str], rules: Sequence[TextRule] = CART_RULES) -> list[str]:
    """The statements that say something about the heart, in their order, abbreviations written out.

    Args:
        cells: a statement each, as published; empty ones count for nothing.
        rules: applied to each in turn.
    """
    cleaned = (_clean(" ".join(cell.split()), rules) for cell in cells)
    return [statement for statement in cleaned if statement]


def _clean(statement: str, rules: Sequence[TextRule]) -> str:
    for rule in rules:
        statement = rule.apply(statement)
    return statement
