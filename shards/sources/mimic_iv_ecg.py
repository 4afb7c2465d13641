"""MIMIC-IV-ECG 1.0: `record_list.csv`, `machine_measurements.csv` and WFDB records under `files/`.

Source: Gow et al., MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset (version 1.0), PhysioNet (2023); licence ODbL 1.0.
Headers name aVF before aVL. Reports are the cart's own statements, one a cell; times are shifted into the future by the
publisher, the same for all records of a patient. There is no age or sex in this module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import EcgRecord, RecordError, split_by_hash
from shards.sources.paths import within
from shards.sources.statement_text import clean_statements
from shards.sources.tables import Table, number, read_table
from shards.sources.wfdb_record import read_wfdb

CORPUS = "MIMIC-IV-ECG 1.0"
RECORD_LIST = "record_list.csv"
MEASUREMENTS = "machine_measurements.csv"

REPORT_CELLS = tuple(f"report_{place}" for place in range(18))
TIMES = ("rr_interval", "p_onset", "qrs_onset", "qrs_end", "t_end")
AXES = ("p_axis", "qrs_axis", "t_axis")

JOINT = "; "
"""Between the statements of a report, which hold commas and full stops of their own."""

LONGEST_ID = 18
"""Digits; the published numbers have 8."""

LONGEST_MS = 10_000
"""A record is 10 s long. The cart's stand-ins for a time it could not measure are beyond: 29999, 32767, 65535."""

SHORTEST_RR_MS = 100
"""600 beats a minute; the cart writes 0 where it found no beats."""

WIDEST_DEG = 360
"""The stand-ins for an axis are no angles: 29999, 32767, 32768 and their negatives."""


class MimicIvEcg:
    """The corpus in one folder."""

    name = "mimic-iv-ecg"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables: a planned record brings its rows along."""
        return {"folder": self.folder}

    @cached_property
    def _listed(self) -> Table:
        return read_table(self.folder / RECORD_LIST, ("subject_id", "study_id", "ecg_time", "path"), CORPUS)

    @cached_property
    def _measured(self) -> Table:
        return read_table(self.folder / MEASUREMENTS, ("subject_id", "study_id", *REPORT_CELLS, *TIMES, *AXES), CORPUS)

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        tables = {RECORD_LIST: self._listed.sha256, MEASUREMENTS: self._measured.sha256}
        return {"corpus": CORPUS, "licence": "ODbL 1.0", "tables": tables}

    def plan(self) -> Plan:
        """Every row of the record list, with the row of the measurements that has its study_id, if there is one.

        Raises:
            RecordError: a table is missing, broken or lacks a column.
        """
        plan = Plan([], [], [])
        listed = _first_rows(self._listed, RECORD_LIST, plan.rejected)
        measured = _first_rows(self._measured, MEASUREMENTS, plan.rejected)
        for study, position in listed.items():
            place = measured.get(study)
            rows = {"listed": self._listed[position], "measured": None if place is None else self._measured[place]}
            try:
                self._plan_study(study, rows, plan)
            except RecordError as error:
                plan.rejected.append(RejectedRecord(study, str(error)))
        return plan

    def _plan_study(self, study: str, rows: Mapping[str, Any], plan: Plan) -> None:
        where = f"{RECORD_LIST}, study_id {study}"
        listed, measured = rows["listed"], rows["measured"]
        subject = listed["subject_id"]
        if not _is_id(subject) or (measured is not None and measured["subject_id"] != subject):
            raise RecordError(
                f"{where}: expected one number as subject_id, the same in {MEASUREMENTS}, found none or two; "
                "fetch the tables again"
            )
        path = within(self.folder, listed["path"], f"{where}, path")
        missing = [end for end in (".hea", ".dat") if not os.path.isfile(f"{path}{end}")]
        if missing:
            reason = f"{listed['path']}: {' and '.join(missing)} not in {self.folder.name}"
            plan.absent.append(AbsentRecord(study, reason))
            return
        plan.records.append(PlannedRecord(study, split_by_hash(self.name, subject), rows))

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one study.

        Raises:
            RecordError: its files are not what they should be.
        """
        listed, measured = planned.row["listed"], planned.row["measured"]
        where = f"{RECORD_LIST}, study_id {planned.record_id}, path"
        signal = read_wfdb(within(self.folder, listed["path"], where))
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=listed["path"].strip(),
            patient_id=listed["subject_id"],
            split=planned.split,
            fs_hz=signal.fs_hz,
            ecg=signal.ecg,
            mv_per_lsb=signal.mv_per_lsb,
            acquired=listed["ecg_time"].strip() or None,
            measurements=_measurements(measured) if measured else {},
            **(_report(measured) if measured else {}),
        )


def _first_rows(table: Table, name: str, rejected: list[RejectedRecord]) -> dict[str, int]:
    """Study → position of its first row; rows after it, and rows without a study, are rejected."""
    first: dict[str, int] = {}
    for position, study in enumerate(table.column("study_id")):
        if not _is_id(study):
            reason = f"{name}, row {position + 1}: expected a number as study_id; fetch the table again"
            rejected.append(RejectedRecord(f"row {position + 1}", reason))
        elif first.setdefault(study, position) != position:
            reason = f"{name}, study_id {study}: row {position + 1} gives it again, row {first[study] + 1} is read; keep one"
            rejected.append(RejectedRecord(study, reason))
    return first


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= LONGEST_ID


def _report(row: Mapping[str, str]) -> dict[str, Any]:
    """The cells as they are, and the English report that their statements make."""
    cells = [row[cell] for cell in REPORT_CELLS if row[cell].strip()]
    report = JOINT.join(clean_statements(cells)) or None
    return {
        "report": report,
        "report_source": "publisher" if report else None,
        "report_original": "\n".join(cells) or None,
        "report_language": "en" if cells else None,
    }


def _measurements(row: Mapping[str, str]) -> dict[str, Any]:
    """Intervals by their standard definitions from the cart's fiducial times; empty where it measured nothing.

    PR needs a P wave: in some records with atrial fibrillation a P onset is given, but no P axis.
    """
    rr, p_onset, qrs_onset, qrs_end, t_end = (_time(row[column]) for column in TIMES)
    axes = {column: _angle(row[column]) for column in AXES}
    rr = rr if rr is not None and rr >= SHORTEST_RR_MS else None
    qt = _interval(qrs_onset, t_end)
    values = {
        "rr": rr,
        "heart_rate": None if rr is None else round(60_000 / rr, 1),
        "pr": None if axes["p_axis"] is None else _interval(p_onset, qrs_onset),
        "qrs": _interval(qrs_onset, qrs_end),
        "qt": qt,
        "qtc": None if qt is None or rr is None else round(qt / math.sqrt(rr / 1000), 1),
        **axes,
    }
    if all(value is None for value in values.values()):
        return {}
    return {**values, "qtc_formula": "Bazett", "source": "publisher"}


def _time(text: str) -> float | None:
    value = number(text)
    return value if value is not None and 0 <= value <= LONGEST_MS else None


def _interval(start: float | None, end: float | None) -> float | None:
    return end - start if start is not None and end is not None and end > start else None


def _angle(text: str) -> float | None:
    value = number(text)
    return value if value is not None and abs(value) <= WIDEST_DEG else None
