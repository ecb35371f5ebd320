"""The enrolment listener and the console, real ones, with strangers who wait: at every step, on more than all of their
threads."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn

from appliance import clock
from appliance.core.listener import HURRIED, THREADS, Listener
from appliance.core.listener import PATIENCE as LONGEST
from core.console.enrol import ENVELOPE_LIMIT
from tests.appliance.running import RunningCore
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.broker
HEAD = b"POST /v1/enrol HTTP/1.1\r\nHost: core\r\nContent-Length: 100\r\n"


def port(core: RunningCore) -> int:
    return core.machines.ports["enrol"]


def connected(core: RunningCore) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(core)), PATIENCE)


def trusting(core: RunningCore) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(core.folder.pki / "ca.pem"))


def silent(core: RunningCore) -> socket.socket:
    return connected(core)


def in_its_handshake(core: RunningCore) -> socket.socket:
    stranger = connected(core)
    stranger.sendall(b"\x16")
    return stranger


def behind_it(core: RunningCore, words: bytes) -> socket.socket:
    """The socket below a session of TLS, so that no close is said; the session begins when there is a thread for it."""
    plain = connected(core)
    context = trusting(core)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65536))
    session.write(words)
    plain.sendall(outgoing.read())
    return plain


STRANGERS: dict[str, Callable[[RunningCore], socket.socket]] = {
    "silent": silent,
    "in its handshake": in_its_handshake,
    "in the head of its request": lambda core: behind_it(core, HEAD),
    "in its body": lambda core: behind_it(core, HEAD + b"\r\nabc"),
    "behind its answer": lambda core: behind_it(core, b"GET /v1/ca HTTP/1.1\r\nHost: core\r\n\r\n"),
}


@pytest.fixture
def strangers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def asked(core: RunningCore, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client = http.client.HTTPSConnection("127.0.0.1", port(core), timeout=PATIENCE, context=trusting(core))
    try:
        client.request(method, path, body)
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def shown_out(stranger: socket.socket) -> bool:
    """Whether the other end closes it; raises TimeoutError if it does not."""
    with contextlib.suppress(ConnectionResetError):
        while stranger.recv(65536):
            pass
    return True


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_on_all_its_threads_keep_nobody_else_out(core: RunningCore, strangers: ExitStack, kind: str) -> None:
    held = [strangers.enter_context(STRANGERS[kind](core)) for _ in range(THREADS + 1)]
    assert asked(core, "GET", "/v1/ca")[0] == 200
    assert shown_out(held[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRANGERS)
def test_one_alone_is_shown_out_too(core: RunningCore, strangers: ExitStack, kind: str) -> None:
    assert shown_out(strangers.enter_context(STRANGERS[kind](core)))


def test_a_body_up_to_the_limit_is_read_and_one_byte_more_is_refused(core: RunningCore) -> None:
    assert asked(core, "POST", "/v1/enrol", b" " * ENVELOPE_LIMIT)[0] in (400, 403)
    assert asked(core, "POST", "/v1/enrol", b" " * (ENVELOPE_LIMIT + 1))[0] == 413


def at_the_console(core: RunningCore, words: bytes) -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", core.machines.ports["console"]), PATIENCE)
    stranger.sendall(words)
    return stranger


def test_strangers_on_all_threads_of_the_console_keep_nobody_else_out(core: RunningCore, strangers: ExitStack) -> None:
    head = b"GET / HTTP/1.1\r\nHost: core\r\n"
    steps = (b"", head, head + b"Content-Length: 100\r\n\r\n", head + b"\r\n")
    held = [strangers.enter_context(at_the_console(core, words)) for words in steps * (64 // len(steps))]
    client = http.client.HTTPConnection("127.0.0.1", core.machines.ports["console"], timeout=PATIENCE)
    with contextlib.closing(client):
        client.request("GET", "/")
        assert client.getresponse().status == 403, "a page, which says that there is no token"
    assert core.api.get("/v1/status")["tenant"] == "default", "nor from the commands' own socket, on the same threads"
    assert shown_out(held[0])


class Desk(Listener):  # type: ignore[misc]
    """A worker without its process, of two threads; it remembers whom it waited for, step by step."""

    def __init__(self) -> None:
        config = Config()
        for name, value in {"threads": 2, "keepalive": 0}.items():
            config.set(name, value)
        self.steps: list[TConn] = []
        self.says = b"ok"
        super().__init__(0, 0, [], None, 30, config, Logger(config))
        self.wsgi = self._at_the_peers_pace(self._answer)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(self.says)))])
        return [self.says]

    def _wait_for(self, conn: TConn) -> None:
        self.steps.append(conn)
        super()._wait_for(conn)

    def visited(self, strangers: ExitStack) -> tuple[socket.socket, TConn]:
        """A peer, and the connection it is here."""
        peer, ours = (strangers.enter_context(end) for end in socket.socketpair())
        self.nr_conns += 1
        return peer, TConn(self.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))

    def serve(self, conn: TConn) -> None:
        done: Future[bool] = Future()
        done.set_result(self.handle(conn))
        self.finish_request(conn, done)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.tmp.close()


def test_who_is_gone_is_counted_out_once_and_each_step_has_its_own_time(desk: Desk, strangers: ExitStack) -> None:
    for _ in range(5):
        peer, conn = desk.visited(strangers)
        peer.sendall(b"GET / HTTP/1.1\r\nHost: core\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        desk.serve(conn)
        assert shown_out(peer) and desk.steps == [conn] * 5, "come, in session, its head read, answered, told all"
        desk.steps.clear()
    assert desk.nr_conns == 0, "below it, the limit of connections would be none"


def test_only_as_many_are_hurried_as_others_stand_behind_them(desk: Desk, strangers: ExitStack) -> None:
    visits = [desk.visited(strangers) for _ in range(3)]
    for number, (peer, conn) in enumerate(visits[:2]):
        peer.setblocking(False)
        desk._waiting[number] = conn, clock.ticks() - (LONGEST + HURRIED) / 2 + number
    desk.notify()
    assert visits[0][0].recv(1) == b"", "the one who waits longest goes"
    with pytest.raises(BlockingIOError):
        visits[1][0].recv(1)


@pytest.fixture
def large(desk: Desk) -> bytes:
    """What a socket does not hold."""
    desk.says = bytes(range(256)) * 4096 * 8
    return desk.says


def served(desk: Desk, conn: TConn, peer: socket.socket) -> threading.Thread:
    peer.sendall(b"GET / HTTP/1.1\r\nHost: core\r\n\r\n")
    thread = threading.Thread(target=desk.serve, args=(conn,))
    thread.start()
    return thread


def test_who_takes_no_answer_holds_no_thread_for_long(desk: Desk, strangers: ExitStack, large: bytes) -> None:
    peer, conn = desk.visited(strangers)
    thread = served(desk, conn, peer)
    desk.nr_conns += desk.cfg.threads  # so many others are here, and one of them has no thread
    eventually(lambda: desk.notify() or not thread.is_alive(), "the stranger to be shown out")


def test_who_takes_a_large_answer_gets_all_of_it(desk: Desk, strangers: ExitStack, large: bytes) -> None:
    peer, conn = desk.visited(strangers)
    thread = served(desk, conn, peer)
    with peer.makefile("rb") as answer:
        head, body = iter(answer.readline, b"\r\n"), answer.read
        assert b"HTTP/1.1 200 OK\r\n" in list(head) and body(len(large)) == large
    peer.shutdown(socket.SHUT_WR)
    thread.join(PATIENCE)
    assert not thread.is_alive()
