"""The files that people bring clusters up with are what their readers take."""

from pathlib import Path

import pytest
import yaml

from cluster.engine import EngineConfig, OptimizerConfig
from cluster.memory import state_bytes
from jobs.align import AlignJob
from jobs.coca import CocaJob
from jobs.config import parse
from jobs.instruct import InstructJob

PROJECT = Path(__file__).parents[2]


CLUSTER_FILES = ("ray_cluster.yaml", "cluster/ray/aws.yaml")


def ray_takes(config):
    """Ray's own preparation and schema, without a machine."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


@pytest.mark.parametrize("file", CLUSTER_FILES)
def test_ray_takes_the_cluster_file(file):
    ray_takes(yaml.safe_load((PROJECT / file).read_text()))


@pytest.mark.parametrize("file", CLUSTER_FILES)
def test_ray_refuses_a_cluster_file_with_an_unknown_field(file):
    config = yaml.safe_load((PROJECT / file).read_text())
    with pytest.raises(Exception, match="initial_workers"):
        ray_takes({**config, "initial_workers": 2})


@pytest.mark.parametrize("file", CLUSTER_FILES)
def test_every_node_of_a_cluster_file_asks_for_the_token_and_holds_none(file):
    config = yaml.safe_load((PROJECT / file).read_text())
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        [start] = [command for command in commands if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start
        assert "AWS_" not in start


CONFIGS = PROJECT / "jobs" / "configs"
NEEDED = {
    "coca": (CocaJob, ["--data.tokenizer", "s3://b/t"]),
    "align": (AlignJob, ["--encoder", "s3://b/e", "--llm", "s3://b/l"]),
    "instruct": (InstructJob, ["--align", "s3://b/a"]),
}


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_configuration_is_one(file):
    kind, needed = NEEDED[file.parent.name]
    job = parse(kind, ["--config", str(file), "--data.shards", "s3://b/s", "--run.folder", "s3://b/r", *needed], "test")
    assert job.run.name == file.stem


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_fraction=0.1)
    rates = [config.rate(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("stage", "expected"), [(0, 16), (1, 10), (2, 9), (3, 8)])
def test_bf16_states_take_the_bytes_of_the_zero_paper(stage, expected):
    """With two ranks: 2 + 2 + 12 bytes a parameter, halved from the stage on that partitions each."""
    assert state_bytes(1000, EngineConfig(zero_stage=stage, precision="bf16"), 2) == expected * 1000
