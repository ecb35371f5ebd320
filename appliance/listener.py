"""The worker of the one port that strangers reach: whoever is slow, silent or never goes holds no thread for long.

gunicorn gives each connection a thread, and waits in it for the peer without an end: for the handshake, for the head
and the body of a request, and on the thread that accepts, after the answer, for the peer to go. Here each of these
waits has an end, and a nearer one while all threads wait: so strangers delay others by seconds, however many threads
they take. Time that the answer itself takes is not counted.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from appliance import clock
from core.console.enrol import ENVELOPE_LIMIT

THREADS = 32
PATIENCE = 5.0  # seconds that a thread waits for a peer ...
HURRIED = 1.0  # ... and while all of them wait

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Listener(ThreadWorker):  # type: ignore[misc]
    """One request a connection, of at most ENVELOPE_LIMIT bytes. It looks at who waits at least once a second."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: dict[int, tuple[TConn, float]] = {}  # thread -> the peer it waits for, since when

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Wsgi = self._read_whole(self.wsgi)

    def notify(self) -> None:
        super().notify()
        waiting = list(self._waiting.values())
        patience = HURRIED if len(waiting) >= self.cfg.threads else PATIENCE
        for conn, since in waiting:
            if clock.ticks() - since > patience:
                with contextlib.suppress(OSError):  # it has gone by itself
                    # Not its own: that of a TLS socket pulls the session from under the thread that waits.
                    socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)

    def handle(self, conn: TConn) -> bool:
        """Reads, answers and closes; never to be kept."""
        try:
            self._wait_for(conn)
            super().handle(conn)
            self._wait_for(conn)
            conn.close(graceful=True)  # here: it waits for the peer, and nobody is accepted meanwhile where it is else
        finally:
            self._waiting.pop(threading.get_ident(), None)
        return False

    def _wait_for(self, conn: TConn) -> None:
        self._waiting[threading.get_ident()] = conn, clock.ticks()

    def _read_whole(self, app: Wsgi) -> Wsgi:
        """`app` behind the last wait for a peer: it is called with the whole body, or more of it than it takes."""

        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(ENVELOPE_LIMIT + 1))
            self._waiting.pop(threading.get_ident(), None)
            return app(environ, start_response)

        return answer
