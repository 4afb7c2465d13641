"""How well the order of `shards.order` mixes, beside a full permutation of all samples, and what a rank holds for it.

    python -m jobs.bench.shuffle                     # about a minute
    python -m jobs.bench.shuffle --quick             # seconds: that it runs, on a small part of each corpus
    python -m jobs.bench.shuffle --json shuffle.json

No ECG is read: the indexes are made up, of as many samples and patients as two public corpora have, spread over shards by a
hash as `shards.plan` does. The companions of a sample are the others of its global batch; docs/order.md says what follows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from jobs.bench.rows import Row, show
from shards.build import BuildOptions
from shards.dataset import ShardSet
from shards.draws import permutation
from shards.identity import Identity
from shards.mixture import Mixture
from shards.order import Order, OrderConfig, Part
from shards.storage import Store
from shards.stream import read_ahead_bytes

SAMPLE_BYTES = 12 * 5000 * 2 + 4096
"""Of a sample in its shard: 12 leads x 10 s x 500 Hz in int16, its description, and what tar adds."""

FEWEST_EPOCHS = 3
SAMPLES_SEEN = 1_000_000
"""Over all epochs, at least, so that rare pairs are counted: a small corpus is seen in more epochs."""

FEWEST_BATCHES = 4
"""Of an epoch: settings of which there would be fewer are left out."""

RANKS = (1, 8)

QUICK_SHARE = 40
"""A quick run takes one in so many of the patients."""

SETTINGS = (
    OrderConfig(),
    OrderConfig(lanes=1, block=256),
    OrderConfig(lanes=8, block=256),
    OrderConfig(lanes=8, block=1024),
    OrderConfig(lanes=64, block=32),
    OrderConfig(global_batch=768, lanes=8, block=256),
    OrderConfig(global_batch=768, lanes=64, block=64),
    OrderConfig(global_batch=768, lanes=128, block=64),
    OrderConfig(global_batch=4096, lanes=8, block=256),
    OrderConfig(global_batch=4096, lanes=512, block=64),
)
"""What the table compares; the first are the defaults."""


@dataclass(frozen=True)
class Corpus:
    """An index of which only that is made up which the order depends on, and whose ECG a sample is."""

    name: str
    shard_of: NDArray[np.int64]
    """(N,) shard of each sample, in the order of the index."""
    patient_of: NDArray[np.int64]
    """(N,) number of its patient."""

    @classmethod
    def of(cls, name: str, ecgs_of_patient: NDArray[np.int64]) -> Corpus:
        """The ECGs of patients who have so many each, spread over shards of the default size."""
        patient_of = np.repeat(np.arange(len(ecgs_of_patient)), ecgs_of_patient)
        spread = patient_of[permutation(len(patient_of), "records", name)]
        return cls(name, np.arange(len(spread)) // BuildOptions().records_per_shard, spread)


@dataclass(frozen=True)
class Mixing:
    """How well the samples of some epochs are mixed, on average."""

    index_correlation: float
    """Correlation of the samples' places in the index and in an epoch, as a root mean square."""
    epoch_correlation: float
    """The same of its places in two epochs."""
    shards: float
    """Different shards in a batch."""
    same_shard: float
    """Share of a sample's companions that are of its own shard."""
    patients: float
    """Different patients in a batch, as a share of its samples."""
    patient_pairs: float
    """Pairs of ECGs of one patient in a batch, which a contrastive loss takes for two patients."""
    met_again: float
    """Companions of a sample that are its companions in the next epoch too."""
    none_again: float
    """Share of the samples of which no companion is one in the next epoch too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.shuffle", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="a part of each corpus, for the correctness of the benchmark alone"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    options = parser.parse_args(arguments)
    part = QUICK_SHARE if options.quick else 1
    rows: list[Row] = []
    for corpus in (mimic_like(part), ptb_xl_like(part)):
        epochs = FEWEST_EPOCHS if options.quick else max(FEWEST_EPOCHS, SAMPLES_SEEN // len(corpus.shard_of))
        settings = [config for config in SETTINGS if FEWEST_BATCHES * config.global_batch <= len(corpus.shard_of)]
        ours = {config: mixing(corpus, ordered(corpus, config, epochs)) for config in settings}
        full = {batch: mixing(corpus, permuted(corpus, batch, epochs)) for batch in sorted({c.global_batch for c in settings})}
        print_settings(corpus, ours, full)
        default = settings[0]
        rows += corpus_rows(corpus, default, ours[default], full[default.global_batch])
    show(rows, "the default order, against a full permutation", options.json)
    return 0


def mimic_like(part: int = 1) -> Corpus:
    """As many ECGs and patients as MIMIC-IV-ECG 1.0 has.

    A rounded log-normal distribution with its mean, its share of ECGs whose patient has no other (7.2 %), and its maximum of
    260 ECGs of a patient, as counted by ECGBench.
    """
    patients = 161_352 // part
    drawn = np.exp(0.850 + 1.213 * ndtri(_middles(patients)))
    return Corpus.of("like MIMIC-IV-ECG", _adding_up_to(800_035 // part, np.clip(np.rint(drawn), 1, 260)))


def ptb_xl_like(part: int = 1) -> Corpus:
    """As many ECGs and patients as PTB-XL 1.0.3 has; how many each patient has is not published, and geometric here."""
    patients, samples = 18_869 // part, 21_799 // part
    drawn = np.log(_middles(patients)) / np.log(1 - patients / samples)
    return Corpus.of("like PTB-XL", _adding_up_to(samples, np.ceil(drawn)))


def ordered(corpus: Corpus, config: OrderConfig, epochs: int) -> list[NDArray[np.int64]]:
    """The first epochs in the order: (batches, samples of one) each."""
    order = Order([Part(corpus.shard_of, len(corpus.shard_of))], config, Identity(""))
    return [epoch_batches(order, epoch) for epoch in range(epochs)]


def permuted(corpus: Corpus, batch: int, epochs: int) -> list[NDArray[np.int64]]:
    """As many epochs that are permutations of all samples: (batches, batch) each."""
    samples = len(corpus.shard_of)
    kept = samples // batch * batch
    return [permutation(samples, "all", epoch)[:kept].reshape(-1, batch) for epoch in range(epochs)]


def epoch_batches(order: Order, epoch: int) -> NDArray[np.int64]:
    """(full batches, samples of one) the samples of an epoch, each block shuffled once."""
    width: dict[int, int] = {}
    for segment in order.segments(0):
        width[segment.lane] = width.get(segment.lane, 0) + segment.stop - segment.start
    lanes = []
    for lane, share in width.items():
        blocks = -(-order.full_batches * share // order.config.block)
        lane_samples = np.concatenate([order.block(epoch, lane, number).samples for number in range(blocks)])
        lanes.append(lane_samples.reshape(order.full_batches, share))
    return np.hstack(lanes)


def mixing(corpus: Corpus, epochs: Sequence[NDArray[np.int64]]) -> Mixing:
    """How well some epochs mix.

    Args:
        corpus: the samples.
        epochs: (batches, samples of one) each, at least two.
    """
    batches, batch = epochs[0].shape
    places = [_places(epoch, len(corpus.shard_of)) for epoch in epochs]
    following = list(pairwise(places))
    shards, patients = (
        np.concatenate([group_sizes(epoch, label) for epoch in epochs]) for label in (corpus.shard_of, corpus.patient_of)
    )
    again = np.concatenate([group_sizes(epoch, after // batch) for epoch, (_, after) in zip(epochs, following, strict=False)])
    return Mixing(
        index_correlation=_correlation([(np.arange(len(place)), place) for place in places], batches * batch),
        epoch_correlation=_correlation(following, batches * batch),
        shards=len(shards) / (len(epochs) * batches),
        same_shard=_companions(shards) / (batch - 1),
        patients=len(patients) / patients.sum(),
        patient_pairs=_companions(patients) * batch / 2,
        met_again=_companions(again),
        none_again=np.count_nonzero(again == 1) / again.sum(),
    )


def group_sizes(batches: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """(groups,) how many samples of one batch have one label, for each batch and each label that occurs in it."""
    labels = label[batches]
    keys = np.arange(len(batches))[:, None] * (int(labels.max()) + 1) + labels
    return np.unique(keys, return_counts=True)[1].astype(np.int64)


def read_ahead_mb(corpus: Corpus, config: OrderConfig, world_size: int) -> float:
    """What one of so many ranks holds of shards in another store, in 10^6 bytes."""
    index = pa.table({"bytes": np.full(len(corpus.shard_of), SAMPLE_BYTES)})
    data = ShardSet(Store(tempfile.gettempdir()), {"kind": "ecg"}, index)
    return read_ahead_bytes(Mixture.of(data), config, world_size) / 1e6


def corpus_rows(corpus: Corpus, config: OrderConfig, ours: Mixing, theirs: Mixing) -> list[Row]:
    """The rows of one corpus: some settings beside a full permutation."""
    pairs = ours.patient_pairs / theirs.patient_pairs
    rows = [
        Row("place in the index and in an epoch", ours.index_correlation, "correlation", theirs.index_correlation),
        Row("places in two epochs", ours.epoch_correlation, "correlation", theirs.epoch_correlation),
        Row("shards in a batch", ours.shards, "", theirs.shards, ours.shards / theirs.shards),
        Row("companions of the same shard", ours.same_shard, "share", theirs.same_shard, theirs.same_shard / ours.same_shard),
        Row("patients in a batch", ours.patients, "share of its samples", theirs.patients, ours.patients / theirs.patients),
        Row("pairs of one patient in a batch", ours.patient_pairs, "", theirs.patient_pairs, min(pairs, 1 / pairs)),
        Row("companions met again in the next epoch", ours.met_again, "", theirs.met_again, theirs.met_again / ours.met_again),
        Row("samples that meet none again", ours.none_again, "share", theirs.none_again, ours.none_again / theirs.none_again),
        *(Row(f"read ahead, one of {ranks}", read_ahead_mb(corpus, config, ranks), "MB") for ranks in RANKS),
    ]
    return [replace(row, name=f"{corpus.name}: {row.name}") for row in rows]


def print_settings(corpus: Corpus, ours: Mapping[OrderConfig, Mixing], full: Mapping[int, Mixing]) -> None:
    """A line for each setting, and one for a full permutation after those of each batch size."""
    memory = [f"MB, rank of {ranks}" for ranks in RANKS]
    title = f"{corpus.name}: {len(corpus.shard_of):,} samples in {corpus.shard_of[-1] + 1:,} shards"
    columns = ("batch", "lanes", "block", "shards", "same shard", "patient pairs", "met again", "none again", *memory)
    table = Table(*columns, title=title)
    for batch, permuted in full.items():
        for config, mixing in ours.items():
            if config.global_batch == batch:
                held = [f"{read_ahead_mb(corpus, config, ranks):,.0f}" for ranks in RANKS]
                table.add_row(str(batch), str(config.lanes), str(config.block), *_figures(mixing), *held)
        table.add_row(str(batch), "full", "permutation", *_figures(permuted), end_section=True)
    Console().print(table)


def _figures(mixing: Mixing) -> list[str]:
    return [
        f"{mixing.shards:.1f}",
        f"{mixing.same_shard:.2%}",
        f"{mixing.patient_pairs:.3g}",
        f"{mixing.met_again:.3g}",
        f"{mixing.none_again:.1%}",
    ]


def _middles(count: int) -> NDArray[np.float64]:
    """(count,) middles of equal parts of (0, 1): quantiles there stand for a distribution without drawing from it."""
    return (np.arange(count) + 0.5) / count


def _adding_up_to(samples: int, counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of 1 or more with an exact sum: one more or less for patients with several, evenly chosen."""
    exact = counts.astype(np.int64)
    missing = samples - int(exact.sum())
    several = np.flatnonzero(exact > 1)
    exact[several[np.arange(abs(missing)) * len(several) // max(1, abs(missing))]] += np.sign(missing)
    return exact


def _places(batches: NDArray[np.int64], samples: int) -> NDArray[np.int64]:
    """(samples,) where each stands in an epoch; what is left out of it stands behind its end, each in a batch of its own."""
    places = batches.size + np.arange(samples) * batches.shape[1]
    places[batches.ravel()] = np.arange(batches.size)
    return places


def _correlation(pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], end: int) -> float:
    """Root mean square of the correlations of places, each over what stands in both before `end`."""
    found = [np.corrcoef(a[inside], b[inside])[0, 1] for a, b in pairs for inside in [(a < end) & (b < end)]]
    return float(np.sqrt(np.mean(np.square(found))))


def _companions(sizes: NDArray[np.int64]) -> float:
    """Of the samples of a batch with the same label as a sample, how many there are on average."""
    return float((sizes * (sizes - 1)).sum() / sizes.sum())


if __name__ == "__main__":
    sys.exit(main())
