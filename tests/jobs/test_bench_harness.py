"""The benchmark of the harness runs, compares loops that do the same, and refuses those that do not."""

from __future__ import annotations

import json

import pytest
import torch

from jobs.bench.harness import main, not_stalled
from jobs.bench.harness_work import WARM_UP, DifferentWeightsError, Moments, require_same


def test_a_step_has_its_share_of_what_is_done_now_and_then():
    moments = Moments()
    now = 0.0
    for step in range(WARM_UP + 21):
        now += 1.0 + 5.0 * (step % 10 == 0)
        moments.times.append(now)
    assert moments.seconds(window=10) == pytest.approx(1.5)
    assert moments.seconds(window=1) == pytest.approx(1.0)


def test_the_share_that_is_not_stalled():
    row = not_stalled("share", stall_s=2.0, step_s=0.2, every=1000)
    assert (row.ratio, row.aim) == (pytest.approx(200 / 202), 0.99)


def test_loops_that_learn_different_things_are_not_compared():
    weights = {"bare": {"w": torch.zeros(2)}, "harness": {"w": torch.ones(2)}}
    with pytest.raises(DifferentWeightsError, match="'harness' come to other weights: w"):
        require_same(weights)


@pytest.mark.slow
def test_the_quick_form_gives_every_row(tmp_path):
    assert main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"].split(",")[0] for row in rows if row["aim"]] == ["a step", "time not stalled by checkpoints"]
    for row in rows:
        assert isinstance(row["value"], float)
        assert (row["ratio"] is None) == (row["aim"] is None)
    whole = [row["value"] for row in rows if row["name"].startswith("from a ")]
    parts = [row["value"] for row in rows if row["name"].startswith("  ")]
    assert sum(whole) == pytest.approx(sum(parts), abs=1e-6)
