"""Checkpoints that exist only once all of them does.

    RUN/checkpoints/step-000120/20261120T101500-a1b2c3/rank-00000/…     every rank writes its part, under the attempt's id
    RUN/checkpoints/step-000120/20261120T101500-a1b2c3/rank-00000.json  and then says which files it wrote (bytes, sha256)
    RUN/checkpoints/step-000120.committed.json                         rank 0 gathers those and writes the marker, last

Only a marked checkpoint exists, and the listing of markers is the one authority on which is newest. Saving costs training the
copy to local disk; a thread uploads, and the store itself is where ranks meet, so that no collective runs beside training.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster import ownership
from cluster.errors import RunError, at_least
from cluster.markers import (
    MARKER_END,
    SKIP_BROKEN,
    Marker,
    best_steps,
    committed,
    damage,
    fetch,
    rank_name,
    read_marker,
    step_name,
    upload,
    write_marker,
)
from cluster.progress import HOST
from cluster.universal import converted
from cluster.world import World, broadcast_object
from shards.storage import Store

SHARED_FILES = ("mp_rank_00_model_states.pt",)
"""What rank 0 alone writes and every rank reads: the parameters, where ZeRO does not partition them."""

OPTIMIZER_END = "_optim_states.pt"
"""Files of a partitioned optimiser; without them, any number of workers can read a checkpoint as it is."""

RANDOM_STATE = "random_state.pt"
POLL_S, MOST_POLL_S = 0.2, 5.0
"""Between two questions to the store, which hundreds of ranks ask at once: the longer they wait, the more seldom."""
MOST_PENDING = 2
"""Checkpoints on their way to the store: each takes room on the local disk until it is there."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, what to keep, where to resume."""

    every_steps: int = 1000
    """Steps between checkpoints; one more follows the last step, and one precedes an end that was asked for."""
    every_minutes: float = 0
    """Minutes after the last checkpoint until another, whatever the steps; 0 for none by the clock."""
    keep_last: int = 3
    """Newest committed checkpoints kept; the best by validation is kept beside them."""
    keep_every: int = 0
    """Those of its multiples of steps are kept for ever; 0 for none."""
    skip_broken: bool = False
    """Resume from the checkpoint before one that is damaged, instead of stopping with its name."""
    commit_timeout_s: float = 1800
    """How long rank 0 waits for the other ranks' uploads before it says which is missing."""

    def __post_init__(self) -> None:
        at_least(1, train__checkpoint__every_steps=self.every_steps, train__checkpoint__keep_last=self.keep_last)
        at_least(0, train__checkpoint__every_minutes=self.every_minutes, train__checkpoint__keep_every=self.keep_every)


class Checkpoints:
    """The committed checkpoints of one run, and how this rank adds to them.

    Args:
        run: the run's folder.
        config: when to save and what to keep.
        world: this attempt's ranks.
        local: scratch folder of this rank.
    """

    def __init__(self, run: Store, config: CheckpointConfig, world: World, local: Path) -> None:
        self._run, self._store = run, run.child("checkpoints")
        self._config = config
        self._world = world
        self._local = local
        # One thread: uploads and commits happen in the order of their steps.
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []
        self._stopping = threading.Event()
        self._saved = time.monotonic()
        self.committed_step: int | None = None
        """Newest step that this rank knows to be committed."""

    def newest(self) -> Marker | None:
        """The newest committed checkpoint that is whole, the same on every rank.

        Raises:
            RunError: the newest is damaged, on any rank, and `skip_broken` is off.
        """
        chosen: Marker | None = None
        with self._world.agreeing():
            if self._world.main:
                chosen = self._choose()
        chosen = broadcast_object(chosen)
        self.committed_step = chosen.step if chosen else None
        return chosen

    def newest_until(self, step: int) -> Marker | None:
        """The newest whole one of a step or before, that this number of workers reads as it is; the same on every rank."""
        chosen: Marker | None = None
        with self._world.agreeing():
            if self._world.main:
                markers = [marker for marker in committed(self._store, skip_broken=True) if marker.step <= step]
                fits = (marker for marker in reversed(markers) if self._fits(marker))
                chosen = next((marker for marker in fits if damage(self._store, marker) is None), None)
        found: Marker | None = broadcast_object(chosen)
        return found

    def _fits(self, marker: Marker) -> bool:
        """Whether this number of workers reads a checkpoint as it is."""
        return marker.world_size == self._world.size or not any(name.endswith(OPTIMIZER_END) for name in marker.files)

    def fitting(self, marker: Marker, zero_stage: int) -> Marker:
        """The checkpoint in a form that this number of workers can read, the same on every rank.

        Raises:
            RunError: it was made by another number of workers and cannot be converted.
        """
        if self._fits(marker):
            return marker
        universal = marker
        with self._world.agreeing():
            if self._world.main:
                universal = converted(self._store, marker, zero_stage, self._local)
        return broadcast_object(universal)

    def restore(self, engine: Any, marker: Marker) -> None:
        """Bring the engine and this rank's random state to where a checkpoint was made.

        Args:
            engine: built to load the universal form where `marker` is one.
            marker: as `fitting` gave it.

        Raises:
            RunError: a file that is not what the marker says, on any rank.
        """
        folder = Path(tempfile.mkdtemp(dir=self._local, prefix="restore-"))
        with self._world.agreeing():
            self._fetch(marker, folder)
        settings = [{key: value for key, value in group.items() if key != "params"} for group in engine.optimizer.param_groups]
        # A missing file makes DeepSpeed return (None, None) with no more than a warning.
        loaded, _ = engine.load_checkpoint(str(folder), tag="state", load_module_strict=all_trainable(engine.module))
        if loaded is None:
            raise RunError(
                f"{self._store.uri_of(marker.folder)}: DeepSpeed found no state in it; remove {marker.name}{MARKER_END}"
            )
        # From the universal form, ZeRO-3 gives all groups the first one's settings, weight decay among them, and one count
        # of steps between them, which each group would then raise.
        for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
            group.update(own)
        for state in engine.optimizer.state.values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].clone()
        if (folder / RANDOM_STATE).exists():
            # A rank that the checkpoint's run did not have goes on with the random state that it was started with.
            set_random_state(torch.load(folder / RANDOM_STATE, weights_only=False))
        shutil.rmtree(folder)

    def save(self, engine: Any, step: int, content: dict[str, Any], wait: bool = False) -> None:
        """Copy the state to local disk, then upload and commit it in the background; a store that is slower is waited for.

        Args:
            engine: the DeepSpeed engine; every rank calls this at the same step.
            step: optimiser steps done.
            content: what the marker says beside the files.
            wait: return only once it is committed, as before an exit.

        Raises:
            AgreedError: an earlier upload failed, or this one that is waited for, or a rank's local disk has no room.
        """
        self._settle(MOST_PENDING - 1)
        with self._world.agreeing():
            self._require_room(engine)
            folder = Path(tempfile.mkdtemp(dir=self._local, prefix=f"{step_name(step)}-"))
            (folder / "state").mkdir()
        self._saved = time.monotonic()
        try:
            with frozen_left_out(engine.module):
                engine.save_checkpoint(str(folder), tag="state", save_latest=False, exclude_frozen_parameters=True)
            torch.save(random_state(), folder / RANDOM_STATE)
        except (OSError, RuntimeError):
            # A disk that filled meanwhile is the cause, whatever the writer makes of it.
            self._require_room(engine)
            raise
        self._pending.append(self._uploader.submit(self._upload_and_commit, folder, step, content))
        if wait:
            self.wait()

    def due(self) -> bool:
        """Whether another is due by the clock of this rank."""
        return 0 < self._config.every_minutes * 60 <= time.monotonic() - self._saved

    def failure(self) -> str | None:
        """Why an upload in the background failed, if one did."""
        errors = (future.exception() for future in self._pending if future.done())
        return next((str(error) or type(error).__name__ for error in errors if error), None)

    def _require_room(self, engine: Any) -> None:
        """A disk that is full in the middle of what DeepSpeed's ranks do together would leave the others waiting.

        Raises:
            RunError: it has no room for this rank's part.
        """
        needed, free = state_bytes(engine, self._world.main), shutil.disk_usage(self._local).free
        if needed > free:
            raise RunError(
                f"{self._local} on {HOST}: a checkpoint needs {needed / 1e9:.2f} GB for its local copy, "
                f"{free / 1e9:.2f} GB are free; make room, or set TMPDIR to a folder that has it"
            )

    def wait(self) -> None:
        """Until everything saved so far is committed; all ranks call it together.

        Raises:
            AgreedError: an upload failed, on any rank.
        """
        self._settle(0)

    def _settle(self, under_way: int) -> None:
        """Until no rank has more than so many under way. All hear at once of a failure that some would wait for in vain."""
        while True:
            self._pending = [future for future in self._pending if not future.done() or future.exception()]
            failure = self.failure()
            failed, behind = self._world.sum_on_host(failure is not None, len(self._pending) > under_way)
            if failed:
                self._world.agree(failure)
            if not behind:
                return
            time.sleep(POLL_S)

    def close(self) -> None:
        """Give up what is still under way, and end the thread."""
        self._stopping.set()
        self._uploader.shutdown(wait=True, cancel_futures=True)

    def _choose(self) -> Marker | None:
        skip = self._config.skip_broken
        for marker in reversed(committed(self._store, skip)):
            problem = damage(self._store, marker) or (self._changed(marker) if skip else None)
            if problem is None:
                return marker
            if not skip:
                raise RunError(f"{problem}; pass {SKIP_BROKEN}")
        return None

    def _changed(self, marker: Marker) -> str | None:
        """Which file is not the one that was written. All are read: who asks to skip what is broken has met it."""
        with tempfile.TemporaryDirectory(dir=self._local) as folder:
            try:
                for name in marker.files:
                    fetch(self._store, marker, name, Path(folder, "file"))
            except RunError as error:
                return str(error)
        return None

    def _fetch(self, marker: Marker, folder: Path) -> None:
        """The files that this rank needs, checked, in the layout that DeepSpeed reads."""
        own = rank_name(self._world.rank)
        for name in marker.files:
            rank, _, rest = ("", "", name) if marker.universal else name.partition("/")
            if marker.universal or rank == own or Path(rest).name in SHARED_FILES:
                fetch(self._store, marker, name, folder / rest)

    def _upload_and_commit(self, folder: Path, step: int, content: dict[str, Any]) -> None:
        base = f"{step_name(step)}/{self._world.attempt}"
        own = rank_name(self._world.rank)
        files = {f"{own}/{name}": facts for name, facts in upload(self._store, folder, f"{base}/{own}").items()}
        self._store.put(f"{base}/{own}.json", json.dumps(files).encode())
        shutil.rmtree(folder)
        if self._world.main:
            self._commit(step, base, content)
        else:
            self._await(lambda: self._is_committed(step), f"rank 0 has not committed {step_name(step)}")
        self.committed_step = step

    def _commit(self, step: int, base: str, content: dict[str, Any]) -> None:
        files: dict[str, dict[str, Any]] = {}
        parts = [f"{base}/{rank_name(rank)}.json" for rank in range(self._world.size)]
        for part in parts:
            self._await(partial(self._store.exists, part), f"no rank has uploaded {part}")
            files |= json.loads(self._store.get(part))
        marker = Marker(step, self._world.attempt, self._world.size, files, content)
        # The upload took its time. A late marker would take the place of the newer attempt's, and its files with it.
        ownership.require(self._run, self._world.attempt)
        write_marker(self._store, f"{marker.name}{MARKER_END}", marker)
        self._remove_old()

    def _is_committed(self, step: int) -> bool:
        name = f"{step_name(step)}{MARKER_END}"
        # A damaged checkpoint that was passed over may still stand under this step.
        with suppress(RunError):
            return self._store.exists(name) and read_marker(self._store, name).attempt == self._world.attempt
        return False

    def _await(self, done: Callable[[], bool], complaint: str) -> None:
        begun = time.monotonic()
        while not done():
            if self._stopping.is_set():
                raise RunError(f"{complaint} when this attempt ended")
            waited_s = time.monotonic() - begun
            if waited_s > self._config.commit_timeout_s:
                raise RunError(
                    f"{complaint} in {self._store.uri} within {self._config.commit_timeout_s:g} s; look at that rank's log, "
                    "or raise train.checkpoint.commit_timeout_s for a slow store"
                )
            self._stopping.wait(min(MOST_POLL_S, max(POLL_S, waited_s / 10)))

    def _remove_old(self) -> None:
        """Keep what is to be kept; a marker goes before its files, so that no marked checkpoint is ever partial."""
        markers = committed(self._store, skip_broken=True)
        keep = {marker.step for marker in markers[-self._config.keep_last :]} | best_steps(markers)
        if self._config.keep_every:
            keep |= {marker.step for marker in markers if marker.step % self._config.keep_every == 0}
        removed = {marker.folder for marker in markers if marker.step not in keep}
        kept = {marker.folder for marker in markers if marker.step in keep}
        for marker in markers:
            if marker.step not in keep:
                self._store.delete(f"{marker.name}{MARKER_END}")
        newest = markers[-1].step
        for name in self._store.list():
            folder = "/".join(name.split("/")[:2]).partition(".")[0]  # of the universal form too, and of what ranks say
            if "/" in name and folder not in kept and (folder in removed or self._is_garbage(folder, newest)):
                self._store.delete(name)

    def _is_garbage(self, folder: str, newest: int) -> bool:
        """Whether an attempt that ended before it could commit left this: no newer step, under another attempt's id."""
        step, _, attempt = folder.partition("/")
        return attempt != self._world.attempt and int(step.removeprefix("step-")) <= newest


def state_bytes(engine: Any, main: bool) -> int:
    """About what this rank's part of a checkpoint takes: weights, where it writes them, and its part of the optimiser."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    tensors = [value for state in inner.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    tensors += [parameter for group in inner.param_groups for parameter in group["params"]]
    if main:
        tensors += [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def all_trainable(model: torch.nn.Module) -> bool:
    """Whether a checkpoint holds every weight: frozen ones stay as the stage built them."""
    return all(parameter.requires_grad for parameter in model.parameters())


@contextmanager
def frozen_left_out(model: torch.nn.Module) -> Iterator[None]:
    """Meanwhile the model's state dictionary has no frozen weight, under any name.

    DeepSpeed leaves out one name of each, and so would copy the embeddings of an LLM whose head is tied to them.
    """

    def drop(module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(f"{prefix}{name}", None)

    hook = model.register_state_dict_post_hook(drop)
    try:
        yield
    finally:
        hook.remove()


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
