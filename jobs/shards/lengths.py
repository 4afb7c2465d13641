"""How many tokens the conversations of a data set have for one LLM: counted once, on all cores, and kept beside the shards.

    lengths = ensure_lengths(data, tokenizer, tokens_per_ecg)      # (rows of the index,), read where they are known

They are counted before anything is cut, so that one table serves every context length.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jobs.config import ConfigError
from jobs.folders import local_source, reading
from jobs.shards.console import advancing, console, progress_bar
from shards.dataset import DatasetError, ShardSet
from shards.lengths import read_lengths, write_lengths
from shards.storage import Store
from shards.tar import decode_json, unpack_samples

if TYPE_CHECKING:
    # The other tools of this command line start without torch.
    from transformers import PreTrainedTokenizerBase

TOKENISE_VERSION = 1
"""Raised whenever `ecgchat.conversation.tokenise` comes to give a conversation another number of tokens."""

SAMPLES_WORTH_A_PROCESS = 5000
"""Counted in about as long as a process takes to start."""


def ensure_lengths(
    data: ShardSet, tokenizer: PreTrainedTokenizerBase, tokens_per_ecg: int, processes: int | None = None
) -> NDArray[np.int64]:
    """(rows of the index,) tokens of each conversation: read where they are known, else counted and kept.

    Args:
        data: a whole data set of conversations.
        tokenizer: of the LLM, with its chat template.
        tokens_per_ecg: places that one ECG takes.
        processes: that count; 0 is this one alone, None as many as there are cores and work for.

    Raises:
        DatasetError: the data set holds no conversations, or its shards lack some.
        ModelError: the chat template refuses a conversation.
        StorageError: a shard cannot be read, or the table be kept.
    """
    data.require_kind("conversation", "counting tokens")
    digest = lengths_digest(tokenizer, tokens_per_ecg)
    lengths = read_lengths(data, digest)
    if lengths is None:
        with progress_bar() as bar:
            task = bar.add_task("counting tokens, conversations", total=data.index.num_rows)
            lengths = lengths_of(data, tokenizer, tokens_per_ecg, processes, advancing(bar, task))
        name = Path(tokenizer.name_or_path)
        of = f"the tokenizer {name.name if name.is_absolute() else name}, {tokens_per_ecg} tokens for each ECG"
        uri = write_lengths(data, digest, of, lengths)
        console.print(f"tokens of {len(lengths):,} conversations counted, in {uri}", highlight=False, soft_wrap=True)
    return lengths


def lengths_digest(tokenizer: PreTrainedTokenizerBase, tokens_per_ecg: int) -> str:
    """Names all that decides how many tokens a conversation has, wherever the tokenizer lies."""
    # Padding and truncation are left by whoever used it last, and `tokenise` asks for neither.
    state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    decides = {
        "tokenise_version": TOKENISE_VERSION,
        "tokenizer": state,
        "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat_template": tokenizer.chat_template,
        "tokens_per_ecg": tokens_per_ecg,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def lengths_of(
    data: ShardSet,
    tokenizer: PreTrainedTokenizerBase,
    tokens_per_ecg: int,
    processes: int | None = None,
    on_counted: Callable[[int], None] = lambda conversations: None,
) -> NDArray[np.int64]:
    """(rows,) tokens of each conversation as `ecgchat.conversation.tokenise` counts them, uncut; every shard is read once.

    Args:
        data: conversations, all of a data set's or some.
        tokenizer: of the LLM, with its chat template.
        tokens_per_ecg: places that one ECG takes.
        processes: as in `ensure_lengths`.
        on_counted: told of how many more conversations were counted.

    Raises:
        DatasetError: the shards lack samples of the index.
        ModelError: the chat template refuses a conversation.
        StorageError: a shard cannot be read.
    """
    keys: list[str] = data.index["key"].to_pylist()
    shards = list(dict.fromkeys(data.index["shard"].to_pylist()))
    counter = TokenCounter(data.store, tokenizer, tokens_per_ecg)
    if processes is None:
        worth = min(os.cpu_count() or 1, len(keys) // SAMPLES_WORTH_A_PROCESS)
        processes = worth if worth > 1 else 0
    counted: dict[str, int] = {}
    for found in _in_processes(counter, shards, processes) if processes else map(counter, shards):
        counted |= found
        on_counted(len(found))
    missing = sum(key not in counted for key in keys)
    if missing:
        raise DatasetError(f"{data.store.uri}: its shards lack {missing} samples of the index; verify and rebuild the shards")
    return np.array([counted[key] for key in keys], np.int64)


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of every conversation in a shard; survives a pickle."""

    store: Store
    tokenizer: PreTrainedTokenizerBase
    tokens_per_ecg: int

    def __call__(self, shard: str) -> dict[str, int]:
        """Key → tokens."""
        from ecgchat.conversation import tokenise

        return {
            key: len(
                tokenise(
                    self.tokenizer, decode_json(members["json"])["conversations"], self.tokens_per_ecg, sys.maxsize, key
                ).tokens
            )
            for key, members in unpack_samples(self.store.get(shard), self.store.uri_of(shard))
        }


_counter: TokenCounter | None = None
"""Of a worker process: given once, since a large vocabulary takes a second to send."""


def _in_processes(counter: TokenCounter, shards: list[str], processes: int) -> Iterator[dict[str, int]]:
    # Object store clients run threads, which do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(shards)), spawn, _begin, (counter,)) as pool:
        yield from pool.map(_count, shards)


def _begin(counter: TokenCounter) -> None:
    global _counter
    _counter = counter


def _count(shard: str) -> dict[str, int]:
    assert _counter is not None
    return _counter(shard)


def count_lengths(arguments: argparse.Namespace) -> None:
    """Count the tokens of each conversation for one LLM ahead of a training that packs them into full sequences."""
    if arguments.workers is not None and arguments.workers < 0:
        raise ConfigError(f"--workers {arguments.workers}: expected a number of processes, or 0 for this one alone")
    data = ShardSet.open(arguments.uri)
    data.require_kind("conversation", "counting tokens")
    tokenizer, tokens_per_ecg = _tokenizer_and_ecg(arguments)
    lengths = ensure_lengths(data, tokenizer, tokens_per_ecg, arguments.workers)
    quartiles = ", ".join(f"{tokens:,.0f}" for tokens in np.percentile(lengths, [25, 50, 75]))
    console.print(
        f"{lengths.sum():,} tokens in {len(lengths):,} conversations, {tokens_per_ecg} for each ECG; "
        f"quartiles {quartiles}, longest {lengths.max():,}",
        highlight=False,
        soft_wrap=True,
    )


def _tokenizer_and_ecg(arguments: argparse.Namespace) -> tuple[PreTrainedTokenizerBase, int]:
    """The LLM's tokenizer, and the tokens that it is given of an ECG."""
    from transformers import AutoConfig

    from ecgchat.chat_export import llm_source
    from ecgchat.conversation import load_chat_tokenizer
    from ecgchat.models.coca import CocaConfig
    from ecgchat.models.ecg_reader import EcgReaderConfig

    folder = local_source(arguments.encoder)
    with reading(arguments.encoder, "exported ECG-CoCa or export of align"):
        encoder = AutoConfig.from_pretrained(folder)
        if isinstance(encoder, CocaConfig):
            encoder = EcgReaderConfig(encoder.ecg)
        if not isinstance(encoder, EcgReaderConfig):
            raise ValueError(f"it holds a model of type {encoder.model_type!r}")
    if not (arguments.llm or encoder.llm):
        raise ConfigError(f"--llm: {arguments.encoder} is an ECG-CoCa, which names no LLM; name the one to count for")
    llm = local_source(arguments.llm or llm_source(folder))
    with reading(llm, "LLM"):
        return load_chat_tokenizer(llm, arguments.pad_token), encoder.tokens_per_ecg
