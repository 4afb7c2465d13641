"""A profile of some steps, asked for on the command line, is a trace in the run's folder, of those steps and ranks alone."""

import gzip
import json

import pytest

from cluster.errors import RunError
from cluster.profiling import ProfileConfig
from jobs.config import ConfigError, parse
from tests.cluster.small_stage import SmallJob
from tests.cluster.test_order_survives import begun, small_job
from tests.shards.small_sets import build_small_set

WORDS = ["--run.folder", "/run", "--data.shards", "/shards"]


@pytest.mark.parametrize("words", [["--profile", "steps=10-20"], ["--profile=steps=10-20"], ["--train.profile.steps", "10-20"]])
def test_it_is_asked_for_in_short_or_as_a_setting(words):
    profile = parse(SmallJob, [*words, *WORDS], "small").train.profile
    assert (profile.first, profile.last, profile.ranks) == (10, 20, [0])


def test_another_rank_may_be_named():
    job = parse(SmallJob, ["--profile", "steps=7", "--profile", "ranks=[0,3]", *WORDS], "small")
    assert (job.train.profile.first, job.train.profile.last, job.train.profile.ranks) == (7, 7, [0, 3])


@pytest.mark.parametrize("steps", ["ten", "20-10", "0-3", "5-"])
def test_steps_that_are_none_are_refused(steps):
    with pytest.raises(RunError, match=r"train.profile.steps '.*': expected the first and the last step, as 10-20"):
        ProfileConfig(steps)


def test_an_unknown_part_of_a_profile_is_named():
    with pytest.raises(ConfigError, match="train.profile.step: no such setting; did you mean train.profile.steps"):
        parse(SmallJob, ["--profile", "step=3", *WORDS], "small")


@pytest.mark.slow
def test_the_trace_holds_these_steps_of_these_ranks(tmp_path):
    job = small_job(build_small_set(tmp_path / "set", 40, 10), tmp_path / "run")
    job["train"]["profile"] = {"steps": "2-3", "ranks": [1]}
    with begun(2, job, tmp_path / "notes") as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0, 0], ended
    [trace] = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == "steps-2-3-rank-00001.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["name"]: (event["ts"], event["ts"] + event["dur"]) for event in events if event["name"].startswith("step ")}
    assert set(steps) == {"step 2", "step 3"}
    forward = [event["ts"] for event in events if event["name"] == "aten::linear"]
    assert forward
    assert all(any(began <= moment <= ended for began, ended in steps.values()) for moment in forward)
    assert f"profile of steps 2-3: file://{trace}; " in ended[1].out
