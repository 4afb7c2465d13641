"""CPSC2018 in both of its forms: the challenge's MATLAB structs with `REFERENCE.csv`, or WFDB records.

Source: Liu et al., An open access database for evaluating the algorithms of electrocardiogram rhythm and morphology
abnormality detection, J. Med. Imaging Health Inform. 8:1368 (2018), CC BY 4.0; the WFDB form is that of the
PhysioNet/CinC Challenge 2020. 6,877 ECGs of 11 hospitals, 6 to 144 s at 500 Hz, nine classes. The challenge's validation
set repeats training recordings A0001 to A0300 and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import LEADS, EcgRecord, RecordError, Statement, quantise, split_by_hash
from shards.sources.folders import walk
from shards.sources.matlab import read_struct
from shards.sources.tables import SEXES, Table, age_up_to, number, read_table
from shards.sources.vocabularies import cpsc
from shards.sources.wfdb_record import read_wfdb

CORPUS = "CPSC2018"
REFERENCE = "REFERENCE.csv"
LABEL_COLUMNS = ("First_label", "Second_label", "Third_label")
RECORDING = re.compile(r"A[0-9]{4}")
VALIDATION = re.compile(r"val(id(ation)?)?[ _-]?(set)?[ _-]?[0-9]*", re.IGNORECASE)
"""Names of the folder with the validation set."""

STRUCT = "ECG"
FIELDS = ("sex", "age", "data")
FS_HZ = 500.0
MOST_SAMPLES = 300_000
"""Ten minutes; the longest recording has 72,000 samples."""

OLDEST = 120
OVER_89 = 92
"""PhysioNet's stand-in for every age over 89 in its copy of the headers."""

SNOMED = re.compile(r"[0-9]{6,18}")


@dataclass(frozen=True)
class _Files:
    """What lies in the folder, by paths relative to it."""

    recordings: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """Recording → path without extension → extensions that are there."""
    strangers: list[str] = field(default_factory=list)
    """Headers of records that are none of the corpus."""
    references: list[str] = field(default_factory=list)
    excluded: dict[str, set[str]] = field(default_factory=dict)
    """Folder of a validation set → its recordings."""


class Cpsc2018:
    """The corpus in one folder, in whichever of its two forms lies there."""

    name = "cpsc2018"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __getstate__(self) -> dict[str, Any]:
        """Workers read records: they need no list of files."""
        return {"folder": self.folder}

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from, and of the validation set that was left out."""
        excluded = self._files.excluded
        return {
            "corpus": CORPUS,
            "licence": "CC BY 4.0",
            "form": "MATLAB" if self._files.references else "WFDB",
            "tables": {name: table.sha256 for name, table in self._tables.items()},
            "excluded": {
                "what": "the validation set, which repeats recordings of the training set",
                "folders": sorted(excluded),
                "recordings": sum(len(recordings) for recordings in excluded.values()),
            },
        }

    def plan(self) -> Plan:
        """Every recording of the training set; of the validation set none.

        Raises:
            RecordError: the folder holds neither form, or is the validation set itself; a table is broken.
        """
        if VALIDATION.fullmatch(self.folder.name):
            raise RecordError(
                f"{self.folder}: the validation set repeats recordings of the training set; give the folder of the latter"
            )
        return self._plan_structs() if self._files.references else self._plan_wfdb()

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """One recording in its whole length.

        Raises:
            RecordError: its files are not what they should be.
        """
        return self._read_struct(planned) if "labels" in planned.row else self._read_wfdb(planned)

    @cached_property
    def _files(self) -> _Files:
        return _scan(self.folder)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        needed = ("Recording", *LABEL_COLUMNS)
        return {name: read_table(self.folder / name, needed, CORPUS) for name in self._files.references}

    def _plan_structs(self) -> Plan:
        plan = Plan([], [], [])
        stated = _stated(self._tables)
        for recording in sorted({*stated, *self._files.recordings}):
            try:
                labels = _labels_of(recording, stated)
            except RecordError as error:
                named = recording if RECORDING.fullmatch(recording) else f"a row of {REFERENCE}"
                plan.rejected.append(RejectedRecord(named, str(error)))
                continue
            path = self._place(plan, recording, (".mat",))
            if path is not None:
                self._add(plan, recording, {"path": path, "labels": labels})
        return plan

    def _plan_wfdb(self) -> Plan:
        if not self._files.recordings and not self._files.strangers:
            raise RecordError(
                f"{self.folder}: expected {REFERENCE} with TrainingSet1/A0001.mat, or A0001.hea with A0001.mat, found neither; "
                "check DIR"
            )
        plan = Plan([], [], [])
        for stranger in self._files.strangers:
            reason = f"{stranger}.hea: no recording of {CORPUS}, expected A0001 to A6877; give the folder that holds them alone"
            plan.rejected.append(RejectedRecord(PurePath(stranger).name, reason))
        for recording in sorted(self._files.recordings):
            path = self._place(plan, recording, (".hea", ".mat"))
            if path is not None:
                self._add(plan, recording, {"path": path})
        return plan

    def _place(self, plan: Plan, recording: str, needed: tuple[str, ...]) -> str | None:
        """Path of a recording without extension; None, and a line in the plan, where it is not in exactly one place."""
        places = self._files.recordings.get(recording, {})
        whole = sorted(path for path, ends in places.items() if ends.issuperset(needed))
        if len(whole) == 1:
            return whole[0]
        if whole:
            folders = " and ".join(path.rpartition("/")[0] or "." for path in whole)
            plan.rejected.append(RejectedRecord(recording, f"{recording}: lies in {folders}; keep one of them"))
        else:
            files = " and ".join(recording + end for end in needed)
            plan.absent.append(AbsentRecord(recording, f"{files} not in {self.folder.name}"))
        return None

    def _add(self, plan: Plan, recording: str, row: Mapping[str, Any]) -> None:
        """A recording has one split by its name alone, whatever form or folder it is read from."""
        plan.records.append(PlannedRecord(recording, split_by_hash(self.name, recording), row))

    def _read_struct(self, planned: PlannedRecord) -> EcgRecord:
        path = f"{planned.row['path']}.mat"
        found = _classes(planned.row["labels"], planned.record_id)
        fields = read_struct(self.folder / path, STRUCT, FIELDS, path)
        data = fields["data"]
        if isinstance(data, str) or data.shape[0] != len(LEADS) or not 1 <= data.shape[1] <= MOST_SAMPLES:
            shape = "text" if isinstance(data, str) else f"shape {data.shape}"
            raise RecordError(f"{path}: data has {shape}, expected 12 leads x 1 to {MOST_SAMPLES} samples; fetch it again")
        ecg, mv_per_lsb = quantise(np.ascontiguousarray(data), path)
        return EcgRecord(
            **self._identity(planned, path),
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            statements=[Statement(str(entry.number), "CPSC") for entry in found or ()],
            age=_age(fields["age"]),
            sex=_sex(fields["sex"]),
            **_findings(found),
        )

    def _read_wfdb(self, planned: PlannedRecord) -> EcgRecord:
        path = planned.row["path"]
        signal = read_wfdb(self.folder / path)
        if signal.fs_hz != FS_HZ:
            raise RecordError(f"{path}.hea: expected {FS_HZ:g} Hz, found {signal.fs_hz:g} Hz; fetch the record again")
        said = _comments(signal.comments)
        codes = _snomed(said.get("dx", ""), f"{path}.hea")
        found = None if not codes else [cpsc.BY_SNOMED[code] for code in codes if code in cpsc.BY_SNOMED]
        over_89 = number(said.get("age", "")) == OVER_89
        return EcgRecord(
            **self._identity(planned, path),
            ecg=signal.ecg,
            mv_per_lsb=signal.mv_per_lsb,
            statements=[Statement(code, "SNOMED CT") for code in codes],
            age=None if over_89 else _age(said.get("age", "")),
            age_note="over 89" if over_89 else None,
            sex=_sex(said.get("sex", "")),
            **_findings(found),
        )

    def _identity(self, planned: PlannedRecord, path: str) -> dict[str, Any]:
        return {
            "source": self.name,
            "record_id": planned.record_id,
            "source_path": path,
            "patient_id": planned.record_id,
            "split": planned.split,
            "fs_hz": FS_HZ,
        }


def _scan(folder: Path) -> _Files:
    files = _Files()
    for place, names in walk(folder):
        _note(files, place, names)
    return files


def _note(files: _Files, place: PurePath, names: list[str]) -> None:
    """Sort the files of one folder into what the corpus has."""
    validation = next((part for part in place.parts if VALIDATION.fullmatch(part)), None)
    for name in names:
        path = place / name
        if RECORDING.fullmatch(path.stem) and path.suffix in (".hea", ".mat"):
            if validation is not None:
                files.excluded.setdefault(validation, set()).add(path.stem)
                continue
            places = files.recordings.setdefault(path.stem, {})
            places.setdefault(path.with_suffix("").as_posix(), set()).add(path.suffix)
        elif validation is None and name == REFERENCE:
            files.references.append(path.as_posix())
        elif validation is None and path.suffix == ".hea":
            files.strangers.append(path.with_suffix("").as_posix())


def _stated(tables: Mapping[str, Table]) -> dict[str, set[str]]:
    """Recording → what the tables say of it, such as `5;2`: one thing, unless two rows differ."""
    stated: dict[str, set[str]] = {}
    for table in tables.values():
        for row in table:
            labels = ";".join(label for column in LABEL_COLUMNS if (label := row[column].strip()))
            stated.setdefault(row["Recording"].strip(), set()).add(labels)
    return stated


def _labels_of(recording: str, stated: Mapping[str, set[str]]) -> str:
    """What the tables say of a recording, checked: `5;2`."""
    if not RECORDING.fullmatch(recording):
        raise RecordError(f"{REFERENCE}: a Recording is no name such as A0001; fetch the table again")
    labels = stated.get(recording, set())
    if len(labels) != 1:
        found = "rows that differ" if labels else "no row"
        raise RecordError(f"{recording}: expected its labels in {REFERENCE}, found {found}; fetch the table again")
    only = next(iter(labels))
    _classes(only, recording)
    return only


def _classes(labels: str, recording: str) -> list[cpsc.CpscClass] | None:
    """First, second and third label; None where the row gives none. Some tools write the numbers as `2.0`."""
    numbers = [label.removesuffix(".0") for label in labels.split(";") if label]
    if any(label not in cpsc.BY_NUMBER for label in numbers):
        raise RecordError(f"{REFERENCE}, Recording {recording}: expected labels from 1 to 9; fetch the table again")
    return [cpsc.BY_NUMBER[label] for label in numbers] or None


def _comments(lines: list[str]) -> dict[str, str]:
    """`Dx: 59118001` → dx, 59118001."""
    pairs = (line.lstrip("# \t").partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _snomed(text: str, where: str) -> list[str]:
    """The codes of a Dx comment, none where it is absent or says `Unknown`."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    if codes in ([], ["Unknown"]):
        return []
    if not all(SNOMED.fullmatch(code) for code in codes):
        raise RecordError(f"{where}: expected SNOMED CT codes joined by commas as Dx, found other text; fetch it again")
    return list(dict.fromkeys(codes))


def _findings(found: list[cpsc.CpscClass] | None) -> dict[str, Any]:
    report = cpsc.describe(found or [])
    return {
        "labels": cpsc.labels(found),
        "report": report,
        "report_source": None if report is None else "made from statements",
    }


def _age(value: Any) -> float | None:
    """Years; None where there is no number or one that is no age: the corpus has NaN, and -1."""
    text = value if isinstance(value, str) else str(value.item()) if np.size(value) == 1 else ""
    return age_up_to(OLDEST, text)


def _sex(value: Any) -> Literal["M", "F"] | None:
    return SEXES.get(value.strip().lower()) if isinstance(value, str) else None
