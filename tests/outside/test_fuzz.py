"""Requests that were right once, broken at random, sent over real sockets: none crashes the door or stays with it."""

from __future__ import annotations

import json
import random
import re
import socket
from collections import Counter

import numpy as np
import pytest

from tests.edge import graphs
from tests.outside import served
from tests.waiting import eventually

LENGTH = "Inference-Header-Content-Length"
EXTREME = (b"-1", b"0", b"4294967296", b"9" * 30, b"1e400", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\x00")
EXPECTED = {200, 400, 403, 404, 405, 408, 413, 415, 421, 431, 503}
AT_ONCE = 8  # connections of a volley
BODY = 1 << 20  # bytes of the largest body
WARM = 16 * 1024 * 1024  # bytes that a fresh process may take for its first answers, sessions and buffers
LEFT_BEHIND = 8 * 1024 * 1024  # bytes of growth that buffers of the allocator and caches may explain


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def good() -> list[bytes]:
    """A request of every kind the door takes."""
    window = graphs.windows(2)["window"]
    pixels = np.zeros((1, 8, 8, 3), np.uint8).tobytes()
    tensor = {"name": "window", "datatype": "FP32", "shape": window.shape, "data": window.ravel().tolist()}
    asked = json.dumps({"id": "a", "inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    binary = {"name": "window", "datatype": "FP32", "shape": window.shape}
    head = json.dumps(
        {"inputs": [{**binary, "parameters": {"binary_data_size": window.nbytes}}],
         "parameters": {"binary_data_output": True}}
    ).encode()  # fmt: skip
    text = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a", "فلج"]}]}).encode()
    chunked = b"POST /v2/models/motion/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [
        request("POST", "/v2/models/motion/infer", asked),
        request("POST", "/v2/models/motion/versions/7/infer", head + window.tobytes(), f"{LENGTH}: {len(head)}"),
        request("POST", "/v2/models/image/infer", pixels, f"{LENGTH}: 0"),
        request("POST", "/v2/models/echo-bytes/infer", text),
        request("POST", "/v2/repository/index", b'{"ready": true}'),
        request("POST", "/v1/labels", b'{"labels": [{"id": "a", "label": "walk"}]}'),
        request("GET", "/v2/models/motion"), request("GET", "/metrics"), request("HEAD", "/v2/health/ready"),
        chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(asked), asked),
    ]  # fmt: skip


def broken(rng: random.Random, whole: list[bytes]) -> bytes:
    """One of the good requests after one to four injuries."""
    data = bytearray(rng.choice(whole))
    for _ in range(rng.randint(1, 4)):
        at, span = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(7):
            case 0:
                data[at : at + span] = rng.randbytes(span)
            case 1:
                del data[at : at + span]
            case 2:
                data[at:at] = data[max(0, at - span) : at] * rng.choice((1, 2, 50))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = rng.choice(whole)
            case 5:
                numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data))
                if numbers:
                    start, end = rng.choice(numbers).span()
                    data[start:end] = rng.choice(EXTREME)
            case _:
                data[at : at + 1] = rng.choice((b"\r\n", b"\r\n\r\n", b" ", b"\0", b"%", b'"', b"\xff"))
    return bytes(data)


def send(port: int, data: bytes) -> socket.socket:
    """A connection on which all of this was said, or as much as the door would hear."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    except TimeoutError:
        pytest.fail(f"it is not read: {data!r}")
    except OSError:
        pass  # closed on us while we still sent what it refuses
    return peer


def answers(peer: socket.socket, data: bytes) -> list[int]:
    """The statuses that come back until the door closes; whatever closes it early is the door's right."""
    received = b""
    with peer:
        try:
            while piece := peer.recv(65536):
                received += piece
        except TimeoutError:
            pytest.fail(f"no answer and no end: {data!r}")
        except OSError:
            pass
    assert not received or received.startswith(b"HTTP/1.1 "), data
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)]


def bombard(port: int, count: int, seed: int) -> Counter[int]:
    """So many broken requests, down several connections at a time."""
    rng, whole, seen = random.Random(seed), good(), Counter[int]()
    for _ in range(count // AT_ONCE):
        volley = [broken(rng, whole) for _ in range(AT_ONCE)]
        for peer, data in [(send(port, data), data) for data in volley]:
            for status in answers(peer, data):
                seen[status] += 1
                assert status in EXPECTED or status == 100, data
    return seen


def all_good(port: int) -> bool:
    return [answers(send(port, data), data) for data in good()] == [[200]] * len(good())


def test_the_good_requests_are_good() -> None:
    with served.door() as door:
        assert all_good(door.port)


def test_some_thousand_broken_requests(caplog: pytest.LogCaptureFixture) -> None:
    with served.door() as door:
        seen = bombard(door.port, 3000, seed=1)
        assert all_good(door.port)
    assert door.together > 1, "they were there at once, and were answered so"
    assert seen[200] and seen[400] and seen[404] and not caplog.records


def test_a_door_of_its_own_process_keeps_its_memory() -> None:
    """What the bombardment makes a fresh process grow by, at its highest: the small part of the run below."""
    with served.alone(BODY) as door:
        assert all_good(door.port)
        before = door.memory("VmRSS")
        bombard(door.port, 1000, seed=2)
        assert door.memory("VmHWM") - before < WARM
        assert all_good(door.port)


@pytest.mark.slow
def test_a_hundred_thousand_leave_nothing_behind() -> None:
    """Ten thousand warm the door's process up; ninety thousand others after them add next to nothing to the most memory
    it ever held, to its files and its threads."""
    with served.alone(BODY) as door:
        bombard(door.port, 10_000, seed=2)
        files, threads, before = door.files(), door.threads(), door.memory("VmHWM")
        for seed in range(3, 12):
            bombard(door.port, 10_000, seed)
        assert door.memory("VmHWM") - before < LEFT_BEHIND
        eventually(lambda: door.files() <= files and door.threads() <= threads, "its files and threads to go")
        assert all_good(door.port)
