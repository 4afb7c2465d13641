"""Independent pieces of work spread over the machines of a Ray cluster, given back as they are done.

A piece whose worker process dies is tried again elsewhere; one that ends its process again and again is done once more by
`carefully`, which may do it in a process that it can lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_FOR_EACH_CPU = 2
"""Pieces handed to the cluster at a time; the next ones are ready when a CPU is, and the driver's memory stays bounded."""

TRIES_ELSEWHERE = 2


def run_tasks(
    work: Callable[[Item], Result], items: Iterable[Item], carefully: Callable[[Item], Result], address: str = "auto"
) -> Iterator[Result]:
    """Do `work` for each item on one CPU of the cluster.

    Args:
        work: survives a pickle; sent once.
        items: taken as the cluster has room for them.
        carefully: does the work for an item that ended its process.
        address: of the cluster; `auto` finds the one that this machine or job belongs to.

    Raises:
        ConnectionError: no cluster answers.
        Exception: what `work` raised.
    """
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    task = ray.remote(num_cpus=1, max_retries=TRIES_ELSEWHERE)(lambda work, item: work(item))
    sent, sent_carefully = ray.put(work), ray.put(carefully)
    source = iter(items)
    running: dict[ray.ObjectRef, Item] = {}
    while True:
        room = WAITING_FOR_EACH_CPU * int(ray.cluster_resources().get("CPU", 1)) - len(running)
        running |= {task.remote(sent, item): item for item in islice(source, max(room, 0))}
        if not running:
            return
        [done], _ = ray.wait(list(running), num_returns=1)
        item = running.pop(done)
        try:
            result = ray.get(done)
        except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
            running[task.options(max_retries=0).remote(sent_carefully, item)] = item
            continue
        except RayTaskError as error:
            raise error.cause from error
        yield result
