"""The command line's way to the core: every failure is one message that says what to do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.api import Api, CoreAway, Refused
from core.orders import Ingest, TrustInit, TrustKeys
from tests.appliance.running import RunningCore


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[Api]:
    """A server that gives these bytes, one connection each, whatever it is asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    take_in(connection)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Api(path)
        thread.join()


def take_in(connection: socket.socket) -> None:
    """A whole request: whoever is answered and left before it has said its body finds a broken pipe."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65536)
    head, _, body = said.partition(b"\r\n\r\n")
    stated = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(stated[0].split(b":")[1]) if stated else 0
    while len(body) < length:
        body += connection.recv(65536)


def document(content: Any, status: int = 200) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


def job(stage: str, done: float, **more: Any) -> bytes:
    row = {"id": 1, "kind": "train", "subject": "m", "stage": stage, "done": done, "finished": None, "state": "running"}
    return document({**row, "result": {}, "error": "", "hint": "", **more})


def test_no_core_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CoreAway, match=r"no core answers at .*api.sock \(No such file or directory\): start it with"):
        Api(tmp_path / "api.sock").get("/v1/status")


@pytest.mark.parametrize("answer", [b"", b"220 mail\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_something_else_on_the_socket_is_one_message(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s", answer) as api, pytest.raises(CoreAway, match="no core answers"):
        api.get("/v1/status")


def test_an_answer_that_is_not_json_is_one_message(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\n<html>"
    with answering(tmp_path / "s", answer) as api, pytest.raises(CoreAway, match="answered 500 with something that is"):
        api.get("/v1/status")


def test_a_refusal_carries_its_code_and_what_to_do(tmp_path: Path) -> None:
    refusal = document({"error": "no", "code": "no-data", "hint": "run this"}, 409)
    with answering(tmp_path / "s", refusal) as api, pytest.raises(Refused) as refused:
        api.order(Ingest(source="x"))
    assert (refused.value.code, str(refused.value)) == ("no-data", "no\n  run this")


def test_a_job_is_followed_to_its_result(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    watch: Callable[[str, float], None] = lambda stage, done: seen.append((stage, done))  # noqa: E731
    steps = (job("rows", 0.5), job("training", 0.1), job("done", 1.0, finished=1.0, state="done", result={"n": 1}))
    with answering(tmp_path / "s", *steps) as api:
        assert api.wait_for_job(1, watch, pause=lambda seconds: None) == {"n": 1}
    assert seen == [("rows", 0.5), ("training", 0.1), ("done", 1.0)]


def test_a_failed_job_is_its_error_and_its_hint(tmp_path: Path) -> None:
    failed = job("rows", 0.5, finished=1.0, state="failed", error="disk full", hint="free some space")
    with answering(tmp_path / "s", failed) as api, pytest.raises(Refused) as refused:
        api.wait_for_job(1, lambda stage, done: None)
    assert str(refused.value) == "train of m: disk full\n  free some space"
    assert refused.value.code == "job-failed"


@pytest.mark.broker
def test_a_real_core_refuses_with_codes(core: RunningCore) -> None:
    with pytest.raises(Refused, match="this tenant has a root already") as refused:
        core.api.order(TrustInit(actor="test", root="{}", targets="{}"))
    assert refused.value.code == "trust-exists"
    with pytest.raises(Refused, match="there is no job 999"):
        core.api.get("/v1/jobs/999")
    with pytest.raises(Refused, match=r"docs/openapi-core.yaml lists what is served here"):
        core.api.get("/v1/nothing")
    assert set(core.api.order(TrustKeys())) == {"director", "snapshot", "timestamp"}
