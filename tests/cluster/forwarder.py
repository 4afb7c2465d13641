"""A network between two of a test's processes, whose cable can be pulled and put into another machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Forwarder:
    """Listens on a port of loopback and hands bytes on to another, while it is plugged in."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target: int | None = None
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def plug(self, port: int) -> None:
        """New connections reach this port."""
        self._target = port

    def pull(self) -> None:
        """All connections end, and new ones are refused."""
        self._target = None
        for one in self._open:
            close(one)
        self._open.clear()

    def close(self) -> None:
        """For good."""
        self.pull()
        close(self._listener)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                self._connect(here)

    def _connect(self, here: socket.socket) -> None:
        try:
            if self._target is None:
                raise ConnectionRefusedError
            there = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            close(here)
            return
        self._open += [here, there]
        for source, sink in ((here, there), (there, here)):
            threading.Thread(target=pump, args=(source, sink), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes from one to the other until either ends."""
    with suppress(OSError):
        while body := source.recv(65536):
            sink.sendall(body)
    close(source)
    close(sink)


def close(one: socket.socket) -> None:
    """Wakes whoever waits for it, too."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def forwarding() -> Iterator[Forwarder]:
    """A forwarder while the context lasts."""
    forwarder = Forwarder()
    try:
        yield forwarder
    finally:
        forwarder.close()
