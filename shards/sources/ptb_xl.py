"""PTB-XL in its native layout: `ptbxl_database.csv`, `scp_statements.csv`, `records100/`, `records500/`.

Source: Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Scientific Data 7:154 (2020),
version 1.0.3. Folds 1-8 train, 9 val, 10 test, as its authors recommend. A folder that `ecgchat shards simulate`
wrote has the same layout, says so in `simulation.json`, and carries exact measurements in columns of its own.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import EcgRecord, RecordError, Split, Statement
from shards.sources.wfdb_record import read_wfdb

DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
SIMULATION = "simulation.json"

FILE_COLUMN = {500: "filename_hr", 100: "filename_lr"}
NEEDED_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "recording_date", "report", "scp_codes", "strat_fold")

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

    def __init__(self, folder: Path, sampling_rate_hz: int = 500) -> None:
        if sampling_rate_hz not in FILE_COLUMN:
            raise RecordError(f"--rate {sampling_rate_hz}: PTB-XL is published at 500 and 100 Hz; choose one of them")
        self.folder = folder.absolute()
        self.rate = sampling_rate_hz
        self.simulated = (self.folder / SIMULATION).is_file()
        self.name = "simulated-ptb-xl" if self.simulated else "ptb-xl"
        self._statements = _read_statements(self.folder / STATEMENTS)

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        if self.simulated:
            return {"corpus": "simulated, PTB-XL layout", "simulation": json.loads((self.folder / SIMULATION).read_text())}
        return {"corpus": "PTB-XL", "licence": "CC BY 4.0"}

    def plan(self) -> Plan:
        """Every row of the database whose files are there, and those whose files are not.

        Raises:
            RecordError: the database is missing, or lacks a column.
        """
        column = FILE_COLUMN[self.rate]
        rows = _read_table(self.folder / DATABASE, (*NEEDED_COLUMNS, column))
        records: list[PlannedRecord] = []
        absent: list[AbsentRecord] = []
        rejected: list[RejectedRecord] = []
        for row in rows:
            path = self.folder / row[column]
            missing = [path.name + end for end in (".hea", ".dat") if not path.with_name(path.name + end).is_file()]
            if missing:
                absent.append(AbsentRecord(row["ecg_id"], f"{row[column]}: {' and '.join(missing)} not in {self.folder.name}"))
                continue
            try:
                records.append(PlannedRecord(row["ecg_id"], _split(row), row))
            except RecordError as error:
                rejected.append(RejectedRecord(row["ecg_id"], str(error)))
        return Plan(records, absent, rejected)

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one row.

        Raises:
            RecordError: its files or fields are not what they should be.
        """
        row = planned.row
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
            labels=self._labels(codes),
            age=age,
            age_note=age_note,
            sex=_sex(row),
            measurements=_measurements(row),
            **self._report(row, codes),
        )

    def _report(self, row: Mapping[str, str], codes: Mapping[str, float]) -> dict[str, Any]:
        """English text: the publisher's where it is English, else made from the coded statements."""
        original = " ".join(row["report"].split()) or None
        language = row.get("report_language") or _language(original)
        described = [self._statements[code]["description"] for code in codes if code in self._statements]
        made = ", ".join(described) or None
        english = original if language == "en" else made
        return {
            "report": english,
            "report_source": None if english is None else "publisher" if language == "en" else "made from statements",
            "report_original": original,
            "report_language": language,
        }

    def _labels(self, codes: Mapping[str, float]) -> dict[str, int | None]:
        """All statements of the corpus: 1 stated, 0 not stated, None stated with likelihood 0.

        Annotators chose from the whole list, so a code that is not given counts as absent. Form and rhythm statements
        carry no likelihood (always 0); for a diagnostic one 0 means that its likelihood is unknown.
        """
        labels: dict[str, int | None] = dict.fromkeys(self._statements, 0)
        for code, likelihood in codes.items():
            kind = self._statements.get(code, {})
            certain = likelihood > 0 or kind.get("form") == "1.0" or kind.get("rhythm") == "1.0"
            labels[code] = 1 if certain else None
        return labels


def _read_table(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a PTB-XL folder that holds {path.name}; check DIR")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in needed if column not in (reader.fieldnames or [])]
        if missing:
            raise RecordError(
                f"{path}: column {', '.join(missing)} missing; expected the table of PTB-XL 1.0.3; fetch it again"
            )
        return list(reader)


def _read_statements(path: Path) -> dict[str, dict[str, str]]:
    rows = _read_table(path, ("description", "diagnostic", "form", "rhythm"))
    return {next(iter(row.values())): row for row in rows}


def _split(row: Mapping[str, str]) -> Split:
    fold = row["strat_fold"]
    if fold not in {str(number) for number in range(1, 11)}:
        raise RecordError(f"{DATABASE}, ecg_id {row['ecg_id']}: strat_fold {fold!r}, expected 1 to 10; fetch the table again")
    return "test" if fold == "10" else "val" if fold == "9" else "train"


def _patient(row: Mapping[str, str]) -> str:
    """Patient numbers are published as floats (`15709.0`)."""
    try:
        return str(int(float(row["patient_id"])))
    except ValueError:
        raise RecordError(
            f"{DATABASE}, ecg_id {row['ecg_id']}: expected a number as patient_id; fetch the table again"
        ) from None


def _codes(row: Mapping[str, str]) -> dict[str, float]:
    try:
        codes = ast.literal_eval(row["scp_codes"])
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise RecordError(
            f"{DATABASE}, ecg_id {row['ecg_id']}: scp_codes is {row['scp_codes'][:60]!r}, expected a mapping of code to "
            "likelihood; fetch the table again"
        ) from None


def _age(row: Mapping[str, str]) -> tuple[float | None, str | None]:
    age = _number(row["age"])
    return (None, "over 89") if age == AGE_OVER_89 else (age, None)


def _sex(row: Mapping[str, str]) -> Literal["M", "F"] | None:
    return {"0": "M", "1": "F"}.get(row["sex"])  # type: ignore[return-value]  # the two values are the Literal's


def _measurements(row: Mapping[str, str]) -> dict[str, Any]:
    values = {name: _number(row.get(column, "")) for name, column in MEASUREMENT_COLUMNS.items()}
    return {**values, "source": "simulation"} if any(value is not None for value in values.values()) else {}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _language(text: str | None) -> str | None:
    """`de`, `en` or None where neither is plain. PTB-XL publishes no language; about nine of ten reports are German."""
    if text is None:
        return None
    german, english = (len(pattern.findall(text.lower())) for pattern in (GERMAN, ENGLISH))
    return None if german == english else "de" if german > english else "en"
