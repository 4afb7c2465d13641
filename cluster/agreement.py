"""What the ranks agree on before each step, so that none takes a way of its own while the others wait for it in a collective.

Each adds a few numbers to those of the others, on the host: that it cannot go on, that it met damage, that it was asked to end,
that a checkpoint is due. Words are exchanged only where such a sum is not 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from cluster import failure, stopping
from cluster.checkpoint import Checkpoints
from cluster.console import say
from cluster.errors import AgreedError
from cluster.events import Events
from cluster.progress import here
from cluster.stage import Stage, StepData
from cluster.world import World
from shards.storage import Store


class Agreement:
    """What all ranks of an attempt know alike. All of them make it, and call its methods, together.

    Args:
        stage: that is trained.
        run: the run's folder.
        world: the ranks.
        checkpoints: asked whether they fail in the background, and whether one is due.
        events: where it is said.
    """

    def __init__(self, stage: Stage, run: Store, world: World, checkpoints: Checkpoints, events: Events) -> None:
        self._stage, self._run, self._world = stage, run, world
        self._checkpoints, self._events = checkpoints, events
        self.done = 0
        """The newest step that is done, in this attempt or before it; the loop says so."""
        self.stopped: str | None = None
        """Why this attempt ends before its last step."""
        self.save_due = False
        """Whether a checkpoint is due by the clock of rank 0."""
        self._damaged: dict[str, None] = {}
        """What is said of each sample that was left out in this attempt, in the order that they were met."""

    def to_stop(self) -> bool:
        """Whether any rank is asked to end."""
        [asked] = self._world.sum_on_host(stopping.asked() is not None)
        if asked:
            self._stop()
        return bool(asked)

    def on(self, data: Iterator[StepData], may_stop: bool = True) -> Iterator[StepData]:
        """A stage's data, or the same error on every rank: none may wait for one that gave up.

        It ends before the first that some rank does not want any more, because it was asked to stop.

        Raises:
            AgreedError: some rank cannot read its data or save a checkpoint, or all together met more damage than is tolerated.
        """
        while True:
            here.enter("data")
            batch: StepData | None = None
            problem: Exception | None = None
            try:
                batch = next(data, None)
            except Exception as error:  # whatever it is, the other ranks have to hear of it
                problem = error
            here.enter("agreement")
            damaged = batch.damaged if batch else ()
            unsaved = self._checkpoints.failure()
            asked = may_stop and stopping.asked() is not None
            due = self._world.main and self._checkpoints.due()
            failed, left_out, stops, dues = self._world.sum_on_host(bool(problem or unsaved), len(damaged), asked, due)
            self.save_due = self.save_due or dues > 0
            if failed:
                self._world.agree(self._trouble(problem) if problem else unsaved)
            if left_out:
                self._leave_out(damaged)
            if stops:
                self._stop()
            if batch is None or stops:
                return
            yield batch

    def _stop(self) -> None:
        """Some rank is asked to end: all of them, for the first one's reason."""
        reasons = self._world.gather_objects(stopping.asked())
        self.stopped = next(reason for reason in reasons if reason)
        said = f"{self._stage.name}: asked to stop after step {self.done} ({self.stopped})"
        self._events.say("stopped", said, self.done)

    @property
    def _place(self) -> str:
        """`coca step 12`; 0 before the first of this attempt."""
        return f"{self._stage.name} step {here.step or 0}"

    def _trouble(self, problem: Exception) -> str:
        """In one sentence; an error that nobody foresaw leaves its trace in the run's folder."""
        place = f"{self._place}, rank {self._world.rank}"
        if failure.is_foreseen(problem):
            return f"{place}: {problem}"
        trace = failure.keep_trace(self._run, self._world.attempt, self._world.rank, problem)
        return f"{place}: {failure.in_words(problem)}" + (f"; its trace: {trace}" if trace else "")

    def _leave_out(self, damaged: Sequence[str]) -> None:
        """Remember, on every rank alike, which samples some rank found damaged.

        Raises:
            AgreedError: they are more than the stage tolerates.
        """
        for sentence in itertools.chain.from_iterable(self._world.gather_objects(damaged)):
            if sentence not in self._damaged and self._world.main:
                say(f"{self._place}, sample left out: {sentence}")
            self._damaged[sentence] = None
        if len(self._damaged) > self._stage.tolerated_damage:
            raise AgreedError(
                f"{self._place}: {len(self._damaged)} damaged samples, more than data.loader.tolerated_damage "
                f"{self._stage.tolerated_damage}; the last: {list(self._damaged)[-1]}"
            )
