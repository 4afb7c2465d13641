"""Only a marked checkpoint exists; a damaged one is named; what is kept is what was promised."""

from __future__ import annotations

import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
import torch
import torch.distributed as dist

from cluster import ownership
from cluster.checkpoint import CheckpointConfig, Checkpoints
from cluster.errors import AgreedError, RunError
from cluster.markers import committed
from cluster.resume import check_same_settings
from cluster.world import World
from shards.storage import Store

CPU = torch.device("cpu")


class FileEngine:
    """Saves as DeepSpeed does under ZeRO-2: rank 0 the parameters, every rank its optimiser part."""

    module = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(module.parameters())

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.loaded: dict[str, bytes] = {}

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool, exclude_frozen_parameters: bool) -> None:
        if self.rank == 0:
            Path(folder, tag, "mp_rank_00_model_states.pt").write_bytes(b"parameters" * 100)
        Path(folder, tag, f"zero_pp_rank_{self.rank}_mp_rank_00_optim_states.pt").write_bytes(bytes([self.rank]) * 50)

    def load_checkpoint(self, folder: str, tag: str, load_module_strict: bool) -> tuple[str | None, dict]:
        self.loaded = {path.name: path.read_bytes() for path in Path(folder, tag).iterdir()}
        return folder, {}


@pytest.fixture(scope="module", autouse=True)
def process_group():
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def run(tmp_path):
    return Store(str(tmp_path / "run"))


def rank_of(run, tmp_path, rank=0, size=1, attempt="a1", world=World, **config):
    local = tmp_path / f"local-{rank}-{attempt}"
    local.mkdir(exist_ok=True)
    return Checkpoints(run, CheckpointConfig(**config), world(rank, size, CPU, attempt), local)


def save(checkpoints, step, rank=0, wait=True, **content):
    checkpoints.save(FileEngine(rank), step, {"data": {"batch": step}, "settings": {}, **content}, wait)


def steps(run):
    return [marker.step for marker in committed(run.child("checkpoints"))]


def folders(run):
    return {"/".join(name.split("/")[:2]) for name in run.child("checkpoints").list() if name.count("/") > 1}


def test_a_saved_checkpoint_is_committed_with_everything_it_needs(run, tmp_path):
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    marker = checkpoints.newest()
    assert (marker.step, marker.attempt, marker.world_size, marker.content["data"]) == (5, "a1", 1, {"batch": 5})
    engine = FileEngine(0)
    checkpoints.restore(engine, marker)
    assert set(engine.loaded) == {"mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"}


def test_a_checkpoint_that_one_rank_has_not_written_does_not_exist(run, tmp_path):
    first, second = (rank_of(run, tmp_path, rank, 2) for rank in range(2))
    save(first, 5, wait=False)
    time.sleep(0.5)
    assert steps(run) == []
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda work: work(), [lambda: save(second, 5, rank=1), first.wait]))
    assert steps(run) == [5]
    [marker] = committed(run.child("checkpoints"))
    assert {name.split("/")[0] for name in marker.files} == {"rank-00000", "rank-00001"}


def test_a_rank_that_never_writes_is_named_after_the_time_limit(run, tmp_path):
    checkpoints = rank_of(run, tmp_path, 0, 2, commit_timeout_s=0.3)
    with pytest.raises(RunError, match=r"no rank has uploaded step-000005/a1/rank-00001.json .* within 0.3 s"):
        save(checkpoints, 5)


class Thread(World):
    """A rank in a thread of this process, where two meet."""

    def gather_objects(self, value):
        meeting, said = MEETING
        said[self.rank] = value
        meeting.wait(60)
        values = list(said.values())
        meeting.wait(60)
        return values

    def sum_on_host(self, *numbers):
        return [sum(column) for column in zip(*self.gather_objects(numbers), strict=True)]


MEETING = (Barrier(2), dict.fromkeys(range(2)))


def test_a_rank_that_cannot_upload_ends_all_at_once_with_its_own_words(run, tmp_path, monkeypatch):
    def refuse(store, source, name):
        raise OSError(f"{name}: no space left")

    monkeypatch.setattr(Store, "upload", refuse)
    ranks = [rank_of(run, tmp_path, rank, 2, world=Thread, commit_timeout_s=600) for rank in range(2)]
    monkeypatch.setattr(ranks[0], "_upload_and_commit", lambda *_: ranks[0]._commit(5, "step-000005/a1", {}))
    with ThreadPoolExecutor() as pool:
        saves = [pool.submit(save, one, 5, rank) for rank, one in enumerate(ranks)]
        errors = [one.exception(120) for one in saves]
    for one in ranks:
        one.close()
    assert {(type(error), "rank-00001" in str(error), str(error)[-13:]) for error in errors} == {
        (AgreedError, True, "no space left")
    }


def test_what_a_lost_attempt_left_behind_is_not_taken(run, tmp_path):
    lost = rank_of(run, tmp_path, 0, 2, attempt="lost")
    save(lost, 5, wait=False)
    time.sleep(0.5)
    lost.close()
    assert rank_of(run, tmp_path).newest() is None


def test_the_newest_and_the_best_are_kept(run, tmp_path):
    checkpoints = rank_of(run, tmp_path, keep_last=2)
    for step, loss in enumerate([math.nan, 2.0, 3.0, 4.0, 4.5], start=1):
        save(checkpoints, step, validation_loss=loss)
    assert steps(run) == [2, 4, 5], "a loss that is no number is not the best"
    assert {name.split("/")[0] for name in run.child("checkpoints").list() if "/" in name} == {
        "step-000002",
        "step-000004",
        "step-000005",
    }


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_newest_checkpoint_stops_with_its_name_and_the_flag(run, tmp_path, damage):
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    save(checkpoints, 10)
    [file] = Path(tmp_path, "run", "checkpoints", "step-000010").rglob("mp_rank*")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"x")
    with pytest.raises(RunError, match=r"checkpoint step-000010: .*mp_rank.*--train.checkpoint.skip_broken true"):
        checkpoints.newest()
    assert rank_of(run, tmp_path, skip_broken=True).newest().step == 5


def test_a_changed_file_is_found_by_its_checksum(run, tmp_path):
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    [file] = Path(tmp_path, "run", "checkpoints").rglob("zero_pp_rank_0*")
    file.write_bytes(bytes([7]) * 50)
    with pytest.raises(RunError, match=r"step-000005: .*zero_pp_rank_0.* has sha256 .*, its marker says"):
        checkpoints.restore(FileEngine(0), checkpoints.newest())


def test_a_marker_that_is_none_is_named(run, tmp_path):
    run.put("checkpoints/step-000003.committed.json", b"{")
    with pytest.raises(RunError, match=r"checkpoint step-000003: .* is no marker that was written so .*skip_broken true"):
        rank_of(run, tmp_path).newest()


@pytest.mark.parametrize("part", ["marker", "file"])
def test_what_changed_without_changing_its_size_can_be_passed_over(run, tmp_path, part):
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    save(checkpoints, 10)
    folder = Path(tmp_path, "run", "checkpoints")
    [file] = folder.glob("step-000010.*") if part == "marker" else (folder / "step-000010").rglob("zero_pp_rank_0*")
    body = file.read_bytes()
    file.write_bytes(body.replace(b'"batch": 10', b'"batch": 11') if part == "marker" else bytes([7]) * len(body))
    with pytest.raises(RunError, match=r"step-000010.*skip_broken true"):
        checkpoints.restore(FileEngine(0), checkpoints.newest())
    again = rank_of(run, tmp_path, attempt="a2", skip_broken=True)
    assert again.newest().step == 5
    save(again, 6)
    assert again.newest().step == 6


def test_saving_does_not_wait_for_a_slow_store(run, tmp_path, monkeypatch):
    checkpoints = rank_of(run, tmp_path)
    upload = Store.upload
    monkeypatch.setattr(Store, "upload", lambda *arguments: (time.sleep(0.5), upload(*arguments)))
    started = time.monotonic()
    save(checkpoints, 5, wait=False)
    returned = time.monotonic() - started
    checkpoints.wait()
    assert returned < time.monotonic() - started - 0.5
    assert steps(run) == [5]


def test_a_store_that_is_slower_than_the_cadence_does_not_fill_the_local_disk(run, tmp_path, monkeypatch):
    checkpoints = rank_of(run, tmp_path, keep_last=9)
    upload = Store.upload
    monkeypatch.setattr(Store, "upload", lambda *arguments: (time.sleep(0.1), upload(*arguments)))
    for step in range(1, 6):
        save(checkpoints, step, wait=False)
        assert len(list((tmp_path / "local-0-a1").iterdir())) <= 2
    checkpoints.wait()
    assert steps(run) == [1, 2, 3, 4, 5]


def test_an_attempt_that_uploads_late_does_not_touch_what_a_newer_one_committed(run, tmp_path, monkeypatch):
    ownership.take(run, "a1")
    late, newer, under_way, begun = rank_of(run, tmp_path), rank_of(run, tmp_path, attempt="a2"), Event(), Event()
    upload = Store.upload

    def slow(store, source, name):
        if "/a1/" in name:
            begun.set()
            under_way.wait(60)
        upload(store, source, name)

    monkeypatch.setattr(Store, "upload", slow)
    save(late, 5, wait=False)
    assert begun.wait(60)
    ownership.take(run, "a2")
    save(newer, 5)
    under_way.set()
    with pytest.raises(RunError, match="attempt a2 began"):
        late.wait()
    assert [marker.attempt for marker in committed(run.child("checkpoints"))] == ["a2"]
    assert newer.newest().attempt == "a2"


def test_a_failed_upload_is_raised_at_the_next_save(run, tmp_path, monkeypatch):
    checkpoints = rank_of(run, tmp_path)

    def refuse(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(Store, "upload", refuse)
    save(checkpoints, 5, wait=False)
    time.sleep(0.3)
    assert checkpoints.failure() == "no space left"
    with pytest.raises(AgreedError, match="no space left"):
        save(checkpoints, 10)


def test_a_disk_without_room_for_the_local_copy_is_named_before_anything_is_written(run, tmp_path, monkeypatch):
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("cluster.checkpoint.shutil.disk_usage", lambda path: usage._replace(free=7))
    with pytest.raises(AgreedError, match=r"local-0-a1 on .*: a checkpoint needs .* make room, or set TMPDIR"):
        save(checkpoints, 10)
    assert steps(run) == [5]


def test_multiples_of_keep_every_are_kept_for_ever(run, tmp_path):
    checkpoints = rank_of(run, tmp_path, keep_last=1, keep_every=4)
    for step in range(2, 12, 2):
        save(checkpoints, step)
    assert steps(run) == [4, 8, 10]


def test_what_killed_attempts_left_is_removed_once_it_is_not_newer_than_what_is_committed(run, tmp_path):
    lost = [rank_of(run, tmp_path, 0, 2, attempt=name) for name in ("lost", "lost too")]
    for attempt, step in zip(lost, (5, 15), strict=True):
        save(attempt, step, wait=False)
        time.sleep(0.5)
        attempt.close()
    checkpoints = rank_of(run, tmp_path)
    save(checkpoints, 5)
    assert folders(run) == {"step-000005/a1", "step-000015/lost too"}


def test_a_checkpoint_is_due_by_the_clock(run, tmp_path):
    checkpoints = rank_of(run, tmp_path, every_minutes=0.005)
    assert not checkpoints.due()
    time.sleep(0.35)
    assert checkpoints.due()
    save(checkpoints, 5)
    assert not checkpoints.due()
    assert not rank_of(run, tmp_path).due(), "never, where none is asked for"


def test_a_resume_with_other_settings_is_refused_by_name():
    before = {"train": {"seed": 1, "optimizer": {"learning_rate": 0.1}}, "launch": {"workers": 2}}
    now = json.loads(json.dumps(before))
    now["launch"]["workers"] = 4
    check_same_settings(before, now, "run")
    now["train"]["optimizer"]["learning_rate"] = 0.2
    with pytest.raises(RunError, match=r"train.optimizer.learning_rate 0.1 then, 0.2 now"):
        check_same_settings(before, now, "run")
