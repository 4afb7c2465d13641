"""Any folder of WFDB records: Holters, monitors, a hospital's export, a data set that has no source of its own.

Leads are taken by name; what a record does not have is missing and never made up. Long records are cut into windows on
request. A csv can say what the headers do not: patients, reports, labels, splits (`shards.sources.record_table`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import EcgRecord, RecordError
from shards.sources.folders import walk
from shards.sources.record_table import FoundRecord, RecordTable, age_of, described, source_name, without_twins
from shards.sources.tables import SEXES
from shards.sources.wfdb_decoder import decode_wfdb, record_length
from shards.sources.wfdb_header import outline
from shards.sources.wfdb_plain import read_plain

CORPUS = "wfdb"
"""What the split of a patient is taken with, whatever the folder or the source is called."""
MOST_WINDOWS = 100_000

PATIENT = re.compile(r"patient[ _]?id\s*:\s*(\S.*)", re.IGNORECASE)
AGE = re.compile(r"<?age>?\s*:\s*(\d{1,3}(?:\.\d{1,6})?)(?:\s.*)?", re.IGNORECASE)
SEX = re.compile(r"(?:.*\s)?<?sex>?\s*:\s*(male|female|m|f)\b.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header says that decides whether it is a record, and can be read."""

    segments: tuple[str, ...]
    absent: tuple[str, ...]
    """Files that it names and that are not beside it."""
    patient_id: str | None
    problem: str | None = None


class WfdbFolder:
    """All records below one folder."""

    simulated = False
    kind: Kind = "ecg"

    def __init__(
        self, folder: Path, *, name: str | None = None, table: Path | None = None, window_s: float | None = None
    ) -> None:
        """Read the table.

        Args:
            folder: where the records lie.
            name: what the records' source is called, in keys and labels of mixtures; the folder's name without it.
            table: a csv with a column `record`.
            window_s: length of the windows that each record is cut into, in seconds; records stay whole without it.

        Raises:
            RecordError: the folder or table is missing or unreadable, or an option is no use.
        """
        if window_s is not None and not (math.isfinite(window_s) and window_s > 0):
            raise RecordError(f"window of {window_s} s: expected more than 0; choose another length")
        if not folder.is_dir():
            raise RecordError(f"{folder}: no such folder; check DIR")
        self.folder = folder.absolute()
        self.name = source_name(name, folder)
        self.window_s = window_s
        self._table = RecordTable(table)
        self._labels = self._table.labels

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("folder", "name", "window_s", "_labels")}

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        said = self._table.provenance(record for record, _ in self._records)
        options: dict[str, Any] = {}
        if self.window_s is not None:
            options = {"window_s": self.window_s, "seconds_after_the_last_windows": self._plan_and_rest[1]}
        return {"corpus": f"WFDB records of {self.name}", "licence": "as their publisher gives it", **said, "options": options}

    def plan(self) -> Plan:
        """Every record of the folder that is no segment of another, or its windows; rows of the table without a record.

        Raises:
            RecordError: the folder holds no record.
        """
        return self._plan_and_rest[0]

    @cached_property
    def _plan_and_rest(self) -> tuple[Plan, float]:
        """The plan, and the seconds that no window holds."""
        found, absent, damaged = [], {}, {}
        for record, header in self._records:
            if header.problem:
                damaged[record] = header.problem
            elif header.absent:
                absent[record] = f"{header.absent[0]} not beside {record}.hea"
            else:
                found.append(FoundRecord(record, header.patient_id))
        plan = self._table.plan(found, CORPUS, absent, damaged)
        if self.window_s is None:
            return without_twins(plan, self.name), 0.0
        plan, left_out = self._in_windows(plan, self.window_s)
        return without_twins(plan, self.name), left_out

    @cached_property
    def _headers(self) -> dict[str, _Header]:
        """Path without extension → its header, in the order of the folder."""
        headers = {}
        for place, names in walk(self.folder):
            here = set(names)
            for name in names:
                if name.endswith(".hea") and name != ".hea":
                    record = (place / name.removesuffix(".hea")).as_posix()
                    headers[record] = self._header(record, here)
        return headers

    def _header(self, record: str, here: set[str]) -> _Header:
        try:
            seen = outline(self.folder / record)
        except RecordError as error:
            return _Header((), (), None, str(error))
        parent = record.rpartition("/")[0]
        segments = tuple(f"{parent}/{name}" if parent else name for name in seen.segments)
        needed = [*(f"{name}.hea" for name in seen.segments), *seen.files]
        patient = next((match[1] for comment in seen.comments if (match := PATIENT.fullmatch(comment))), None)
        return _Header(segments, tuple(name for name in needed if name not in here), patient)

    @cached_property
    def _records(self) -> list[tuple[str, _Header]]:
        """Headers that are no part of another; one whose segments lack a file lacks it too."""
        if not self._headers:
            raise RecordError(f"{self.folder}: expected WFDB records (*.hea with their signal files), found none; check DIR")
        parts = {segment for header in self._headers.values() for segment in header.segments}
        records = []
        for record in sorted(self._headers.keys() - parts):
            header = self._headers[record]
            absent = [name for part in header.segments if part in self._headers for name in self._headers[part].absent]
            records.append((record, _Header(header.segments, (*header.absent, *absent), header.patient_id, header.problem)))
        return records

    def _in_windows(self, plan: Plan, seconds: float) -> tuple[Plan, float]:
        """Whole windows of the records of a plan, and the seconds that are left over."""
        cut, left_out = Plan([], list(plan.absent), list(plan.rejected)), 0.0
        for planned in plan.records:
            try:
                frames, fs_hz = record_length(self.folder / planned.record_id)
                windows = _windows(planned, frames, fs_hz, seconds)
            except RecordError as error:
                cut.rejected.append(RejectedRecord(planned.record_id, str(error)))
                continue
            cut.records.extend(windows)
            if not windows:
                reason = f"{frames / fs_hz:.4g} s long, shorter than one window of {seconds:g} s"
                cut.absent.append(AbsentRecord(planned.record_id, reason))
            left_out += (frames - len(windows) * _frames(seconds, fs_hz)) / fs_hz
        return cut, round(left_out, 3)

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record, or the window of one.

        Raises:
            RecordError: its files or its row of the table are not what they should be.
        """
        record = planned.row.get("record", planned.record_id)
        path, window = self.folder / record, planned.row.get("window")
        signal = decode_wfdb(path, window) if window else read_plain(path) or decode_wfdb(path)
        said = {"age": _age(signal.comments), "sex": _sex(signal.comments), "acquired": signal.acquired}
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=record,
            patient_id=planned.row["patient_id"],
            split=planned.split,
            fs_hz=signal.fs_hz,
            ecg=signal.ecg,
            mv_per_lsb=signal.mv_per_lsb,
            dropped_channels=signal.dropped_channels,
            **{**said, **described(planned.row["listed"], self._labels, f"table, record {record}")},
        )


def _frames(seconds: float, fs_hz: float) -> int:
    """Frames of a window: the nearest whole number."""
    return round(min(seconds * fs_hz, 1e12))


def _windows(planned: PlannedRecord, frames: int, fs_hz: float, seconds: float) -> list[PlannedRecord]:
    """Consecutive whole windows of a record, named by their seconds."""
    each = _frames(seconds, fs_hz)
    number = frames // each if each else 0
    if not each or number > MOST_WINDOWS:
        raise RecordError(
            f"{planned.record_id}: windows of {seconds:g} s at {fs_hz:g} Hz would be {number or 'empty ones'}, expected at "
            f"most {MOST_WINDOWS} of at least one sample; choose longer ones"
        )
    return [
        PlannedRecord(
            f"{planned.record_id}@{place * seconds:.10g}-{(place + 1) * seconds:.10g}s",
            planned.split,
            {**planned.row, "record": planned.record_id, "window": (place * each, (place + 1) * each)},
        )
        for place in range(number)
    ]


def _age(comments: list[str]) -> float | None:
    """From `Age: 32` or `<age>: 32 …`; None where there is none or it is no age."""
    return next((age_of(match[1]) for comment in comments if (match := AGE.fullmatch(comment))), None)


def _sex(comments: list[str]) -> Literal["M", "F"] | None:
    return next((SEXES[match[1].lower()] for comment in comments if (match := SEX.fullmatch(comment))), None)
