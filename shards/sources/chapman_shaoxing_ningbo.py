"""Chapman-Shaoxing-Ningbo 1.0.0: WFDB records under `WFDBRecords/NN/NNN/` and `ConditionNames_SNOMED-CT.csv`.

Source: Zheng et al., A large scale 12-lead electrocardiogram database for arrhythmia study (version 1.0.0), PhysioNet
(2022); licence CC BY 4.0. There is no table of records: age, sex and findings are comments of each header, in two styles
(`#Age: 85` and `# Age: 85`). Each record is of another patient. The dates in some headers follow the numbers of the
records through one week of 2021: they are those of the conversion to WFDB, and no times of recording.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.plan import AbsentRecord, Kind, Plan, PlannedRecord, RejectedRecord
from shards.record import EcgRecord, RecordError, Statement, split_by_hash
from shards.sources.paths import within
from shards.sources.tables import SEXES, Table, age_up_to, read_table
from shards.sources.vocabularies.snomed import NAMES, SAME_FINDING, VOCABULARY
from shards.sources.wfdb_record import read_wfdb

CORPUS = "Chapman-Shaoxing-Ningbo 1.0.0"
CONDITIONS = "ConditionNames_SNOMED-CT.csv"
RECORDS = "WFDBRecords"
ACRONYM, FULL_NAME, CODE = "Acronym Name", "Full Name", "Snomed_CT"

RECORD_FILE = re.compile(RECORDS + r"/\w+/\w+/([\w-]+)\.(?:hea|mat)", re.ASCII)
COMMENT = re.compile(r"(age|sex|dx)\s*:(.*)", re.IGNORECASE)
SNOMED_CODE = re.compile(r"[0-9]{6,18}")
UNSAID = {"", "unknown", "nan"}

MISLEADING_ACRONYMS = {"AF", "STE"}
"""Atrial flutter and ST extension here; elsewhere atrial fibrillation and ST elevation. Their labels are the full names."""

OLDEST = 120
"""Years; an age beyond is a slip."""


@dataclass(frozen=True)
class Condition:
    """What a code is called in a report, and the label it sets."""

    name: str
    label: str


class ChapmanShaoxingNingbo:
    """The corpus in one folder."""

    name = "chapman-shaoxing-ningbo"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        table = read_table(self.folder / CONDITIONS, (ACRONYM, FULL_NAME, CODE), CORPUS)
        self._sha256 = table.sha256
        self._conditions = _conditions(table)

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        return {"corpus": CORPUS, "licence": "CC BY 4.0", "tables": {CONDITIONS: self._sha256}}

    def plan(self) -> Plan:
        """Every record that has a header or a signal file, in the order of the paths whatever the file system lists first.

        Raises:
            RecordError: the folder of records is missing.
        """
        if not (self.folder / RECORDS).is_dir():
            raise RecordError(f"{self.folder / RECORDS}: no such folder; expected {RECORDS}/NN/NNN/*.hea in it; check DIR")
        plan = Plan([], [], [])
        seen: dict[str, str] = {}
        for path, ends in sorted(_record_files(self.folder).items()):
            record_id = path.rpartition("/")[2]
            missing = [end for end in (".hea", ".mat") if end not in ends]
            if missing:
                plan.absent.append(AbsentRecord(record_id, f"{path}: {missing[0]} not in {self.folder.name}"))
            elif seen.setdefault(record_id, path) != path:
                reason = f"{path}: {seen[record_id]} has the same name and is read; remove one of them"
                plan.rejected.append(RejectedRecord(record_id, reason))
            else:
                plan.records.append(PlannedRecord(record_id, split_by_hash(self.name, record_id), {"path": path}))
        return plan

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """One record.

        Raises:
            RecordError: its files are not what they should be.
        """
        path = planned.row["path"]
        signal = read_wfdb(within(self.folder, path, planned.record_id))
        said = _said(signal.comments)
        codes = _codes(said.get("dx", ""), path)
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=path,
            patient_id=planned.record_id,
            split=planned.split,
            fs_hz=signal.fs_hz,
            ecg=signal.ecg,
            mv_per_lsb=signal.mv_per_lsb,
            report=", ".join(self._condition(code).name for code in codes) or None,
            report_source="made from statements" if codes else None,
            statements=[Statement(code, VOCABULARY) for code in codes],
            labels=self._labels(codes),
            age=age_up_to(OLDEST, said.get("age", "")),
            sex=SEXES.get(said.get("sex", "").lower()),
        )

    def _condition(self, code: str) -> Condition:
        return self._conditions.get(code) or Condition(code, code)

    def _labels(self, codes: list[str]) -> dict[str, int | None]:
        """All labels of the corpus: 1 stated, 0 not stated; all unknown for a record without a statement.

        Physicians chose from the whole list, and a normal record is stated too, as sinus rhythm.
        """
        labels: dict[str, int | None] = {condition.label: 0 if codes else None for condition in self._conditions.values()}
        return labels | {self._condition(code).label: 1 for code in codes}


def _record_files(folder: Path) -> dict[str, set[str]]:
    """Path of each record without extension, from the corpus's folder → the extensions that are there."""
    files: defaultdict[str, set[str]] = defaultdict(set)
    for file in (folder / RECORDS).glob("*/*/*"):
        path = file.relative_to(folder)
        if RECORD_FILE.fullmatch(path.as_posix()):
            files[path.with_suffix("").as_posix()].add(path.suffix)
    return files


def _conditions(table: Table) -> dict[str, Condition]:
    """Code → condition, for the corpus's list and for the codes that its headers use beyond it."""
    listed = _listed(table)
    acronyms = Counter(acronym for entries in listed.values() for acronym, _ in entries)
    conditions = {code: Condition(name, name) for code, name in NAMES.items()}
    for code, entries in listed.items():
        name = NAMES.get(code) or " or ".join(published for _, published in entries)
        acronym = entries[0][0]
        plain = len(entries) > 1 or acronyms[acronym] > 1 or acronym in MISLEADING_ACRONYMS
        conditions[code] = Condition(name, name if plain else acronym)
    for code, other in SAME_FINDING.items():
        if other in conditions:
            conditions[code] = Condition(conditions[code].name, conditions[other].label)
    return conditions


def _listed(table: Table) -> dict[str, list[tuple[str, str]]]:
    """Code → the acronyms and names that the corpus's list gives it."""
    listed: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in table:
        acronym, name, code = (" ".join(row[column].split()) for column in (ACRONYM, FULL_NAME, CODE))
        if not acronym or not name or not SNOMED_CODE.fullmatch(code):
            raise RecordError(f"{table.path}: expected an acronym, a name and a SNOMED CT code in each row; fetch it again")
        listed[code].append((acronym, name))
    return listed


def _said(comments: Iterable[str]) -> dict[str, str]:
    """`age`, `sex` and `dx` → what the header's comments say of them."""
    matches = (COMMENT.fullmatch(comment) for comment in comments)
    return {match[1].lower(): match[2].strip() for match in matches if match}


def _codes(text: str, path: str) -> list[str]:
    """The codes of a `Dx` comment, each once, in their order."""
    codes = [code for part in text.split(",") if (code := part.strip()).lower() not in UNSAID]
    if not all(SNOMED_CODE.fullmatch(code) for code in codes):
        raise RecordError(f"{path}.hea: expected SNOMED CT codes with commas between them as Dx; fetch the record again")
    return list(dict.fromkeys(codes))
