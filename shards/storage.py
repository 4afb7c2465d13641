"""Object stores by URI: `file://`, `s3://`, or any scheme that an installed fsspec plug-in knows (`gs://`, `az://`).

    store = Store("s3://bucket/corpora/ptb-xl")
    store.put("manifest.json", b"{}")
    store.get_range("train-000000.tar", start=512, length=4096)

Credentials come from the environment and the files that the cloud's own tools read (for S3: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, `~/.aws/credentials`) and are never part of a URI, a message or a log. They are
read again when the store refuses them. A request that fails by what may pass is made again until its `Patience` ends.
Every failure is a `StorageError` of one sentence.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError

from shards.clients import Client, client_of
from shards.patience import (
    NEVER,
    GaveUpError,
    MissingObject,
    Patience,
    ShortReplyError,
    StorageError,
    first_line,
    insist,
    refused,
)

__all__ = ["MissingObject", "Patience", "StorageError", "Store", "local_folder"]

T = TypeVar("T")

PART_BYTES = 64 * 2**20
"""Larger objects are moved in parts, each a request of its own: what fails does not begin at the first byte again."""
PARTS_AT_ONCE = 4
MOST_PARTS = 10_000
"""Of one object, by the rules of S3."""


class Store:
    """The objects below one URI. Cheap to make; safe to pickle; used by several threads; not to be shared over a fork.

    Args:
        uri: `scheme://bucket/folder`, or a path of this machine.
        patience: how long a request is tried.
    """

    def __init__(self, uri: str, patience: Patience = Patience()) -> None:
        scheme, _, rest = uri.partition("://") if "://" in uri else ("file", "", str(Path(uri).expanduser().absolute()))
        if not rest.strip("/"):
            raise StorageError(f"storage URI {uri!r}: expected a bucket or a folder after '{scheme}://'; name one")
        try:
            self._client = client_of(scheme, patience)
        except (ValueError, ImportError) as error:
            raise StorageError(
                f"storage URI {uri!r}: scheme {scheme!r} is not available ({first_line(error)}); "
                "use file://, s3://, or install the fsspec plug-in of that store"
            ) from error
        except BotoCoreError as error:
            raise StorageError(
                f"storage URI {uri!r}: the settings of S3 in the environment cannot be used ({first_line(error)}); check AWS_*"
            ) from error
        self.patience = patience
        self._scheme = scheme
        self._root = rest.rstrip("/")
        if scheme == "file" and not self._root.startswith("/"):
            raise StorageError(f"storage URI {uri!r}: expected an absolute path after file://, such as file:///data/shards")

    def __reduce__(self) -> tuple[type[Store], tuple[str, Patience]]:
        return Store, (self.uri, self.patience)

    @property
    def uri(self) -> str:
        """The URI that this store stands for."""
        return f"{self._scheme}://{self._root}"

    def uri_of(self, name: str) -> str:
        """URI of one object."""
        return f"{self.uri}/{name}"

    def local_path(self, name: str = "") -> Path | None:
        """The file that an object is, or the folder that the store is; None where they are not of this machine."""
        return Path(self._path(name)) if self._scheme == "file" else None

    def child(self, name: str) -> Store:
        """The store below a folder of this one."""
        return Store(self.uri_of(name), self.patience)

    def get(self, name: str) -> bytes:
        """The whole object."""
        return self._ask(name, lambda client, path, limit_s: client.read(path, 0, None, limit_s))

    def get_range(self, name: str, start: int, length: int, ended: threading.Event = NEVER) -> bytes:
        """Bytes `start` to `start + length` of an object.

        Args:
            name: of the object.
            start, length: in bytes.
            ended: another thread may set it to call the request off: it is then not made again.

        Raises:
            StorageError: also when the object ends before.
        """

        def read(client: Client, path: str, limit_s: float) -> bytes:
            body = client.read(path, start, start + length, limit_s)
            if len(body) < length and start + length <= client.request("size", path, limit_s=limit_s):
                raise ShortReplyError(f"the reply ended after {len(body)} of {length} bytes")
            return body

        body = self._ask(name, read, self.patience.moving(length), ended) if length else b""
        if len(body) != length:
            raise StorageError(
                f"{self.uri_of(name)}: expected {length} bytes from byte {start}, found {len(body)}; "
                "the object was cut or replaced: build or copy it again"
            )
        return body

    def download(self, name: str, target: Path) -> None:
        """Write an object into a local file, whose folder is made."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._scheme == "file":
            return self._call(name, "get_file", self._path(name), str(target))
        size = self.size(name)
        with target.open("wb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:

            def fetch(start: int) -> None:
                os.pwrite(file.fileno(), self.get_range(name, start, min(PART_BYTES, size - start)), start)

            list(pool.map(fetch, range(0, size, PART_BYTES)))

    def put(self, name: str, body: bytes | bytearray) -> None:
        """Write an object whole; a reader sees the old one, the new one or none, never a part."""
        if self._scheme == "s3" and len(body) > PART_BYTES:
            return self._put_parts(name, len(body), lambda start, length: bytes(memoryview(body)[start : start + length]))
        with self._replacing(name) as path:
            self._call(name, "pipe_file", path, body, extra_s=self.patience.moving(len(body)))

    def upload(self, source: Path, name: str) -> None:
        """Write a local file as an object, whole as `put` does."""
        size = source.stat().st_size
        if self._scheme == "s3" and size > PART_BYTES:
            with source.open("rb") as file:
                return self._put_parts(name, size, lambda start, length: os.pread(file.fileno(), length, start))
        with self._replacing(name) as path:
            self._call(name, "put_file", str(source), path, extra_s=self.patience.moving(size))

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
        try:
            return bool(self._facts(name))
        except MissingObject:
            return False

    def size(self, name: str) -> int:
        """Bytes of the object."""
        return int(self._facts(name)["size"])

    def changed(self, name: str) -> float:
        """When the object was written, in seconds since the epoch, by the store's clock."""
        facts = self._facts(name)
        when = facts.get("LastModified") or facts.get("mtime") or 0.0
        return float(when.timestamp() if isinstance(when, datetime) else when)

    def list(self, prefix: str = "") -> list[str]:
        """Names of all objects below a folder, as `get` takes them, sorted; empty where there is none."""
        return sorted(self._find(prefix))

    def versions(self) -> dict[str, str]:
        """What tells one version of each object below this store from another: size, and entity tag or time of change."""
        return {
            name: f"{facts['size']} {facts.get('ETag') or facts.get('LastModified') or facts.get('mtime')}"
            for name, facts in sorted(self._find("").items())
        }

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where it is absent."""
        with suppress(MissingObject):
            self._call(name, "rm_file", self._path(name))

    def delete_folder(self, name: str) -> None:
        """Remove all objects below a folder, and on a local store the folder too; nothing happens where it is absent."""
        with suppress(MissingObject):
            self._ask(
                name, lambda client, path, _: client.request("rm", path, recursive=True, limit_s=self.patience.deadline_s)
            )

    def _facts(self, name: str) -> dict[str, Any]:
        def ask(client: Client, path: str, limit_s: float) -> dict[str, Any]:
            facts: dict[str, Any] = client.request("info", path, limit_s=limit_s)
            if facts["type"] != "file":
                raise FileNotFoundError(path)
            return facts

        return self._ask(name, ask)

    def _find(self, prefix: str) -> dict[str, dict[str, Any]]:
        # Of many requests, each of which the client bounds: together they may take as long as there is.
        found: dict[str, dict[str, Any]] = self._ask(
            prefix, lambda client, path, _: client.request("find", path, detail=True, limit_s=self.patience.deadline_s)
        )
        # A local store names files by their resolved absolute path; an object store by bucket and key.
        root = self._client.files._strip_protocol(self.uri)
        return {str(path)[len(root) + 1 :]: facts for path, facts in found.items()}

    def _put_parts(self, name: str, size: int, part: Callable[[int, int], bytes]) -> None:
        """Write an object of S3 in parts; it is there, whole, when the last request is done.

        Args:
            name: of the object.
            size: its bytes.
            part: `part(start, length)`, fewer bytes at the end.
        """
        bucket, _, key = self._path(name).partition("/")
        step = max(PART_BYTES, -(-size // MOST_PARTS))

        def call(operation: str, extra_s: float = 0.0, **facts: Any) -> Any:
            return self._call(name, "call_s3", operation, Bucket=bucket, Key=key, extra_s=extra_s, **facts)

        upload = call("create_multipart_upload")["UploadId"]

        def send(number: int) -> dict[str, Any]:
            body = part((number - 1) * step, step)
            sent = call("upload_part", self.patience.moving(len(body)), UploadId=upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(1, -(-size // step) + 1)))
            call("complete_multipart_upload", self.patience.moving(size), UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException as error:
            # The reply to an earlier attempt was lost: the upload is gone, since the object is there.
            if isinstance(error, MissingObject) and self.exists(name) and self.size(name) == size:
                return
            with suppress(Exception):  # a courtesy: the parts take room until the bucket's own rules remove them
                self._client.request(
                    "call_s3",
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload,
                    limit_s=self.patience.attempt_s,
                )
            raise

    @contextmanager
    def _replacing(self, name: str) -> Iterator[str]:
        """Path to write to. Object stores replace whole objects; a local file is written beside and renamed."""
        path = self._path(name)
        if self._scheme != "file":
            yield path
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=Path(path).parent, prefix=".writing-")
        os.close(handle)
        try:
            yield beside
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        finally:
            Path(beside).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _call(self, name: str, method: str, *args: Any, extra_s: float = 0.0, **options: Any) -> Any:
        """`_ask` for a method of the file system."""
        return self._ask(name, lambda client, _, limit_s: client.request(method, *args, limit_s=limit_s, **options), extra_s)

    def _ask(
        self,
        name: str,
        request: Callable[[Client, str, float], T],
        extra_s: float = 0.0,
        ended: threading.Event = NEVER,
    ) -> T:
        """Make a request until it succeeds or its time is over.

        Args:
            name: of the object, for `request` and for messages.
            request: `request(client, path, limit_s)`; it may be made more than once.
            extra_s: time that it has beyond that of others.
            ended: calls it off; see `insist`.
        """
        client, uri = self._client, self.uri_of(name)

        def tried() -> T:
            return insist(lambda limit_s: request(client, self._path(name), limit_s), self.patience, uri, extra_s, ended)

        try:
            try:
                return tried()
            except Exception as error:  # sorted by `refused`
                if self._scheme == "file" or not refused(error):
                    raise
                client = self._client = client_of(self._scheme, self.patience, worn=client)
                return tried()
        except Exception as error:
            raise self._explain(name, error) from error

    def _explain(self, name: str, error: Exception) -> StorageError:
        where = self.uri_of(name) if name else self.uri
        cause = first_line(error)
        if isinstance(error, FileNotFoundError):
            if "bucket" in cause.lower():
                return MissingObject(f"{where}: the bucket does not exist; create it or mend the URI")
            return MissingObject(f"{where}: no such object; check the URI and whether the step that writes it has ended")
        if refused(error):
            keys = (
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the file of credentials"
                if self._scheme == "s3"
                else "its access rights"
            )
            return StorageError(f"{where}: the store refused the request ({cause}): check {keys}")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        hint = (
            f"AWS_ENDPOINT_URL ({endpoint.rpartition('@')[2]})"
            if self._scheme == "s3" and endpoint
            else "the network and the store"
        )
        if isinstance(error, GaveUpError) and error.__cause__:
            tries = f"{error.attempts} attempt{'s' * (error.attempts > 1)} over {error.seconds:.1f} s"
            return StorageError(
                f"{where}: the request failed in {tries}, at last by {first_line(error.__cause__)}; check {hint}"
            )
        return StorageError(f"{where}: the request failed ({cause}); check {hint}")


def user_cache() -> Path:
    """The folder of this user for what can be fetched or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ecgchat"


def local_folder(uri: str) -> Path:
    """A local folder that holds the objects below a URI: the folder itself, or a download into the user's cache.

    Raises:
        StorageError: nothing lies below the URI.
    """
    store = Store(uri)
    versions = store.versions()
    if not versions:
        raise StorageError(f"{store.uri}: expected a folder with files, found nothing; check the URI")
    if (folder := store.local_path()) is not None:
        return folder
    key = hashlib.sha256(repr((store.uri, sorted(versions.items()))).encode()).hexdigest()[:24]
    cache = user_cache() / key
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=cache.parent))
        for name in versions:
            store.download(name, beside / name)
        try:
            beside.rename(cache)
        except OSError:
            # Another process made the same folder first; its content is the same.
            shutil.rmtree(beside)
    return cache
