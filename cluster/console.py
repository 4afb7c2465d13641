"""What a run says to whoever watches."""

from __future__ import annotations

import time


def say(line: str) -> None:
    """A line for whoever watches; only rank 0 calls it."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
