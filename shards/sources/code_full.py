"""CODE in full: HDF5 files with `signal` and `id_exam`, and one table of annotations, as its readers use them.

Source: Ribeiro et al., CODE dataset, doi 10.17044/scilifelab.15169716, on request under a data use agreement. Its lead order
and its scale are not public: a sample of the tracings is checked against Einthoven's and Goldberger's laws and against the
height of the R wave before anything is built.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.plan import Kind, Plan, PlannedRecord
from shards.record import LEADS, EcgRecord, RecordError, arrange_leads, standard_lead
from shards.sources.tables import Row, Table, number, read_table, truth
from shards.sources.tnmg import (
    FINDINGS,
    FS_HZ,
    SEVERAL,
    VALUES_PER_MV,
    AbsentTracingError,
    Exam,
    described,
    exam_rows,
    labels_of,
    open_tracings,
    plan_exams,
    quantise_tracing,
    read_tracing,
    row_of,
    sex_of,
    whole_number,
)

SIGNAL, IDS = "signal", "id_exam"
COMORBIDITIES = "comorbidities.csv"
NAMES = {"id_exam": ("id_exam", "N_exame"), "id_patient": ("id_patient", "N_paciente_univoco"), "age": ("age", "Idade")}
"""Column → what releases have called it; each column may have either name."""
NEEDED = (*NAMES, "sex", *FINDINGS)
LONGEST_HEADER = 2**16

SAMPLED = 128
"""Tracings that lead order and scale are checked on."""

LAWS = np.array([[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-1, 0.5, 0, 0, 1, 0], [0.5, -1, 0, 0, 0, 1]])
"""(4, 6), zero on I, II, III, aVR, aVL, aVF. Einthoven: III = II - I. Goldberger: aVR = -(I + II) / 2, aVL = I - II / 2,
aVF = II - I / 2."""
LIMB_ORDERS = np.array(list(itertools.permutations(range(6))))
LARGEST_RESIDUAL = 0.06
"""Between the right order, at most 0.03, and the next best, at least 0.12, in each of 46 recordings of CODE-15%."""
EXACT = 0.01
"""Where the order that is assumed leaves less, one that leaves even less is no sign of another: leads may be alike."""

R_WAVE_MV = (0.48, 1.1)
"""Plausible median height in lead II: 0.7 mV over the same recordings, half or twice that at a scale that is off by 2."""
SCALES = {1.0: "millivolts", 2.0: "2 x millivolts", 10.0: "1e-4 V", 1000.0: "microvolts", 0.001: "volts"}
"""Values to 1 mV → what such values are."""


class CodeFull:
    """The data set, or a part of it, in one folder."""

    name = "code"
    simulated = False
    kind: Kind = "ecg"

    def __init__(self, folder: Path, *, scale: float | None = None, leads: str | None = None) -> None:
        """Take values to 1 mV (2, and checked, unless given) and the order of the leads in the files (standard).

        Raises:
            RecordError: the scale is no positive number, or the leads are not the twelve.
        """
        if scale is not None and not 0 < scale < math.inf:
            raise RecordError(f"--scale {scale}: expected how many values are 1 mV, a positive number such as 2")
        self.folder = folder.absolute()
        self.scale = scale
        self.leads = LEADS if leads is None else _lead_names(leads)
        self._order = arrange_leads(self.leads, "--leads")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_annotations", "_comorbidities")}

    @property
    def values_per_mv(self) -> float:
        """What 1 mV is in the files."""
        return VALUES_PER_MV if self.scale is None else self.scale

    @cached_property
    def _annotations(self) -> Table:
        fitting = [path for path in sorted(self.folder.glob("*.csv")) if _is_annotations(path)]
        if len(fitting) != 1:
            found = ", ".join(path.name for path in fitting) or "none"
            raise RecordError(
                f"{self.folder.name}: expected one csv table with the columns {', '.join(NEEDED)} (older: N_exame, "
                f"N_paciente_univoco, Idade), found {found}; leave one such table in the folder"
            )
        table = read_table(fitting[0], (), "CODE")
        if not _has_columns(table.columns):  # its first line holds a NUL, or a quotation mark that is closed in a later one
            raise RecordError(f"{fitting[0].name}: its first line is no row of names; fetch it again")
        return table

    @cached_property
    def _comorbidities(self) -> Table | None:
        path = self.folder / COMORBIDITIES
        return read_table(path, (IDS,), "CODE") if path.is_file() else None

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        tables = [table for table in (self._annotations, self._comorbidities) if table is not None]
        return {
            "corpus": "CODE",
            "licence": "restricted: as the data use agreement says",
            "tables": {table.path.name: table.sha256 for table in tables},
            "options": {"scale": self.scale, "leads": ",".join(self.leads)},
            "values": f"stored values / {self.values_per_mv:g} = mV",
        }

    def plan(self) -> Plan:
        """Every row of the annotations, joined to its tracing by exam number, and a sample of the tracings checked.

        Raises:
            RecordError: a table or a file is missing or damaged, or lead order or scale are not what they are taken to be.
        """
        parts = {path.name: exam_rows(path, IDS, SIGNAL) for path in self._files()}
        table = self._annotations
        exams, patients = (table.column(_name_in(column, table.columns)) for column in ("id_exam", "id_patient"))
        beside = _rows_of(self._comorbidities)

        def find(position: int, exam: int) -> Exam:
            holding = [file for file, rows in parts.items() if exam in rows]
            if not holding:
                raise AbsentTracingError(f"exam {exam} is in none of {', '.join(parts)}; fetch its file or remove its row")
            if len(holding) > 1:
                raise RecordError(f"{', '.join(holding)}: exam {exam} is in each of them, expected one; remove one file")
            comorbidities = None if self._comorbidities is None else _row(self._comorbidities, beside.get(exam, SEVERAL))
            return Exam(table[position], holding[0], row_of(exam, parts[holding[0]], holding[0]), comorbidities)

        plan = plan_exams(self.name, exams, patients, find, table.path.name)
        if plan.records:
            self._check(plan.records)
        return plan

    def _files(self) -> list[Path]:
        files = sorted(path for end in ("*.hdf5", "*.h5") for path in self.folder.glob(end))
        if not files:
            raise RecordError(
                f"{self.folder.name}: expected *.hdf5 or *.h5 files with {SIGNAL} and {IDS}, found none; check DIR"
            )
        return files

    def _check(self, records: Sequence[PlannedRecord]) -> None:
        """Einthoven, Goldberger and the R wave on tracings drawn with a fixed seed."""
        drawn = np.random.default_rng(0).choice(len(records), min(SAMPLED, len(records)), replace=False)
        signals = []
        for place in sorted(drawn):
            try:
                signals.append(self._tracing(records[place]).T[self._order] / self.values_per_mv)
            except RecordError:
                continue  # it is rejected when it is read
        if not signals:
            raise RecordError(
                f"{self.folder.name}: none of {len(drawn)} tracings drawn to check lead order and scale holds an ECG; fetch "
                "the files again"
            )
        self._check_leads(signals)
        if self.scale is None:
            self._check_scale(signals)

    def _check_leads(self, signals: Sequence[NDArray[np.float64]]) -> None:
        found = fit_limb_order(signals)
        if found.assumed <= LARGEST_RESIDUAL and found.assumed <= max(2 * found.best, EXACT):
            return
        limits = f"residual {found.assumed:.2g} over {len(signals)} exams, expected at most {LARGEST_RESIDUAL:g}"
        if not found.best <= LARGEST_RESIDUAL:  # or where nothing moves, which is NaN
            raise RecordError(
                f"{self.folder.name}: limb leads obey Einthoven's and Goldberger's laws in no order ({limits}); check that the "
                f"columns of {SIGNAL} are the twelve leads, six limb leads where --leads says"
            )
        names = list(self.leads)
        for lead, place in zip(LEADS[:6], found.order, strict=True):
            names[self._order[place]] = lead
        raise RecordError(
            f"{self.folder.name}: limb leads in the order {', '.join(self.leads[:6])} break Einthoven's and Goldberger's laws "
            f"({limits}); those of another order hold (residual {found.best:.2g}): give --leads {','.join(names)}"
        )

    def _check_scale(self, signals: Sequence[NDArray[np.float64]]) -> None:
        height = float(np.median([value for mv in signals if math.isfinite(value := r_amplitude_mv(mv))] or [math.nan]))
        if R_WAVE_MV[0] <= height <= R_WAVE_MV[1]:
            return
        fitting = [
            f"--scale {scale:g} if values are {words}"
            for scale, words in SCALES.items()
            if R_WAVE_MV[0] <= height * VALUES_PER_MV / scale <= R_WAVE_MV[1]
        ]
        raise RecordError(
            f"{self.folder.name}: with {VALUES_PER_MV:g} values to 1 mV the R wave of lead II is {height:.2g} mV high (median "
            f"of {len(signals)} exams), expected {R_WAVE_MV[0]:g} to {R_WAVE_MV[1]:g}; give "
            f"{', '.join([*fitting, f'--scale {VALUES_PER_MV:g} to keep it, or --scale with the values to 1 mV'])}"
        )

    def _tracing(self, planned: PlannedRecord) -> NDArray[np.float64]:
        """(samples, 12) as stored, leads in the order of the file."""
        file = planned.row["tracing_file"]
        tracings = open_tracings(self.folder / file, SIGNAL)
        return read_tracing(tracings, planned.row["tracing_row"], f"{file}, exam {planned.record_id}")

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The record of one exam.

        Raises:
            RecordError: its tracing or a field is not what it should be.
        """
        row = planned.row
        ecg, mv_per_lsb = quantise_tracing(self._tracing(planned), self._order, self.values_per_mv, f"exam {planned.record_id}")
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=row["tracing_file"],
            patient_id=str(whole_number(row[_name_in("id_patient", row)])),
            split=planned.split,
            fs_hz=FS_HZ,
            ecg=ecg,
            mv_per_lsb=mv_per_lsb,
            acquired=row.get("date_exam") or None,
            annotations=_stated_comorbidities(row["comorbidities"]),
            age=number(row[_name_in("age", row)]),
            sex=sex_of({"M": True, "F": False}.get(row["sex"].strip())),
            **described(labels_of(row, tuple(FINDINGS), f"annotations, exam {planned.record_id}")),
        )


@dataclass(frozen=True)
class LimbOrder:
    """How well limb leads obey the laws as they are, and in their best order; medians over recordings, NaN without any."""

    assumed: float
    best: float
    order: tuple[int, ...]
    """Positions of I, II, III, aVR, aVL, aVF among the six as they are."""


def fit_limb_order(signals: Sequence[NDArray[np.float64]]) -> LimbOrder:
    """Try all 720 orders of the six limb leads on recordings of (12, samples), leads as they are taken to be."""
    shares = [share for mv in signals if np.isfinite(share := _limb_covariance(mv)).all()]
    if not shares:
        return LimbOrder(math.nan, math.nan, tuple(range(6)))
    turned = np.array(shares)[:, LIMB_ORDERS[:, :, None], LIMB_ORDERS[:, None, :]]
    residuals = np.median(np.sqrt(np.abs(np.einsum("ij,noij->no", LAWS.T @ LAWS, turned))), axis=0)
    best = int(np.argmin(residuals))
    return LimbOrder(float(residuals[0]), float(residuals[best]), tuple(LIMB_ORDERS[best].tolist()))


def limb_residual(mv: NDArray[np.float64]) -> float:
    """What the limb leads of a (12, samples) recording leave of Einthoven's and Goldberger's laws.

    Root of the summed squares of the four deviations over the summed squares of the six leads, each less its mean: 0
    where the laws hold, about 1 for leads in a wrong order. NaN where there is no limb lead that moves.
    """
    return float(np.sqrt(np.abs(np.sum((LAWS.T @ LAWS) * _limb_covariance(mv)))))


def r_amplitude_mv(mv: NDArray[np.float64]) -> float:
    """Height of the R wave of lead II over its median in a (12, samples) recording: the median of its highest points in
    five equal parts, so that neither a spike nor a wandering baseline decides. NaN where lead II does not move."""
    lead = mv[LEADS.index("II")]
    lead = lead[np.isfinite(lead)]
    if len(lead) < 5 or lead.min() == lead.max():
        return math.nan
    return float(np.median([part.max() - np.median(part) for part in np.array_split(lead, 5)]))


def _limb_covariance(mv: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6, 6) products of the limb leads, each less its mean, as shares of their sum of squares; NaN where nothing moves."""
    limb = mv[:6][:, np.isfinite(mv[:6]).all(axis=0)]
    if not limb.size or not np.ptp(limb, axis=1).any():
        return np.full((6, 6), np.nan)
    limb = limb / np.abs(limb).max()
    limb = limb - limb.mean(axis=1, keepdims=True)  # a median would not keep the laws
    products = limb @ limb.T
    return products / np.trace(products)


def _lead_names(leads: str) -> tuple[str, ...]:
    """The standard leads in the order that `--leads I,II,…` gives."""
    names = [standard_lead(name) for name in leads.split(",")]
    if sorted(map(str, names)) != sorted(LEADS):
        raise RecordError(f"--leads {leads[:120]}: expected the twelve of {','.join(LEADS)} in the order of the files")
    return tuple(map(str, names))


def _is_annotations(path: Path) -> bool:
    """Whether the first line of a csv file has the columns of the annotations."""
    try:
        with path.open("rb") as file:
            header = file.readline(LONGEST_HEADER).decode("utf-8-sig", "replace")
        columns = next(csv.reader([header.replace("\0", "")]), [])
    except (OSError, csv.Error):
        return False
    return _has_columns(columns)


def _has_columns(columns: Sequence[str]) -> bool:
    """Whether those of the annotations are among them."""
    return all(any(name in columns for name in NAMES.get(column, (column,))) for column in NEEDED)


def _name_in(column: str, columns: Mapping[str, Any] | Sequence[str]) -> str:
    """What a table calls a column."""
    return next(name for name in NAMES[column] if name in columns)


def _rows_of(table: Table | None) -> dict[int | None, int]:
    """Exam number → position of its row, `SEVERAL` where there are several."""
    rows: dict[int | None, int] = {}
    for position, exam in enumerate(map(whole_number, table.column(IDS) if table else [])):
        rows[exam] = SEVERAL if exam in rows else position
    return rows


def _row(table: Table, position: int) -> Row | None:
    return None if position == SEVERAL else table[position]


def _stated_comorbidities(row: Mapping[str, str] | None) -> dict[str, Any]:
    """Each column of the table of comorbidities → True, False or None, but for the numbers of exam and patient."""
    if row is None:
        return {}
    return {"comorbidities": {column: truth(row[column]) for column in row if column not in ("id_exam", "id_patient")}}
