"""The enrolment listener, a real one, with strangers who wait: at every step, on more than all of its threads."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from appliance.listener import THREADS
from core.console.enrol import ENVELOPE_LIMIT
from tests.appliance.running import RunningCore
from tests.waiting import PATIENCE

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
