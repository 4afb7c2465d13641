"""SaMi-Trop in its native layout: `exams.csv` and `exams.hdf5`, whose tracings have no numbers and are joined by row.

Source: Ribeiro et al., SaMi-Trop: 12-lead ECG traces with age and mortality annotations, Zenodo 4905618, version 1.0.0,
CC BY 4.0. One exam of each of 1,631 patients of a cohort with chronic Chagas cardiomyopathy, with their mortality.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from shards.plan import Kind, Plan, PlannedRecord
from shards.record import LEADS, EcgRecord, RecordError
from shards.sources.tables import Table, number, read_table, truth
from shards.sources.tnmg import (
    FS_HZ,
    NORMAL,
    VALUES_PER_MV,
    Exam,
    described,
    labels_of,
    open_tracings,
    outcome,
    plan_exams,
    quantise_tracing,
    read_tracing,
    sex_of,
)

TABLE = "exams.csv"
TRACINGS = "exams.hdf5"
COLUMNS = ("exam_id", "age", "is_male", NORMAL, "death", "timey")


class SamiTrop:
    """The cohort in one folder."""

    name = "sami-trop"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    @cached_property
    def _table(self) -> Table:
        return read_table(self.folder / TABLE, COLUMNS, "SaMi-Trop 1.0.0")

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        return {
            "corpus": "SaMi-Trop",
            "licence": "CC BY 4.0",
            "tables": {TABLE: self._table.sha256},
            "values": "stored values / 2 = mV",
            "labels": "chagas is 1 for every exam: the cohort is of patients with chronic Chagas cardiomyopathy",
        }

    def plan(self) -> Plan:
        """Every row of the table, with the tracing of the same row.

        Raises:
            RecordError: the table or the tracings are missing or damaged, or have not the same number of rows.
        """
        exams = self._table.column("exam_id")
        tracings = open_tracings(self.folder / TRACINGS, "tracings").shape[0]
        if tracings != len(exams):
            raise RecordError(
                f"{TRACINGS} has {tracings} tracings and {TABLE} {len(exams)} rows, expected one row for each: they are "
                "joined by row; fetch both again"
            )
        # One exam a patient, and no patient numbers: the exam's number stands for the patient.
        return plan_exams(self.name, exams, exams, lambda row, exam: Exam(self._table[row], TRACINGS, row), TABLE)

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one exam.

        Raises:
            RecordError: its tracing or a field is not what it should be.
        """
        row = planned.row
        tracings = open_tracings(self.folder / TRACINGS, "tracings")
        values = read_tracing(tracings, row["tracing_row"], f"{TRACINGS}, exam {planned.record_id}")
        ecg, mv_per_lsb = quantise_tracing(values, range(len(LEADS)), VALUES_PER_MV, f"exam {planned.record_id}")
        fields = f"{TABLE}, exam {planned.record_id}"
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=TRACINGS,
            patient_id=planned.record_id,
            split=planned.split,
            fs_hz=FS_HZ,
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            age=number(row["age"]),
            sex=sex_of(truth(row["is_male"])),
            outcome=outcome(row, fields),
            **described({**labels_of(row, [NORMAL], fields), "chagas": 1}),
        )
