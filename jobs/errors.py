"""Errors that are meant for the user end a command with one sentence and status 2; every other keeps its trace.

A rank that fails for another error has put its trace into the run's folder, and ends with one sentence and status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from cluster.errors import FailedRankError, RunError, SilentError
from ecgchat.errors import ModelError
from jobs.config import ConfigError
from shards.dataset import DatasetError
from shards.order import OrderError
from shards.record import RecordError
from shards.storage import StorageError
from shards.tar import ShardFormatError

MEANT_FOR_USERS = (ConfigError, DatasetError, ModelError, OrderError, RecordError, RunError, ShardFormatError, StorageError)


def one_sentence(command: Callable[[], int | None]) -> int:
    """Run a command; its status, or 2 with the sentence on standard error, or 1 where that is a rank's that nobody foresaw."""
    try:
        return int(command() or 0)
    except MEANT_FOR_USERS as error:
        print(f"ecgchat: {error}", file=sys.stderr)
        return 2
    except FailedRankError as error:
        print(f"ecgchat: {error}", file=sys.stderr)
        return 2 if isinstance(error.__cause__, MEANT_FOR_USERS) else 1
    except SilentError as error:
        return 2 if error.final else 1
    except KeyboardInterrupt:
        print("ecgchat: interrupted", file=sys.stderr)
        return 130
