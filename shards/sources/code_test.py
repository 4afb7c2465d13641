"""CODE-test in its native layout: `ecg_tracings.hdf5`, `attributes.csv` and a table of each annotator in `annotations/`.

Source: Ribeiro et al., Annotated 12-lead ECG dataset, Zenodo 3765780, version 1.0.3, CC BY 4.0. 827 exams of 827 patients,
the test set of Nature Communications 11:1760 (2020). Nothing has a number: row i of the tracings is line i of every table.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from shards.plan import Kind, Plan, PlannedRecord
from shards.record import EcgRecord, RecordError, arrange_leads
from shards.sources.tables import Table, number, read_table
from shards.sources.tnmg import (
    FINDINGS,
    FS_HZ,
    VALUES_PER_MV,
    described,
    labels_of,
    open_tracings,
    quantise_tracing,
    read_tracing,
    sex_of,
)

TRACINGS = "ecg_tracings.hdf5"
ATTRIBUTES = "attributes.csv"
ANNOTATIONS = "annotations"
GOLD = "gold_standard"
LEADS_IN_FILE = ("DI", "DII", "DIII", "AVL", "AVF", "AVR", "V1", "V2", "V3", "V4", "V5", "V6")
"""As its README says and its arrays confirm; the other corpora of the family have AVR first of the three."""


class CodeTest:
    """The test set in one folder, the `data` of its archive."""

    name = "code-test"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._order = arrange_leads(LEADS_IN_FILE, TRACINGS)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_order": self._order}

    @cached_property
    def _tables(self) -> dict[str, Table]:
        """File name → table: the attributes, and each annotator's findings."""
        names = {path.name for path in self.folder.glob(f"{ANNOTATIONS}/*.csv")} | {f"{GOLD}.csv"}
        annotations = [f"{ANNOTATIONS}/{name}" for name in sorted(names)]
        return {
            ATTRIBUTES: read_table(self.folder / ATTRIBUTES, ("age", "sex"), "CODE-test"),
            **{name: read_table(self.folder / name, FINDINGS, "CODE-test") for name in annotations},
        }

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        return {
            "corpus": "CODE-test",
            "licence": "CC BY 4.0",
            "tables": {name: table.sha256 for name, table in self._tables.items()},
            "values": "stored values / 2 = mV: inferred from amplitudes and from the other corpora of the family",
        }

    def plan(self) -> Plan:
        """Every exam, all of them for testing.

        Raises:
            RecordError: a file is missing or damaged, or two have not the same number of rows.
        """
        exams = open_tracings(self.folder / TRACINGS, "tracings").shape[0]
        rows = {TRACINGS: exams, **{name: len(table) for name, table in self._tables.items()}}
        if len(set(rows.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise RecordError(f"{self.folder.name}: rows are joined by their order, expected as many in each, found {found}")
        return Plan([self._planned(row) for row in range(exams)], [], [])

    def _planned(self, row: int) -> PlannedRecord:
        annotators = {Path(name).stem: table[row] for name, table in self._tables.items() if name != ATTRIBUTES}
        fields = {"attributes": self._tables[ATTRIBUTES][row], "annotators": annotators, "tracing_row": row}
        return PlannedRecord(str(row), "test", fields)

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one exam: labels of the gold standard, and what each annotator found.

        Raises:
            RecordError: its tracing or a field is not what it should be.
        """
        row = planned.row
        where = f"{TRACINGS}, row {planned.record_id}"
        tracings = open_tracings(self.folder / TRACINGS, "tracings")
        values = read_tracing(tracings, row["tracing_row"], where)
        ecg, mv_per_lsb = quantise_tracing(values, self._order, VALUES_PER_MV, f"exam {planned.record_id}")
        annotations = {
            annotator: labels_of(fields, tuple(FINDINGS), f"{ANNOTATIONS}/{annotator}.csv, row {planned.record_id}")
            for annotator, fields in row["annotators"].items()
        }
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=TRACINGS,
            patient_id=planned.record_id,
            split=planned.split,
            fs_hz=FS_HZ,
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            annotations=annotations,
            age=number(row["attributes"]["age"]),
            sex=sex_of({"M": True, "F": False}.get(row["attributes"]["sex"].strip())),
            **described(annotations[GOLD]),
        )
