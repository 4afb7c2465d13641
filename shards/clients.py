"""What really talks to a store: one client for each scheme, credentials and patience, whose every request is made once.

`Client` stands on any fsspec file system. `S3Client` adds a way of reading: botocore in the calling thread, at the rate of
plain GETs; by the one event loop that all threads share in s3fs it is about 0.7 of that (530 against 750 MiB/s, 32 MiB
ranges by 4 threads on 2 cores, aiobotocore 3.10).

fsspec and not obstore: obstore refuses the replies to range requests of `rclone serve s3`, the server that the demo
runs, since they carry status 200 and not 206 (measured with obstore 0.12.1 and rclone 1.75.2).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import botocore.session
import fsspec
from botocore.config import Config
from botocore.exceptions import ClientError
from fsspec.asyn import AsyncFileSystem
from s3fs.errors import translate_boto_error

from shards.patience import Patience

CONNECT_S = 10.0
CONNECTIONS = 64


class Client:
    """A store of one scheme. Listings are never cached: other processes write the same store."""

    def __init__(self, scheme: str, patience: Patience) -> None:
        self.patience = patience
        self.files = fsspec.get_filesystem_class(scheme)(**self._options())

    def _options(self) -> dict[str, Any]:
        return {"use_listings_cache": False, "skip_instance_cache": True}

    def request(self, method: str, *args: Any, limit_s: float, **options: Any) -> Any:
        """Call a method of the file system, once.

        Args:
            method: such as `cat_file`.
            args, options: the method's own.
            limit_s: an asynchronous file system (S3, Google's, Azure's) is cancelled after so long, and its connection
                dropped; one that is not asynchronous, as that of local files, has no limit.

        Raises:
            TimeoutError: the time was up.
        """
        if not isinstance(self.files, AsyncFileSystem):
            return getattr(self.files, method)(*args, **options)
        # fsspec's own `sync(timeout=)` stops to wait and lets the request go on.
        pending = asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(getattr(self.files, f"_{method}")(*args, **options), limit_s), self.files.loop
        )
        try:
            return pending.result()
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"no whole reply within {limit_s:.3g} s") from error
        finally:
            pending.cancel()

    def read(self, path: str, start: int, stop: int | None, limit_s: float) -> bytes:
        """Bytes `start` to `stop` of an object, or to its end; fewer where it ends before."""
        return bytes(self.request("cat_file", path, start=start or None, end=stop, limit_s=limit_s))


class S3Client(Client):
    """S3: s3fs for everything but reading."""

    def __init__(self, scheme: str, patience: Patience) -> None:
        super().__init__(scheme, patience)
        self.files.retries = 1
        self.files.connect()  # which takes long enough to be kept out of the time of the first request
        self._reader = botocore.session.Session().create_client("s3", config=Config(**self._settings()))

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"config_kwargs": self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": min(CONNECT_S, self.patience.attempt_s),
            "read_timeout": self.patience.attempt_s,  # of silence, after the request was sent whole
            "max_pool_connections": CONNECTIONS,
        }

    def read(self, path: str, start: int, stop: int | None, limit_s: float) -> bytes:
        """As `Client.read`. A silent server is left after `patience.attempt_s`, a slow one after `limit_s`, or, where the
        end of the object is not given, after what its size allows."""
        bucket, _, key = path.partition("/")
        window = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
        try:
            reply = self._reader.get_object(Bucket=bucket, Key=key, **window)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                return b""  # it ends before `start`
            raise translate_boto_error(error) from error
        if stop is None:
            limit_s += reply["ContentLength"] / self.patience.least_rate
        with reply["Body"] as response, _shut_after(limit_s, response):
            return bytes(reply["Body"].read())


@contextmanager
def _shut_after(limit_s: float, response: Any) -> Iterator[None]:
    """End the reading of a reply that takes longer, however it drips: a thread shuts the connection."""
    late = threading.Event()

    def shut() -> None:
        late.set()
        with suppress(RuntimeError, ValueError, OSError):  # it has ended in this moment
            response.shutdown()

    timer = threading.Timer(max(limit_s, 0), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:  # whatever a shut connection makes of the reading
        if late.is_set():
            raise TimeoutError(f"no whole reply within {limit_s:.3g} s") from error
        raise
    finally:
        timer.cancel()


_clients: dict[tuple[str, str, Patience], Client] = {}
_making = threading.Lock()


def client_of(scheme: str, patience: Patience, worn: Client | None = None) -> Client:
    """The client that all stores of a scheme share, made with the credentials of the moment.

    Args:
        scheme: such as `s3`.
        patience: what its time limits are taken from.
        worn: one whose credentials the store refused: a new one is made, once for all that share it, which reads the
            environment and the files of credentials again.

    Raises:
        ValueError, ImportError: no fsspec plug-in of the scheme.
        BotoCoreError: settings of S3 that make no sense.
    """
    key = (scheme, _credentials(), patience)
    with _making:
        if key not in _clients or _clients[key] is worn:
            _clients[key] = (S3Client if scheme == "s3" else Client)(scheme, patience)
        return _clients[key]


def _credentials() -> str:
    """Stands for the environment that clients take their credentials from, without holding it."""
    relevant = sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "AZURE_")))
    return hashlib.sha256(repr(relevant).encode()).hexdigest()
