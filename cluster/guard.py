"""Bad steps: a loss or gradient that is not finite, or a loss that explodes. Their update happens on no rank.

DeepSpeed's optimisers compute the norm of the global gradient before each update, wait for it, and leave weights and moments as
they are where it is not finite. A loss that is bad for another reason is made so: it is multiplied by NaN on the device, which
every gradient then is, on every rank.

What it costs: a few operations on scalars for each step, and where `explode_factor` is set one sum of a single number over the
ranks, on the device's own queue. The processor waits for nothing but the norm that DeepSpeed waits for anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cluster.errors import at_least
from cluster.world import World

WINDOW = 64
"""Accepted losses that the running median is over."""
LEAST = 16
"""Accepted losses before any is called exploding."""


@dataclass(frozen=True)
class GuardConfig:
    """What happens where the loss or its gradient is not finite, or the loss explodes."""

    on_bad_loss: Literal["stop", "skip", "roll_back"] = "skip"
    """stop: end the run with a sentence. skip: go on with the next step, without this one's update. roll_back: go on with the
    next step from the weights of an earlier checkpoint; what was learnt since is given up. No sample changes its place."""
    explode_factor: float = 0
    """A loss over this many times the median of the last 64 is bad too; 0 calls none exploding."""
    roll_back_steps: int = 100
    """The checkpoint that is taken lies at least so many steps back; without one, the step is skipped."""
    max_bad_steps: int = 10
    """More in a row end the run."""

    def __post_init__(self) -> None:
        at_least(0, train__guard__explode_factor=self.explode_factor, train__guard__roll_back_steps=self.roll_back_steps)
        at_least(0, train__guard__max_bad_steps=self.max_bad_steps)


class Guard:
    """What one rank knows of the last losses, the same on every rank.

    Args:
        config: what is bad.
        world: this attempt's ranks.
    """

    def __init__(self, config: GuardConfig, world: World) -> None:
        self._config, self._world = config, world
        self._losses = torch.full((WINDOW,), float("nan"), device=world.device)
        self._accepted = 0
        self._loss = torch.zeros((), device=world.device)
        """Of the step under way: this rank's part, and once all of it is there, that of all ranks."""
        self.bad_in_a_row = 0
        self.skipped = 0
        """Steps of the run so far whose samples taught nothing."""

    def begin(self) -> None:
        """A step begins."""
        self._loss = torch.zeros((), device=self._world.device)

    def guarded(self, loss: Tensor, last: bool) -> Tensor:
        """The same loss, or NaN in the last micro-batch of a step that is bad.

        Args:
            loss: this rank's part of a micro-batch's.
            last: whether the step has no other micro-batch.
        """
        self._loss = self._loss + loss.detach().float()
        if not last:
            return loss
        good = self._loss.isfinite()
        if self._config.explode_factor:
            self._loss = self._world.sum(self._loss)
            good = self._loss.isfinite() & ~self._explodes()
        return loss * torch.where(good, 1.0, float("nan")).to(loss.dtype)

    def _explodes(self) -> Tensor:
        """Without a median, and for losses that are not positive, there is nothing to compare with."""
        median = self._losses.nanmedian()
        return (self._loss > self._config.explode_factor * median) & (median > 0) & (self._accepted >= LEAST)

    def accept(self) -> None:
        """The step's update was done."""
        self.bad_in_a_row = 0
        if self._config.explode_factor:
            self._losses[self._accepted % WINDOW] = self._loss
            self._accepted += 1

    def reject(self) -> str:
        """The step's update was not done: what was bad, in words. All ranks call it; it waits for the device."""
        self.bad_in_a_row += 1
        self.skipped += 1
        loss = float(self._loss if self._config.explode_factor else self._world.sum(self._loss))
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if self._config.explode_factor and bool(self._explodes()):
            median = float(self._losses.nanmedian())
            return f"the loss {loss:.4g} is more than {self._config.explode_factor:g} times the median {median:.4g}"
        return f"the gradient of the loss {loss:.4g} is not finite"

    def roll_back(self, state: dict[str, Any], steps: int) -> None:
        """The weights are those of a checkpoint again, which kept `state`; nothing was learnt from the `steps` since."""
        bad_in_a_row = self.bad_in_a_row
        self.restore(state)
        self.bad_in_a_row = bad_in_a_row
        self.skipped += steps

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run calls the same steps bad; waits for the device."""
        losses = self._losses[: min(self._accepted, WINDOW)].tolist()
        return {"losses": losses, "accepted": self._accepted, "in_a_row": self.bad_in_a_row, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self._losses.fill_(float("nan"))
        self._losses[: len(state["losses"])] = torch.tensor(state["losses"], device=self._world.device)
        self._accepted, self.bad_in_a_row, self.skipped = state["accepted"], state["in_a_row"], state["skipped"]
