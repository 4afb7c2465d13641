"""PTB-XL in its native layout: `ptbxl_database.csv`, `scp_statements.csv`, `records100/`, `records500/`.

Source: Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Scientific Data 7:154 (2020),
version 1.0.3. Folds 1-8 train, 9 val, 10 test, as its authors recommend. A folder that `ecgchat shards simulate`
wrote has the same layout, says so in `simulation.json`, and carries exact measurements in columns of its own.

Statements, classes and labels: a statement that the annotators did not give counts as absent, since they chose from the
whole list. Form and rhythm statements carry no likelihood (always 0); for a diagnostic one 0 means that it is unknown.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import EcgRecord, RecordError, Split, Statement
from shards.sources.paths import within
from shards.sources.statement_text import PTB_XL_RULES, clean_statements
from shards.sources.tables import Table, number, read_table
from shards.sources.wfdb_record import read_wfdb

DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
CORPUS = "PTB-XL"
SIMULATION = "simulation.json"
LONGEST_SIMULATION = 100_000
"""Bytes of that file; it has a few hundred."""

STATEMENT_COLUMNS = ("", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")

FILE_COLUMN = {500: "filename_hr", 100: "filename_lr"}
NEEDED_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "recording_date", "report", "scp_codes", "strat_fold")

LONGEST_ID = 18
"""Digits; the published numbers have at most 5."""

AGE_OVER_89 = 300
"""PTB-XL's stand-in for every age over 89 (its data description, section Patient information)."""

MEASUREMENT_COLUMNS = {
    "heart_rate": "heart_rate",
    "rr": "rr_ms",
    "pr": "pr_ms",
    "qrs": "qrs_ms",
    "qt": "qt_ms",
    "qtc": "qtc_ms",
    "qrs_axis": "qrs_axis_deg",
}

GERMAN = re.compile(r"rhythmus|normales|linkstyp|rechtstyp|arrhythmie|bradykardie|tachykardie|unbest|nicht|verdacht|infarkt")
ENGLISH = re.compile(r"\brhythm\b|\bblock\b|\bnormal e[ck]g\b|\binfarction\b|\babnormal\b|\baxis\b|tachycardia|bradycardia")


class PtbXl:
    """The corpus in one folder, at one of its two sampling rates."""

    kind: Kind = "ecg"
    published_rates_hz = tuple(FILE_COLUMN)

    def __init__(self, folder: Path, sampling_rate_hz: int = 500, *, english: Path | None = None) -> None:
        """Read the small tables.

        Args:
            folder: where the corpus lies.
            sampling_rate_hz: which of the two published signals to take.
            english: a csv with `ecg_id` and `report`, reports in English, as fairseq-signals publishes them.

        Raises:
            RecordError: a table is missing or unreadable, or there is no signal of that rate.
        """
        if sampling_rate_hz not in FILE_COLUMN:
            raise RecordError(f"sampling rate {sampling_rate_hz} Hz: PTB-XL is published at 500 and 100 Hz; choose one of them")
        self.folder = folder.absolute()
        self.rate = sampling_rate_hz
        self.simulated = (self.folder / SIMULATION).is_file()
        self.name = "simulated-ptb-xl" if self.simulated else "ptb-xl"
        statements = read_table(self.folder / STATEMENTS, STATEMENT_COLUMNS, CORPUS)
        self._statements = {row[""]: dict(row) for row in statements}
        classes = (name for statement in self._statements.values() for name in _classes_of(statement))
        self._no_classes: dict[str, int | None] = dict.fromkeys(classes, 0)
        self._tables = {STATEMENTS: statements.sha256}
        self._english = None if english is None else read_table(english, ("ecg_id", "report"), "English reports for PTB-XL")
        if self._english is not None:
            self._tables[self._english.path.name] = self._english.sha256

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_english": None}

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        if self.simulated:
            simulation = _simulation(self.folder / SIMULATION)
            return {"corpus": "simulated, PTB-XL layout", "simulation": simulation, "tables": self._tables}
        return {"corpus": "PTB-XL", "licence": "CC BY 4.0", "tables": self._tables}

    def plan(self) -> Plan:
        """Every row of the database whose files are there, and those whose files are not.

        Raises:
            RecordError: the database is missing, or lacks a column.
        """
        column = FILE_COLUMN[self.rate]
        database = read_table(self.folder / DATABASE, (*NEEDED_COLUMNS, column), CORPUS)
        self._tables[DATABASE] = database.sha256
        translated = _translations(self._english)
        plan = Plan([], [], [])
        seen: set[str] = set()
        for position, row in enumerate(database, 1):
            name = row["ecg_id"]
            try:
                _check_id(name, position, seen)
                path = within(self.folder, row[column], f"{DATABASE}, ecg_id {name}, {column}")
                missing = [path.name + end for end in (".hea", ".dat") if not path.with_name(path.name + end).is_file()]
                if missing:
                    reason = f"{row[column]}: {' and '.join(missing)} not in {self.folder.name}"
                    plan.absent.append(AbsentRecord(name, reason))
                else:
                    plan.records.append(PlannedRecord(name, _split(row), {"row": row, "english": translated.get(name)}))
            except RecordError as error:
                plan.rejected.append(RejectedRecord(name if name in seen else f"row {position}", str(error)))
        return plan

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one row.

        Raises:
            RecordError: its files or fields are not what they should be.
        """
        row = planned.row["row"]
        path = row[FILE_COLUMN[self.rate]]
        signal = read_wfdb(self.folder / path)
        if signal.fs_hz != self.rate:
            raise RecordError(f"{path}.hea: expected {self.rate} Hz, found {signal.fs_hz:g} Hz; fetch the record again")
        codes = _codes(row)
        age, age_note = _age(row)
        return EcgRecord(
            source=self.name,
            record_id=row["ecg_id"],
            source_path=path,
            patient_id=_patient(row),
            split=planned.split,
            fs_hz=signal.fs_hz,
            ecg=signal.ecg,
            mv_per_lsb=signal.mv_per_lsb,
            acquired=row["recording_date"] or None,
            statements=[Statement(code, "SCP", likelihood) for code, likelihood in codes.items()],
            labels={**self._labels(codes), **self._classes(codes)},
            age=age,
            age_note=age_note,
            sex=_sex(row),
            measurements=_measurements(row),
            **self._report(row, codes, planned.row["english"]),
        )

    def _report(self, row: Mapping[str, str], codes: Mapping[str, float], translated: str | None) -> dict[str, Any]:
        """English text: the publisher's where it is English, else a translation, else made from the coded statements."""
        original = " ".join(row["report"].split()) or None
        language = row.get("report_language") or _language(original)
        made = ", ".join(self._statements[code]["description"] for code in codes if code in self._statements)
        texts = {
            "publisher": original if language == "en" else None,
            "translation": translated,
            "made from statements": made,
        }
        source = next((source for source, text in texts.items() if text), None)
        return {
            "report": texts[source] if source else None,
            "report_source": source,
            "report_original": original,
            "report_language": language,
        }

    def _labels(self, codes: Mapping[str, float]) -> dict[str, int | None]:
        """All statements of the corpus: 1 stated, 0 not stated, None a diagnosis stated with likelihood 0."""
        labels: dict[str, int | None] = dict.fromkeys(self._statements, 0)
        for code, likelihood in codes.items():
            kind = self._statements.get(code, {})
            certain = likelihood > 0 or kind.get("form") == "1.0" or kind.get("rhythm") == "1.0"
            labels[code] = 1 if certain else None
        return labels

    def _classes(self, codes: Mapping[str, float]) -> dict[str, int | None]:
        """`superclass:MI`, `subclass:IMI` …: 1 where a diagnosis of the class is likely, None where one has likelihood 0."""
        classes = dict(self._no_classes)
        for code, likelihood in codes.items():
            for name in _classes_of(self._statements.get(code, {})):
                if classes[name] != 1:
                    classes[name] = 1 if likelihood > 0 else None
        return classes


def _simulation(path: Path) -> dict[str, Any]:
    """What the simulator says of its folder.

    Raises:
        RecordError: the file is not what it writes.
    """
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(LONGEST_SIMULATION + 1)[:LONGEST_SIMULATION])
        json.dumps(said, allow_nan=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not what the simulator writes ({type(error).__name__}); simulate again") from error
    if not isinstance(said, dict):
        raise RecordError(f"{path}: expected an object with generator, seed and records; simulate again")
    return said


def _classes_of(statement: Mapping[str, str]) -> list[str]:
    if statement.get("diagnostic") != "1.0":
        return []
    return [
        f"{level}:{statement[column]}"
        for level, column in (("superclass", "diagnostic_class"), ("subclass", "diagnostic_subclass"))
        if statement[column]
    ]


def _translations(english: Table | None) -> dict[str, str]:
    """ecg_id → report in English, cleaned."""
    cleaned = ((row["ecg_id"], clean_statements([row["report"]], PTB_XL_RULES)) for row in english or ())
    return {name: statements[0] for name, statements in cleaned if statements}


def _check_id(name: str, position: int, seen: set[str]) -> None:
    if not (name.isascii() and name.isdecimal() and len(name) <= LONGEST_ID):
        raise RecordError(f"{DATABASE}, row {position}: expected a number as ecg_id; fetch the table again")
    if name in seen:
        raise RecordError(f"{DATABASE}: ecg_id {name} stands in more than one row, the first is read; fetch the table again")
    seen.add(name)


def _split(row: Mapping[str, str]) -> Split:
    fold = row["strat_fold"]
    if fold not in {str(number) for number in range(1, 11)}:
        raise RecordError(
            f"{DATABASE}, ecg_id {row['ecg_id']}: strat_fold {fold[:20]!r}, expected 1 to 10; fetch the table again"
        )
    return "test" if fold == "10" else "val" if fold == "9" else "train"


def _patient(row: Mapping[str, str]) -> str:
    """Patient numbers are published as floats (`15709.0`)."""
    try:
        return str(int(float(row["patient_id"])))
    except (ValueError, OverflowError):
        raise RecordError(
            f"{DATABASE}, ecg_id {row['ecg_id']}: expected a number as patient_id; fetch the table again"
        ) from None


def _codes(row: Mapping[str, str]) -> dict[str, float]:
    try:
        codes = {str(code): float(likelihood) for code, likelihood in ast.literal_eval(row["scp_codes"]).items()}
        if not all(code.isprintable() and math.isfinite(likelihood) for code, likelihood in codes.items()):
            raise ValueError
        return codes
    except (ValueError, OverflowError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise RecordError(
            f"{DATABASE}, ecg_id {row['ecg_id']}: scp_codes is {row['scp_codes'][:60]!r}, expected a mapping of code to "
            "likelihood; fetch the table again"
        ) from None


def _age(row: Mapping[str, str]) -> tuple[float | None, str | None]:
    age = number(row["age"])
    return (None, "over 89") if age == AGE_OVER_89 else (age, None)


def _sex(row: Mapping[str, str]) -> Literal["M", "F"] | None:
    return {"0": "M", "1": "F"}.get(row["sex"])  # type: ignore[return-value]  # the two values are the Literal's


def _measurements(row: Mapping[str, str]) -> dict[str, Any]:
    values = {name: number(row.get(column, "")) for name, column in MEASUREMENT_COLUMNS.items()}
    return {**values, "source": "simulation"} if any(value is not None for value in values.values()) else {}


def _language(text: str | None) -> str | None:
    """`de`, `en` or None where neither is plain. PTB-XL publishes no language; about nine of ten reports are German."""
    if text is None:
        return None
    german, english = (len(pattern.findall(text.lower())) for pattern in (GERMAN, ENGLISH))
    return None if german == english else "de" if german > english else "en"
