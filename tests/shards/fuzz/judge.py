"""What has to come of a corpus, damaged or not: valid records, or one clear sentence for each that there is not."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.dataset import index_table
from shards.plan import Plan, Source
from shards.plausibility import limb_residual, r_amplitude_mv
from shards.record import LEADS, SPLITS, EcgRecord, RecordError
from shards.tar import add_sample
from tests.shards.fuzz.guard import kept_within
from tests.shards.fuzz.lures import is_lure

LONGEST_SENTENCE = 600
LONGEST_ID = 400
NAMED = re.compile(r"^.{1,300}?: |\b[\w-]+\.(hea|dat|mat|h5|hdf5|csv|xml|json|tar|gz)\b|\b(row|record|lead|column|exam) \w+")
"""A sentence begins with the file or field that it is about, or names one."""
OUT_OF_MEMORY = re.compile(
    r"MemoryError|Unable to allocate|cannot allocate|malloc|memory allocation(?! failed for on disk image)|out of memory",
    re.IGNORECASE,
)
"""What a sentence says that hides a want of memory; in such words HDF5 also refuses headers of impossible sizes."""


@dataclass
class Outcome:
    """What came of a corpus."""

    records: int = 0
    rejected: int = 0
    """Rows, records or the whole corpus: anything that a sentence was given for."""
    problems: list[str] = field(default_factory=list)


def judge(make: Callable[[Path], Source], folder: Path) -> Outcome:
    """Plan and read all of a corpus as a build does, and say what is wrong with what comes of it.

    Any exception but `RecordError` passes through: it is a fault of the source.
    """
    outcome = Outcome()
    with kept_within(folder) as trespasses:
        try:
            source = make(folder)
            plan = source.plan()
            json.dumps(source.provenance(), allow_nan=False).encode()
        except RecordError as error:
            _note(outcome, str(error), folder)
            plan = Plan([], [], [])
    outcome.problems += trespasses
    for row in (*plan.absent, *plan.rejected):
        if not row.record_id.isprintable() or not 0 < len(row.record_id.encode()) <= LONGEST_ID:
            outcome.problems.append(f"an id is not printable, empty or too long: {row.record_id[:200]!r}")
        _note(outcome, row.reason, folder)
    for planned in plan.records:
        worker, item = pickle.loads(pickle.dumps((source, planned)))
        with kept_within(folder) as trespasses:
            try:
                record = worker.read(item)
            except RecordError as error:
                _note(outcome, str(error), folder)
            else:
                outcome.records += 1
                outcome.problems += _problems(record)
        outcome.problems += trespasses
    return outcome


def _note(outcome: Outcome, sentence: str, folder: Path) -> None:
    outcome.rejected += 1
    sentence.encode()
    faults = {
        "is not one line of printable text": not sentence.isprintable() or not sentence.strip(),
        f"has {len(sentence)} characters": len(sentence) > LONGEST_SENTENCE,
        "names no file or field": not NAMED.search(sentence),
        "is about memory": bool(OUT_OF_MEMORY.search(sentence)),
    }
    outcome.problems += [f"a sentence {fault}: {sentence[:700]!r}" for fault, is_so in faults.items() if is_so]


def _problems(record: EcgRecord) -> list[str]:
    """What is wrong with a record; where nothing is, it is packed as a build packs it, which may raise too."""
    ecg, scale, labels = record.ecg, np.asarray(record.mv_per_lsb, dtype=float), set(record.labels.values())
    well_scaled = scale.shape == (len(LEADS),) and bool(np.isfinite(scale).all()) and bool((scale > 0).all())
    held = {
        f"its signal is {ecg.dtype} {ecg.shape}": ecg.dtype == np.int16 and ecg.shape[:1] == (12,) and ecg[0].size > 0,
        f"its scales are {record.mv_per_lsb}": well_scaled,
        f"its rate is {record.fs_hz}": 0 < record.fs_hz < float("inf"),
        f"its key is {record.key!r}": re.fullmatch(r"[A-Za-z0-9_-]+", record.key),
        f"its split is {record.split!r}": record.split in SPLITS,
        f"its labels are {labels}": labels <= {0, 1, None},
    }
    problems = [f"{record.record_id[:40]!r}: {fault}" for fault, holds in held.items() if not holds]
    if not problems:
        _pack(record)
        problems = [f"{record.record_id[:40]!r}: lies outside of the corpus"] if is_lure(record) else []
    return problems


def _pack(record: EcgRecord) -> None:
    """Its members in a shard and its row of the index, as a build makes them."""
    add_sample(bytearray(), record.key, record.to_members())
    row = {
        **record.index_row(),
        "r_amplitude_mv": r_amplitude_mv(record.ecg, record.mv_per_lsb, record.fs_hz),
        "limb_residual": limb_residual(record.ecg, record.mv_per_lsb),
        **{"shard": "a.tar", "offset": 0, "bytes": 1},
    }
    json.dumps(row, allow_nan=False)
    index_table([row])
