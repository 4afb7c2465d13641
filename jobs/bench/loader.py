"""How fast ECGs become batches, beside the ways in which others read them, and beside what memory, disk and network allow.

    bash jobs/bench/peers.sh .venv-peers                           # Mosaic Streaming and LitData, which need other versions
    python -m jobs.bench.loader --peers .venv-peers/bin/python     # some minutes
    python -m jobs.bench.loader --quick                            # within a minute: that it runs, not how fast
    python -m jobs.bench.loader --json loader.json

Everybody reads the same simulated records (12 leads, 10 s, 500 Hz, 16 bits) into batches of (64, 12, 5000) float32 in mV, one
epoch in an order of their own, all threads and processes of it on the same core; the S3 server is on the others. The files are
in the page cache, but for the row that says they are not. That all read the same is checked before anything is timed.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import numpy as np
import urllib3
from botocore.config import Config
from numpy.typing import NDArray

from cluster.local import object_store
from jobs.bench.build import make_corpus
from jobs.bench.loader_order import order_rows
from jobs.bench.loader_peers import BATCH, LEADS, SAMPLES, fingerprint
from jobs.bench.peer import MAKE_PEERS, DifferentRecordsError, Peer, require_same
from jobs.bench.rows import Row, against_peer, leave_page_cache, not_measured, on_cores, seconds_in_turn, show
from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.loader import EcgLoader, EcgWindow
from shards.order import OrderConfig
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl
from shards.storage import Store
from shards.stream import LoaderConfig
from shards.tar import decode_array, decode_json, unpack_samples

RECORDS_PER_SHARD = 256
MIMIC_RECORDS = 800_035
"""ECGs in MIMIC-IV-ECG 1.0 (PhysioNet)."""


@dataclass(frozen=True)
class PeerRow:
    """What one peer's row says."""

    work: str
    """As `loader_peers` calls it."""
    name: str
    aim: float


HERE = (
    PeerRow("files", "one file each with wfdb, as ECG-Chat reads", 40),
    PeerRow("webdataset", "stock WebDataset, the same shards", 5),
    PeerRow("limit", "the limit: one memory-mapped file of all records", 0.85),
)
"""Peers that this environment holds."""

ELSEWHERE = (PeerRow("mosaic", "Mosaic Streaming", 8), PeerRow("litdata", "LitData", 25))
"""Peers that need an environment of their own."""


@dataclass(frozen=True)
class Size:
    """How many records are measured, and how often."""

    simulated: int
    """Different ECGs; the others are copies, of each as many."""
    records: int
    in_files: int
    """For reading one file each, which is slow; its rate does not depend on their number."""
    in_index: int
    """Rows of the index that orders are computed for."""
    times: int


FULL = Size(simulated=256, records=4096, in_files=512, in_index=MIMIC_RECORDS, times=5)
QUICK = Size(simulated=8, records=128, in_files=16, in_index=60_000, times=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.loader", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few records, for the correctness of the benchmark alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--folder", type=Path, help="where files are written, about 3 GB (default: a temporary folder)")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter with Mosaic Streaming and LitData (peers.sh)")
    options = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecgchat-bench-")))
        stack.enter_context(on_cores(cores[-1:]))
        rows = measure(Path(folder), QUICK if options.quick else FULL, options.peers, cores[:-1] or cores)
    show(rows, f"reading batches: {BATCH} x {LEADS} leads x 10 s x 500 Hz, float32 mV, one core", options.json)
    return 0


def measure(folder: Path, size: Size, peers: Path | None, other_cores: Sequence[int]) -> list[Row]:
    """All rows of the benchmark; writes below `folder`."""
    shards = make_data(folder, size)
    return [
        *beside_peers(folder, size, peers),
        from_disk(folder, shards, size),
        from_s3(folder, shards, size, other_cores),
        *order_rows(folder / "absent", size.in_index, size.times),
    ]


# Our side ---------------------------------------------------------------------------------------------------------------


def ours(uri: str) -> Callable[[], Iterator[NDArray[np.float32]]]:
    """Starts one epoch of the shards below a URI: batches of (64, 12, 5000) millivolts."""
    config = LoaderConfig(OrderConfig(global_batch=BATCH))
    loader = EcgLoader(ShardSet.open(uri), config, EcgWindow(seconds=10.0), form="millivolts")
    return lambda: (batch.ecg for batch in loader.take(loader.batches))


# Peers ------------------------------------------------------------------------------------------------------------------


def beside_peers(folder: Path, size: Size, peers: Path | None) -> list[Row]:
    """Rows of the page cache: ours beside each peer."""
    epoch = ours(str(folder / "store"))
    read, checksum = fingerprint(epoch())
    require_same("ours", (read, checksum), (size.records, checksum))
    pythons = {row: Path(sys.executable) for row in HERE} | (dict.fromkeys(ELSEWHERE, peers) if peers else {})
    with ExitStack() as stack:
        started = {}
        for row, python in pythons.items():
            peer = started[row.work] = Peer(row.work, python, folder)
            stack.callback(peer.close)
            for way in peer.tried:
                records = size.in_files if row.work == "files" else size.records
                require_same(f"{row.work} ({way['how']})", (way["records"], way["checksum"]), (records, checksum))
                print(f"{row.work} {peer.version}: {way['how']}: {way['rate']:,.0f} records/s", flush=True)
        works = {"ours": functools.partial(read_all, epoch)} | {work: peer.read for work, peer in started.items()}
        counts = {"ours": size.records} | {work: peer.records for work, peer in started.items()}
        rates = rates_in_turn(works, counts, size.times)
    return [
        against_peer(row.name, rates["ours"], rates[row.work], "records/s", row.aim)
        if row.work in rates
        else not_measured(row.name, f"needs an environment of its own: {MAKE_PEERS}")
        for row in (*HERE[:2], *ELSEWHERE, *HERE[2:])
    ]


# What disk and network allow --------------------------------------------------------------------------------------------


def from_disk(folder: Path, shards: Sequence[Path], size: Size) -> Row:
    """The shards read from the disk, beside `cat` of the same files."""
    epoch = ours(str(folder / "store"))
    works: dict[str, Callable[[], object]] = {
        "ours": functools.partial(read_all, epoch),
        "cat": functools.partial(subprocess.run, ["cat", *shards], stdout=subprocess.DEVNULL, check=True),
    }
    rates = rates_in_turn(works, dict.fromkeys(works, size.records), size.times, before=lambda: leave_page_cache(shards))
    return against_peer("not in the page cache, against cat of the shards", rates["ours"], rates["cat"], "records/s", 0.8)


def from_s3(folder: Path, shards: Sequence[Path], size: Size, server_cores: Sequence[int]) -> Row:
    """The shards read from an S3 server on this machine, beside plain requests for the same objects, as many at once."""
    with ExitStack() as stack:
        with on_cores(server_cores):
            server = stack.enter_context(object_store.serve(folder / "s3"))
        os.environ.update(server.environment)
        shutil.copytree(folder / "store", folder / "s3" / server.bucket / "set")
        epoch = ours(f"{server.uri}/set")
        require_same("ours from S3", fingerprint(epoch()), fingerprint(ours(str(folder / "store"))()))
        urls = presigned(server.bucket, [f"set/{path.relative_to(folder / 'store')}" for path in shards])
        pool = stack.enter_context(ThreadPoolExecutor(LoaderConfig().connections))
        works: dict[str, Callable[[], object]] = {
            "ours": functools.partial(read_all, epoch),
            "requests": functools.partial(get_all, pool, urls, sum(path.stat().st_size for path in shards)),
        }
        rates = rates_in_turn(works, dict.fromkeys(works, size.records), size.times)
    name = "S3 on this machine, against plain requests for the shards"
    return against_peer(name, rates["ours"], rates["requests"], "records/s", 0.8)


def presigned(bucket: str, keys: Sequence[str]) -> list[str]:
    """URLs that any HTTP client may read."""
    settings = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = botocore.session.get_session().create_client("s3", config=settings)
    return [client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}) for key in keys]


def get_all(pool: ThreadPoolExecutor, urls: Sequence[str], expected: int) -> None:
    """Read whole objects over connections that are kept, and let go of what was read; streaming was the fastest way found."""
    connections = urllib3.PoolManager(maxsize=LoaderConfig().connections)

    def get(url: str) -> int:
        with connections.request("GET", url, preload_content=False) as reply:
            return sum(len(part) for part in reply.stream(2**20))

    found = sum(pool.map(get, urls))
    if found != expected:
        raise DifferentRecordsError(f"plain requests read {found} bytes; expected {expected}")


# Data and time ----------------------------------------------------------------------------------------------------------


def make_data(folder: Path, size: Size) -> list[Path]:
    """The same records as files, as shards and as one array, where `loader_peers` expects them; returns the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    simulate_ptb_xl(folder / "simulated", size.simulated, seed=0)
    make_corpus(folder, "files", size.in_files)
    store = Store(str(folder / "store"))
    manifest = build(PtbXl(make_corpus(folder, "corpus", size.records)), store.uri, BuildOptions(RECORDS_PER_SHARD))
    shape = (size.records, LEADS, SAMPLES)
    counts = np.lib.format.open_memmap(folder / "counts.npy", "w+", np.int16, shape)
    scale = np.empty(shape[:2], np.float32)
    row = 0
    for shard in manifest["shards"]:
        for _, members in unpack_samples(store.get(shard["name"]), shard["name"]):
            counts[row] = decode_array(members["ecg.npy"])
            scale[row] = decode_json(members["json"])["mv_per_lsb"]
            row += 1
    counts.flush()
    np.save(folder / "scale.npy", scale)
    return [folder / "store" / shard["name"] for shard in manifest["shards"]]


def read_all(epoch: Callable[[], Iterable[NDArray[np.float32]]]) -> None:
    """One pass over all records."""
    for _ in epoch():
        pass


def rates_in_turn(
    works: Mapping[str, Callable[[], object]],
    records: Mapping[str, int],
    times: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median records/s of each piece of work, all in turn; tells of each round."""

    def told(number: int, seconds: Mapping[str, float]) -> None:
        rates = ", ".join(f"{work} {records[work] / taken:,.0f}" for work, taken in seconds.items())
        print(f"round {number} of {times}, records/s: {rates}", flush=True)

    seconds = seconds_in_turn(works, times, before, told)
    return {work: records[work] / taken for work, taken in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
