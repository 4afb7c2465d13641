"""Send a stage or a command to a Kubernetes cluster where KubeRay runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields

import yaml

from cluster.console import tell
from cluster.launch import kubernetes
from cluster.launch.kubernetes import KubernetesOptions
from cluster.launch.spec import LaunchSpec, record_launch
from cluster.stopping import INTERRUPTED_STATUS


def add_options(parser: argparse.ArgumentParser) -> None:
    """What it takes on the command line."""
    parser.add_argument("--image", default="", help="made from the Containerfile, where the cluster's nodes can pull it")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--context", default="", help="of kubectl; else its current one")
    parser.add_argument("--secret", default="", help="a Secret with AWS_ACCESS_KEY_ID and its like, for all pods")
    parser.add_argument("--memory-per-node", default="32Gi")
    parser.add_argument("--shared-memory", default="8Gi", help="size of /dev/shm, part of the memory")
    parser.add_argument("--queue", default="", help="a LocalQueue of Kueue: the job waits there for its turn")
    parser.add_argument("--resubmit", type=int, default=0, help="times that KubeRay may begin again with a fresh cluster")
    parser.add_argument("--follow", metavar="NAME", help="follow a RayJob that was submitted before")


def plan(spec: LaunchSpec, options: argparse.Namespace) -> str:
    """The manifest, as `kubectl apply` takes it."""
    job = kubernetes.manifest(spec, _options(options), kubernetes.job_name(spec))
    return yaml.safe_dump(job, sort_keys=False)


def run(spec: LaunchSpec, options: argparse.Namespace) -> int:
    """Apply the manifest, follow, and return the job's own exit status.

    Raises:
        RunError: there is no kubectl, the cluster refuses, or the job was never begun.
    """
    chosen, name = _options(options), kubernetes.job_name(spec)
    kubernetes.apply(kubernetes.manifest(spec, chosen, name), chosen)
    record_launch(spec, "kubernetes", id=name, options=asdict(chosen))
    tell(f"submitted RayJob {name} to namespace {chosen.namespace}")
    try:
        return kubernetes.follow(name, chosen)
    except KeyboardInterrupt:
        return _detach(name, chosen, spec.run)


def follow(options: argparse.Namespace) -> int:
    """Follow a RayJob that was submitted before, and return its exit status.

    Raises:
        RunError: there is no kubectl, or no such job.
    """
    chosen = _options(options)
    try:
        return kubernetes.follow(options.follow, chosen)
    except KeyboardInterrupt:
        return _detach(options.follow, chosen, "")


def _options(options: argparse.Namespace) -> KubernetesOptions:
    return KubernetesOptions(**{field.name: getattr(options, field.name) for field in fields(KubernetesOptions)})


def _detach(name: str, options: KubernetesOptions, run: str) -> int:
    where = f"--namespace {options.namespace}"
    stop = f"ecgchat runs stop {run}" if run else f"kubectl delete rayjob {name} {where}"
    tell(
        f"RayJob {name} goes on without being followed; follow it again with 'ecgchat submit kubernetes {where} "
        f"--follow {name}', stop it with '{stop}'"
    )
    return INTERRUPTED_STATUS
