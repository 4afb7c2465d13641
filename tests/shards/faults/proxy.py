"""An HTTP proxy before a real S3 server, which does to replies what networks and servers do.

    with faulty(s3_environment, Plan.at_random(seed=1, rates={Fault.RESET: 0.1})) as proxy:
        Store(uri).get("a")     # through the proxy, by AWS_ENDPOINT_URL
        proxy.counts.requests["GET"], proxy.counts.faults[Fault.RESET]

Requests go on unchanged, the Host header too, which their signature covers. Kinds of requests: GET (of an object), LIST
(GET of a bucket), HEAD, PUT, POST, DELETE.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from unittest import mock
from urllib.parse import urlsplit

ALL_KINDS = frozenset({"GET", "LIST", "HEAD", "PUT", "POST", "DELETE"})
DRIP_S = 0.02
INTAKE_S = 2.0
READ_AHEAD = 2**18


class Fault(StrEnum):
    """What happens to one request."""

    SERVER_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    EXPIRED_TOKEN = "403 ExpiredToken"
    ACCESS_DENIED = "403 AccessDenied"
    FULL = "507 InsufficientStorage"
    HANG = "no reply at all"
    DRIP = "a body that comes byte by byte"
    RESET = "connection reset in the middle of the body"
    CUT = "body that ends early, with the length of the whole"
    SHORT = "body that ends early, with a length that says so"
    CORRUPT = "body with a flipped byte"
    SLOW_INTAKE = "the server begins to read the request's body late"
    LOST_REPLY = "the server does it, and the connection ends before the reply"


ERRORS = {
    Fault.SERVER_ERROR: ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    Fault.EXPIRED_TOKEN: ("403 Forbidden", "ExpiredToken", "The provided token has expired."),
    Fault.ACCESS_DENIED: ("403 Forbidden", "AccessDenied", "Access Denied"),
    Fault.FULL: ("507 Insufficient Storage", "InsufficientStorage", "No space left on the store."),
}


class Plan:
    """Which fault each request has, by its kind and its number (from 1) among those of its kind.

    `where` is a pattern that the request's path has to hold; others are neither counted nor harmed.
    """

    def __init__(
        self,
        choose: Callable[[int], Fault | None] = lambda number: None,
        kinds: frozenset[str] | set[str] = ALL_KINDS,
        where: str = "",
    ):
        self._choose, self._kinds, self._where = choose, kinds, re.compile(where)
        self._asked: Counter[str] = Counter()

    def next(self, kind: str, path: str = "") -> Fault | None:
        """The fault of the next request of a kind."""
        if not self._where.search(path):
            return None
        self._asked[kind] += 1
        return self._choose(self._asked[kind]) if kind in self._kinds else None

    @classmethod
    def always(cls, fault: Fault, *kinds: str, where: str = "") -> Plan:
        """Every request of these kinds (of all, where none is given)."""
        return cls(lambda number: fault, set(kinds) or ALL_KINDS, where)

    @classmethod
    def listed(cls, faults: Mapping[int, Fault], *kinds: str) -> Plan:
        """`{2: Fault.HANG}`: the second request of each of these kinds, and no other."""
        return cls(faults.get, set(kinds) or ALL_KINDS)

    @classmethod
    def at_random(cls, seed: int, rates: Mapping[Fault, float], *kinds: str) -> Plan:
        """`{Fault.RESET: 0.1}`: each request with this probability; the same sequence for the same seed."""
        draw = random.Random(seed)

        def choose(_: int) -> Fault | None:
            place = draw.random()
            for fault, rate in rates.items():
                place -= rate
                if place < 0:
                    return fault
            return None

        return cls(choose, set(kinds) or ALL_KINDS)


@dataclass
class Counts:
    """What came to pass: requests by kind, faults by kind of fault."""

    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)


class Proxy:
    """Runs in a thread of its own; `plan`, `upstream` and `counts` may be changed between requests."""

    def __init__(self, upstream: str, plan: Plan) -> None:
        self.plan = plan
        self.counts = Counts()
        self.upstream = upstream
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.listen()

    @property
    def environment(self) -> dict[str, str]:
        """What sends a client here."""
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}"}

    def listen(self) -> None:
        """Accept connections, at the same port as before; nothing happens where it does."""
        self._on_loop(self._listen())

    def refuse(self) -> None:
        """Break all connections and refuse new ones until `listen`."""
        self._on_loop(self._refuse())

    def close(self) -> None:
        """End; nothing is left behind."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_loop(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if self._server and self._server.is_serving():
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=READ_AHEAD)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._connections.clear()

    async def _serve(self, client: asyncio.StreamReader, reply: asyncio.StreamWriter) -> None:
        """One connection of a client: its requests one after the other, over one connection to the server."""
        self._connections.add(reply)
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        at = self.upstream
        try:
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                if b"expect: 100-continue" in head.lower():
                    reply.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                kind = _kind(head)
                fault = self._fault_of(kind, head.split(b" ", 2)[1].decode())
                if fault is Fault.SLOW_INTAKE:
                    await asyncio.sleep(INTAKE_S)
                body = await client.readexactly(_length(head) or 0)
                if fault in ERRORS:
                    _refuse_with(reply, fault, kind)
                elif fault is Fault.HANG:
                    await client.read()  # until the client leaves
                    return
                else:
                    if server is None or at != self.upstream or server[0].at_eof():
                        at = self.upstream
                        server = await asyncio.open_connection(urlsplit(at).hostname, urlsplit(at).port, limit=READ_AHEAD)
                    if not await self._pass_on(head, body, kind, fault, server, reply):
                        return
                await reply.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # either side has left
        finally:
            self._connections.discard(reply)
            reply.close()
            if server:
                server[1].close()

    def _fault_of(self, kind: str, path: str) -> Fault | None:
        fault = self.plan.next(kind, path)
        self.counts.requests[kind] += 1
        if fault:
            self.counts.faults[fault] += 1
        return fault

    async def _pass_on(self, head, body, kind, fault, server, reply) -> bool:
        """Ask the server and hand on what it says; whether the connection lasts."""
        server[1].write(_without_expect(head) + body)
        answer = await server[0].readuntil(b"\r\n\r\n")
        length = 0 if kind == "HEAD" or answer.split(b" ", 2)[1] in (b"204", b"304") else _length(answer)
        if fault is Fault.LOST_REPLY:
            reply.transport.abort()
            return False
        if length is None:  # in chunks, or up to the end of the connection
            return await _relay_chunks(answer, server[0], reply)
        if fault in (Fault.DRIP, Fault.RESET, Fault.CUT, Fault.SHORT, Fault.CORRUPT) and length:
            return await _spoil(answer, await server[0].readexactly(length), fault, reply)
        reply.write(answer)
        while length:
            piece = await server[0].read(min(length, 2**20))
            if not piece:
                return False
            length -= len(piece)
            reply.write(piece)
            await reply.drain()
        return True


async def _spoil(head: bytes, body: bytes, fault: Fault, reply: asyncio.StreamWriter) -> bool:
    half = body[: len(body) // 2]
    if fault is Fault.DRIP:
        reply.write(head)
        for place in range(len(body)):
            reply.write(body[place : place + 1])
            await reply.drain()
            await asyncio.sleep(DRIP_S)
        return True
    if fault is Fault.CORRUPT:
        reply.write(head + half + bytes([body[len(half)] ^ 0xFF]) + body[len(half) + 1 :])
        return True
    if fault is Fault.SHORT:
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length", b"content-range"))]
        reply.write(b"\r\n".join([lines[0], b"Content-Length: %d" % len(half), *lines[1:]]) + half)
        return True
    reply.write(head + half)
    await reply.drain()
    if fault is Fault.RESET:
        with suppress(OSError):
            reply.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reply.transport.abort()
    return False


async def _relay_chunks(head: bytes, server: asyncio.StreamReader, reply: asyncio.StreamWriter) -> bool:
    reply.write(head)
    if b"transfer-encoding: chunked" not in head.lower():
        reply.write(await server.read())
        return False
    while True:
        line = await server.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        reply.write(line + await server.readexactly(size + 2))
        if size == 0:
            return True


def _refuse_with(reply: asyncio.StreamWriter, fault: Fault, kind: str) -> None:
    status, code, message = ERRORS[fault]
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    reply.write(head if kind == "HEAD" else head + body)


def _kind(head: bytes) -> str:
    method, target = head.split(b" ", 2)[:2]
    return "LIST" if method == b"GET" and b"list-type" in target else method.decode()


def _length(head: bytes) -> int | None:
    """Bytes of the body; None where the head does not say."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return None


def _without_expect(head: bytes) -> bytes:
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))


@contextmanager
def faulty(environment: Mapping[str, str] = os.environ, plan: Plan | None = None) -> Iterator[Proxy]:
    """A proxy before the S3 server of an environment; while the context lasts, this process reaches it by way of the proxy.

    Args:
        environment: of which `AWS_ENDPOINT_URL` is taken.
        plan: no faults, where none is given.
    """
    proxy = Proxy(environment["AWS_ENDPOINT_URL"], plan or Plan())
    try:
        with mock.patch.dict(os.environ, proxy.environment):
            yield proxy
    finally:
        proxy.close()
