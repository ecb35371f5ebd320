"""Requests that were right once, broken at random, sent over real sockets: none crashes the door or stays with it."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import socket
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from edge.http.capacity import Limits
from tests.edge import graphs
from tests.outside import served

LENGTH = "Inference-Header-Content-Length"
EXTREME = (b"-1", b"0", b"4294967296", b"9" * 30, b"1e400", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\x00")
EXPECTED = {200, 400, 403, 404, 405, 408, 413, 415, 421, 431, 503}
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


def answers(port: int, data: bytes) -> Iterator[int]:
    """The statuses that come back until the door closes; whatever closes it early is the door's right."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(65536):
                received += piece
        except TimeoutError:
            pytest.fail(f"no answer and no end: {data!r}")
        except OSError:
            pass  # closed on us while we still sent what it refuses
    assert not received or received.startswith(b"HTTP/1.1 "), data
    for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received):
        yield int(status)


def bombard(port: int, count: int, seed: int) -> Counter[int]:
    rng, whole, seen = random.Random(seed), good(), Counter[int]()
    for _ in range(count):
        data = broken(rng, whole)
        for status in answers(port, data):
            seen[status] += 1
            assert status in EXPECTED or status == 100, data
    return seen


def test_the_good_requests_are_good() -> None:
    with served.door() as door:
        assert [list(answers(door.port, data)) for data in good()] == [[200]] * len(good())


def test_some_thousand_broken_requests(caplog: pytest.LogCaptureFixture) -> None:
    with served.door() as door:
        seen = bombard(door.port, 3000, seed=1)
        assert list(answers(door.port, good()[0])) == [200]
    assert seen[200] and seen[400] and seen[404] and not caplog.records


@pytest.mark.slow
def test_a_hundred_thousand_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Twice the same bombardment: what the second adds to memory, files and threads is next to nothing."""
    with served.door(Limits(body=1 << 20)) as door:
        bombard(door.port, 10_000, seed=2)
        gc.collect()
        tracemalloc.start()
        try:
            files, before = len(os.listdir("/proc/self/fd")), tracemalloc.get_traced_memory()[0]
            for seed in range(3, 12):
                bombard(door.port, 10_000, seed)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < LEFT_BEHIND
        assert len(os.listdir("/proc/self/fd")) <= files + 8
        assert list(answers(door.port, good()[0])) == [200]
    assert not caplog.records
