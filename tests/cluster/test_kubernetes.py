"""The RayJob of a launch is what KubeRay's own definition takes, and kubectl is called in the right order."""

import copy
import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluster.errors import RunError
from cluster.launch import kubernetes
from cluster.launch.kubernetes import KubernetesOptions, exit_status, job_name, manifest
from cluster.launch.spec import LaunchSpec

PROJECT = Path(__file__).parents[2]
DEFINITION = PROJECT.parent / "shared" / "schemas" / "ray.io_rayjobs.yaml"
SPEC = LaunchSpec(
    "coca", ("--config", "s3://b/r/launch/1.yaml"), "demo", "s3://b/r", nodes=2, gpus_per_node=4, cpus_per_node=32
)
OPTIONS = KubernetesOptions("registry.example/ecgchat:1", "training", secret="store-keys", queue="gpus", resubmit=2)


def without_unknown_fields(schema):
    """The same schema, strict: the API server drops fields that it does not know and says nothing."""
    if isinstance(schema, list):
        return [without_unknown_fields(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: without_unknown_fields(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and "type" in schema and not open_ended:
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="module")
def validate():
    if not DEFINITION.exists():
        pytest.skip(f"{DEFINITION} is absent: the definition of RayJob is not part of this project")
    definition = yaml.load(DEFINITION.read_text(), yaml.CSafeLoader)
    [version] = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    validator = jsonschema.Draft202012Validator(without_unknown_fields(version["schema"]["openAPIV3Schema"]))
    return lambda job: validator.validate(yaml.safe_load(yaml.safe_dump(job)))


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (SPEC, OPTIONS),
        (LaunchSpec("", ("true",), nodes=1, cpus_per_node=4), KubernetesOptions("image")),
    ],
    ids=["GPUs", "CPUs"],
)
def test_kuberay_takes_the_manifest(validate, spec, options):
    validate(manifest(spec, options, "demo"))


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("spec", "entrypont", "true"),
        ("spec", "backoffLimit", "two"),
        ("spec.rayClusterSpec", "authOption", {"mode": "token"}),
        ("spec.rayClusterSpec.workerGroupSpecs.0", "replica", 2),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0", "envFrom", {"secretRef": {"name": "x"}}),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.volumes.0.emptyDir", "limit", "8Gi"),
    ],
)
def test_a_wrong_field_is_found(validate, place, field, value):
    job = copy.deepcopy(manifest(SPEC, OPTIONS, "demo"))
    inner = job
    for key in place.split("."):
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[field] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(job)


def test_the_manifest_says_what_the_launch_says():
    import ray

    job = manifest(SPEC, OPTIONS, "demo")
    spec = job["spec"]
    assert "--launch.workers=8" in spec["entrypoint"]
    assert spec["suspend"] is True
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "gpus"}
    assert spec["backoffLimit"] == 2
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    [workers] = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 2
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    for pod in pods:
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "store-keys"}}]
        assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"
    assert pods[1]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert manifest(SPEC, KubernetesOptions("image"), "demo")["spec"]["suspend"] is False


def test_names_are_those_of_kubernetes():
    name = job_name(LaunchSpec("coca", (), "Ünfit_name " * 9))
    assert len(name) <= 47
    assert name.replace("-", "").isalnum()
    assert name.isascii()
    assert name.islower()


@pytest.mark.parametrize(
    ("change", "piece"),
    [({"nodes": 0, "gpus_per_node": 0, "cpus_per_node": 0}, "--nodes"), ({"run": "file:///runs/x"}, "s3://")],
)
def test_what_pods_cannot_be_is_one_sentence(change, piece):
    with pytest.raises(RunError, match=piece):
        manifest(LaunchSpec(**{**vars(SPEC), **change}), OPTIONS, "demo")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"jobStatus": "SUCCEEDED"}, 0),
        ({"jobStatus": "STOPPED"}, 143),
        ({"jobStatus": "FAILED", "message": "Job entrypoint command failed with exit code 75, last available logs"}, 75),
        ({"jobStatus": "FAILED", "message": "Job entrypoint command failed with exit code -9, last"}, 137),
    ],
)
def test_the_status_is_the_commands_own(status, expected):
    assert exit_status(status, "demo") == expected


def test_a_job_that_never_ran_says_why():
    with pytest.raises(RunError, match="image cannot be pulled"):
        exit_status({"jobDeploymentStatus": "Failed", "message": "image cannot be pulled"}, "demo")


STAND_IN = """#!{python}
import json, os, sys
folder = {folder!r}
words = sys.argv[1:]
assert words[:2] == ["--namespace", "training"], words
words = words[2:]
with open(folder + "/calls", "a") as file:
    file.write(" ".join(words) + "\\n")
asked = sum(line.startswith("get") for line in open(folder + "/calls"))
if words[0] == "apply":
    open(folder + "/applied", "w").write(sys.stdin.read())
elif words[0] == "get" and asked == 2:
    sys.exit("Unable to connect to the server: net/http: TLS handshake timeout")
elif words[0] == "get":
    running = {{"jobStatus": "RUNNING", "jobDeploymentStatus": "Running"}}
    ended = {{"jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "message": "command failed with exit code 75, last"}}
    print(json.dumps({{"status": [{{}}, None, running, running, running, ended][min(asked, 6) - 1]}}))
elif words[0] == "logs":
    lines = ["2026-11-21T20:00:00.5Z one", "2026-11-21T20:00:01.25Z two", "2026-11-21T20:00:01.251Z three"]
    first = not os.path.exists(folder + "/cut")
    open(folder + "/cut", "w").close()
    print("\\n".join(lines[:2] if first else lines))
"""


def test_kubectl_is_asked_to_apply_then_followed_over_cut_connections(tmp_path, monkeypatch):
    """A stand-in for kubectl: it shows the order of the calls and what is made of their answers, and no more."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    # A kubectl that this machine has is never to reach a cluster from here.
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    written = []
    job = manifest(SPEC, OPTIONS, "demo")
    kubernetes.apply(job, OPTIONS)
    assert kubernetes.follow("demo", OPTIONS, written.append, poll_s=0) == 75
    assert yaml.safe_load((tmp_path / "applied").read_text()) == json.loads(json.dumps(job))
    assert written == ["one\n", "two\n", "three\n"]
    calls = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["apply", "get", "get", "get", "logs", "get", "get", "logs", "get"]


def test_a_job_that_is_not_there_is_not_waited_for(tmp_path, monkeypatch):
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho 'Error from server (NotFound): rayjobs.ray.io \"demo\" not found' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RunError, match="NotFound"):
        kubernetes.follow("demo", OPTIONS, print)


def test_without_kubectl_it_says_what_else_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="--dry-run"):
        kubernetes.apply({}, OPTIONS)
