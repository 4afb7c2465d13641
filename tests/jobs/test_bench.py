"""Benchmarks run, and write what they say they write; what they measure is read, not asserted."""

import ast
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from jobs.bench import loader_order, loader_peers
from jobs.bench.build import main as bench_build
from jobs.bench.loader import main as bench_loader
from jobs.bench.loader_peers import fingerprint
from jobs.bench.peer import DifferentRecordsError, Peer, require_same
from jobs.bench.rows import Row, against_cost, against_peer, not_measured, on_cores, seconds_in_turn, show
from shards.order import OrderConfig, Position
from shards.stream import LoaderConfig


@pytest.fixture
def environment():
    """Benchmarks start servers and put their keys into the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_ratio_is_larger_where_ours_is_faster():
    assert against_peer("rate", ours=10.0, theirs=5.0, unit="records/s", aim=1.5).ratio == 2.0
    assert against_cost("time", ours=5.0, theirs=10.0, unit="s", aim=1.5).ratio == 2.0


def test_all_works_are_timed_in_turn_and_each_as_often():
    calls = []
    seconds = seconds_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "ababab"
    assert set(seconds) == {"a", "b"}


def test_each_round_is_told_while_others_are_still_to_come():
    told = []
    seconds_in_turn({"a": lambda: None}, 2, on_round=lambda number, seconds: told.append((number, *seconds)))
    assert told == [(1, "a"), (2, "a")]


def test_a_measured_work_has_one_core_for_all_its_threads_and_processes_and_gives_the_others_back():
    before = os.sched_getaffinity(0)
    asked, ended, seen = threading.Event(), threading.Event(), []

    def old_thread() -> None:
        asked.wait()
        seen.append(os.sched_getaffinity(0))
        ended.set()

    threading.Thread(target=old_thread).start()
    with on_cores([min(before)]):
        asked.set()
        ended.wait()
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"], capture_output=True, text=True, check=True
        )
        assert seen == [{min(before)}]
        assert child.stdout.split() == [str(min(before))]
    assert os.sched_getaffinity(0) == before


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


def records(count: int) -> np.ndarray:
    """(count, 12, 5000) float32 of nothing in particular."""
    return np.random.default_rng(0).normal(size=(count, 12, 5000)).astype(np.float32)


def test_the_order_and_the_batches_in_which_records_come_do_not_change_what_was_read():
    some = records(7)
    whole, shuffled = fingerprint([some]), fingerprint([some[[6, 0, 3]], some[[2, 1]], some[[5, 4]]])
    require_same("a peer", shuffled, whole)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda some: some[:-1],
        lambda some: np.concatenate([some[:-1], some[:1]]),
        lambda some: some[:, [1, 0, *range(2, 12)]],
        lambda some: some[:, :, ::-1],
        lambda some: np.where(np.arange(5000) == 4999, 0, some),
        lambda some: some * np.float32(1.0001),
    ],
    ids=["a record is missing", "one stands for another", "leads swapped", "time reversed", "end not written", "other unit"],
)
def test_a_peer_that_reads_anything_else_is_refused(spoil):
    some = records(7)
    with pytest.raises(DifferentRecordsError, match="a peer reads"):
        require_same("a peer", fingerprint([spoil(some)]), fingerprint([some]))


def test_batches_of_another_type_or_shape_are_refused():
    for batch in (records(2).astype(np.float64), records(2)[:, :, :4999], records(65)):
        with pytest.raises(ValueError, match="expected batches of"):
            fingerprint([batch])


def test_peers_are_read_by_a_script_that_runs_where_this_project_is_not_installed():
    tree = ast.parse(Path(loader_peers.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not {str(name).split(".")[0] for name in imported} & {"jobs", "cluster", "ecgchat", "shards", "tests"}


def test_a_peer_that_does_not_start_says_which_and_how_its_environment_is_made(tmp_path):
    with pytest.raises(DifferentRecordsError, match=r"mosaic: ended .*peers\.sh"):
        Peer("mosaic", Path(sys.executable), tmp_path)


def test_rows_of_a_rank_for_the_order_benchmark_are_those_of_the_order(tmp_path):
    data = loader_order.large_set(tmp_path, 5000)
    order = loader_order.NothingRead(data, LoaderConfig(OrderConfig(global_batch=96, lanes=16))).order
    start = Position(0, order.batches - 2)
    for rank in (0, 3):
        found = np.concatenate(loader_order.rank_rows(order, start, 4, rank, 4))
        expected = [order.batch_samples(at.epoch, at.batch)[24 * rank : 24 * rank + 24] for at in around(order, start, 4)]
        np.testing.assert_array_equal(found, np.concatenate(expected))


def around(order, start, count):
    return [at for at, _ in zip(order.positions(start), range(count), strict=False)]


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_the_loader_benchmark_measures_every_row_and_says_which_need_another_environment(tmp_path, capsys):
    assert bench_loader(["--quick", "--folder", str(tmp_path / "work"), "--json", str(tmp_path / "rows.json")]) == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "rows.json").read_text())]
    without = [row for row in rows if row.ratio is None]
    assert [row.name for row in without] == ["Mosaic Streaming", "LitData"]
    assert all("peers.sh" in str(row.value) for row in without)
    measured = [row for row in rows if row.ratio is not None]
    assert len(measured) == 9
    for row in measured:
        smaller_is_better = row.unit in ("ms", "MB")
        assert row.ratio == pytest.approx(row.against / row.value if smaller_is_better else row.value / row.against)
        assert row.aim
    said = capsys.readouterr().out
    assert all(f"{peer} " in said for peer in ("files", "webdataset", "limit"))
    assert "round 1 of 1" in said
