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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.errors import RunError, at_least
from cluster.markers import (
    MARKER_END,
    Marker,
    best_steps,
    committed,
    file_sha256,
    rank_name,
    read_marker,
    step_name,
    upload,
    write_marker,
)
from cluster.universal import converted
from cluster.world import World, broadcast_object
from shards.storage import Store

SHARED_FILES = ("mp_rank_00_model_states.pt",)
"""What rank 0 alone writes and every rank reads: the parameters, where ZeRO does not partition them."""

OPTIMIZER_END = "_optim_states.pt"
"""Files of a partitioned optimiser; without them, any number of workers can read a checkpoint as it is."""

RANDOM_STATE = "random_state.pt"
POLL_S = 0.2


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, what to keep, where to resume."""

    every_steps: int = 1000
    keep_last: int = 3
    """Newest committed checkpoints kept; the best by validation is kept beside them."""
    skip_broken: bool = False
    """Resume from the checkpoint before one that is damaged, instead of stopping with its name."""
    commit_timeout_s: float = 1800
    """How long rank 0 waits for the other ranks' uploads before it says which is missing."""

    def __post_init__(self) -> None:
        at_least(1, train__checkpoint__every_steps=self.every_steps, train__checkpoint__keep_last=self.keep_last)


class Checkpoints:
    """The committed checkpoints of one run, and how this rank adds to them.

    Args:
        run: the run's folder.
        config: when to save and what to keep.
        world: this attempt's ranks.
        local: scratch folder of this rank.
    """

    def __init__(self, run: Store, config: CheckpointConfig, world: World, local: Path) -> None:
        self._store = run.child("checkpoints")
        self._config = config
        self._world = world
        self._local = local
        # One thread: uploads and commits happen in the order of their steps.
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []
        self._stopping = threading.Event()
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

    def fitting(self, marker: Marker, zero_stage: int) -> Marker:
        """The checkpoint in a form that this number of workers can read, the same on every rank.

        Raises:
            RunError: it was made by another number of workers and cannot be converted.
        """
        if marker.world_size == self._world.size or not any(name.endswith(OPTIMIZER_END) for name in marker.files):
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
        """Copy the state to local disk, then upload and commit it in the background.

        Args:
            engine: the DeepSpeed engine; every rank calls this at the same step.
            step: optimiser steps done.
            content: what the marker says beside the files.
            wait: return only once it is committed, as before an exit.
        """
        self.raise_failed()
        folder = Path(tempfile.mkdtemp(dir=self._local, prefix=f"{step_name(step)}-"))
        (folder / "state").mkdir()
        with frozen_left_out(engine.module):
            engine.save_checkpoint(str(folder), tag="state", save_latest=False, exclude_frozen_parameters=True)
        torch.save(random_state(), folder / RANDOM_STATE)
        self._pending.append(self._uploader.submit(self._upload_and_commit, folder, step, content))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until everything saved so far is committed, on this rank; raises what went wrong."""
        for future in self._pending:
            future.result()
        self._pending.clear()

    def raise_failed(self) -> None:
        """Raise the error of an upload that failed in the background."""
        for future in [future for future in self._pending if future.done()]:
            future.result()
            self._pending.remove(future)

    def close(self) -> None:
        """Give up what is still under way, and end the thread."""
        self._stopping.set()
        self._uploader.shutdown(wait=True, cancel_futures=True)

    def _choose(self) -> Marker | None:
        for marker in reversed(committed(self._store)):
            problem = self._damage(marker)
            if problem is None:
                return marker
            if not self._config.skip_broken:
                raise RunError(f"{problem}; pass --train.checkpoint.skip_broken true to resume from the checkpoint before it")
        return None

    def _damage(self, marker: Marker) -> str | None:
        """What is visibly wrong with a checkpoint's files, from their names and sizes alone; sums are checked when read."""
        parts = self._store.child(marker.folder)
        names = set(parts.list())
        for name, facts in marker.files.items():
            if name not in names:
                return f"checkpoint {marker.name}: {parts.uri_of(name)} is missing"
            size = parts.size(name)
            if size != facts["bytes"]:
                return f"checkpoint {marker.name}: {parts.uri_of(name)} has {size} bytes, its marker says {facts['bytes']}"
        return None

    def _fetch(self, marker: Marker, folder: Path) -> None:
        """The files that this rank needs, checked, in the layout that DeepSpeed reads."""
        own = rank_name(self._world.rank)
        for name, facts in marker.files.items():
            rank, _, rest = ("", "", name) if marker.universal else name.partition("/")
            if not marker.universal and rank != own and Path(rest).name not in SHARED_FILES:
                continue
            target = folder / rest
            self._store.download(f"{marker.folder}/{name}", target)
            found = file_sha256(target)
            if found != facts["sha256"]:
                where = self._store.uri_of(f"{marker.folder}/{name}")
                raise RunError(
                    f"checkpoint {marker.name}: {where} has sha256 {found[:12]}…, its marker says {facts['sha256'][:12]}…; "
                    f"remove {marker.name}{MARKER_END} to resume from the checkpoint before it"
                )

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
        write_marker(self._store, f"{marker.name}{MARKER_END}", marker)
        self._remove_old()

    def _is_committed(self, step: int) -> bool:
        name = f"{step_name(step)}{MARKER_END}"
        # A damaged checkpoint that was passed over may still stand under this step.
        return self._store.exists(name) and read_marker(self._store, name).attempt == self._world.attempt

    def _await(self, done: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + self._config.commit_timeout_s
        while not done():
            if self._stopping.is_set():
                raise RunError(f"{complaint} when this attempt ended")
            if time.monotonic() > deadline:
                raise RunError(
                    f"{complaint} in {self._store.uri} within {self._config.commit_timeout_s:g} s; look at that rank's log, "
                    "or raise train.checkpoint.commit_timeout_s for a slow store"
                )
            time.sleep(POLL_S)

    def _remove_old(self) -> None:
        """Keep the newest and the best; a marker goes before its files, so that no marked checkpoint is ever partial."""
        markers = committed(self._store)
        keep = {marker.step for marker in markers[-self._config.keep_last :]} | best_steps(markers)
        for marker in markers:
            if marker.step not in keep:
                self._store.delete(f"{marker.name}{MARKER_END}")
                for name in self._store.list(marker.name):
                    self._store.delete(name)


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
