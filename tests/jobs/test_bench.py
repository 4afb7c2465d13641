"""Benchmarks run, and write what they say they write; what they measure is read, not asserted."""

import json
import os

import pytest

from jobs.bench.build import main as bench_build
from jobs.bench.rows import Row, against_peer, not_measured, seconds_in_turn, show


@pytest.fixture
def environment():
    """Benchmarks start servers and put their keys into the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_ratio_is_larger_where_ours_is_faster():
    assert against_peer("rate", ours=10.0, theirs=5.0, unit="records/s", aim=1.5).ratio == 2.0


def test_all_works_are_timed_in_turn_and_each_as_often():
    calls = []
    seconds = seconds_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "ababab"
    assert set(seconds) == {"a", "b"}


def test_what_was_not_measured_says_why(tmp_path, capsys):
    show([not_measured("two cores", "this machine has one core")], "title", tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == [
        {"name": "two cores", "value": "this machine has one core", "unit": "", "against": None, "ratio": None, "aim": None}
    ]
    assert "this machine has one core" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_the_build_benchmark_measures_every_row_and_projects_the_largest_corpus(tmp_path, capsys):
    assert bench_build(["--quick", "--folder", str(tmp_path / "work"), "--json", str(tmp_path / "rows.json")]) == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "rows.json").read_text())]
    assert len(rows) == 5
    for row in rows:
        if row.ratio is not None:
            assert row.ratio == pytest.approx(row.value / row.against)
            assert row.aim
    said = capsys.readouterr().out
    assert all(f"800,035 records, {cores:2} cores" in said for cores in (2, 16, 64))
