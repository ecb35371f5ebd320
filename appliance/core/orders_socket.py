"""The steward's Unix socket: one order a line in, one answer a line out. The file's mode is the authentication."""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from pathlib import Path

from appliance.errors import Trouble
from core.answers import Answer
from core.orders import AnyOrder
from sync import codec
from sync.errors import Malformed

LINE_LIMIT = 8 * 1024 * 1024  # bytes of one order: a project with its lake files, a candidate with its verdicts
PATIENCE = 30.0  # seconds for an answer
HANDSHAKE = 1.0  # seconds to be let in


class OrderTooLarge(Trouble):
    """An order over LINE_LIMIT; nothing of it was sent."""


class StewardAway(Trouble, ConnectionError):
    """The steward does not answer on its socket. A ConnectionError too: that is how the console knows it."""


def ask(path: Path, order: object, patience: float = PATIENCE) -> Answer:
    """Sends one order and waits for the answer; raises OrderTooLarge, or StewardAway if there is nobody, or not within
    `patience` seconds."""
    text = codec.encode(order) + b"\n"
    if len(text) > LINE_LIMIT:
        raise OrderTooLarge(f"{type(order).__name__} has {len(text)} bytes, {LINE_LIMIT} are allowed: do it in parts")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                stream.write(text)
                stream.flush()
                line = stream.readline(LINE_LIMIT)
    except OSError as error:
        raise StewardAway(f"no steward at {path} ({error}): is `falaj core run` running?") from error
    if not line:
        raise StewardAway(
            f"the steward at {path} ended the conversation: its last words stand in logs/steward.log of the core's "
            "folder (is its disk full?). It starts again by itself; then look whether it was done"
        )
    return codec.decode(Answer, line, LINE_LIMIT)


def listens(path: Path) -> bool:
    """Whether a steward is there; not whether it does what it is asked."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(HANDSHAKE)
            connection.connect(str(path))
    except OSError:
        return False
    return True


class OrderServer(socketserver.ThreadingUnixStreamServer):
    """Listens on the socket; `serve(order)` is called for each, from a thread of its own."""

    daemon_threads = True
    request_queue_size = 128  # a burst of workers and clients must not be told to try again

    def __init__(self, path: Path, serve: Callable[[AnyOrder], Answer]) -> None:
        path.unlink(missing_ok=True)
        self.serve = serve
        super().__init__(str(path), _Conversation)
        path.chmod(0o600)


class _Conversation(socketserver.StreamRequestHandler):
    server: OrderServer

    def handle(self) -> None:
        while line := self.rfile.readline(LINE_LIMIT):
            self.wfile.write(codec.encode(self._answer(line)) + b"\n")

    def _answer(self, line: bytes) -> Answer:
        if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
            while (rest := self.rfile.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                pass  # read past and forgotten: the next line must begin at its own beginning
            return Answer(False, error=f"an order is at most {LINE_LIMIT} bytes", code="too-large")
        try:
            order: AnyOrder = codec.decode(AnyOrder, line, LINE_LIMIT)  # type: ignore[arg-type]
        except Malformed as error:
            return Answer(False, error=str(error), code=error.code)
        return self.server.serve(order)
