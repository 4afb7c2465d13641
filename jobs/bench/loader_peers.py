"""A peer of `jobs.bench.loader` in a process of its own: makes its own form of the data, then reads all of it when asked.

    PYTHON -P jobs/bench/loader_peers.py files|webdataset|mosaic|litdata|limit FOLDER

Runs in any environment that holds the peer, so it imports nothing of this project. The folder holds `counts.npy`
(N, 12, 5000) int16, `scale.npy` (N, 12) float32 in mV, `store/` with the same records as shards, and `files/` with WFDB.

Each peer is read in all the ways that its documentation or its code makes look fast; the fastest is what it is measured
by. The first line on standard output tells of them: {"version", "tried": [{"how", "rate", "records", "checksum"}]}. After
that each line on standard input is answered by one pass over the records, {"seconds", "records"}.

A batch that is collated without worker processes goes into the same memory each time: new memory costs a page fault for every
4 KiB, which here is more than reading costs.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

BATCH, LEADS, SAMPLES = 64, 12, 5000
SHUFFLED_TOGETHER = 1000
"""Records that WebDataset mixes, as in its own examples."""

Epoch = Callable[[], Iterable[Any]]
"""Starts one pass: batches of (at most 64, 12, 5000) float32 mV, each valid until the next."""
Ways = Iterator[tuple[str, Epoch]]
"""What is done, and how to do it."""


def main() -> None:
    """Prepare one peer, tell what was found, and read whenever a line comes in."""
    work, folder = sys.argv[1], Path(sys.argv[2])
    # What a library prints must not end up among the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    package, ways = PEERS[work]
    tried, fastest = try_all(ways(folder))
    print(json.dumps({"version": version(package), "tried": tried}), file=replies, flush=True)
    for _ in sys.stdin:
        seconds, records = one_pass(fastest)
        print(json.dumps({"seconds": seconds, "records": records}), file=replies, flush=True)


def try_all(ways: Ways) -> tuple[list[dict[str, Any]], Epoch]:
    """What each way delivers and how fast it is, records/s, and the fastest."""
    tried: list[dict[str, Any]] = []
    rates: list[float] = []
    epochs: list[Epoch] = []
    for how, epoch in ways:
        records, checksum = fingerprint(epoch())
        rates.append(max(records / one_pass(epoch)[0] for _ in range(2)))
        tried.append({"how": how, "rate": rates[-1], "records": records, "checksum": checksum})
        epochs.append(epoch)
    return tried, epochs[int(np.argmax(rates))]


def one_pass(epoch: Epoch) -> tuple[float, int]:
    """Seconds and records of one pass."""
    start = time.perf_counter()
    records = sum(len(batch) for batch in epoch())
    return time.perf_counter() - start, records


def fingerprint(batches: Iterable[Any]) -> tuple[int, list[float]]:
    """Number of records, and mean and mean square of a weighted sum of each record's values.

    The weight depends on lead and time, so that a value in the wrong place shows, and the order of records does not.

    Raises:
        ValueError: a batch has another shape or type than (at most 64, 12, 5000) float32.
    """
    place = np.arange(LEADS * SAMPLES)
    weight = (place * 7919 % 1009 + 1) / 1009
    sums: list[NDArray[np.float64]] = []
    for batch in batches:
        values = np.asarray(batch)
        if values.dtype != np.float32 or values.shape[1:] != (LEADS, SAMPLES) or len(values) > BATCH:
            raise ValueError(f"expected batches of ({BATCH}, {LEADS}, {SAMPLES}) float32, found {values.shape} {values.dtype}")
        sums.append(values.reshape(len(values), -1).astype(np.float64) @ weight)
    every = np.concatenate(sums)
    return len(every), [float(every.mean()), float((every**2).mean())]


def files(folder: Path) -> Ways:
    """One file each, as ECG-Chat reads them for evaluation: `open_clip/training/data.py`, `open_clip/ecg_transform.py`."""
    import wfdb

    class Records(Dataset[Tensor]):
        names = sorted(str(path.with_suffix("")) for path in (folder / "files").rglob("*.hea"))
        mean, deviation = torch.zeros(LEADS, 1), torch.ones(LEADS, 1)

        def __len__(self) -> int:
            return len(self.names)

        def __getitem__(self, number: int) -> Tensor:
            ecg = np.nan_to_num(wfdb.rdsamp(self.names[number])[0].T, posinf=0.0, neginf=0.0)
            normalised = (torch.from_numpy(ecg).float() - self.mean) / self.deviation
            cropped = normalised[:, :SAMPLES]
            return torch.nn.functional.pad(cropped, (0, SAMPLES - cropped.shape[1]))

    for workers in (0, 1):
        loader = DataLoader(Records(), BATCH, shuffle=True, num_workers=workers)
        yield f"num_workers={workers}", loader.__iter__


def webdataset(folder: Path) -> Ways:
    """Stock WebDataset on the shards, as its README puts a pipeline together."""
    import webdataset as wds

    def pair(sample: tuple[Any, Any]) -> tuple[Any, Any]:
        return sample[0], sample[1]["mv_per_lsb"]

    def millivolts(sample: tuple[Any, Any]) -> Any:
        return sample[0] * np.array(sample[1]["mv_per_lsb"], np.float32)[:, None]

    def samples() -> Any:
        urls = sorted(str(path) for path in (folder / "store").rglob("*.tar"))
        shuffled = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(SHUFFLED_TOGETHER)
        return shuffled.decode().to_tuple("ecg.npy", "json")

    def loader(batches: Any, workers: int) -> Epoch:
        return wds.WebLoader(batches, batch_size=None, num_workers=workers).__iter__

    yield ".map(scale).batched()", loader(samples().map(millivolts).batched(BATCH, collation_fn=np.stack), 0)
    for workers in (0, 1):
        batches = samples().batched(BATCH, collation_fn=Collate(pair, workers == 0))
        yield f".batched(collation_fn), num_workers={workers}", loader(batches, workers)


def mosaic(folder: Path) -> Ways:
    """Mosaic Streaming: a column of int16 arrays of a fixed shape, shuffled, from local MDS files."""
    let_torchvision_be_imported()
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found, unused-ignore]

    columns = {"ecg": f"ndarray:int16:{LEADS},{SAMPLES}", "scale": f"ndarray:float32:{LEADS}"}
    counts, scale = arrays(str(folder))
    with MDSWriter(out=str(folder / "mds"), columns=columns) as writer:
        for ecg, factors in zip(counts, scale, strict=True):
            writer.write({"ecg": ecg, "scale": factors})

    data = StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    # The worker process first: the data set's locks do not survive a fork once this process has used them.
    for workers in (1, 0):
        loader: DataLoader[Any] = DataLoader(data, BATCH, num_workers=workers, collate_fn=Collate(PAIR, workers == 0))
        yield f"collate_fn, num_workers={workers}", loader.__iter__
    yield "default batches, then scaled", then_scaled(DataLoader(data, BATCH))


def litdata(folder: Path) -> Ways:
    """LitData: tensors, shuffled, from local chunks that it maps into memory."""
    let_torchvision_be_imported()
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    from litdata import StreamingDataLoader, StreamingDataset, optimize  # type: ignore[import-not-found, unused-ignore]

    target = str(folder / "litdata")
    numbers = list(range(len(arrays(str(folder))[0])))
    optimize(functools.partial(tensors, str(folder)), numbers, target, chunk_bytes="64MB", num_workers=1, verbose=False)

    def loader(batch_decode: str | int, **settings: Any) -> Any:
        data = StreamingDataset(target, shuffle=True, batch_decode=batch_decode)
        return StreamingDataLoader(data, batch_size=BATCH, **settings)

    yield "default batches, then scaled", then_scaled(loader("auto"))
    for decode in ("auto", 0):
        yield f"collate_fn, batch_decode={decode}, num_workers=0", loader(decode, collate_fn=Collate(PAIR, reuse=True)).__iter__
    # `optimize` has set "spawn", which would import everything anew for each pass.
    worker = loader(0, collate_fn=Collate(PAIR, reuse=False), num_workers=1, multiprocessing_context="fork")
    yield "collate_fn, batch_decode=0, num_workers=1", worker.__iter__


def limit(folder: Path) -> Ways:
    """What memory allows: one mapped file of all records, picked at random, scaled into one batch."""
    counts, scale = arrays(str(folder))
    factors = scale[:, :, None]
    counts_t, factors_t = torch.from_numpy(counts), torch.from_numpy(factors)
    batch = np.empty((BATCH, LEADS, SAMPLES), np.float32)
    places, places_t = list(batch), torch.from_numpy(batch).unbind(0)
    gathered = np.empty((BATCH, LEADS, SAMPLES), np.int16)
    random = np.random.default_rng(0)

    def one_pass_numpy(rows: list[int]) -> None:
        for row, place in zip(rows, places, strict=False):
            np.multiply(counts[row], factors[row], out=place)

    def copy_then_scale_numpy(rows: list[int]) -> None:
        for row, place in zip(rows, places, strict=False):
            np.copyto(place, counts[row])
            np.multiply(place, factors[row], out=place)

    def gather_numpy(rows: list[int]) -> None:
        np.take(counts, rows, axis=0, out=gathered[: len(rows)], mode="clip")
        np.multiply(gathered[: len(rows)], factors[rows], out=batch[: len(rows)])

    def one_pass_torch(rows: list[int]) -> None:
        for row, place in zip(rows, places_t, strict=False):
            torch.mul(counts_t[row], factors_t[row], out=place)

    def copy_then_scale_torch(rows: list[int]) -> None:
        for row, place in zip(rows, places_t, strict=False):
            place.copy_(counts_t[row]).mul_(factors_t[row])

    def batches(fill: Callable[[list[int]], None]) -> Iterator[NDArray[np.float32]]:
        order = random.permutation(len(counts)).tolist()
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            fill(rows)
            yield batch[: len(rows)]

    for fill in (one_pass_numpy, copy_then_scale_numpy, gather_numpy, one_pass_torch, copy_then_scale_torch):
        yield fill.__name__, functools.partial(batches, fill)


PEERS: dict[str, tuple[str, Callable[[Path], Ways]]] = {
    "files": ("wfdb", files),
    "webdataset": ("webdataset", webdataset),
    "mosaic": ("mosaicml-streaming", mosaic),
    "litdata": ("litdata", litdata),
    "limit": ("torch", limit),
}
"""Work → the package whose version is told, and how it is prepared."""

PAIR = itemgetter("ecg", "scale")
"""What a streaming library's sample holds."""


class Collate:
    """Scales samples into a batch of millivolts.

    Args:
        pair: sample → (12, 5000) int16 and 12 floats.
        reuse: whether each batch goes into the same memory; not for worker processes, which hand a batch over later.
    """

    def __init__(self, pair: Callable[[Any], tuple[Any, Any]], reuse: bool) -> None:
        self._pair = pair
        self._batch = torch.empty(BATCH, LEADS, SAMPLES) if reuse else None

    def __call__(self, samples: list[Any]) -> Tensor:
        """(len(samples), 12, 5000) float32 mV."""
        whole = torch.empty(len(samples), LEADS, SAMPLES) if self._batch is None else self._batch[: len(samples)]
        for place, sample in zip(whole, samples, strict=True):
            ecg, scale = self._pair(sample)
            place.copy_(torch.as_tensor(ecg)).mul_(torch.as_tensor(scale, dtype=torch.float32)[:, None])
        return whole


def then_scaled(loader: Iterable[dict[str, Tensor]]) -> Epoch:
    """The batches that a loader collates by itself, in millivolts."""
    return lambda: (batch["ecg"] * batch["scale"][:, :, None] for batch in loader)


@functools.cache
def arrays(folder: str) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """All counts, mapped and not read, and their scales. Mapped so that torch may take them: nothing reaches the file."""
    return np.load(f"{folder}/counts.npy", mmap_mode="c"), np.load(f"{folder}/scale.npy")


def tensors(folder: str, number: int) -> dict[str, Tensor]:
    """What LitData stores of a record."""
    counts, scale = arrays(folder)
    return {"ecg": torch.from_numpy(counts[number]), "scale": torch.from_numpy(scale[number])}


def let_torchvision_be_imported() -> None:
    """Declare the operators without which torchvision's import fails where its compiled part does not fit torch's build.

    Both streaming libraries import it, and what is measured here uses nothing of it.
    """
    try:
        import torchvision  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    main()
