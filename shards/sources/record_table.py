"""What a csv of the user's says of recordings whose files say little: one row for a record, columns by name.

`record` names the record as its source does, by its path below the folder without extension. `patient_id`, `report`, `age`,
`sex`, `acquired` and `split` are taken as such, a column `label:NAME` as the label NAME; other columns are left alone. A
blank says nothing: then the file is asked, and what it does not know either is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from shards.plan import AbsentRecord, Plan, PlannedRecord, RejectedRecord
from shards.record import SPLITS, RecordError, Split, sample_key, split_by_hash
from shards.sources.tables import SEXES, Row, age_up_to, read_table, truth

COLUMNS = ("record", "patient_id", "report", "age", "sex", "acquired", "split")
LABEL = "label:"
LONGEST_ID = 300
"""Characters of a record's name that a sentence repeats."""
OLDEST = 130


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record whose files are there."""

    record_id: str
    patient_id: str | None = None
    """As its own file gives it."""


class RecordTable:
    """A table of records, or none, in which case it says nothing of any."""

    def __init__(self, path: Path | None) -> None:
        """Raises RecordError where there is no table at the path, or one without a column `record`."""
        self._table = None if path is None else read_table(path, ("record",), "records")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that it has columns for."""
        return tuple(name.removeprefix(LABEL) for name in self._columns if name.startswith(LABEL))

    @property
    def _columns(self) -> tuple[str, ...]:
        return () if self._table is None else self._table.columns

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """Record → its rows."""
        positions: dict[str, list[int]] = {}
        for position, record in enumerate(self._values("record")):
            positions.setdefault(record, []).append(position)
        return positions

    def _values(self, column: str) -> list[str]:
        if self._table is None or column not in self._columns:
            return []
        return [value.strip() for value in self._table.column(column)]

    def provenance(self, found: Iterable[str]) -> dict[str, Any]:
        """`tables` as a manifest names them, the columns that were left alone, and how many records have no row."""
        if self._table is None:
            return {"tables": {}}
        unknown = [name for name in self._columns if name not in COLUMNS and not name.startswith(LABEL)]
        return {
            "tables": {self._table.path.name: self._table.sha256},
            "columns_left_alone": unknown,
            "records_without_a_row": sum(record not in self._positions for record in found),
        }

    def plan(
        self,
        found: Iterable[FoundRecord],
        corpus: str,
        absent: Mapping[str, str] | None = None,
        damaged: Mapping[str, str] | None = None,
    ) -> Plan:
        """Which records are read, each with its row (`listed`, None without one), its patient and a split by patient.

        A patient's records take the split that the table gives one of them. Records of a patient whom it gives two splits
        are rejected, as are records with two rows.

        Args:
            found: the records whose files are there.
            corpus: what the hash of (corpus, patient) is taken with where the table gives no split.
            absent: records whose files are not all there, and why.
            damaged: records that cannot be read, and why.
        """
        absent, damaged = absent or {}, damaged or {}
        plan = Plan([], [AbsentRecord(*why) for why in absent.items()], [RejectedRecord(*why) for why in damaged.items()])
        stated = self._stated_splits(known := list(found))
        for record in known:
            listed, patient = self._listed(record.record_id), self._patient(record)
            try:
                split = _split(stated.get(patient, set()), record.record_id) or split_by_hash(corpus, patient)
                self._check_one_row(record.record_id)
            except RecordError as error:
                plan.rejected.append(RejectedRecord(record.record_id, str(error)))
                continue
            plan.records.append(PlannedRecord(record.record_id, split, {"patient_id": patient, "listed": listed}))
        there = {record.record_id for record in known} | absent.keys() | damaged.keys()
        for name, rows in self._positions.items():
            if name not in there:
                plain = name.isprintable() and 0 < len(name) <= LONGEST_ID
                shown_id = name if plain else f"row {rows[0] + 1}"
                plan.absent.append(AbsentRecord(shown_id, f"record {shown_id}: in the table, not in the folder"))
        return plan

    def _listed(self, record: str) -> Row | None:
        rows = self._positions.get(record)
        return self._table[rows[0]] if self._table is not None and rows else None

    def _patient(self, record: FoundRecord) -> str:
        rows = self._positions.get(record.record_id, []) if self._patients else []
        return (self._patients[rows[0]] if rows else "") or record.patient_id or record.record_id

    @cached_property
    def _patients(self) -> list[str]:
        return self._values("patient_id")

    def _stated_splits(self, found: list[FoundRecord]) -> dict[str, set[str]]:
        """Patient → the splits that the table gives the patient's records."""
        splits = self._values("split")
        stated: dict[str, set[str]] = {}
        for record in found if splits else ():
            for position in self._positions.get(record.record_id, ()):
                if splits[position]:
                    stated.setdefault(self._patient(record), set()).add(splits[position])
        return stated

    def _check_one_row(self, record: str) -> None:
        if self._table is not None and len(self._positions.get(record, ())) > 1:
            raise RecordError(f"{self._table.path.name}, record {record}: has more than one row; keep one")


def without_twins(plan: Plan, source: str) -> Plan:
    """The plan with all but the first of the records rejected whose ids become one key in a shard, such as `a/1` and `a_1`."""
    taken: dict[str, str] = {}
    records, rejected = [], list(plan.rejected)
    for planned in plan.records:
        first = taken.setdefault(sample_key(source, planned.record_id), planned.record_id)
        if first == planned.record_id:
            records.append(planned)
        else:
            rejected.append(RejectedRecord(planned.record_id, f"{planned.record_id}: has the same key as {first}; rename one"))
    return Plan(records, plan.absent, rejected)


def described(row: Mapping[str, str] | None, labels: Iterable[str], where: str) -> dict[str, Any]:
    """What a row says, as fields of an `EcgRecord`; only those that it is not blank for, and every label.

    Raises:
        RecordError: an age, sex or label is none; the sentence names `where` and the column.
    """
    values = {} if row is None else {column: value for column, text in row.items() if (value := " ".join(text.split()))}
    fields: dict[str, Any] = {"labels": {name: _label(values.get(LABEL + name), name, where) for name in labels}}
    fields.update(_parsed(values, where))
    return fields


def _parsed(values: Mapping[str, str], where: str) -> Iterator[tuple[str, Any]]:
    if "report" in values:
        yield from (("report", values["report"]), ("report_source", "publisher"))
    if "acquired" in values:
        yield "acquired", values["acquired"]
    if "age" in values:
        age = age_of(values["age"])
        if age is None:
            raise RecordError(f"{where}: column age is no number from 0 to {OLDEST}; mend the table")
        yield "age", age
    if "sex" in values:
        if values["sex"].lower() not in SEXES:
            raise RecordError(f"{where}: column sex is none of M, F, male, female or blank; mend the table")
        yield "sex", SEXES[values["sex"].lower()]


def _label(text: str | None, name: str, where: str) -> int | None:
    value = None if text is None else truth(text)
    if text is not None and value is None:
        raise RecordError(f"{where}: column {LABEL}{name} is {text[:40]!r}, expected 1, 0 or blank; mend the table")
    return None if value is None else int(value)


def _split(stated: set[str], record: str) -> Split | None:
    unknown = sorted(stated.difference(SPLITS))
    if unknown:
        raise RecordError(f"record {record}: split is {unknown[0][:40]!r}, expected train, val, test or blank; mend the table")
    if len(stated) > 1:
        raise RecordError(f"record {record}: its patient's records stand in {' and '.join(sorted(stated))}; put them in one")
    return cast(Split, next(iter(stated))) if stated else None


def age_of(text: str) -> float | None:
    """Years, or None where the text is no number or no age."""
    return age_up_to(OLDEST, text)


def source_name(name: str | None, folder: Path) -> str:
    """The name of a source for a folder of anybody's records: as given, else the folder's, made fit for a key.

    Raises:
        RecordError: the given name holds more than letters, digits, `_` and `-`.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        raise RecordError(f"name {name[:80]!r}: expected letters, digits, _ and -; choose another")
    return name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().name).strip("-")[:80] or "wfdb"
