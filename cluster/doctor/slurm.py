"""Slurm: what a job may ask for here."""

from __future__ import annotations

import re
import shutil
import subprocess

from cluster.doctor.findings import Finding, fail, ok, warn

NAME = "Slurm"
COMMAND_S = 20.0
LEAST_KILL_WAIT_S = 30
"""Our script ends its Ray nodes within 20 s of the driver's end, once Slurm has asked."""
USABLE = re.compile(r"^(idle|mix|alloc|comp)")


def facts(needed: bool) -> list[Finding]:
    """Version, partitions with their limits and GPUs, and how jobs are ended and started again.

    Args:
        needed: whether it is a fault that there is no Slurm.
    """
    if shutil.which("sinfo") is None:
        if needed:
            return [fail(NAME, "no sinfo on PATH", "look on a login node of the cluster, or load Slurm's module")]
        return [ok(NAME, "none here")]
    try:
        config = _config(_ask("scontrol", "show", "config"))
    except RuntimeError as error:
        advice = "find out whether slurmctld runs and SLURM_CONF or /etc/slurm/slurm.conf is right"
        return [fail(NAME, str(error), advice) if needed else warn(NAME, str(error), advice)]
    return [
        ok(NAME, f"{config.get('SLURM_VERSION', '?')}, cluster {config.get('ClusterName', '?')}"),
        *_partitions(),
        *_endings(config),
    ]


def _partitions() -> list[Finding]:
    """Each partition; one without a node that works is worth a word."""
    findings = []
    # Name, up or down, time limit, nodes, CPUs of a node, memory of a node in MB, GPUs, states of nodes.
    for line in _ask("sinfo", "--noheader", "--format=%P|%a|%l|%D|%c|%m|%G|%T").splitlines():
        name, up, limit, nodes, cpus, memory, gpus, state = (field.strip() for field in line.split("|"))
        label = f"{NAME} partition {name.rstrip('*')}"
        found = f"{nodes} nodes {state}, {cpus} CPUs, {memory} MB, {'no GPU' if gpus == '(null)' else gpus}, limit {limit}"
        if up == "up" and USABLE.match(state):
            findings.append(ok(label, found))
        else:
            findings.append(warn(label, f"{found}; {up}", "'sinfo -R' says why; choose another with --partition"))
    return findings


def _endings(config: dict[str, str]) -> list[Finding]:
    """How a job is told to end, and whether it may start again."""
    findings = []
    wait = int((re.match(r"\d+", config.get("KillWait", "30")) or ["30"])[0])
    if wait < LEAST_KILL_WAIT_S:
        advice = "end runs by 'ecgchat runs stop RUN' or 'scancel --batch --signal=TERM JOB', which wait for the checkpoint"
        findings.append(warn(f"{NAME} KillWait", f"{wait} s between asking a job to end and killing it", advice))
    preempts = config.get("PreemptMode", "OFF")
    requeues = config.get("JobRequeue", "1") == "1"
    found = f"allowed by --requeue; jobs without it {'are' if requeues else 'are not'} started again; PreemptMode {preempts}"
    return [*findings, ok(f"{NAME} requeue", found)]


def _config(said: str) -> dict[str, str]:
    return {
        name.strip(): value.strip() for name, equals, value in (line.partition("=") for line in said.splitlines()) if equals
    }


def _ask(*command: str) -> str:
    """What one of Slurm's commands says.

    Raises:
        RuntimeError: it fails or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} does not answer within {COMMAND_S:g} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"{command[0]} ended with status {done.returncode}"])[-1])
    return done.stdout
