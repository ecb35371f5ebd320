"""The worker of the ports that strangers reach: whoever is slow, silent or never goes holds no thread for long.

gunicorn gives each connection a thread, and waits in it for the peer without an end: for the handshake, for the head
and the body of a request, for each piece of the answer to be taken, and on the thread that accepts, after it, for the
peer to go. Here each of these waits has an end, and a nearer one while somebody has no thread: then those who wait
longest are shown out, as many as others stand behind them. So strangers delay others by seconds, however many threads
they take, and who is slow at every step, but does each, is served where there is room. Time that it takes to find the
answer is not counted.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from appliance import clock
from core.console.enrol import ENVELOPE_LIMIT

THREADS = 32
PATIENCE = 5.0  # seconds that a thread waits for a peer at one step ...
HURRIED = 1.0  # ... and while others wait for a thread
PIECE = 64 * 1024  # bytes of an answer that a peer takes at one step

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Listener(ThreadWorker):  # type: ignore[misc]
    """One request a connection, of at most `takes` bytes. It looks at who waits at least once a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[int, tuple[TConn, float]] = {}  # thread -> the peer it waits for, since when

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Wsgi = self._at_the_peers_pace(self.wsgi)

    def takes(self, peer: socket.socket) -> int:
        """Bytes of a body that the application takes from who came in so."""
        return ENVELOPE_LIMIT

    def notify(self) -> None:
        super().notify()
        behind = self.nr_conns - self.cfg.threads  # connections that have no thread
        longest_first = sorted(self._waiting.values(), key=lambda entry: entry[1])
        for place, (conn, since) in enumerate(longest_first):
            if clock.ticks() - since > (HURRIED if place < behind else PATIENCE):
                with contextlib.suppress(OSError):  # it has gone by itself
                    # Not its own: that of a TLS socket pulls the session from under the thread that waits.
                    socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)

    def handle(self, conn: TConn) -> bool:
        """Reads, answers and closes; never to be kept."""
        begin = conn.init

        def init() -> None:
            begin()
            self._wait_for(conn)  # anew: the handshake is over

        conn.init = init
        try:
            self._wait_for(conn)
            super().handle(conn)
            self._wait_for(conn)
            conn.close(graceful=True)  # here: it waits for the peer, and nobody is accepted meanwhile where it is else
        finally:
            self._no_more()
        return False

    def finish_request(self, conn: TConn, fs: Future[bool]) -> None:
        """Counts it out, once: the worker's own closes gracefully, fails at what is closed, and counts it out again."""
        self.nr_conns -= 1
        conn.close()
        if not fs.cancelled() and (error := fs.exception()) is not None:
            self.log.debug("a peer that is gone: %r", error)

    def _wait_for(self, conn: TConn) -> None:
        self._waiting[threading.get_ident()] = conn, clock.ticks()

    def _no_more(self) -> None:
        self._waiting.pop(threading.get_ident(), None)

    def _at_the_peers_pace(self, app: Wsgi) -> Wsgi:
        """`app` between two waits for a peer: it is called with the whole body, or more of it than it takes, and its
        answer goes out in pieces, for each of which there is time anew."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            conn, _ = self._waiting[threading.get_ident()]
            self._wait_for(conn)  # anew: the head is here
            limit = self.takes(environ["gunicorn.socket"])
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(limit + 1))
            self._no_more()
            return self._pieces(conn, app(environ, start_response))

        return answer

    def _pieces(self, conn: TConn, parts: Iterable[bytes]) -> Iterator[bytes]:
        with contextlib.ExitStack() as whole:
            if hasattr(parts, "close"):
                whole.callback(parts.close)
            for part in parts:
                for start in range(0, len(part), PIECE):
                    self._wait_for(conn)
                    yield part[start : start + PIECE]
                    self._no_more()
