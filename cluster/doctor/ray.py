"""Ray: whether the cluster lets this environment in, what it has, and whether its machines agree on the time."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from importlib import metadata

from cluster.doctor.findings import ChildError, Finding, ask_child, fail, in_one_line, ok, warn
from cluster.doctor.stores import judge_clock

NAME = "Ray"
JOIN_S = 60.0
TIMEOUT_S = 10.0


def facts(needed: bool, dashboard: str = "") -> list[Finding]:
    """The version here, the Jobs API at an address, and the cluster that RAY_ADDRESS names.

    Args:
        needed: whether it is a fault that no cluster is named.
        dashboard: `http://HEAD:8265`.
    """
    findings = [ok(NAME, f"{metadata.version('ray')} here; {_authentication()}")]
    if dashboard:
        findings.append(jobs_api(dashboard))
    if os.environ.get("RAY_ADDRESS"):
        findings += cluster()
    elif needed and not dashboard:
        advice = "give --address http://HEAD:8265, or set RAY_ADDRESS to HEAD:6379 on a machine of the cluster"
        findings.append(fail(f"{NAME} cluster", "neither --address nor RAY_ADDRESS names one", advice))
    return findings


def jobs_api(address: str) -> Finding:
    """Whether jobs can be submitted at an address."""
    name = f"{NAME} dashboard"
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version")
    if token := _token():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            theirs = json.loads(reply.read())["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return fail(name, f"{address} wants a token ({error.code})", "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH")
        return fail(name, f"{address} answers {error.code}", "see that it is the dashboard of a Ray head")
    except (OSError, ValueError, KeyError) as error:
        advice = "see that the head runs with its dashboard (ray[default]); from outside: ssh -L 8265:127.0.0.1:8265 HEAD"
        return fail(name, f"{address} does not answer ({in_one_line(error)})", advice)
    return _same_version(name, f"{address} takes jobs", theirs)


def cluster() -> list[Finding]:
    """Join the cluster that RAY_ADDRESS names, and ask each node for the time."""
    name, address = f"{NAME} cluster", os.environ["RAY_ADDRESS"]
    try:
        said = ask_child("cluster.doctor.ray_facts", limit_s=JOIN_S, environment={"PYTHONWARNINGS": "ignore"})
    except ChildError as error:
        advice = "see that the head runs and is reached from here, and that Ray's version and token are the same there"
        return [fail(name, f"{address}: {error}", advice)]
    resources = ", ".join(f"{said['resources'].get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
    findings = [_same_version(name, f"{address}: {len(said['nodes'])} nodes, {resources}", said["version"])]
    if lost := said["lost"]:
        findings.append(warn(f"{NAME} nodes", f"lost: {', '.join(lost)}", "'ray status' says more; start them again"))
    clocks = [
        judge_clock(f"{NAME} clock of {node['name']}", node["ahead_s"], node["uncertain_s"], "this machine's")
        for node in said["nodes"]
    ]
    silent = [warn(f"{NAME} node {one}", "no CPU was free to ask it", "look again when it is idle") for one in said["silent"]]
    return findings + [clock for clock in clocks if clock.level != "ok"] + silent


def _same_version(name: str, found: str, theirs: str) -> Finding:
    ours = metadata.version("ray")
    if theirs == ours:
        return ok(name, f"{found}; Ray {theirs}")
    return fail(name, f"{found}; Ray {theirs} there, {ours} here", "one environment for all machines: constraints.txt")


def _authentication() -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    return f"token authentication is {'on' if mode == 'token' else 'off (RAY_AUTH_MODE)'}"


def _token() -> str:
    """Of the environment or of the file that Ray reads."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return ""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
