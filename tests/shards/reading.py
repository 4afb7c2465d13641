"""How tests read from a loader."""

from __future__ import annotations

import itertools


def take(loader, count):
    batches = iter(loader)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def expected_keys(loader, count):
    """Keys of the first global batches, as the order alone says."""
    keys = [key for part in loader.mixture.parts for key in part.index["key"].to_pylist()]
    positions = itertools.islice(loader.order.positions(loader.start), count)
    return [[keys[sample] for sample in loader.order.batch_samples(at.epoch, at.batch) if sample >= 0] for at in positions]
