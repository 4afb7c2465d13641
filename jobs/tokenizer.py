"""Make a tokenizer from the reports of a data set's training split, and put it where every worker finds it.

ecgchat tokenizer --shards s3://bucket/shards --out s3://bucket/tokenizer
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecgchat.prompts import FINDINGS, prompts
from ecgchat.text import train_tokenizer
from jobs.config import parse
from shards.dataset import ShardSet
from shards.storage import Store


@dataclass(frozen=True)
class TokenizerJob:
    """Make a WordPiece tokenizer from the reports of a data set's training split."""

    shards: str
    """URI of the data set."""
    out: str
    """URI of the folder to write."""
    vocabulary: int = 8000
    """Largest number of tokens."""
    reports: int = 100_000
    """Reports to read at most."""


def reports(data: ShardSet) -> Iterator[str]:
    """The reports of a data set's samples, in the order of their shards."""
    return (description["report"] for _, description in data.descriptions() if description.get("report"))


def make_tokenizer(job: TokenizerJob) -> int:
    """Train the tokenizer, write it, and return its number of tokens."""
    data = ShardSet.open(job.shards)
    data.require_kind("ecg", "tokenizer")
    texts = list(itertools.islice(reports(data.select("train")), job.reports))
    # The words of evaluation prompts are known too, each letter by letter at least.
    letters = [" ".join(prompts(code)) for code in FINDINGS]
    tokenizer = train_tokenizer([*texts, *letters, *letters], job.vocabulary)
    store = Store(job.out)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            store.upload(path, path.name)
    return len(tokenizer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a tokenizer."""
    job = parse(TokenizerJob, arguments, "ecgchat tokenizer")
    print(f"{make_tokenizer(job)} tokens in {job.out}")
