"""Sum a tensor over processes of this machine: `python -m cluster.doctor.collective WORLD BACKEND` prints how long it took."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

from cluster.local.servers import free_ports

COUNT = 16 * 2**20
"""fp32 numbers: 64 MiB, about a bucket of gradients."""
TIMES = 3
PATIENCE = timedelta(seconds=60)


def reduce(rank: int, world: int, backend: str, port: int, answers: SimpleQueue[Any]) -> None:
    """One process; rank 0 says the shortest time in seconds, or the first one that fails what went wrong."""
    import torch
    import torch.distributed as dist

    try:
        device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
        dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world, timeout=PATIENCE)
        seconds = []
        for _ in range(TIMES):
            tensor = torch.full((COUNT,), float(rank + 1), device=device)
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(tensor)
            wrong = (tensor != world * (world + 1) / 2).sum().item()  # waits for the device
            seconds.append(time.perf_counter() - start)
            if wrong:
                raise RuntimeError(f"{wrong} of {COUNT} sums are wrong on rank {rank}")
        if rank == 0:
            answers.put({"seconds": min(seconds), "bytes": COUNT * 4})
        dist.destroy_process_group()
    except Exception as error:
        answers.put({"error": f"{type(error).__name__}: {error}"})
        raise


def main() -> None:
    """Start the processes, and print what the first one says."""
    world, backend = int(sys.argv[1]), sys.argv[2]
    context, [port] = get_context("spawn"), free_ports(1)
    answers: SimpleQueue[Any] = context.SimpleQueue()
    processes = [
        context.Process(target=reduce, args=(rank, world, backend, port, answers), daemon=True) for rank in range(world)
    ]
    for process in processes:
        process.start()
    answer = answers.get()
    if "error" in answer:
        sys.exit(" ".join(str(answer["error"]).split())[:300])
    for process in processes:
        process.join()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
