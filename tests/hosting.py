"""Somebody else at a port: whoever connects is given to a function, as a test has it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def hosting(visit: Callable[[socket.socket], object], port: int = 0) -> Iterator[int]:
    """The port, on loopback. `visit` has one connection after the other, on a thread of its own; a connection ends with
    it, or when it breaks (OSError)."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                visitor, _ = listener.accept()
                with suppress(OSError), visitor:
                    visit(visitor)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
