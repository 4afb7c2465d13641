"""Shandong Provincial Hospital in its native layout: `metadata.csv`, `code.csv`, `records/` or the tar that it came in.

Source: Liu et al., A large-scale multi-label 12-lead electrocardiogram database with standardized diagnostic
statements, Scientific Data 9:272 (2022), figshare collection 5779802, CC BY 4.0. 25,770 ECGs of 24,666 patients,
10 to 56 s at 500 Hz, float16 millivolts, coded by cardiologists with AHA statements.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import LEADS, EcgRecord, RecordError, Statement, quantise, split_by_hash
from shards.sources.hdf5 import dataset_in, open_dataset, read_rows
from shards.sources.tables import Table, age_up_to, number, read_table
from shards.sources.vocabularies import aha

CORPUS = "SPH"
METADATA = "metadata.csv"
CODES = "code.csv"
RECORDS = "records"
ARCHIVES = ("records.tar.gz", "records.tar")
"""Names under which the publisher's tar is found; the published one ends in .gz and is not compressed."""

COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "N", "Date")
DATASET = "ecg"
FS_HZ = 500.0
MOST_SAMPLES = 300_000
"""Ten minutes; the longest published record has 28,000 samples."""

OLDEST = 120
RECORD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MEMBER = re.compile(rf"(?:\./)?{RECORDS}/({RECORD_ID.pattern})\.h5")
LARGEST_MEMBER = 64 * 2**20
GZIP = b"\x1f\x8b"
WITHOUT_BODY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class Sph:
    """The corpus in one folder."""

    name = "sph"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._codes = read_table(self.folder / CODES, ("Code", "Description"), CORPUS) if self._has_codes() else None
        self._descriptions = {**aha.DESCRIPTIONS, **_descriptions(self._codes)}

    def __getstate__(self) -> dict[str, Any]:
        """Workers read records: they need no table."""
        return {"folder": self.folder, "_descriptions": self._descriptions, "_codes": None}

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        tables = [table for table in (self._table, self._codes) if table is not None]
        return {
            "corpus": "Shandong Provincial Hospital (SPH)",
            "licence": "CC BY 4.0",
            "tables": {table.path.name: table.sha256 for table in tables},
        }

    def plan(self) -> Plan:
        """Every row of the table whose signal is there, and those whose signal is not.

        Raises:
            RecordError: the table is missing or broken, or the signals are in an archive that has to be unpacked.
        """
        container, places = _find_signals(self.folder)
        plan = Plan([], [], [])
        seen: set[str] = set()
        for position, row in enumerate(self._table, 1):
            record_id = row["ECG_ID"].strip()
            try:
                _check_id(record_id, position, seen)
                if record_id not in places:
                    plan.absent.append(AbsentRecord(record_id, f"{record_id}.h5 not in {container}"))
                    continue
                _check_row(row, record_id)
            except RecordError as error:
                plan.rejected.append(RejectedRecord(record_id if record_id in seen else f"row {position}", str(error)))
                continue
            place = places[record_id]
            located = row if place is None else {**row, "archive": container, "place": place}
            plan.records.append(PlannedRecord(record_id, split_by_hash(self.name, row["Patient_ID"].strip()), located))
        return plan

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one row, in its whole length.

        Raises:
            RecordError: its file or fields are not what they should be.
        """
        row, record_id = planned.row, planned.record_id
        statements, samples = _check_row(row, record_id)
        ecg, mv_per_lsb = quantise(self._millivolts(planned, samples), f"{RECORDS}/{record_id}.h5")
        return EcgRecord(
            source=self.name,
            record_id=record_id,
            source_path=f"{RECORDS}/{record_id}.h5",
            patient_id=row["Patient_ID"].strip(),
            split=planned.split,
            fs_hz=FS_HZ,
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            acquired=row["Date"].strip() or None,
            report=aha.describe(statements, self._descriptions),
            report_source="made from statements",
            statements=[Statement(statement.code, "AHA") for statement in statements],
            labels=aha.labels(statements),
            age=age_up_to(OLDEST, row["Age"]),
            sex=_sex(row),
        )

    @cached_property
    def _table(self) -> Table:
        return read_table(self.folder / METADATA, COLUMNS, CORPUS)

    def _has_codes(self) -> bool:
        return (self.folder / CODES).is_file()

    def _millivolts(self, planned: PlannedRecord, samples: int) -> NDArray[np.floating]:
        """(12, samples), from the record's own file or from where it lies in the archive."""
        where = f"{RECORDS}/{planned.record_id}.h5"
        if "archive" not in planned.row:
            return _leads(open_dataset(self.folder / where, DATASET), samples, where)
        body = _read_member(self.folder / planned.row["archive"], planned.row["place"], where)
        try:
            with h5py.File(io.BytesIO(body), "r") as file:
                return _leads(dataset_in(file, DATASET, where), samples, where)
        except RecordError:
            raise
        except Exception as error:  # h5py raises whatever it meets in a damaged file
            raise RecordError(f"{where}: not a readable HDF5 file; fetch the archive again") from error


def _descriptions(codes: Table | None) -> dict[int, str]:
    """Code → description, as the publisher's own list has them."""
    described: dict[int, str] = {}
    for position, row in enumerate(codes or (), 1):
        code, description = row["Code"].strip(), row["Description"].strip()
        if not re.fullmatch(r"[0-9]{1,3}", code):
            raise RecordError(f"{CODES}, row {position}: Code is no number of up to three digits; fetch the table again")
        if description:
            described[int(code)] = description
    return described


def _check_id(record_id: str, position: int, seen: set[str]) -> None:
    where = f"{METADATA}, row {position}"
    if not RECORD_ID.fullmatch(record_id):
        raise RecordError(f"{where}: expected letters and digits as ECG_ID, such as A00001; fetch the table again")
    if record_id in seen:
        raise RecordError(f"{where}: ECG_ID {record_id} stands in an earlier row too; fetch the table again")
    seen.add(record_id)


def _check_row(row: Mapping[str, str], record_id: str) -> tuple[list[aha.AhaStatement], int]:
    """The fields without which a row is no use: statements and number of samples."""
    where = f"{METADATA}, ECG_ID {record_id}"
    if not row["Patient_ID"].strip():
        raise RecordError(f"{where}: Patient_ID is empty, expected the patient, who decides the split; fetch the table again")
    samples = number(row["N"])
    if samples is None or not 1 <= samples <= MOST_SAMPLES or samples != int(samples):
        raise RecordError(f"{where}: expected 1 to {MOST_SAMPLES} samples as N, found another value; fetch the table again")
    return aha.parse_statements(row["AHA_Code"], f"{where}: AHA_Code"), int(samples)


def _sex(row: Mapping[str, str]) -> Literal["M", "F"] | None:
    return {"M": "M", "F": "F"}.get(row["Sex"].strip().upper())  # type: ignore[return-value]  # the values are the Literal's


def _leads(dataset: h5py.Dataset, samples: int, where: str) -> NDArray[np.floating]:
    """The file names no leads: its documentation gives their order, which is that of `LEADS`."""
    if dataset.shape != (len(LEADS), samples):
        raise RecordError(
            f"{where}: {DATASET} has shape {dataset.shape}, expected {(len(LEADS), samples)} by N of its row; fetch it again"
        )
    if dataset.dtype.kind != "f":
        raise RecordError(f"{where}: {DATASET} has type {dataset.dtype}, expected float millivolts; fetch it again")
    return read_rows(dataset, slice(None), where)


def _find_signals(folder: Path) -> tuple[str, dict[str, tuple[int, int] | None]]:
    """Where the signals are: the folder or archive, and record id → (offset, bytes) in an archive, None for a file."""
    container = next((name for name in (RECORDS, *ARCHIVES) if (folder / name).exists()), None)
    if container is None:
        raise RecordError(f"{folder}: expected {RECORDS}/ or {ARCHIVES[0]} beside {METADATA}, found neither; check DIR")
    try:
        if container != RECORDS:
            return container, dict(_index(folder / container))
        names = (Path(entry.name) for entry in os.scandir(folder / RECORDS))
        return container, {name.stem: None for name in names if name.suffix == ".h5"}
    except OSError as error:
        raise RecordError(f"{folder / container}: cannot be read ({error.strerror}); check DIR") from error


def _index(archive: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Record id → (offset, bytes) of the regular files `records/<id>.h5` in an uncompressed tar; all else is passed over."""
    with archive.open("rb", buffering=0) as file:
        if file.read(len(GZIP)) == GZIP:
            raise RecordError(
                f"{archive.name}: is compressed, which cannot be read in place; unpack it with `tar -xzf {archive.name}`"
            )
        for member, offset in _members(file, archive.stat().st_size, archive.name):
            match = MEMBER.fullmatch(member.name)
            if match and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                yield match[1], (offset, member.size)


def _members(file: io.FileIO, size: int, where: str) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Entries of a tar and where their bodies begin. `tarfile` itself would load whatever size a long name claims."""
    position = 0
    while position < size:
        file.seek(position)
        block = file.read(tarfile.BLOCKSIZE)
        if not any(block):
            return
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise RecordError(f"{where}: expected a tar entry {position} bytes in, found none; fetch it again") from error
        body = 0 if member.type in WITHOUT_BODY else member.size
        if body < 0:
            raise RecordError(f"{where}: the tar entry {position} bytes in has a negative size; fetch it again")
        position += tarfile.BLOCKSIZE
        yield member, position
        position += body + -body % tarfile.BLOCKSIZE


def _read_member(archive: Path, place: tuple[int, int], where: str) -> bytes:
    offset, size = place
    if size > LARGEST_MEMBER:
        raise RecordError(f"{where}: claims {size} bytes in {archive.name}, expected an ECG; fetch the archive again")
    try:
        with archive.open("rb") as file:
            file.seek(offset)
            body = file.read(size)
    except OSError as error:
        raise RecordError(f"{archive.name}: cannot be read any more; leave it in place while building") from error
    if len(body) < size:
        raise RecordError(f"{where}: expected {size} bytes in {archive.name}, found {len(body)}; it was cut: fetch it again")
    return body
