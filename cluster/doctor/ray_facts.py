"""Join the Ray cluster that RAY_ADDRESS names and print what it is: `python -m cluster.doctor.ray_facts`."""

from __future__ import annotations

import json
import time
from typing import Any

ANSWER_S = 20.0


def main() -> None:
    """Print a JSON object: version, resources, nodes with their clocks, lost and silent ones."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address="auto", log_to_driver=False, logging_level="error")

    now = ray.remote(num_cpus=0, max_retries=0)(lambda: time.time())
    nodes = ray.nodes()
    alive = [node for node in nodes if node["Alive"]]
    answers: list[dict[str, Any]] = []
    silent: list[str] = []
    for node in alive:
        asked = now.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        try:
            # The first call starts a worker there; the second one measures.
            ray.get(asked.remote(), timeout=ANSWER_S)
            sent = time.time()
            theirs = ray.get(asked.remote(), timeout=ANSWER_S)
            received = time.time()
        except ray.exceptions.RayError:
            silent.append(_name(node))
            continue
        half = (received - sent) / 2
        answers.append({"name": _name(node), "ahead_s": theirs - (sent + half), "uncertain_s": half})
    lost = sorted({_name(node) for node in nodes if not node["Alive"]})
    found = {"version": ray.__version__, "resources": ray.cluster_resources(), "nodes": answers, "lost": lost, "silent": silent}
    print(json.dumps(found))


def _name(node: dict[str, Any]) -> str:
    return str(node["NodeManagerHostname"] or node["NodeManagerAddress"])


if __name__ == "__main__":
    main()
