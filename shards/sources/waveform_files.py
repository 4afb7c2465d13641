"""Folders in which a file is a record: what such sources share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.plan import Kind, Plan, PlannedRecord
from shards.record import FINEST_LSB_MV, INVALID, LEADS, EcgRecord, RecordError, keep_digital
from shards.sources.folders import walk
from shards.sources.record_table import FoundRecord, RecordTable, described, without_twins


class WaveformFiles(ABC):
    """All files with one extension below one folder. A kind of file says how its patient is found, and how it is read."""

    simulated = False
    kind: Kind = "ecg"
    name: str
    corpus: str
    extension: str
    """With its dot, in small letters; files may have it in capitals."""

    def __init__(self, folder: Path, *, table: Path | None = None) -> None:
        """Read the table.

        Args:
            folder: where the files lie, in any depth.
            table: a csv with a column `record`, see `shards.sources.record_table`.

        Raises:
            RecordError: the folder or table is missing or unreadable.
        """
        if not folder.is_dir():
            raise RecordError(f"{folder}: no such folder; check DIR")
        self.folder = folder.absolute()
        self._table = RecordTable(table)
        self._labels = self._table.labels

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_labels": self._labels}

    @abstractmethod
    def patient_of(self, path: Path) -> str | None:
        """The patient as the file gives one, or None. Reads little of it, and raises nothing."""

    @abstractmethod
    def fields_of(self, path: Path, where: str) -> dict[str, Any]:
        """What the file gives, as fields of an `EcgRecord`; raises `RecordError` with sentences about `where`."""

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        said = self._table.provenance(self._files)
        return {"corpus": self.corpus, "licence": "as their owner gives it", **said}

    def plan(self) -> Plan:
        """Every file of the folder, and rows of the table without one.

        Raises:
            RecordError: the folder holds no such file.
        """
        if not self._files:
            raise RecordError(f"{self.folder}: expected files *{self.extension}, found none; check DIR")
        found = [FoundRecord(record, self.patient_of(self.folder / file)) for record, file in self._files.items()]
        plan = self._table.plan(found, self.name)
        for planned in plan.records:
            planned.row["file"] = self._files[planned.record_id]  # type: ignore[index]  # the dictionary that the table made
        return without_twins(plan, self.name)

    @cached_property
    def _files(self) -> dict[str, str]:
        """Record id, the path without extension → path. Of two that differ in their extension's case the later is taken."""
        files = {}
        for place, names in walk(self.folder):
            for name in names:
                if name.lower().endswith(self.extension) and len(name) > len(self.extension):
                    files[(place / name[: -len(self.extension)]).as_posix()] = (place / name).as_posix()
        return dict(sorted(files.items()))

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one file.

        Raises:
            RecordError: the file or its row of the table is not what it should be.
        """
        file = planned.row["file"]
        fields = self.fields_of(self.folder / file, file)
        listed = described(planned.row["listed"], self._labels, f"table, record {planned.record_id}")
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=file,
            patient_id=planned.row["patient_id"],
            split=planned.split,
            **{**fields, **listed},
        )


def read_limited(path: Path, most: int, where: str) -> bytes:
    """The bytes of a file.

    Raises:
        RecordError: the file is absent, cannot be read, or is longer than `most` bytes.
    """
    try:
        if not path.is_file():
            raise RecordError(f"{where}: no such file; fetch it again")
        with path.open("rb") as file:
            body = file.read(most + 1)
    except OSError as error:
        raise RecordError(f"{where}: cannot be read ({error.strerror}); check its permissions") from error
    if len(body) > most:
        raise RecordError(f"{where}: longer than {most} bytes, expected one resting ECG; leave it out")
    return body


def in_their_places(
    leads: Mapping[str, tuple[NDArray[np.int64], float]], mark: int | None, where: str
) -> tuple[NDArray[np.int16], list[float]]:
    """(12, samples) counts and the scale of each lead: each lead in its place, those that are missing `INVALID`.

    Args:
        leads: standard lead → its (samples,) counts and millivolts of one count.
        mark: the count that stands for a sample that was not recorded, where the format has one.
        where: the file, for the sentence of an error.

    Raises:
        RecordError: there is no lead, or they differ in length.
    """
    lengths = {lead: len(counts) for lead, (counts, _) in leads.items()}
    if not any(lengths.values()):
        raise RecordError(f"{where}: holds none of the twelve leads; leave it out")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{lead} {length}" for lead, length in lengths.items())
        raise RecordError(f"{where}: expected leads of one length, found {found} samples; fetch it again")
    ecg = np.full((len(LEADS), max(lengths.values())), INVALID, dtype=np.int16)
    mv_per_lsb = [FINEST_LSB_MV] * len(LEADS)
    for lead, (counts, scale) in leads.items():
        invalid = np.zeros(len(counts), dtype=np.bool_) if mark is None else counts == mark
        kept, scales = keep_digital(counts[None], np.zeros(1, dtype=np.int64), np.array([scale]), invalid[None])
        ecg[LEADS.index(lead)], mv_per_lsb[LEADS.index(lead)] = kept[0], scales[0]
    return ecg, mv_per_lsb
