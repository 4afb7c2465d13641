"""The processes of one attempt at a run: who am I, on which device, and how do we agree."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.errors import AgreedError, RunError
from cluster.progress import here


@dataclass(frozen=True)
class World:
    """The ranks of one attempt; made once a process group is there."""

    rank: int
    size: int
    device: torch.device
    attempt: str
    """Names this start of the run, the same on every rank; sorts by time."""
    host_group: dist.ProcessGroup | None = None
    """The same ranks for words between processors, where the ranks' own group connects accelerators."""

    @classmethod
    def join(cls) -> World:
        """The world of the process group that the launcher made."""
        rank, size = dist.get_rank(), dist.get_world_size()
        device = local_device()
        host_group = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        return cls(rank, size, device, attempt_id(), host_group)

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks; the argument stays as it is."""
        total = tensor.clone()
        with here.waiting():
            dist.all_reduce(total)
        return total

    def max(self, tensor: Tensor) -> Tensor:
        """The largest over the ranks; the argument stays as it is."""
        largest = tensor.clone()
        with here.waiting():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest

    def sum_on_host(self, *numbers: int) -> list[int]:
        """The sums of a few numbers over the ranks, without waiting for what the accelerators are doing."""
        total = torch.tensor(numbers)
        with here.waiting():
            dist.all_reduce(total, group=self.host_group)
        return [int(number) for number in total]

    def gather(self, tensor: Tensor) -> Tensor:
        """(n, …) → (size n, …) in rank order; gradients flow back to the rank that they belong to."""
        if self.size == 1:
            return tensor
        with here.waiting():
            return _GatherWithGradient.apply(tensor)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        return gather_objects(value)

    def agree(self, error: str | None) -> None:
        """Raise the first rank's error on every rank, so that none waits for one that gave up.

        Raises:
            AgreedError: some rank has an error.
        """
        raise_first(self.gather_objects(error))

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Whatever goes wrong inside, on any rank, is raised on all of them at the end.

        Raises:
            AgreedError: some rank had a `RunError` or a failing store or disk.
        """
        problem = None
        try:
            yield
        except (RunError, OSError) as error:
            problem = str(error)
        self.agree(problem)


class _GatherWithGradient(torch.autograd.Function):
    """All-gather whose backward sums each rank's gradient over the ranks that used it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)  # (size n, …)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def default_store() -> Any:
    """Where the ranks of this process group leave words for one another without waiting; whoever began it keeps it."""
    return dist.distributed_c10d._get_default_store()


def attempt_id() -> str:
    """Names this start of the run, the same on every rank: the first that asks makes it; sorts by time."""
    proposed = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    return str(default_store().compare_set("ecgchat/attempt", "", proposed).decode())


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, in rank order."""
    values: list[Any] = [None] * dist.get_world_size()
    with here.waiting():
        dist.all_gather_object(values, value)
    return values


def raise_first(errors: list[str | None]) -> None:
    """Raise the first rank's error, on every rank that was told of all of them.

    Raises:
        AgreedError: some rank has an error.
    """
    first = next((message for message in errors if message), None)
    if first:
        raise AgreedError(first)


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def local_device() -> torch.device:
    """The accelerator of this local rank, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")
