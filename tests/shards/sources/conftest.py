"""Real recordings in their publishers' layouts, for the tests of sources."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SHARED


@pytest.fixture(scope="session")
def corpus() -> Callable[[str], Path]:
    """`corpus("sph")`: the folder of real recordings with that name; skips where it is absent."""

    def folder(name: str) -> Path:
        found = SHARED / "ecg" / name
        if not found.is_dir():
            pytest.skip(f"{found} is absent: it holds real recordings, which the project does not ship")
        return found

    return folder
