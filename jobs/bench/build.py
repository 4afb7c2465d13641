"""How fast a corpus becomes shards, beside the plain loop that one would write, and a plain copy of its files.

    python -m jobs.bench.build                     # some minutes
    python -m jobs.bench.build --quick             # within a minute: that it runs, not how fast
    python -m jobs.bench.build --json build.json

The records are simulated ECGs in PTB-XL's layout (12 leads, 10 s, 500 Hz, 16 bits), each of them several times under numbers
of its own. The files are in the page cache, but for the row that says they are not.
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import webdataset
import wfdb

from cluster.local import object_store
from jobs.bench.rows import Row, against_peer, leave_page_cache, not_measured, seconds_in_turn, show
from shards.build import BuildOptions, build
from shards.plan import plan_shards
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl
from shards.storage import Store
from shards.workers import in_processes

MIMIC_RECORDS = 800_035
"""ECGs in MIMIC-IV-ECG 1.0 (PhysioNet)."""

MIMIC_CORES = (2, 16, 64)

RECORD_BYTES = 12 * 5000 * 2


@dataclass(frozen=True)
class Size:
    """How many records are measured, and how often."""

    simulated: int
    """Different ECGs; the others are copies."""
    records: int
    in_plain_loop: int
    """For the plain loop, which is slow; its rate does not depend on their number."""
    on_s3: int
    times: int


FULL = Size(simulated=256, records=4096, in_plain_loop=256, on_s3=512, times=5)
QUICK = Size(simulated=8, records=48, in_plain_loop=8, on_s3=16, times=1)

OPTIONS = BuildOptions(records_per_shard=256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.build", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few records, for the correctness of the benchmark alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--folder", type=Path, help="where files are written (default: a temporary folder)")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecgchat-bench-")))
        rows = measure(Path(folder), QUICK if options.quick else FULL)
    show(rows, "building shards: 12 leads x 10 s x 500 Hz, 16-bit WFDB", options.json)
    return 0


def measure(folder: Path, size: Size) -> list[Row]:
    """All rows of the benchmark; writes below `folder`."""
    simulate_ptb_xl(folder / "simulated", size.simulated, seed=0)
    corpus = make_corpus(folder, "corpus", size.records)
    some = make_corpus(folder, "some", size.in_plain_loop)
    local = Store(str(folder / "store"))

    def build_here() -> None:
        build(PtbXl(corpus), fresh(local), OPTIONS)

    def copy() -> None:
        copy_files(corpus, folder / "copied")

    steady: dict[int, list[float]] = {1: [], 2: []}
    warm = seconds_in_turn(
        {
            "ours": build_here,
            "loop": lambda: plain_loop(some, folder / "loop.tar"),
            "copy": copy,
            "one": lambda: steady[1].append(steady_rate(corpus, local, 1)),
            "two": lambda: steady[2].append(steady_rate(corpus, local, 2)),
        },
        size.times,
    )
    files = list((corpus / "records500").iterdir())
    cold = seconds_in_turn({"ours": build_here, "copy": copy}, size.times, before=lambda: leave_page_cache(files))
    one, two = (statistics.median(steady[count]) for count in (1, 2))
    for line in project(one, hand_out_rate(corpus)):
        print(line)
    ours, copied, loop = size.records / warm["ours"], size.records / warm["copy"], size.in_plain_loop / warm["loop"]
    return [
        against_peer("one core, against wfdb.rdrecord + TarWriter in a loop", ours, loop, "records/s", 5),
        against_peer("one core, against a plain copy of the files, local", ours, copied, "records/s", 1),
        against_peer(
            "the same, files not in the page cache",
            size.records / cold["ours"],
            size.records / cold["copy"],
            "records/s",
            1,
        ),
        on_s3(folder, size),
        two_cores(one, two),
    ]


def two_cores(one: float, two: float) -> Row:
    """Two worker processes beside one, where there are two cores."""
    name = "two worker processes, against one"
    cores = len(os.sched_getaffinity(0))
    return against_peer(name, two, one, "records/s", 1.8) if cores > 1 else not_measured(name, "this machine has one core")


def on_s3(folder: Path, size: Size) -> Row:
    """Shards into an S3 server on this machine, beside a plain upload of the files to it, both from one process."""
    corpus = make_corpus(folder, "few", size.on_s3)
    files = sorted((corpus / "records500").iterdir())
    with object_store.serve(folder / "s3") as server:
        os.environ.update(server.environment)
        store = Store(f"{server.uri}/bench")

        def upload() -> None:
            for path in files:
                store.upload(path, f"files/{path.name}")

        works = {"ours": lambda: build(PtbXl(corpus), fresh(store.child("set")), OPTIONS), "upload": upload}
        seconds = seconds_in_turn(works, size.times)
    ours, theirs = (size.on_s3 / seconds[name] for name in ("ours", "upload"))
    return against_peer("one core, against a plain upload of the files, S3", ours, theirs, "records/s", 1)


def make_corpus(folder: Path, name: str, records: int) -> Path:
    """So many records below `folder`/`name`, copies of those in `folder`/simulated under numbers of their own."""
    simulated, made = folder / "simulated", folder / name
    (made / "records500").mkdir(parents=True)
    shutil.copy(simulated / "scp_statements.csv", made)
    with (simulated / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        originals = list(csv.DictReader(file))
    with (made / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, originals[0], lineterminator="\n")
        writer.writeheader()
        for number in range(1, records + 1):
            original = originals[number % len(originals)]
            source, target = simulated / original["filename_hr"], f"records500/{number:06d}_hr"
            header = Path(f"{source}.hea").read_text().replace(source.name, Path(target).name)
            (made / f"{target}.hea").write_text(header)
            shutil.copyfile(f"{source}.dat", made / f"{target}.dat")
            writer.writerow({**original, "ecg_id": number, "filename_hr": target})
    return made


def fresh(store: Store) -> str:
    """URI of a store from which everything was removed."""
    store.delete_folder("")
    return store.uri


def plain_loop(corpus: Path, shard: Path) -> None:
    """What one writes first: read each record with wfdb, write it with webdataset. Same members, same int16 signal."""
    with (corpus / "ptbxl_database.csv").open(newline="") as file, webdataset.TarWriter(str(shard)) as writer:
        for row in csv.DictReader(file):
            record = wfdb.rdrecord(str(corpus / row["filename_hr"]), physical=False)
            writer.write({"__key__": row["ecg_id"], "ecg.npy": record.d_signal.T.astype("int16"), "json": row})


def copy_files(corpus: Path, target: Path) -> None:
    """Each header and signal file, one after the other."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in (corpus / "records500").iterdir():
        shutil.copyfile(path, target / path.name)


def steady_rate(corpus: Path, store: Store, workers: int) -> float:
    """Records/s of so many worker processes once all of them have started."""
    ends: list[tuple[float, int]] = []
    build(
        PtbXl(corpus),
        fresh(store),
        OPTIONS,
        in_processes(workers),
        on_shard=lambda shard: ends.append((time.perf_counter(), shard.rows.num_rows)),
    )
    started = min(workers, len(ends) - 1)
    records = sum(count for _, count in ends[started:])
    return records / (ends[-1][0] - ends[started - 1][0])


def hand_out_rate(corpus: Path) -> float:
    """Records/s that the planning process can send to workers."""
    source = PtbXl(corpus)
    shards = plan_shards(source.plan(), source.name, OPTIONS.records_per_shard, OPTIONS.seed)
    start = time.perf_counter()
    for shard in shards:
        pickle.dumps(shard)
    return sum(len(shard.records) for shard in shards) / (time.perf_counter() - start)


def project(one: float, hand_out: float) -> list[str]:
    """What a worker's rate means for the largest public corpus, and what would hold it up."""
    lines = []
    for cores in MIMIC_CORES:
        rate = min(cores * one, hand_out)
        limit = "handing out rows" if rate < cores * one else "reading and writing"
        lines.append(
            f"MIMIC-IV-ECG, {MIMIC_RECORDS:,} records, {cores:2} cores: {MIMIC_RECORDS / rate / 60:5.1f} min, "
            f"if the disks read and write {rate * RECORD_BYTES / 1e9:.1f} GB/s each; the limit is {limit}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
