"""Build a data set: what a source reads becomes shards, an index and, last, a manifest.

build(PtbXl(Path("ptb-xl-1.0.3")), "s3://ecg/ptb-xl", BuildOptions(), on_shard=print)
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shards.dataset import INDEX, MANIFEST, SCHEMA_VERSION, DatasetError, index_bytes, index_table
from shards.plan import AbsentRecord, Plan, PlannedShard, RejectedRecord, Source, plan_shards
from shards.record import RecordError
from shards.storage import Store
from shards.tar import END_OF_ARCHIVE, pack_sample

REASONS_SHOWN = 3


@dataclass(frozen=True)
class BuildOptions:
    """What decides the bytes of a build, and how it runs."""

    records_per_shard: int = 512
    """About 60 MB a shard for 10 s at 500 Hz; a worker holds one shard in memory."""
    seed: int = 0
    """Seed of the hash that spreads records over shards."""
    max_rejected: float = 0.01
    """Fraction of the planned records that may be rejected before the build stops."""
    workers: int = 1
    """Processes that read records and write shards; any number gives the same bytes."""

    def __post_init__(self) -> None:
        for flag, value in (("--records-per-shard", self.records_per_shard), ("--workers", self.workers)):
            if value < 1:
                raise DatasetError(f"{flag} {value}: expected at least 1")
        if not 0 <= self.max_rejected <= 1:
            raise DatasetError(f"--max-rejected {self.max_rejected}: expected a fraction from 0 to 1, such as 0.01")


@dataclass(frozen=True)
class BuiltShard:
    """What is known of a shard once it is in the store."""

    name: str
    bytes: int
    sha256: str
    rows: list[dict[str, Any]]
    rejected: list[RejectedRecord]


def build(
    source: Source,
    uri: str,
    options: BuildOptions,
    on_shard: Callable[[BuiltShard], None] = lambda shard: None,
    on_plan: Callable[[list[PlannedShard]], None] = lambda shards: None,
) -> dict[str, Any]:
    """Write the data set of a source below a URI and return its manifest.

    Raises:
        DatasetError: too many records were rejected, nothing can be read, or another data set is already there.
        RecordError: the corpus's own tables are missing or unreadable.
        StorageError: the store does not take what is written.
    """
    store = Store(uri)
    if store.exists(MANIFEST):
        raise DatasetError(f"{store.uri}: holds a data set already ({MANIFEST}); choose another URI or delete it first")
    plan = source.plan()
    shards = plan_shards(plan, source.name, options.records_per_shard, options.seed)
    if not shards:
        raise DatasetError(_nothing_to_read(source, plan))
    on_plan(shards)
    built: dict[str, BuiltShard] = {}
    rejected = list(plan.rejected)
    allowed = options.max_rejected * (len(plan.records) + len(plan.rejected))
    _check_rejected(rejected, allowed, options)
    with _shard_builder(source, store, options.workers) as results:
        for shard in results(shards):
            built[shard.name] = shard
            rejected.extend(shard.rejected)
            _check_rejected(rejected, allowed, options)
            on_shard(shard)
    in_order = [built[shard.name] for shard in shards]
    table = index_table([row for shard in in_order for row in shard.rows])
    body = index_bytes(table)
    store.put(INDEX, body)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ecgchat", "version": _tool_version()},
        "kind": source.kind,
        "source": source.name,
        "simulated": source.simulated,
        "provenance": source.provenance(),
        "build": {key: value for key, value in asdict(options).items() if key != "workers"},
        "shards": [
            {"name": shard.name, "samples": len(shard.rows), "bytes": shard.bytes, "sha256": shard.sha256} for shard in in_order
        ],
        "index": {"name": INDEX, "rows": table.num_rows, "sha256": hashlib.sha256(body).hexdigest()},
        "counts": _counts(
            table, planned=len(plan.records) + len(plan.rejected), absent=len(plan.absent), rejected=len(rejected)
        ),
        "statistics": _statistics(table),
        "absent": [asdict(record) for record in plan.absent],
        "rejected": [asdict(record) for record in sorted(rejected, key=lambda record: record.record_id)],
    }
    store.put(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True).encode())
    return manifest


def build_shard(source: Source, store: Store, planned: PlannedShard) -> BuiltShard:
    """Read the records of one shard, write it, and say what is in it."""
    body = bytearray()
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedRecord] = []
    for item in planned.records:
        try:
            sample = source.read(item)
        except RecordError as error:
            rejected.append(RejectedRecord(item.record_id, str(error)))
            continue
        packed = pack_sample(sample.key, sample.to_members())
        rows.append({**sample.index_row(), "shard": planned.name, "offset": len(body), "bytes": len(packed)})
        body += packed
    body += END_OF_ARCHIVE
    store.put(planned.name, bytes(body))
    return BuiltShard(planned.name, len(body), hashlib.sha256(body).hexdigest(), rows, rejected)


@contextmanager
def _shard_builder(
    source: Source, store: Store, workers: int
) -> Iterator[Callable[[list[PlannedShard]], Iterator[BuiltShard]]]:
    if workers == 1:
        yield lambda shards: (build_shard(source, store, shard) for shard in shards)
        return
    # Object store clients run threads, which do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:

        def results(shards: list[PlannedShard]) -> Iterator[BuiltShard]:
            waiting = [pool.submit(build_shard, source, store, shard) for shard in shards]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

        yield results


def _nothing_to_read(source: Source, plan: Plan) -> str:
    rows: list[AbsentRecord | RejectedRecord] = [*plan.absent, *plan.rejected]
    if source.kind == "ecg":
        return f"{source.name}: none of the {len(rows)} rows has its files; check DIR and --rate"
    first = f" (the first, {rows[0].record_id}: {rows[0].reason})" if rows else ""
    return f"{source.name}: none of {len(rows)} conversations can be made{first}; check the data set and --items"


def _check_rejected(rejected: list[RejectedRecord], allowed: float, options: BuildOptions) -> None:
    if len(rejected) > allowed:
        reasons = "; ".join(record.reason for record in rejected[:REASONS_SHOWN])
        raise DatasetError(
            f"{len(rejected)} records were rejected, more than --max-rejected {options.max_rejected:g} allows: {reasons}. "
            "Mend the files, or raise --max-rejected to leave such records out"
        )


def _counts(table: pa.Table, planned: int, absent: int, rejected: int) -> dict[str, Any]:
    labels = Counter(label for labels in table["labels"].to_pylist() for label in labels)
    return {
        "planned": planned,
        "records": table.num_rows,
        "absent": absent,
        "rejected": rejected,
        "split": dict(sorted(Counter(table["split"].to_pylist()).items())),
        "source": dict(sorted(Counter(table["source"].to_pylist()).items())),
        "label": dict(sorted(labels.items())),
        "patients": len(set(table["patient_hash"].to_pylist()) - {""}),
        "ecgs": sum(table["ecgs"].to_pylist()),
    }


def _statistics(table: pa.Table) -> dict[str, Any]:
    """Median and extremes of the columns that show a wrong gain or an empty text at a glance."""
    with_ecg = table.filter(pc.field("ecgs") > 0)
    return {
        column: {"min": min(values), "median": statistics.median(values), "max": max(values)}
        for column, rows in (("peak_mv", with_ecg), ("text_length", table), ("samples", with_ecg))
        if (values := rows[column].to_pylist())
    }


def _tool_version() -> str:
    try:
        return version("ecgchat")
    except PackageNotFoundError:
        return "source tree"
