"""CODE-15% in its native layout: `exams.csv` and `exams_part0.hdf5` to `exams_part17.hdf5`, each with a row for an exam.

Source: Ribeiro et al., CODE-15%: a large scale annotated dataset of 12-lead ECGs, Zenodo 4916206, version 1.0.0, CC BY 4.0.
The order of the table is not that of the files, whose last row is all zeros with exam number 0: they are joined by number.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from shards.plan import Kind, Plan, PlannedRecord
from shards.record import LEADS, EcgRecord, RecordError
from shards.sources.paths import within
from shards.sources.tables import Table, number, read_table, truth
from shards.sources.tnmg import (
    FINDINGS,
    FS_HZ,
    NORMAL,
    VALUES_PER_MV,
    AbsentTracingError,
    Exam,
    described,
    exam_rows,
    labels_of,
    open_tracings,
    outcome,
    plan_exams,
    quantise_tracing,
    read_tracing,
    row_of,
    sex_of,
    whole_number,
)

TABLE = "exams.csv"
LABELS = (*FINDINGS, NORMAL)
COLUMNS = ("exam_id", "age", "is_male", *LABELS, "patient_id", "death", "timey", "trace_file")
SENTINEL = 0
"""Exam number of the empty row at the end of each file."""


class Code15:
    """The corpus in one folder; any of its 18 files may be absent."""

    name = "code-15"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    @cached_property
    def _table(self) -> Table:
        return read_table(self.folder / TABLE, COLUMNS, "CODE-15% 1.0.0")

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        return {
            "corpus": "CODE-15%",
            "licence": "CC BY 4.0",
            "tables": {TABLE: self._table.sha256},
            "values": "stored values / 2 = mV",
        }

    def plan(self) -> Plan:
        """Every row of the table, joined to its tracing by exam number; tracings that no row names are left alone.

        Raises:
            RecordError: the table is missing, or lacks a column.
        """
        files = self._table.column("trace_file")
        parts = {file: self._part(file) for file in dict.fromkeys(files)}

        def find(position: int, exam: int) -> Exam:
            file = files[position]
            rows = parts[file]
            if isinstance(rows, RecordError):
                raise type(rows)(str(rows))  # a new one: an exception keeps a traceback for each time it is raised
            return Exam(self._table[position], file, row_of(exam, rows, file))

        return plan_exams(self.name, self._table.column("exam_id"), self._table.column("patient_id"), find, TABLE)

    def _part(self, file: str) -> dict[int, int] | RecordError:
        """The exams of a file, or why there are none: one damaged file keeps nobody from the others."""
        try:
            path = within(self.folder, file, f"{TABLE}, trace_file")
            if not path.is_file():
                return AbsentTracingError(f"{file}: not in {self.folder.name}; fetch it to have its exams")
            rows = exam_rows(path, "exam_id", "tracings")
        except OSError as error:
            return RecordError(f"{TABLE}: trace_file is no name that a file can have ({error.strerror}); mend the table")
        except RecordError as error:
            return error
        rows.pop(SENTINEL, None)
        return rows

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one exam.

        Raises:
            RecordError: its tracing or a field is not what it should be.
        """
        row = planned.row
        file = row["tracing_file"]
        where = f"{file}, exam {planned.record_id}"
        tracings = open_tracings(within(self.folder, file, f"{TABLE}, trace_file"), "tracings")
        values = read_tracing(tracings, row["tracing_row"], where)
        ecg, mv_per_lsb = quantise_tracing(values, range(len(LEADS)), VALUES_PER_MV, where)
        fields = f"{TABLE}, exam {planned.record_id}"
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=file,
            patient_id=str(whole_number(row["patient_id"])),
            split=planned.split,
            fs_hz=FS_HZ,
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            age=number(row["age"]),
            sex=sex_of(truth(row["is_male"])),
            outcome=outcome(row, fields),
            **described(labels_of(row, LABELS, fields)),
        )
