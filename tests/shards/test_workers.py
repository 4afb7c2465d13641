"""Builds that are stopped, killed, or meet files that end their decoder: they go on, and the bytes are the same."""

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shards.build import BuildOptions, build
from shards.dataset import DatasetError, ShardSet
from shards.record import RecordError
from shards.sources.ptb_xl import PtbXl
from shards.workers import in_processes, in_this_process

SMALL = BuildOptions(records_per_shard=16, max_rejected=0.1)


class StoppedError(Exception):
    """Stands for whatever ends a build in the middle."""


@dataclass
class Watched:
    """A source that notes what it reads, and does something else for some records."""

    source: PtbXl
    instead: dict = field(default_factory=dict)
    notes: Path = None

    kind = "ecg"

    def __post_init__(self):
        self.name, self.simulated = self.source.name, self.source.simulated

    def provenance(self):
        return self.source.provenance()

    def plan(self):
        return self.source.plan()

    def read(self, planned):
        if self.notes:
            with self.notes.open("a") as file:
                file.write(planned.record_id + "\n")
        if planned.record_id in self.instead:
            self.instead[planned.record_id]()
        return self.source.read(planned)


def end_with_segmentation_fault():
    os.kill(os.getpid(), signal.SIGSEGV)


def end_as_if_out_of_memory():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(600)


def reject():
    raise RecordError("not readable")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(simulated_folder):
    return PtbXl(simulated_folder, 100)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "set"
    build(source, str(folder), SMALL)
    return contents(folder)


@pytest.mark.parametrize("shards_before", [0, 1, 5, 7])
def test_a_stopped_build_goes_on_where_it_was_and_gives_the_same_bytes(source, undisturbed, tmp_path, shards_before):
    finished = []

    def stop(shard):
        finished.append(shard)
        if len(finished) > shards_before:
            raise StoppedError

    with pytest.raises(StoppedError):
        build(source, str(tmp_path / "set"), SMALL, on_shard=stop)
    again = Watched(source, notes=tmp_path / "read")
    build(again, str(tmp_path / "set"), SMALL)
    in_store = sum(shard.rows.num_rows for shard in finished)
    read_again = (tmp_path / "read").read_text().split() if (tmp_path / "read").exists() else []
    assert len(read_again) == len(set(read_again)) == 120 - in_store
    assert contents(tmp_path / "set") == undisturbed


def test_a_shard_that_was_cut_after_its_note_is_built_again(source, undisturbed, tmp_path):
    stop_after_one(source, tmp_path / "set")
    [shard] = (tmp_path / "set").glob("*.tar")
    shard.write_bytes(shard.read_bytes()[:1000])
    build(source, str(tmp_path / "set"), SMALL)
    assert contents(tmp_path / "set") == undisturbed


def test_a_build_stopped_while_it_tidied_up_ends_well(source, undisturbed, tmp_path):
    stop_after_one(source, tmp_path / "set")
    plan = (tmp_path / "set/unfinished/plan.json").read_bytes()
    build(source, str(tmp_path / "set"), SMALL)
    (tmp_path / "set/unfinished").mkdir()
    (tmp_path / "set/unfinished/plan.json").write_bytes(plan)
    manifest = build(source, str(tmp_path / "set"), SMALL)
    assert manifest == json.loads((tmp_path / "set/manifest.json").read_bytes())
    assert contents(tmp_path / "set") == undisturbed


def test_more_rejections_may_be_allowed_when_a_build_goes_on(source, tmp_path):
    bad = Watched(source, {"7": reject, "8": reject})
    with pytest.raises(DatasetError, match="more than --max-rejected 0.01 allows"):
        build(bad, str(tmp_path / "set"), BuildOptions(records_per_shard=16))
    assert build(bad, str(tmp_path / "set"), SMALL)["counts"]["rejected"] == 2


def test_an_unfinished_build_of_something_else_is_not_continued(source, tmp_path):
    stop_after_one(source, tmp_path / "set")
    with pytest.raises(DatasetError, match="holds an unfinished build of other records or settings"):
        build(source, str(tmp_path / "set"), BuildOptions(records_per_shard=32))


def test_an_unfinished_build_is_no_data_set(source, tmp_path):
    stop_after_one(source, tmp_path / "set")
    with pytest.raises(DatasetError, match=r"no manifest.json"):
        ShardSet.open(str(tmp_path / "set"))


def test_a_record_that_ends_its_decoder_is_refused_by_name_and_the_others_stay(source, undisturbed, tmp_path):
    bad = Watched(source, {"7": end_with_segmentation_fault, "60": end_with_segmentation_fault})
    manifest = build(bad, str(tmp_path / "set"), SMALL, in_processes(2))
    assert {row["record_id"] for row in manifest["rejected"]} == {"7", "60"}
    assert "ended with SIGSEGV" in manifest["rejected"][0]["reason"]
    rejecting = Watched(source, {"7": reject, "60": reject})
    build(rejecting, str(tmp_path / "rejecting"), SMALL, in_this_process)
    shards = {name: body for name, body in contents(tmp_path / "set").items() if name.endswith(".tar")}
    assert shards == {name: body for name, body in contents(tmp_path / "rejecting").items() if name.endswith(".tar")}


def test_a_record_that_never_comes_is_refused_by_name(source, tmp_path):
    manifest = build(Watched(source, {"7": hang}), str(tmp_path / "set"), SMALL, in_processes(1, seconds_for_a_record=0.3))
    [rejected] = manifest["rejected"]
    assert rejected == {"record_id": "7", "reason": "reading it took more than 0.3 s; fetch its file again"}


def test_a_worker_killed_from_outside_blames_no_record_and_the_build_goes_on_later(source, undisturbed, tmp_path):
    with pytest.raises(DatasetError, match=r"ended with SIGKILL.*start the same command again, which continues"):
        build(Watched(source, {"7": end_as_if_out_of_memory}), str(tmp_path / "set"), SMALL, in_processes(2))
    build(source, str(tmp_path / "set"), SMALL)
    assert contents(tmp_path / "set") == undisturbed


def stop_after_one(source, folder):
    def stop(shard):
        raise StoppedError

    with pytest.raises(StoppedError):
        build(source, str(folder), SMALL, on_shard=stop)
