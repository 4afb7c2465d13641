"""What CODE, CODE-15%, CODE-test and SaMi-Trop share: the corpora of the Telehealth Network of Minas Gerais (TNMG).

Source: Ribeiro et al., Automatic diagnosis of the 12-lead ECG using a deep neural network, Nature Communications 11:1760
(2020), and the data pages of the four. Signals lie in HDF5 tensors (exams, 4096 samples, 12 leads) at 400 Hz; a shorter
recording stands in the middle of zeros. Stored values are 2 x millivolts: the corpora were written with that factor
(README of antonior92/ecg-preprocessing, `--scale 2`), although their data pages speak of 1e-4 V.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from shards.plan import AbsentRecord, Plan, PlannedRecord, RejectedRecord
from shards.record import RecordError, Statement, quantise, split_by_hash
from shards.sources.hdf5 import open_dataset, read_rows
from shards.sources.tables import Row, number, truth

FS_HZ = 400.0
SAMPLES = 4096
VALUES_PER_MV = 2.0

FINDINGS = {
    "1dAVb": "first degree AV block",
    "RBBB": "right bundle branch block",
    "LBBB": "left bundle branch block",
    "SB": "sinus bradycardia",
    "AF": "atrial fibrillation",
    "ST": "sinus tachycardia",
}
"""The six findings, column → words, in the order of the 2020 paper; tables give them in other orders and are read by name."""

NORMAL = "normal_ecg"

SEVERAL = -1
"""Stands for the place of an exam whose number stands in several rows of a file."""


class AbsentTracingError(RecordError):
    """An exam of a table whose file, or whose row in it, is not there."""


class Exam(Mapping[str, Any]):
    """A row of a table with the place of its tracing: a view, and a dictionary of its own once it is pickled.

    Beside the fields of the row it has `tracing_file`, `tracing_row` and `comorbidities` (a row of another table, or None).
    """

    __slots__ = ("_row", "comorbidities", "tracing_file", "tracing_row")
    ADDED = ("tracing_file", "tracing_row", "comorbidities")

    def __init__(self, row: Row, tracing_file: str, tracing_row: int, comorbidities: Row | None = None) -> None:
        self._row = row
        self.tracing_file = tracing_file
        self.tracing_row = tracing_row
        self.comorbidities = comorbidities

    def __getitem__(self, column: str) -> Any:
        return getattr(self, column) if column in self.ADDED else self._row[column]

    def __iter__(self) -> Iterator[str]:
        yield from self._row
        yield from self.ADDED

    def __len__(self) -> int:
        return len(self._row) + len(self.ADDED)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def open_tracings(path: Path, name: str) -> h5py.Dataset:
    """The tensor of a file, its shape checked.

    Raises:
        RecordError: the file or the dataset is absent or damaged, or is no (exams, 4096, 12).
    """
    tracings = open_dataset(path, name)
    shape = tracings.shape or ()
    if len(shape) != 3 or shape[1:] != (SAMPLES, 12):
        raise RecordError(f"{path.name}: {name} has the shape {shape}, expected (exams, {SAMPLES}, 12); fetch it again")
    return tracings


def exam_rows(path: Path, ids: str, tracings: str) -> dict[int, int]:
    """Exam number → its row in a file; `SEVERAL` where a number stands there more than once.

    Raises:
        RecordError: a dataset is absent or damaged, or the two have not one row for each exam.
    """
    exams = open_tracings(path, tracings).shape[0]
    dataset = open_dataset(path, ids)
    if dataset.shape != (exams,) or dataset.dtype.kind not in "iu":
        raise RecordError(
            f"{path.name}: {ids} has shape {dataset.shape} and type {dataset.dtype}, expected {exams} whole numbers, one for "
            f"each of {tracings}; fetch it again"
        )
    numbers = read_rows(dataset, slice(None), path.name)
    rows = dict(zip(numbers.tolist(), range(exams), strict=True))
    if len(rows) < exams:
        values, counts = np.unique(numbers, return_counts=True)
        rows.update(dict.fromkeys(values[counts > 1].tolist(), SEVERAL))
    return rows


def row_of(exam: int, rows: Mapping[int, int], file: str) -> int:
    """The row of an exam among those of `exam_rows`.

    Raises:
        AbsentTracingError: the file does not hold the exam.
        RecordError: it holds it more than once.
    """
    if exam not in rows:
        raise AbsentTracingError(f"{file}: exam {exam} is not in it; fetch the file again or remove the exam's row")
    if rows[exam] == SEVERAL:
        raise RecordError(f"{file}: exam {exam} stands in several of its rows, expected one; fetch the file again")
    return rows[exam]


def plan_exams(
    name: str, exams: Sequence[str], patients: Sequence[str], find: Callable[[int, int], Mapping[str, Any]], table: str
) -> Plan:
    """Plan the rows of a table: numbers that can be read and stand once, splits by patient.

    Args:
        name: of the source.
        exams: the exam number of each row, as text.
        patients: the patient number of each row, as text.
        find: position of a row and its exam number → what `read` needs; raises `AbsentTracingError` or `RecordError`.
        table: name of the file, for sentences.
    """
    plan = Plan([], [], [])
    numbers = [whole_number(text) for text in exams]
    often = Counter(numbers)
    for position, (exam, patient) in enumerate(zip(numbers, map(whole_number, patients), strict=True)):
        record_id = f"row {position + 1}" if exam is None else str(exam)
        try:
            if exam is None or patient is None:
                raise RecordError(f"{table}, {record_id}: expected whole numbers for exam and patient; fetch the table again")
            if often[exam] > 1:
                raise RecordError(f"{table}: exam {exam} stands in {often[exam]} rows, expected one; fetch the table again")
            row = find(position, exam)
        except AbsentTracingError as error:
            plan.absent.append(AbsentRecord(record_id, str(error)))
        except RecordError as error:
            plan.rejected.append(RejectedRecord(record_id, str(error)))
        else:
            plan.records.append(PlannedRecord(record_id, split_by_hash(name, str(patient)), row))
    return plan


def read_tracing(tracings: h5py.Dataset, row: int, where: str) -> NDArray[np.float64]:
    """One tracing as stored, (samples, 12), its zero padding cut.

    Raises:
        RecordError: the row is not there, cannot be decoded, or holds no signal.
    """
    if not 0 <= row < tracings.shape[0]:
        raise RecordError(f"{where}: row {row} of {tracings.shape[0]} is not there; fetch the file again")
    values = without_padding(read_rows(tracings, row, where).astype(np.float64))
    if not np.any(np.isfinite(values) & (values != 0)):
        raise RecordError(f"{where}: all of its values are 0 or not finite, expected an ECG; leave the exam out")
    return values


def without_padding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (samples, leads) tracing without the rows at its ends in which every lead is exactly 0.

    Zeros within the signal stay, and so does a lead that is 0 throughout. A recording that itself began or ended with all
    leads at exactly 0 loses those samples too: nothing in the file tells them from padding.
    """
    recorded = np.flatnonzero(np.any(values != 0, axis=1))
    return values[recorded[0] : recorded[-1] + 1] if len(recorded) else values[:0]


def quantise_tracing(
    values: NDArray[np.float64], order: Sequence[int], values_per_mv: float, where: str
) -> tuple[NDArray[np.int16], list[float]]:
    """A (samples, 12) tracing as int16 leads with the scale of each; `order` holds the column of each standard lead."""
    return quantise(values.T[list(order)] / values_per_mv, where)


def flag(row: Mapping[str, str], column: str, where: str) -> bool | None:
    """True, False, or None where the field is blank: not known.

    Raises:
        RecordError: the field is something else.
    """
    text = row[column].strip()
    value = truth(text)
    if value is None and text.lower() not in ("", "nan"):
        raise RecordError(f"{where}: {column} is neither true nor false nor blank; fetch the table again")
    return value


def labels_of(row: Mapping[str, str], columns: Sequence[str], where: str) -> dict[str, int | None]:
    """Column → 1, 0 or None (blank), by name.

    Raises:
        RecordError: a field is something else.
    """
    values = {column: flag(row, column, where) for column in columns}
    return {column: None if value is None else int(value) for column, value in values.items()}


def described(labels: Mapping[str, int | None]) -> dict[str, Any]:
    """Labels with the statements and the report that follow from them.

    The report names the findings, or says `Normal ECG` where the publisher's flag does and there are none. Neither a
    finding nor the flag means that nothing is known: no report.
    """
    found = [code for code in FINDINGS if labels.get(code) == 1]
    normal = labels.get(NORMAL) == 1
    words = [FINDINGS[code] for code in found] or (["normal ECG"] if normal else [])
    text = ", ".join(words)
    return {
        "labels": dict(labels),
        "statements": [Statement(code, "CODE") for code in (*found, *([NORMAL] if normal else []))],
        "report": text[:1].upper() + text[1:] or None,
        "report_source": "made from statements" if text else None,
    }


def outcome(row: Mapping[str, str], where: str) -> dict[str, Any]:
    """Death and the years of follow-up; None where they are blank, which means not known, never alive.

    Raises:
        RecordError: the field of death is neither true, false nor blank.
    """
    return {"death": flag(row, "death", where), "follow_up_years": number(row["timey"])}


def sex_of(is_male: bool | None) -> Literal["M", "F"] | None:
    """M, F, or None where it is not given."""
    return None if is_male is None else "M" if is_male else "F"


def whole_number(text: str) -> int | None:
    """A number of an exam or a patient, written as `17` or `17.0`; None where it is none that 64 bits hold."""
    try:
        value = int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except (ValueError, OverflowError):
        return None
    return int(value) if abs(value) < 2**63 and value == int(value) else None
