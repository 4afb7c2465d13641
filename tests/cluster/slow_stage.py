"""The smallest stage, slow until its job is started again: a warning of Slurm comes in the middle of it."""

from __future__ import annotations

import os
from typing import Any

from tests.cluster import small_stage

SLOW_S = 0.6
"""Of a step."""


def slow(settings: dict[str, Any], on_report: small_stage.Report) -> dict[str, Any]:
    """One rank of a `SmallJob`."""
    small_stage.PACE_S = 0 if os.environ.get("SLURM_RESTART_COUNT") else SLOW_S
    return small_stage.small(settings, on_report)
