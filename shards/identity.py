"""Which samples a data position belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

FINGERPRINT = 4
"""Hexadecimal digits by which a state remembers each shard: enough to name those that differ."""

NAMED = 5
"""Shards that a sentence names before it counts the rest."""


@dataclass(frozen=True)
class Identity:
    """Names the samples, so that a state finds out that it belongs to others."""

    index_sha256: str
    selection: str = ""
    """In words, what was taken of the index: split, filters, packing."""
    shards: Mapping[str, str] = field(default_factory=dict)
    """Name → sha256 of every shard that is read, in their order."""

    @cached_property
    def fingerprints(self) -> str:
        """The first digits of every shard's sha256."""
        return "".join(sha256[:FINGERPRINT] for sha256 in self.shards.values())

    def differing(self, fingerprints: str) -> str:
        """In words, which shards are not those of the fingerprints; empty where all are."""
        then = [fingerprints[i : i + FINGERPRINT] for i in range(0, len(fingerprints), FINGERPRINT)]
        names = [name for (name, sha256), old in zip(self.shards.items(), then, strict=False) if sha256[:FINGERPRINT] != old]
        words = [", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more differ" if len(names) > NAMED else " differ")]
        count = f"{len(then)} shards then, {len(self.shards)} now"
        return "; ".join([*(words if names else []), *([count] if len(then) != len(self.shards) else [])])
