"""Errors that are meant for the user end a command with one sentence and status 2; every other keeps its trace."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cluster.errors import RunError
from ecgchat.errors import ModelError
from jobs.config import ConfigError
from shards.dataset import DatasetError
from shards.order import OrderError
from shards.record import RecordError
from shards.storage import StorageError
from shards.tar import ShardFormatError

MEANT_FOR_USERS = (ConfigError, DatasetError, ModelError, OrderError, RecordError, RunError, ShardFormatError, StorageError)


def one_sentence(command: Callable[[], int | None]) -> int:
    """Run a command; its status, or 2 with the sentence on standard error."""
    try:
        return int(command() or 0)
    except MEANT_FOR_USERS as error:
        print(f"ecgchat: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ecgchat: interrupted", file=sys.stderr)
        return 130
