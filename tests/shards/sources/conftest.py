"""Real recordings, for the tests of sources."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpus(recordings: Callable[[str], Path]) -> Callable[[str], Path]:
    """`corpus("sph")`: the folder of real recordings with that name; skips where it is absent."""
    return recordings
