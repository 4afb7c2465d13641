"""What every stage shares that trains on shards: its splits, its batches in order, and what its run's record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from cluster.stage import StepData
from cluster.world import World
from jobs.launch import TrainingJob
from shards.dataset import ShardSet
from shards.loader import LoaderConfig
from shards.order import OrderConfig, Position
from shards.plan import Kind
from shards.stream import SampleStream


class Positioned(Protocol):
    """A batch that says where reading stands after it."""

    @property
    def position(self) -> Position: ...  # noqa: D102


BatchT = TypeVar("BatchT", bound=Positioned)

EXAMPLES = 4
"""Samples that are shown to whoever looks at a run."""


@dataclass(frozen=True, kw_only=True)
class ShardDataConfig:
    """What to train on."""

    shards: str
    """URI of a data set that `ecgchat shards` wrote."""
    train_split: str = "train"
    validation_split: str = "val"
    loader: LoaderConfig = field(default_factory=LoaderConfig)


class ShardStage(ABC, Generic[BatchT]):
    """The half of `cluster.stage.Stage` that knows where samples come from; subclasses know what is learnt from them.

    Args:
        job: the settings.
        data: which samples, in which order.
        sampling_rate_hz: that the stage's ECG tower reads.

    Raises:
        DatasetError: there is no such data set, it is of another kind or rate, or a split is empty.
        OrderError: its samples do not fill one batch.
    """

    name: str
    kind: Kind
    """Of the samples that the stage takes."""

    def __init__(self, job: TrainingJob, data: ShardDataConfig, sampling_rate_hz: float) -> None:
        self.settings = job
        self.data = data
        self.global_batch = data.loader.order.global_batch
        self.dataset = ShardSet.open(data.shards)
        self.dataset.require_kind(self.kind, self.name)
        self.dataset.require_rate(sampling_rate_hz, self.name)
        self.training = self.dataset.select(data.train_split)
        self.validation = self.dataset.select(data.validation_split)
        self._batches = self.loader(self.training, data.loader, 0, 1).batches

    @abstractmethod
    def loader(self, data: ShardSet, config: LoaderConfig, rank: int, world_size: int) -> SampleStream[Any, BatchT]:
        """Batches of some samples for one rank."""

    @abstractmethod
    def step_data(self, batch: BatchT, state: dict[str, Any], world: World) -> StepData:
        """A batch as the model takes it, on this rank's device."""

    def steps_per_epoch(self) -> int:
        """Full batches of the training split."""
        return self._batches

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        """Batches without end, in the order of `shards.order`."""
        loader = self.loader(self.training, self.data.loader, world.rank, world.size)
        if state is not None:
            loader.start = loader.order.restore(state)
        for batch in loader:
            yield self.step_data(batch, loader.order.state(batch.position), world)

    def validation_data(self, world: World) -> Iterator[StepData]:
        """The validation split once, in the order of its shards, the last batch padded with weight 0."""
        order = OrderConfig(global_batch=min(self.global_batch, self.validation.index.num_rows), shuffle=False, drop_tail=False)
        loader = self.loader(self.validation, LoaderConfig(order), world.rank, world.size)
        for _, batch in zip(range(loader.batches), loader, strict=False):
            yield self.step_data(batch, {}, world)

    def data_record(self) -> dict[str, Any]:
        """What the run's record says of the data."""
        return {
            "source": self.dataset.manifest["source"],
            "index_sha256": self.dataset.digest,
            "simulated": self.dataset.simulated,
            "counts": self.dataset.manifest["counts"],
            "records_trained_on": self.training.index.num_rows,
            "shards": len(self.dataset.manifest["shards"]),
        }

    def may_share(self) -> bool:
        """Whether ECGs and texts may leave the machine."""
        share = self.settings.share_text
        return self.dataset.simulated if share is None else share

    def first_batch(self) -> BatchT:
        """A few samples of the training split."""
        count = min(EXAMPLES, self.training.index.num_rows)
        config = LoaderConfig(OrderConfig(global_batch=count, lanes=1, block=count, shuffle=False), ahead=1)
        return next(iter(self.loader(self.training, config, 0, 1)))
