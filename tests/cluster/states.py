"""What a committed checkpoint holds, compared to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cluster.markers import committed
from shards.storage import Store


def final_state(run: Store, folder: Path, step: int) -> dict[str, Any]:
    """Every tensor file of the last committed checkpoint, which is that of `step`, as loaded."""
    checkpoints = run.child("checkpoints")
    marker = committed(checkpoints)[-1]
    assert marker.step == step
    state = {}
    for name in marker.files:
        if name.endswith("_states.pt"):
            checkpoints.download(f"{marker.folder}/{name}", folder / name)
            state[name] = torch.load(folder / name, weights_only=False)
    return state


def assert_equal(first: Any, second: Any, where: str) -> None:
    """Recursively: the same structure, tensors equal to the bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}[{i}]")
    elif isinstance(first, int | float | str | bool):
        assert first == second, where
