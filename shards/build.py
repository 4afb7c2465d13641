"""Build a data set: what a source reads becomes shards, an index and, last, a manifest.

build(PtbXl(Path("ptb-xl-1.0.3")), "s3://ecg/ptb-xl", BuildOptions(), on_shard=print)

A build that was stopped at any point goes on when it is started again: shards that have a note are not built twice.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.dataset import INDEX, MANIFEST, SCHEMA_VERSION, DatasetError, index_bytes, read_members
from shards.plan import AbsentRecord, Plan, PlannedShard, RejectedRecord, Source, plan_shards
from shards.plausibility import LARGEST_RESIDUAL, SAMPLES_LOOKED_AT, findings
from shards.record import to_millivolts
from shards.shard_writer import UNFINISHED, BuiltShard, ShardWriter, finished_shard
from shards.storage import Store
from shards.tar import decode_array, decode_json
from shards.workers import Runner, in_this_process

REASONS_SHOWN = 3
PLAN = f"{UNFINISHED}/plan.json"


@dataclass(frozen=True)
class BuildOptions:
    """What decides the bytes of a build."""

    records_per_shard: int = 512
    """About 60 MB a shard for 10 s at 500 Hz; whoever builds a shard holds it in memory."""
    seed: int = 0
    """Seed of the hash that spreads records over shards."""
    max_rejected: float = 0.01
    """Fraction of the planned records that may be rejected before the build stops."""

    def __post_init__(self) -> None:
        if self.records_per_shard < 1:
            raise DatasetError(f"--records-per-shard {self.records_per_shard}: expected at least 1")
        if not 0 <= self.max_rejected <= 1:
            raise DatasetError(f"--max-rejected {self.max_rejected}: expected a fraction from 0 to 1, such as 0.01")


def build(
    source: Source,
    uri: str,
    options: BuildOptions,
    runner: Runner = in_this_process,
    on_shard: Callable[[BuiltShard], None] = lambda shard: None,
    on_plan: Callable[[list[PlannedShard]], None] = lambda shards: None,
) -> dict[str, Any]:
    """Write the data set of a source below a URI and return its manifest.

    Args:
        source: what reads the records.
        uri: where the data set is written; an unfinished build of the same is continued.
        options: what decides the bytes.
        runner: who builds the shards; any gives the same bytes.
        on_shard: told of each shard that is in the store, those of an earlier run too.
        on_plan: told what is going to be built.

    Raises:
        DatasetError: too many records were rejected, nothing can be read, or another data set is already there.
        RecordError: the corpus's own tables are missing or unreadable.
        StorageError: the store does not take what is written.
    """
    store = Store(uri)
    whole, unfinished = store.exists(MANIFEST), _unfinished_plan(store)
    if whole and unfinished is None:
        raise DatasetError(_another_is_there(store))
    plan = source.plan()
    shards = plan_shards(plan, source.name, options.records_per_shard, options.seed)
    if not shards:
        raise DatasetError(_nothing_to_read(source, plan))
    wanted = _plan_digest(source, plan, shards, options)
    if whole:
        return _already_built(store, unfinished == wanted)
    if unfinished is None:
        store.put(PLAN, json.dumps({"plan": wanted}).encode())
    elif unfinished != wanted:
        raise DatasetError(
            f"{store.uri}: holds an unfinished build of other records or settings; start that one again, choose another URI, "
            f"or delete {store.uri_of(UNFINISHED)}/ to begin anew"
        )
    on_plan(shards)
    rejected = list(plan.rejected)
    allowed = options.max_rejected * (len(plan.records) + len(plan.rejected))
    _check_rejected(rejected, allowed, options)
    built: dict[str, BuiltShard] = {}
    for shard in _finished_then_built(source, store, shards, runner, unfinished is not None):
        built[shard.name] = shard
        rejected.extend(shard.rejected)
        _check_rejected(rejected, allowed, options)
        on_shard(shard)
    manifest = _finish(source, plan, options, store, [built[shard.name] for shard in shards], rejected)
    _forget(store)
    return manifest


def _finished_then_built(
    source: Source, store: Store, shards: list[PlannedShard], runner: Runner, continued: bool
) -> Iterator[BuiltShard]:
    """What an earlier run has in the store, then the rest as it is built."""
    remaining = []
    for shard in shards:
        finished = finished_shard(store, shard) if continued else None
        if finished is None:
            remaining.append(shard)
        else:
            yield finished
    yield from runner(ShardWriter(source, store), remaining)


def _plan_digest(source: Source, plan: Plan, shards: list[PlannedShard], options: BuildOptions) -> str:
    """Stands for everything that decides the bytes of a build, but for the signal files themselves."""
    decides = {
        "schema": SCHEMA_VERSION,
        "tool": _tool_version(),
        "source": source.name,
        "provenance": source.provenance(),
        "records_per_shard": options.records_per_shard,
        "seed": options.seed,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    for shard in shards:
        digest.update(f"\n{shard.name}".encode())
        for record in shard.records:
            digest.update(f"\x1f{record.record_id}".encode())
    left_outs: list[AbsentRecord | RejectedRecord] = [*plan.absent, *plan.rejected]
    for left_out in left_outs:
        digest.update(f"\n{left_out.record_id}\x1f{left_out.reason}".encode())
    return digest.hexdigest()


def _unfinished_plan(store: Store) -> str | None:
    """Digest of the plan of a build that has not ended, or None where there is none."""
    return json.loads(store.get(PLAN))["plan"] if store.exists(PLAN) else None


def _already_built(store: Store, same: bool) -> dict[str, Any]:
    """The manifest of a build of the same that was stopped in its last step.

    Raises:
        DatasetError: it is another data set.
    """
    if not same:
        raise DatasetError(_another_is_there(store))
    manifest: dict[str, Any] = json.loads(store.get(MANIFEST))
    _forget(store)
    return manifest


def _forget(store: Store) -> None:
    """Remove the notes of a finished build, the plan last: until then a stopped clean-up is continued."""
    for name in store.list(UNFINISHED):
        if name != PLAN:
            store.delete(name)
    store.delete_folder(UNFINISHED)


def _finish(
    source: Source, plan: Plan, options: BuildOptions, store: Store, shards: list[BuiltShard], rejected: list[RejectedRecord]
) -> dict[str, Any]:
    """Write the index and, last, the manifest."""
    table = pa.concat_tables([shard.rows for shard in shards]).combine_chunks()
    body = index_bytes(table)
    store.put(INDEX, body)
    planned = len(plan.records) + len(plan.rejected)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ecgchat", "version": _tool_version()},
        "kind": source.kind,
        "source": source.name,
        "simulated": source.simulated,
        "provenance": source.provenance(),
        "build": asdict(options),
        "shards": [
            {"name": shard.name, "samples": shard.rows.num_rows, "bytes": shard.bytes, "sha256": shard.sha256}
            for shard in shards
        ],
        "index": {"name": INDEX, "rows": table.num_rows, "sha256": hashlib.sha256(body).hexdigest()},
        "counts": _counts(table, planned=planned, absent=len(plan.absent), rejected=len(rejected)),
        "statistics": _statistics(table),
        "implausible": _implausible(store, table),
        "absent": [asdict(record) for record in plan.absent],
        "rejected": [asdict(record) for record in sorted(rejected, key=lambda record: record.record_id)],
    }
    store.put(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True).encode())
    return manifest


def _another_is_there(store: Store) -> str:
    return f"{store.uri}: holds a data set already ({MANIFEST}); choose another URI or delete it first"


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
    return {
        "planned": planned,
        "records": table.num_rows,
        "absent": absent,
        "rejected": rejected,
        "split": _occurrences(table["split"]),
        "source": _occurrences(table["source"]),
        "label": _occurrences(pc.list_flatten(table["labels"])),
        "patients": len(set(pc.unique(table["patient_hash"]).to_pylist()) - {""}),
        "ecgs": pc.sum(table["ecgs"]).as_py() or 0,
    }


def _occurrences(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted((row["values"], row["counts"]) for row in pc.value_counts(column).to_pylist()))


def _statistics(table: pa.Table) -> dict[str, Any]:
    """Median and extremes of the columns that show a wrong gain or an empty text at a glance."""
    with_ecg = table.filter(pc.field("ecgs") > 0)
    return {
        column: {"min": min(values), "median": statistics.median(values), "max": max(values)}
        for column, rows in (("peak_mv", with_ecg), ("text_length", table), ("samples", with_ecg))
        if (values := rows[column].to_pylist())
    }


def _implausible(store: Store, table: pa.Table) -> list[str]:
    """What no sound corpus shows; signals are read again only where limb leads do not fit one another."""
    suspects = table.filter(pc.field("limb_residual") > LARGEST_RESIDUAL).slice(0, SAMPLES_LOOKED_AT)
    return findings(
        table["r_amplitude_mv"].to_pylist(),
        table["limb_residual"].to_pylist(),
        (_read_millivolts(store, row) for row in suspects.to_pylist()),
    )


def _read_millivolts(store: Store, row: dict[str, Any]) -> NDArray[np.float64]:
    _, members = read_members(store, row)
    return to_millivolts(decode_array(members["ecg.npy"]), decode_json(members["json"])["mv_per_lsb"])


def _tool_version() -> str:
    try:
        return version("ecgchat")
    except PackageNotFoundError:
        return "source tree"
