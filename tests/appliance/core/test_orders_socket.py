"""The steward's socket: one order a line in, one answer a line out, whatever else comes."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.core import orders_socket
from appliance.core.orders_socket import LINE_LIMIT, OrderServer, OrderTooLarge, StewardAway, ask, listens
from core.answers import Answer
from core.orders import AnyOrder, Ingest, JobProgress, TrustInit
from sync import codec


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    def serve(order: AnyOrder) -> Answer:
        return Answer(True, result={"order": type(order).__name__, "actor": order.actor})

    path = tmp_path / "steward.sock"
    server = OrderServer(path, serve)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


def say(path: Path, *lines: bytes) -> list[Answer]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        with connection.makefile("rwb") as stream:
            answers = []
            for line in lines:
                stream.write(line + b"\n")
                stream.flush()
                answers.append(codec.decode(Answer, stream.readline(), LINE_LIMIT))
            return answers


def test_an_order_gets_its_answer(path: Path) -> None:
    assert ask(path, Ingest(actor="me", source="x")).result == {"order": "Ingest", "actor": "me"}


def test_who_listens_is_there_and_a_file_left_behind_is_nobody(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    assert listens(path) and not listens(left) and not listens(tmp_path / "none.sock")


def test_only_the_owner_may_open_the_socket(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"order": "Nothing"}',
        b'{"order": "Ingest"}',
        b'{"order": "Ingest", "source": 1}',
    ],
)
def test_a_malformed_line_is_answered_and_the_conversation_goes_on(path: Path, line: bytes) -> None:
    first, second = say(path, line, b'{"order": "Ingest", "source": "x"}')
    assert not first.ok
    assert first.code == "malformed"
    assert second.ok


def test_a_huge_line_is_answered_once_and_the_conversation_goes_on(path: Path) -> None:
    huge = b'{"order": "Ingest", "source": "' + b"x" * (2 * LINE_LIMIT) + b'"}'
    first, second = say(path, huge, b'{"order": "Ingest", "source": "x"}')
    assert (first.ok, first.code) == (False, "too-large")
    assert second.ok


def test_a_huge_order_is_not_even_sent(tmp_path: Path) -> None:
    with pytest.raises(OrderTooLarge, match=f"TrustInit has .* bytes, {LINE_LIMIT} are allowed"):
        ask(tmp_path / "nobody.sock", TrustInit(root="x" * LINE_LIMIT, targets=""))


def test_many_clients_get_each_their_own_answer(path: Path) -> None:
    def one(i: int) -> str:
        return str(ask(path, JobProgress(actor=f"a{i}", job=i, stage="s", done=0.5)).result["actor"])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(200))) == [f"a{i}" for i in range(200)]


def test_a_steward_that_is_away_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(StewardAway, match=r"no steward at .*: is `falaj core run` running\?"):
        ask(tmp_path / "steward.sock", Ingest(source="x"))
    assert issubclass(StewardAway, ConnectionError), "that is how the console knows it"


def test_a_steward_that_hangs_up_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "steward.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as stream:
                stream.readline()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(StewardAway, match="ended the conversation"):
            ask(path, Ingest(source="x"))
        thread.join()


def test_a_socket_left_by_a_killed_steward_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "steward.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    server = orders_socket.OrderServer(path, lambda order: Answer(True))
    server.server_close()
