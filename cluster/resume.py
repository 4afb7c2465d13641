"""Which settings may change between a run and its resume."""

from __future__ import annotations

from typing import Any

from cluster.errors import RunError

MAY_CHANGE = (
    "launch",
    "train.checkpoint",
    "train.guard",  # the same for good steps; who meets a bad one may have to choose
    "train.profile",
    "train.tracking",
    "train.watch",
    "train.eval_every",
    "data.shards",  # where they lie; that they are the same ones is checked by what they hold
    "data.loader.ahead",
    "data.loader.cache",
    "data.loader.connections",
    "data.loader.patience",
    "data.loader.tolerated_damage",
    "share_text",
)
"""Settings, by dotted prefix, that decide nothing about what is learnt. Every other change needs a new run."""


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: {"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_same_frozen(before: dict[str, str], now: dict[str, str], run: str) -> None:
    """Refuse to go on upon other frozen weights than a run began with: its checkpoints do not hold them.

    Raises:
        RunError: names what is another, with both digests.
    """
    changed = [
        f"{name} {before.get(name, 'none')[:12]} then, {now.get(name, 'none')[:12]} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise RunError(
            f"{run}: the frozen weights are not those that this run began with ({'; '.join(changed)}); "
            "bring those back, or begin another run with another run.folder"
        )


def check_same_settings(before: dict[str, Any], now: dict[str, Any], run: str) -> None:
    """Refuse to go on with other settings than a run began with.

    Raises:
        RunError: names every setting that changed, with both values.
    """
    old, new = flatten(before), flatten(now)
    changed = [
        f"{name} {old.get(name)!r} then, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not any(f"{name}.".startswith(f"{prefix}.") for prefix in MAY_CHANGE)
    ]
    if changed:
        raise RunError(
            f"{run}: this run was begun with other settings ({'; '.join(changed)}); "
            "use those, or begin another run with another run.folder"
        )
