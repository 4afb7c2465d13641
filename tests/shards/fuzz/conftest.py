"""`--fuzz-all` runs every case."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-all", action="store_true", help="all cases of tests/shards/fuzz, not a fifth; writes result.json")
