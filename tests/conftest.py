"""What several tests need: real recordings, small data sets, and servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A law holds on a slow machine too.
settings.register_profile("timeless", deadline=None)
settings.load_profile("timeless")

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("WANDB_MODE", "offline")

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU its tests are no part of the run: only what this machine could do counts as skipped."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def recordings() -> Callable[[str], Path]:
    """`recordings("sph")`: a folder of real recordings in its publisher's layout; skips where it is absent."""

    def folder(name: str) -> Path:
        found = SHARED / "ecg" / name
        if not found.is_dir():
            pytest.skip(f"{found} is absent: it holds real recordings, which the project does not ship")
        return found

    return folder


@pytest.fixture(scope="session")
def ptb_xl_folder(recordings: Callable[[str], Path]) -> Path:
    """80 records of PTB-XL in the publisher's layout."""
    return recordings("ptb-xl")


@pytest.fixture(scope="session")
def fixtures_folder() -> Path:
    """Checkpoints of the systems that we follow, with inputs and expected outputs."""
    folder = SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds checkpoints, which the project does not ship")
    return folder


@pytest.fixture(scope="session")
def simulated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 simulated records in PTB-XL's layout, at both rates."""
    from shards.simulate.ptb_xl import simulate_ptb_xl

    folder = tmp_path_factory.mktemp("simulated")
    simulate_ptb_xl(folder, records=120, seed=3, sampling_rates=(500, 100))
    return folder


@pytest.fixture(scope="session")
def simulated_shards(simulated_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same as a data set at 100 Hz, several shards a split."""
    from shards.build import BuildOptions, build
    from shards.sources.ptb_xl import PtbXl

    uri = str(tmp_path_factory.mktemp("shards") / "set")
    build(PtbXl(simulated_folder, 100), uri, BuildOptions(records_per_shard=16))
    return uri


@pytest.fixture(scope="session")
def report_shards(simulated_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Conversations of one turn about the same records: the wish for a report, and the report."""
    from shards.build import BuildOptions, build
    from shards.conversations.source import ComposedConversations
    from shards.dataset import ShardSet

    uri = str(tmp_path_factory.mktemp("reports") / "set")
    build(ComposedConversations(ShardSet.open(simulated_shards), "report"), uri, BuildOptions(records_per_shard=16))
    return uri


@pytest.fixture(scope="session")
def dialogue_shards(simulated_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Conversations of several turns about the same records, about pairs of them, and about none."""
    from shards.build import BuildOptions, build
    from shards.conversations.source import ComposedConversations
    from shards.dataset import ShardSet

    uri = str(tmp_path_factory.mktemp("dialogues") / "set")
    source = ComposedConversations(ShardSet.open(simulated_shards), "dialogue", text_only=0.2)
    build(source, uri, BuildOptions(records_per_shard=16))
    return uri


@pytest.fixture(scope="session")
def tokenizer_folder(simulated_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer of the simulated reports."""
    from jobs.tokenizer import TokenizerJob, make_tokenizer

    folder = str(tmp_path_factory.mktemp("tokenizer"))
    make_tokenizer(TokenizerJob(simulated_shards, folder, vocabulary=400))
    return folder


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of a bucket on a real S3 server, its keys in the environment."""
    from cluster.local import object_store

    with object_store.serve(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.uri
