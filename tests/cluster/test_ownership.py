"""The attempt that began last has a run; the campaign shows it on real ranks (`two jobs in one folder`)."""

from __future__ import annotations

import pytest

from cluster import ownership
from cluster.errors import RunError
from shards.storage import Store


def test_an_attempt_ends_once_another_began(tmp_path):
    run = Store(str(tmp_path / "run"))
    ownership.require(run, "a")  # a run of before this file was kept
    ownership.take(run, "a")
    ownership.require(run, "a")
    ownership.take(run, "b")
    ownership.require(run, "b")
    with pytest.raises(RunError, match=r"run: attempt b began on \S+ while this one ran, and has the run now; this one ends"):
        ownership.require(run, "a")


def test_a_damaged_record_stops_nobody(tmp_path):
    run = Store(str(tmp_path / "run"))
    for body in (b"", b"[]", b"{}", b"\xff"):
        run.put(ownership.OWNER, body)
        ownership.require(run, "a")
