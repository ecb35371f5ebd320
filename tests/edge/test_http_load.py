"""The HTTP door when too much comes at once: what is slow holds up nobody, what is too much is told to come back."""

from __future__ import annotations

import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from edge.http.capacity import Capacity, Handle, Limits
from edge.http.server import HttpServer
from edge.http.wire import Request, Response

SMALL, LARGE = b"x", b"x" * 100_000  # large ones are answered in a thread


@contextmanager
def serving(handle: Handle, limits: Limits) -> Iterator[HttpServer]:
    server = HttpServer(handle, limits=limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def client(server: HttpServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    yield connection
    connection.close()


def post(peer: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, str | None]:
    """Status and Retry-After."""
    peer.request("POST", path, body)
    answer = peer.getresponse()
    answer.read()
    return answer.status, answer.getheader("Retry-After")


def half(server: HttpServer, size: int) -> socket.socket:
    """A client that has sent half of a body of `size` bytes."""
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    peer.sendall(head + b"x" * (size // 2))
    return peer


def until_accepted(server: HttpServer, body: bytes) -> None:
    """What the door has just read of others is known to it a moment later."""
    for _ in range(200):
        with client(server) as peer:
            if post(peer, "/", body)[0] == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the door never had room again")


class Gate:
    """A handler: what is asked of one path waits until the gate is opened, but for the first `slow` times."""

    def __init__(self, path: str, slow: int = 0) -> None:
        self._path, self._slow = path, slow
        self.opened, self.entered = threading.Event(), threading.Semaphore(0)

    def __call__(self, request: Request) -> Response:
        if request.path == self._path and self._slow:
            self._slow -= 1
            time.sleep(0.02)  # on the loop: that is how the door learns that this path is slow
        elif request.path == self._path:
            self.entered.release()
            assert self.opened.wait(20)
        return Response(200, b"{}")


def test_a_path_that_was_slow_holds_up_nobody_else() -> None:
    gate = Gate("/slow", slow=3)
    with serving(gate, Limits()) as server, client(server) as slow, client(server) as quick:
        for _ in range(3):
            assert post(slow, "/slow", SMALL)[0] == 200
        slow.request("POST", "/slow", SMALL)
        assert gate.entered.acquire(timeout=20)
        assert post(quick, "/quick", SMALL)[0] == 200  # while the other one is still being answered
        gate.opened.set()
        assert slow.getresponse().status == 200


def test_more_than_may_wait_is_told_when_to_come_back_and_keeps_its_connection() -> None:
    gate = Gate("/")
    with serving(gate, Limits(waiting=1)) as server, client(server) as first, client(server) as second:
        first.request("POST", "/", LARGE)
        assert gate.entered.acquire(timeout=20)
        assert post(second, "/", LARGE) == (503, "1")
        gate.opened.set()
        assert first.getresponse().status == 200
        assert post(second, "/", LARGE) == (200, None)


def test_bodies_of_all_together_are_bounded_and_come_free_when_their_senders_leave() -> None:
    limits = Limits(body=1_000_000, held=250_000)
    with serving(lambda request: Response(200), limits) as server:
        peers = [half(server, 400_000) for _ in range(2)]
        (refused, *_), _, _ = select.select(peers, [], [], 20)  # whichever was read last
        answer = refused.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in answer
        for peer in peers:
            peer.close()
        until_accepted(server, b"x" * 240_000)
        for _ in range(20):  # answered ones are free at once
            until_accepted(server, b"x" * 200_000)


def test_whoever_leaves_in_the_middle_of_a_request_takes_no_place() -> None:
    with serving(lambda request: Response(200), Limits(connections=8)) as server:
        for _ in range(40):
            peer = half(server, 1000)
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(100) == b""
            peer.close()
        with client(server) as other:
            assert post(other, "/", SMALL)[0] == 200


def test_junk_is_answered_although_more_of_it_is_on_its_way() -> None:
    with (
        serving(lambda request: Response(200), Limits()) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer,
    ):
        peer.sendall(b"no HTTP at all\r\n")
        peer.sendall(b"x" * 200_000)
        assert peer.recv(100).startswith(b"HTTP/1.1 400 ")


def capacity() -> Capacity:
    return Capacity(lambda request: Response(200), Limits(), None)


def test_a_path_that_is_slow_again_and_again_is_answered_aside_until_it_is_quick() -> None:
    house, request = capacity(), Request("POST", "/a", {}, SMALL)
    for seconds in (0.006, 0.006, 0.001, 0.006, 0.006):  # a machine that stumbles is no slow model
        assert house.inline(request)
        house.learn(request, seconds)
    assert house.inline(request)
    house.learn(request, 0.006)
    tries = [house.inline(request) for _ in range(200)]
    assert tries.count(True) == 3 and not any(tries[:64])  # now and then the loop tries again
    house.learn(request, 0.001)
    assert all(house.inline(request) for _ in range(100))


def test_a_path_that_hangs_once_goes_aside_at_once_and_the_loop_tries_none_while_it_hangs() -> None:
    house, request = capacity(), Request("POST", "/a", {}, SMALL)
    assert house.inline(request)
    house.learn(request, 0.2)
    for _ in range(200):
        assert not house.inline(request)
        house.learn_aside(request, 0.2)
    tries = []
    for _ in range(130):  # it answers in time again
        tries.append(house.inline(request))
        if not tries[-1]:
            house.learn_aside(request, 0.02)
    assert tries.count(True) == 2 and not any(tries[:64])
    house.learn(request, 0.001)
    assert all(house.inline(request) for _ in range(100))


def test_a_model_that_hangs_holds_the_loop_once_for_all_its_entities_and_once_for_all_asked_together() -> None:
    house = capacity()
    held = 0
    for number in range(200):
        request = Request("POST", f"/v1/entities/pump-{number}/predict", {}, b"")
        if house.inline(request):
            held += 1
            house.learn(request, 1.0)
        else:
            house.learn_aside(request, 1.0)
    assert held == 1
    together = Request("POST", "/v2/models/m/infer", {}, SMALL)
    assert house.inline(together)
    house.learn(together, 1.0, 64)  # 16 ms each
    assert not house.inline(together)
    for number in range(100):  # each slow once, and never asked again
        house.learn(Request("GET", f"/once/{number}", {}, b""), 0.2)
        house.learn(Request("GET", f"/twice/{number}", {}, b""), 0.006)
    late = Request("POST", "/v2/models/late/infer", {}, SMALL)
    house.learn(late, 1.0)
    assert not house.inline(late), "the oldest are forgotten for it"
    quick = Request("POST", "/v2/models/quick/infer", {}, SMALL)
    house.learn(quick, 0.02, 64)
    assert all(house.inline(quick) for _ in range(10))


def test_what_is_large_keeps_no_path_aside() -> None:
    house, request = capacity(), Request("POST", "/a", {}, SMALL)
    house.learn(request, 0.2)
    tries = []
    for _ in range(66):
        tries.append(house.inline(request))
        house.learn_aside(Request("POST", "/a", {}, LARGE), 0.2)
    assert tries.count(True) == 1


def test_what_is_answered_aside_for_its_size_puts_no_path_aside() -> None:
    house, request = capacity(), Request("POST", "/a", {}, LARGE)
    house.learn_aside(request, 1.0)
    assert house.inline(Request("POST", "/a", {}, SMALL))


def test_of_a_model_that_hangs_one_answer_holds_up_the_others_and_no_more() -> None:
    """By threads, not by seconds: those on the loop hold up whoever asks meanwhile."""
    loops: list[bool] = []

    def handle(request: Request) -> Response:
        if request.path == "/hangs":
            loops.append(not threading.current_thread().name.startswith("falaj-http_"))
            time.sleep(0.12)
        return Response(200, b"{}")

    with serving(handle, Limits()) as server, client(server) as slow:
        for _ in range(4):
            assert post(slow, "/hangs", SMALL)[0] == 200
    assert loops == [True, False, False, False]


def test_large_bodies_are_always_answered_aside() -> None:
    assert not capacity().inline(Request("POST", "/a", {}, LARGE))


def test_strangers_cannot_fill_the_list_of_slow_paths() -> None:
    house = capacity()
    for number in range(3000):
        house.learn(Request("POST", f"/{number // 3}"), 1.0)
    assert sum(not house.inline(Request("POST", f"/{number}")) for number in range(1000)) <= 64


@pytest.mark.parametrize(("name", "value"), [("head", 16 * 1024), ("request_s", 10.0), ("body", 16 * 1024 * 1024)])
def test_the_limits_are_those_that_are_promised(name: str, value: float) -> None:
    assert getattr(Limits(), name) == value


class Company:
    """A handler that answers with how many came together, and breaks if one of several asks it to."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def one(self, request: Request) -> Response:
        return self.all((request,))[0]

    def all(self, requests: Sequence[Request]) -> list[Response]:
        if requests[0].path == "/gate":
            self.entered.release()
            assert self.opened.wait(20)
        if len(requests) > 1 and any(request.body == b"bad" for request in requests):
            raise RuntimeError("one of several")
        return [Response(200, request.body + b" of %d" % len(requests)) for request in requests]


def answered_together(bodies: list[bytes]) -> list[bytes]:
    """What clients hear who all ask while the loop is held up; their answers in the order of the questions."""
    company = Company()
    server = HttpServer(company.one, together=company.all)
    server.start()
    try:
        with ExitStack() as stack:
            first, *others = [stack.enter_context(client(server)) for _ in (b"", *bodies)]
            for peer in (first, *others):
                post(peer, "/", b"")  # all are connected
            first.request("POST", "/gate", b"")
            assert company.entered.acquire(timeout=20)
            for peer, body in zip(others, bodies, strict=True):
                peer.request("POST", "/", body)  # it is in the socket's buffer when this returns
            company.opened.set()
            heard = [peer.getresponse().read() for peer in (first, *others)]
    finally:
        server.stop()
    return heard[1:]


def test_requests_that_are_there_at_the_same_time_are_answered_together_each_for_itself() -> None:
    assert answered_together([b"%d" % i for i in range(5)]) == [b"%d of 5" % i for i in range(5)]


def test_one_request_that_breaks_the_handler_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    assert answered_together([b"a", b"bad", b"c"]) == [b"a of 1", b"bad of 1", b"c of 1"]
    assert "failed" in caplog.text
