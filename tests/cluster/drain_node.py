"""Tell Ray that the one node of its cluster will be taken away in an hour: `python -m tests.cluster.drain_node`, as a job."""

import time

import ray
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2

HOUR_MS = 3_600_000

ray.init(address="auto")
[node] = ray.nodes()
preempted = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
client = GcsClient(address=ray.get_runtime_context().gcs_address)
accepted, why_not = client.drain_node(node["NodeID"], preempted, "taken back", int(time.time() * 1000) + HOUR_MS)
assert accepted, why_not
