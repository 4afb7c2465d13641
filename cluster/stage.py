"""What a stage is to the cluster: a model, data, and losses as sums with counts.

`jobs` writes stages; the worker loop runs any object that keeps this protocol, without knowing what it learns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from cluster.world import World


@dataclass(frozen=True)
class Term:
    """One part of the loss: summed here, averaged over what all ranks counted."""

    total: Tensor
    """Scalar with gradient: the sum over this rank's share of the micro-batch."""
    weight: float = 1.0
    """Of the average, in the loss."""


@dataclass(frozen=True)
class StepData:
    """What one rank takes of one optimiser step."""

    micro_batches: list[Any]
    """As many on every rank; the stage alone looks inside."""
    state: dict[str, Any]
    """JSON scalars: where the data stands after this step."""
    wait_s: float
    """Seconds that the loop waited for the data."""
    keys: list[str]
    """Samples used, without padding."""
    damaged: tuple[str, ...] = ()
    """A sentence for each sample that this rank left out, with weight 0, because it is damaged."""
    tokens: int = 0
    """Tokens that this rank's model reads in it, without padding; 0 where a stage counts none."""
    flops: float = 0.0
    """Operations that this rank's model has to do in it, by the convention of `cluster.flops`; 0 where a stage counts none."""


@dataclass(frozen=True)
class Picture:
    """Something for people to look at."""

    name: str
    png: bytes
    text: str


class Stage(Protocol):
    """A training stage. Its numbers depend on the global batch alone, never on how ranks share it."""

    name: str
    global_batch: int
    """Samples of an optimiser step over all ranks; the x axis of what is tracked."""
    tolerated_damage: int
    """Damaged samples that a run goes on without, over all ranks since the start."""

    def build_model(self) -> nn.Module:
        """The model, the same on every rank; called with the random state seeded. ZeRO-3 partitions it afterwards."""
        ...

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        """Steps without end, from the beginning or from a checkpoint's data state; closed when enough were taken."""
        ...

    def steps_per_epoch(self) -> int:
        """Optimiser steps until each sample was used once."""
        ...

    def validation_data(self, world: World) -> Iterator[StepData]:
        """The validation samples, once; as many steps on every rank."""
        ...

    def counts(self, micro_batch: Any) -> dict[str, Tensor]:
        """How much each term is over, in this rank's share: known before anything is computed."""
        ...

    def terms(self, model: nn.Module, micro_batch: Any, world: World) -> dict[str, Term]:
        """The loss of one micro-batch, by term; the names are those of `counts`."""
        ...

    def frozen(self) -> dict[str, str]:
        """What checkpoints do not copy because it is not trained: name → digest of where it comes from."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a run's record should say of the data and the model."""
        ...

    def pictures(self) -> list[Picture]:
        """Examples for the tracker; empty where they must not leave the machine."""
        ...
