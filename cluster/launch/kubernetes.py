"""A RayJob of KubeRay: the manifest that a launch means, and following it with kubectl.

KubeRay (1.5.1 or newer, for its token authentication) brings a Ray cluster up for the job, submits the command to it, and takes
the cluster down again. Fields as in ray-project/kuberay, ray-operator/apis/ray/v1/rayjob_types.go.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.console import pass_on
from cluster.errors import RunError
from cluster.launch.ray_jobs import STOPPED
from cluster.launch.spec import LaunchSpec, values_of

NAME_LIMIT = 47
"""KubeRay makes names of its own out of a RayJob's."""
REFUSALS_S = 120.0
"""For how long the cluster may fail to answer while a job is followed."""
ENDED = ("Complete", "Failed")
KEPT_S = 3600
"""A RayJob that has ended stays so long, for people to look at."""
GRACE_S = 120
"""Between asking a pod to end and killing it: a checkpoint's time."""
HEAD = {"cpu": "2", "memory": "8Gi"}
"""The head runs the driver and no worker."""


@dataclass(frozen=True)
class KubernetesOptions:
    """Where pods come from and what they may use."""

    image: str = ""
    """Made from the project's Containerfile."""
    namespace: str = "default"
    context: str = ""
    """Of kubectl; empty takes its current one."""
    secret: str = ""
    """A Secret whose keys become variables of the pods: AWS_ACCESS_KEY_ID and its like."""
    memory_per_node: str = "32Gi"
    shared_memory: str = "8Gi"
    """Size of /dev/shm, which NCCL and Ray's object store use; part of `memory_per_node`."""
    queue: str = ""
    """A LocalQueue of Kueue, which starts the job when its turn comes."""
    resubmit: int = 0
    """Times that KubeRay starts the job again, whatever it failed of."""


def manifest(spec: LaunchSpec, options: KubernetesOptions, name: str) -> dict[str, Any]:
    """The RayJob.

    Raises:
        RunError: the machines are not stated, or the run's folder is none that pods see.
    """
    import ray

    _refuse_unfit(spec, options)
    workers = {
        "groupName": "workers",
        "replicas": spec.nodes,
        "minReplicas": spec.nodes,
        "maxReplicas": spec.nodes,
        "rayStartParams": {},
        "template": _pod(spec, options, _worker_resources(spec, options)),
    }
    head = {
        # Workers have machines of their own.
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
        "template": _pod(spec, options, HEAD),
    }
    queued = {"labels": {"kueue.x-k8s.io/queue-name": options.queue}} if options.queue else {}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": options.namespace, **queued},
        "spec": {
            "entrypoint": shlex.join(spec.command),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "backoffLimit": options.resubmit,
            # Kueue wakes what waits in its queue.
            "suspend": bool(options.queue),
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": values_of(spec.environment)}),
            "rayClusterSpec": {
                "rayVersion": ray.__version__,
                "authOptions": {"mode": "token"},
                "headGroupSpec": head,
                "workerGroupSpecs": [workers],
            },
        },
    }


def _refuse_unfit(spec: LaunchSpec, options: KubernetesOptions) -> None:
    if not spec.nodes or not spec.cpus_per_node:
        raise RunError("submit kubernetes: expected --nodes and --cpus-per-node, which pods are made of; give both")
    if not options.image:
        raise RunError("submit kubernetes: expected --image, made from the Containerfile; give one that the nodes can pull")
    if spec.run.startswith("file://"):
        raise RunError(
            f"run.folder {spec.run}: pods do not see this machine's files; give a place such as s3://bucket/runs/name"
        )


def job_name(spec: LaunchSpec) -> str:
    """A new name that Kubernetes takes: `coca-demo-3fa2`."""
    words = re.sub("[^a-z0-9]+", "-", f"{spec.stage or 'ecgchat'}-{spec.name}".lower()).strip("-")
    return f"{words[: NAME_LIMIT - 5].rstrip('-')}-{secrets.token_hex(2)}"


def _worker_resources(spec: LaunchSpec, options: KubernetesOptions) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": spec.gpus_per_node} if spec.gpus_per_node else {}
    return {"cpu": str(spec.cpus_per_node), "memory": options.memory_per_node, **gpus}


def _pod(spec: LaunchSpec, options: KubernetesOptions, resources: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": "ray",
        "image": options.image,
        # Requests that equal limits: no neighbour takes the memory that a step needs.
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
        **({"envFrom": [{"secretRef": {"name": options.secret}}]} if options.secret else {}),
    }
    shared = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": options.shared_memory}}
    return {"spec": {"containers": [container], "volumes": [shared], "terminationGracePeriodSeconds": GRACE_S}}


def apply(job: dict[str, Any], options: KubernetesOptions) -> None:
    """Hand a manifest to the cluster.

    Raises:
        RunError: there is no kubectl, or the cluster refuses.
    """
    _kubectl(options, "apply", "--filename", "-", given=yaml.safe_dump(job))


def follow(name: str, options: KubernetesOptions, write: Callable[[str], Any] = pass_on, poll_s: float = 5) -> int:
    """Write a job's output until it has ended, and return its exit status.

    Raises:
        RunError: there is no such job, it was not begun, or the cluster no longer answers.
    """
    # The first time, a wrong name is likelier than a cluster that is away.
    seen, status = "", _status(name, options)
    while True:
        if status.get("jobStatus"):
            seen = _logs(name, options, seen, write)
            status = _patiently(name, options, poll_s)
        if status.get("jobDeploymentStatus") in ENDED:
            return exit_status(status, name)
        time.sleep(poll_s)
        status = _patiently(name, options, poll_s)


def exit_status(status: dict[str, Any], name: str) -> int:
    """What a RayJob that has ended leaves to its caller: the status of its command.

    Raises:
        RunError: it never ran.
    """
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    if status.get("jobStatus") == "STOPPED":
        return STOPPED
    # The number stands in Ray's sentence alone (ray/dashboard/modules/job/job_supervisor.py).
    told = re.search(r"exit code (-?\d+)", status.get("message") or "")
    if told:
        code = int(told.group(1))
        return code if code >= 0 else 128 - code
    why = (status.get("message") or status.get("reason") or "KubeRay does not say why").strip().splitlines()[0]
    raise RunError(f"RayJob {name}: failed before its command ended: {why}; see 'kubectl describe rayjob {name}'")


def _patiently(name: str, options: KubernetesOptions, poll_s: float) -> dict[str, Any]:
    """`_status`, while the cluster's API may be away."""
    deadline = time.monotonic() + REFUSALS_S
    while True:
        try:
            return _status(name, options)
        except RunError as error:
            if time.monotonic() > deadline or "NotFound" in str(error):
                raise
            time.sleep(poll_s)


def _status(name: str, options: KubernetesOptions) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kubectl(options, "get", "rayjob", name, "--output", "json"))
    status: dict[str, Any] = found.get("status") or {}
    return status


def _logs(name: str, options: KubernetesOptions, seen: str, write: Callable[[str], Any]) -> str:
    """Write the lines that are newer than `seen`, while the connection lasts; the time of the last one."""
    command = [*_program(options), "logs", "--follow", "--timestamps", f"job/{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            stamp, _, text = line.partition(" ")
            # Its nanoseconds end without zeros.
            when = stamp.rstrip("Z").ljust(len("2026-11-21T20:15:00.123456789"), "0")
            if when > seen:
                write(text)
                seen = when
    return seen


def _kubectl(options: KubernetesOptions, *words: str, given: str | None = None) -> str:
    done = subprocess.run([*_program(options), *words], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
        raise RunError(
            f"kubectl {words[0]}: {said}; check 'kubectl config current-context', --namespace, and that KubeRay runs there"
        )
    return done.stdout


def _program(options: KubernetesOptions) -> list[str]:
    program = shutil.which("kubectl")
    if program is None:
        raise RunError("kubectl: not found; install it, or print the manifest with --dry-run and apply it where kubectl is")
    return [program, *(["--context", options.context] if options.context else []), "--namespace", options.namespace]
