"""The command line as a test types it, and the settings of a `coca` job of a few seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from tests.settings import small_settings


@dataclass(frozen=True)
class Said:
    """What a command left on the terminal."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Standard output without the line breaks that the terminal's width made."""
        return " ".join(self.out.split())


@pytest.fixture
def ecgchat(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Type a command in this process."""

    def run(*words: Any) -> Said:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:  # argparse ends help and usage errors by itself
            status = int(end.code or 0)
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a worker here fails the test."""

    def taken(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a machine was taken")

    monkeypatch.setattr("cluster.launch.process.prepare_process", taken)
    monkeypatch.setattr("cluster.launch.ray_train.run", taken)
    for name in ("RAY_ADDRESS", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def coca_settings(shards: str, tokenizer: str, run_folder: Path) -> dict[str, Any]:
    """A job of four steps on one worker."""
    job = small_settings(shards, tokenizer, run_folder)
    job["train"] |= {"steps": 4, "eval_every": 2, "checkpoint": {"every_steps": 2}}
    job["train"]["optimizer"]["warmup_steps"] = 2
    job["train"]["tracking"]["log_every"] = 1
    job["launch"]["workers"] = 1
    return job


def contents(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below a folder; two that are equal say that nothing was written."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def job(simulated_shards: str, tokenizer_folder: str, tmp_path: Path) -> Path:
    """A YAML file with good settings, whose run folder does not exist."""
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(coca_settings(simulated_shards, tokenizer_folder, tmp_path / "run")))
    return file
