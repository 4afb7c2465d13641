"""What every stage shares that trains on shards: its splits, its batches in order, and what its run's record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from cluster.stage import StepData
from cluster.world import World
from jobs.launch import TrainingJob
from shards.dataset import ShardSet
from shards.mixture import Mixture, Proportion
from shards.order import OrderConfig
from shards.plan import Kind
from shards.selection import Filter
from shards.stream import Batch, LoaderConfig, SampleStream

BatchT = TypeVar("BatchT", bound=Batch)

EXAMPLES = 4
"""Samples that are shown to whoever looks at a run."""


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One data set of several."""

    shards: str
    """URI of a data set that `ecgchat shards` wrote."""
    repeats: float = 1.0
    """Times that an epoch reads each of its samples."""
    share: float | None = None
    """Share of the epoch's samples instead, in (0, 1)."""
    filter: Filter | None = None
    """Which of its samples are read; null takes `data.filter`."""


@dataclass(frozen=True, kw_only=True)
class ShardDataConfig:
    """What to train on."""

    shards: str | list[MixturePart]
    """URI of a data set that `ecgchat shards` wrote, or a list of several with how often each is read."""
    train_split: str = "train"
    validation_split: str = "val"
    filter: Filter = field(default_factory=Filter)
    """Which samples of the splits are read."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    @property
    def parts(self) -> list[MixturePart]:
        """The data sets, one or several."""
        return [MixturePart(shards=self.shards)] if isinstance(self.shards, str) else self.shards


class ShardStage(ABC, Generic[BatchT]):
    """The half of `cluster.stage.Stage` that knows where samples come from; subclasses know what is learnt from them.

    Args:
        job: the settings.
        data: which samples, in which order.
        sampling_rate_hz: that every ECG has to have; None where the stage resamples.

    Raises:
        DatasetError: there is no such data set, it is of another kind or rate, or a split is empty.
        OrderError: its samples do not fill one batch.
    """

    name: str
    kind: Kind
    """Of the samples that the stage takes."""

    def __init__(self, job: TrainingJob, data: ShardDataConfig, sampling_rate_hz: float | None) -> None:
        self.settings = job
        self.data = data
        self.global_batch = data.loader.order.global_batch
        self.tolerated_damage = data.loader.tolerated_damage
        self.datasets = [ShardSet.open(part.shards, data.loader.patience) for part in data.parts]
        for dataset in self.datasets:
            dataset.require_kind(self.kind, self.name)
            if sampling_rate_hz is not None:
                dataset.require_rate(sampling_rate_hz, self.name)
        proportions = tuple(Proportion(part.repeats, part.share) for part in data.parts)
        self.training = Mixture(self._select(data.train_split), proportions)
        self.validation = Mixture(self._select(data.validation_split), (Proportion(),) * len(data.parts))
        self._batches = self.loader(self.training, data.loader).batches

    @abstractmethod
    def loader(
        self, data: Mixture, config: LoaderConfig, world: World | None = None, training: bool = False
    ) -> SampleStream[BatchT]:
        """Batches of some samples for one rank; for one process that only looks at them where there is no world."""

    @abstractmethod
    def step_data(self, batch: BatchT, state: dict[str, Any], world: World) -> StepData:
        """A batch as the model takes it, on this rank's device."""

    def steps_per_epoch(self) -> int:
        """Full batches of the training samples."""
        return self._batches

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        """Batches without end, in the order of `shards.order`."""
        loader = self.loader(self.training, self.data.loader, world, training=True)
        if state is not None:
            loader.start = loader.order.restore(state)
        for batch in loader:
            yield self.step_data(batch, loader.order.state(batch.position), world)

    def validation_data(self, world: World) -> Iterator[StepData]:
        """The validation samples once, in the order of their shards, the last batch padded with weight 0."""
        order = OrderConfig(global_batch=min(self.global_batch, len(self.validation)), shuffle=False, drop_tail=False)
        loader = self.loader(self.validation, replace(self.data.loader, order=order), world)
        for batch in loader.take(loader.batches):
            yield self.step_data(batch, {}, world)

    def data_record(self) -> dict[str, Any]:
        """What the run's record says of the data."""
        identity = self.training.identity
        return {
            "source": " + ".join(dataset.manifest["source"] for dataset in self.datasets),
            "index_sha256": identity.index_sha256,
            "selection": identity.selection,
            "simulated": self.simulated,
            "counts": [dataset.manifest["counts"] for dataset in self.datasets],
            "records_trained_on": len(self.training),
            "shards": len(identity.shards),
        }

    @property
    def simulated(self) -> bool:
        """Whether nothing in the data comes from a person."""
        return all(dataset.simulated for dataset in self.datasets)

    def may_share(self) -> bool:
        """Whether ECGs and texts may leave the machine."""
        share = self.settings.share_text
        return self.simulated if share is None else share

    def first_batch(self) -> BatchT:
        """A few samples of the training split."""
        count = min(EXAMPLES, len(self.training))
        config = LoaderConfig(OrderConfig(global_batch=count, lanes=1, block=count, shuffle=False), ahead=1)
        return next(self.loader(self.training, config).take(1))

    def _select(self, split: str) -> tuple[ShardSet, ...]:
        return tuple(
            dataset.select(split, part.filter or self.data.filter)
            for dataset, part in zip(self.datasets, self.data.parts, strict=True)
        )
