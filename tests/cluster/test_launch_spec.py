"""What a launch means, whoever launches it."""

import pytest

from cluster.errors import RunError
from cluster.launch.spec import LaunchSpec, launches, record_launch, spec_of
from shards.storage import Store


def test_workers_are_nodes_times_gpus():
    spec = LaunchSpec("coca", ("--config", "a.yaml"), nodes=3, gpus_per_node=8, cpus_per_node=64)
    assert spec.workers == 24
    assert spec.command == (
        *("python", "-m", "jobs.coca", "--config", "a.yaml"),
        *("--launch.workers=24", "--launch.gpus_per_worker=1", "--launch.cpus_per_worker=8"),
    )


def test_without_gpus_there_is_one_worker_a_node_or_as_many_as_are_asked_for():
    assert LaunchSpec("coca", (), nodes=4).workers == 4
    assert LaunchSpec("coca", (), nodes=4, workers_per_node=2).workers == 8


def test_without_nodes_the_configuration_decides():
    assert LaunchSpec("coca", ("--config", "a.yaml")).command == ("python", "-m", "jobs.coca", "--config", "a.yaml")


def test_a_command_is_taken_as_it_is():
    assert LaunchSpec("", ("python", "hello.py"), nodes=2).command == ("python", "hello.py")


@pytest.mark.parametrize(
    ("options", "pieces"),
    [
        ({"gpus_per_node": 8}, ("nodes", "--nodes N")),
        ({"nodes": -1}, ("nodes", "at least 0", "-1")),
        ({"nodes": 1, "gpus_per_node": 8, "workers_per_node": 2}, ("workers_per_node 2", "8 GPUs")),
        ({"nodes": 1, "gpus_per_node": 8, "cpus_per_node": 4}, ("cpus_per_node 4", "8 workers")),
        *[({"environment": (name,)}, (name, "environment of the cluster's machines")) for name in (
            "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "my_password", "AZURE_STORAGE_KEY")],
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(options, pieces):
    with pytest.raises(RunError) as refused:
        LaunchSpec("coca", (), **options)
    for piece in pieces:
        assert piece in str(refused.value)


@pytest.mark.parametrize(
    "words", [("WANDB_API_KEY=abc", "python"), ("env", "HF_TOKEN=x"), ("--env=HF_TOKEN=x",), ("echo", "sesame-open")]
)
def test_a_key_in_the_command_is_refused_and_not_told(monkeypatch, words):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame-open")
    with pytest.raises(RunError, match="is not sent along") as refused:
        LaunchSpec("", words)
    assert "sesame" not in str(refused.value)


def test_a_place_is_no_key():
    assert LaunchSpec("coca", ("--run.name", "token", "HF_TOKEN"), environment=("RAY_AUTH_TOKEN_PATH",)).arguments
    assert LaunchSpec("coca", (), environment=("AWS_ENDPOINT_URL", "NCCL_DEBUG", "AWS_DEFAULT_REGION")).environment


def test_a_launch_is_kept_in_the_run_and_read_back(tmp_path):
    specs = [
        LaunchSpec("coca", ("--config", "a.yaml"), "demo", str(tmp_path), nodes=n, environment=("NCCL_DEBUG",)) for n in (1, 2)
    ]
    names = [record_launch(spec, "ray", id=f"job-{spec.nodes}", address="http://head:8265") for spec in specs]
    found = launches(Store(str(tmp_path)))
    assert [launch["id"] for launch in found] == ["job-1", "job-2"]
    assert [spec_of(launch) for launch in found] == specs
    assert names == sorted(names)
    assert all(name.startswith("launch/") for name in names)


def test_a_command_without_a_run_leaves_no_record():
    assert record_launch(LaunchSpec("", ("true",)), "ray") is None


def test_a_record_that_is_none_is_named(tmp_path):
    Store(str(tmp_path)).put("launch/1.json", b"{")
    with pytest.raises(RunError, match="launch/1.json: not a record of a launch"):
        launches(Store(str(tmp_path)))
