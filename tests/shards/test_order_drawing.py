"""docs/order.svg shows what the order does: its rows are compared with an epoch as its caption describes it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from shards.identity import Identity
from shards.order import Order, OrderConfig, Part, rank_slice

DRAWING = Path(__file__).parents[2] / "docs" / "order.svg"
SVG = "{http://www.w3.org/2000/svg}"
NAMES = [f"{shard}{number}" for shard in "ABCD" for number in range(1, 6)]
NAMES += [f"{shard}{number}" for shard in "PQ" for number in range(1, 4)]
PARTS = [Part(np.repeat(np.arange(4), 5), 20), Part(np.repeat(np.arange(2), 3), 6)]


@pytest.fixture(scope="module")
def order():
    return Order(PARTS, OrderConfig(global_batch=8, lanes=4, block=4, seed=0), Identity(""))


@pytest.fixture(scope="module")
def drawing():
    return ElementTree.parse(DRAWING).getroot()


def row(drawing, name):
    """What stands in the cells of a row, from left to right."""
    [group] = [group for group in drawing.iter(f"{SVG}g") if group.get("id") == name]
    return [text.text for text in group.iter(f"{SVG}text") if text.get("class") == "cell"]


def named(samples):
    return [NAMES[sample] for sample in samples]


def test_the_store_and_the_woven_sequence_are_drawn_as_they_are(drawing, order):
    assert row(drawing, "store") == NAMES
    woven = named(order.sequence(0, 0, 26).samples)
    assert row(drawing, "woven") == row(drawing, "lanes") == woven
    assert row(drawing, "shuffled") == [name for name in woven if name[0] in "ABCD"] + [n for n in woven if n[0] in "PQ"]


def test_blocks_and_batches_are_drawn_as_they_are(drawing, order):
    assert row(drawing, "blocks") == named(
        np.concatenate([order.block(0, lane, number).samples for lane in range(4) for number in range(2)])
    )
    assert order.batches == 3
    assert row(drawing, "batches") == named(np.concatenate([order.batch_samples(0, batch) for batch in range(3)]))


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_rank_is_drawn_below_its_places_of_each_batch(drawing, world_size):
    [batches] = [group for group in drawing.iter(f"{SVG}g") if group.get("id") == "batches"]
    cells = [float(rect.get("x")) for rect in batches.iter(f"{SVG}rect")]
    [ranks] = [group for group in drawing.iter(f"{SVG}g") if group.get("id") == f"ranks-{world_size}"]
    brackets = [[float(x) for x in re.findall(r"[MH]([\d.]+)", path.get("d"))] for path in ranks.iter(f"{SVG}path")]
    labels = [text.text for text in ranks.iter(f"{SVG}text")]
    above = [[place % 8 for place, x in enumerate(cells) if left <= x + 12 <= right] for left, right in brackets]
    assert above == [list(range(*rank_slice(8, rank, world_size))) for rank in range(world_size)] * 3
    assert labels == [f"rank {rank}" for rank in range(world_size)] * 3
