"""Object stores by URI: `file://`, `s3://`, or any scheme that an installed fsspec plug-in knows (`gs://`, `az://`).

    store = Store("s3://bucket/corpora/ptb-xl")
    store.put("manifest.json", b"{}")
    store.get_range("train-000000.tar", start=512, length=4096)

Credentials come from the environment as the cloud's own tools read them (for S3: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`) and are never part of a URI, a message or a log. Every failure is a
`StorageError` of one sentence.

fsspec and not obstore: obstore refuses the replies to range requests of `rclone serve s3`, the server that the demo
runs, since they carry status 200 and not 206 (measured with obstore 0.12.1 and rclone 1.75.2).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec

T = TypeVar("T")


class StorageError(OSError):
    """An object store that cannot do what was asked: one sentence with the URI, the cause and what to do."""


class Store:
    """The objects below one URI. Cheap to make; safe to pickle; not to be shared over a fork."""

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition("://") if "://" in uri else ("file", "", str(Path(uri).expanduser().absolute()))
        if not rest.strip("/"):
            raise StorageError(f"storage URI {uri!r}: expected a bucket or a folder after '{scheme}://'; name one")
        try:
            self._fs = _filesystem(scheme, _credentials())
        except (ValueError, ImportError) as error:
            raise StorageError(
                f"storage URI {uri!r}: scheme {scheme!r} is not available ({_first_line(error)}); "
                "use file://, s3://, or install the fsspec plug-in of that store"
            ) from error
        self._scheme = scheme
        self._root = rest.rstrip("/")
        if scheme == "file" and not self._root.startswith("/"):
            raise StorageError(f"storage URI {uri!r}: expected an absolute path after file://, such as file:///data/shards")

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    @property
    def uri(self) -> str:
        """The URI that this store stands for."""
        return f"{self._scheme}://{self._root}"

    def uri_of(self, name: str) -> str:
        """URI of one object."""
        return f"{self.uri}/{name}"

    def child(self, name: str) -> Store:
        """The store below a folder of this one."""
        return Store(self.uri_of(name))

    def get(self, name: str) -> bytes:
        """The whole object."""
        return self._ask(name, lambda path: self._fs.cat_file(path))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length` of an object.

        Raises:
            StorageError: also when the object ends before.
        """
        body = self._ask(name, lambda path: self._fs.cat_file(path, start=start, end=start + length))
        if len(body) != length:
            raise StorageError(
                f"{self.uri_of(name)}: expected {length} bytes from byte {start}, found {len(body)}; "
                "the object was cut or replaced: build or copy it again"
            )
        return body

    def download(self, name: str, target: Path) -> None:
        """Write an object into a local file, whose folder is made."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._ask(name, lambda path: self._fs.get_file(path, str(target)))

    def put(self, name: str, body: bytes | bytearray) -> None:
        """Write an object whole; a reader sees the old one, the new one or none, never a part."""
        with self._replacing(name) as path:
            self._ask(name, lambda _: self._fs.pipe_file(path, body))

    def upload(self, source: Path, name: str) -> None:
        """Write a local file as an object, whole as `put` does."""
        with self._replacing(name) as path:
            self._ask(name, lambda _: self._fs.put_file(str(source), path))

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
        return bool(self._ask(name, lambda path: self._fs.isfile(path)))

    def size(self, name: str) -> int:
        """Bytes of the object."""
        return int(self._ask(name, lambda path: self._fs.size(path)))

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
        try:
            self._ask(name, lambda path: self._fs.rm_file(path))
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def delete_folder(self, name: str) -> None:
        """Remove all objects below a folder, and on a local store the folder too; nothing happens where it is absent."""
        try:
            self._ask(name, lambda path: self._fs.rm(path, recursive=True))
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def _find(self, prefix: str) -> dict[str, dict[str, Any]]:
        found = self._ask(prefix, lambda path: self._fs.find(path, detail=True))
        # A local store names files by their resolved absolute path; an object store by bucket and key.
        root = self._fs._strip_protocol(self.uri)
        return {str(path)[len(root) + 1 :]: facts for path, facts in found.items()}

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

    def _ask(self, name: str, request: Callable[[str], T]) -> T:
        """Make a request; the store's client tries again where a failure may pass. What remains is a `StorageError`."""
        try:
            return request(self._path(name))
        except Exception as error:
            raise self._explain(name, error) from error

    def _explain(self, name: str, error: Exception) -> StorageError:
        where = self.uri_of(name) if name else self.uri
        cause = _first_line(error)
        if isinstance(error, FileNotFoundError):
            if "bucket" in cause.lower():
                return StorageError(f"{where}: the bucket does not exist; create it or mend the URI")
            return StorageError(f"{where}: no such object; check the URI and whether the step that writes it has ended")
        if isinstance(error, PermissionError) or "credentials" in cause.lower():
            keys = (
                ": check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if self._scheme == "s3" else ": check its access rights"
            )
            return StorageError(f"{where}: the store refused the request ({cause}){keys}")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        hint = f"AWS_ENDPOINT_URL ({endpoint})" if self._scheme == "s3" and endpoint else "the network and the store"
        return StorageError(f"{where}: the request failed again and again ({cause}); check {hint}")


@cache
def _filesystem(scheme: str, credentials: str) -> Any:
    """One client for each scheme and set of credentials. Listings are never cached: other processes write the same store."""
    del credentials
    return fsspec.get_filesystem_class(scheme)(use_listings_cache=False, skip_instance_cache=True)


def _credentials() -> str:
    """Stands for the environment that clients take their credentials from, without holding it."""
    relevant = sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_", "AZURE_")))
    return hashlib.sha256(repr(relevant).encode()).hexdigest()


def local_folder(uri: str) -> Path:
    """A local folder that holds the objects below a URI: the folder itself, or a download into the user's cache.

    Raises:
        StorageError: nothing lies below the URI.
    """
    store = Store(uri)
    versions = store.versions()
    if not versions:
        raise StorageError(f"{store.uri}: expected a folder with files, found nothing; check the URI")
    if store.uri.startswith("file://"):
        return Path(store.uri.removeprefix("file://"))
    key = hashlib.sha256(repr((store.uri, sorted(versions.items()))).encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ecgchat" / key
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


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
