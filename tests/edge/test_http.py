"""The HTTP door over real sockets: the protocol as outside clients speak it, and clients that mean no good."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edge.bindings import conclude
from edge.http.capacity import Limits
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import CannotListen, HttpServer
from edge.http.wire import Request, Response
from edge.predictions import Refusal
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync import codec
from sync.messages import Prediction
from sync.names import Digest, ModelName
from sync.remembered import Basis, Looked, Remembered
from sync.reports import Side, WhyCard
from tests.edge import graphs
from tests.edge.graphs import MODEL

TEXTS, FAULTY, AWAY = ModelName("texts"), ModelName("faulty"), ModelName("away")
INFER = f"/v2/models/{MODEL}/infer"
LENGTH = "Inference-Header-Content-Length"
LIMITS = Limits(body=200_000, head=4096, idle_s=30.0, request_s=1.0, connections=8)


def put(serving: Serving, name: ModelName, model: bytes, number: int = 1) -> None:
    serving.put(name, Loaded(load(model), graphs.slot(number, model)))


@pytest.fixture(scope="module")
def serving() -> Serving:
    serving = Serving(observe=METRICS.observe)
    put(serving, MODEL, graphs.classifier(), 7)
    put(serving, TEXTS, graphs.echo(TensorProto.STRING))
    put(serving, FAULTY, graphs.log_of_input())
    put(serving, AWAY, graphs.classifier())
    serving.take_away(AWAY)
    return serving


METRICS = Metrics()


@pytest.fixture(scope="module")
def server(serving: Serving) -> Iterator[HttpServer]:
    pages = Pages(serving, METRICS, lambda: {"device": "box-1", "models": {MODEL: "steady"}}, "0.1.0")
    server = HttpServer(pages.handle, limits=LIMITS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: HttpServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    yield connection
    connection.close()


def ask(
    client: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, http.client.HTTPResponse]:
    """(status, decoded JSON or raw bytes, the response)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    client.request(method, path, data, headers or {})
    response = client.getresponse()
    raw = response.read()
    is_json = raw and response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(raw) if is_json else raw, response


def question(rows: np.ndarray, **more: object) -> dict[str, Any]:
    tensor = {"name": "window", "datatype": "FP32", "shape": rows.shape, "data": rows.ravel().tolist()}
    return {"inputs": [tensor], **more}


def rows(count: int = 1) -> np.ndarray:
    return graphs.windows(count)["window"]


def expected(count: int = 1) -> np.ndarray:
    return load(graphs.classifier()).run(graphs.windows(count))["probabilities"]


# --- metadata ---------------------------------------------------------------------------------------------------


def test_the_server_says_what_it_is(client: http.client.HTTPConnection) -> None:
    status, document, _ = ask(client, "GET", "/v2")
    assert status == 200
    assert document["name"] == "falaj" and "binary_tensor_data" in document["extensions"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready",
                                  f"/v2/models/{MODEL}/versions/7/ready"])  # fmt: skip
def test_health(client: http.client.HTTPConnection, path: str) -> None:
    assert ask(client, "GET", path)[0] == 200


def test_a_model_describes_itself(client: http.client.HTTPConnection) -> None:
    status, document, _ = ask(client, "GET", f"/v2/models/{MODEL}")
    assert status == 200
    assert document == {
        "name": MODEL,
        "versions": ["7"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "window", "datatype": "FP32", "shape": [-1, graphs.SIZE, 2]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert ask(client, "GET", f"/v2/models/{MODEL}/versions/7")[1] == document


def test_the_index_lists_models_that_serve_and_that_do_not(client: http.client.HTTPConnection) -> None:
    _, every, _ = ask(client, "POST", "/v2/repository/index")
    assert {(m["name"], m["state"]) for m in every} == {
        (MODEL, "READY"), (TEXTS, "READY"), (FAULTY, "READY"), (AWAY, "UNAVAILABLE"),
    }  # fmt: skip
    _, ready, _ = ask(client, "POST", "/v2/repository/index", {"ready": True})
    assert AWAY not in {m["name"] for m in ready}
    assert ask(client, "POST", "/v2/repository/index", b"[")[0] == 400


# --- inference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [INFER, f"/v2/models/{MODEL}/versions/7/infer"])
def test_json_in_json_out(client: http.client.HTTPConnection, path: str) -> None:
    status, document, response = ask(client, "POST", path, question(rows(3), id="q1"))
    assert status == 200 and response.headers["Content-Type"] == "application/json"
    assert (document["model_name"], document["model_version"], document["id"]) == (MODEL, "7", "q1")
    assert document["parameters"] == {"release": 7, "artifact": graphs.slot(7, graphs.classifier()).release.artifact}
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, 3])
    assert output["data"] == expected(3).ravel().tolist()


def test_nested_data_is_the_same_as_flat(client: http.client.HTTPConnection) -> None:
    nested = question(rows(2))
    nested["inputs"][0]["data"] = rows(2).tolist()
    flat = ask(client, "POST", INFER, question(rows(2)))[1]
    assert ask(client, "POST", INFER, nested)[1] == flat
    assert "id" not in flat


def test_http_and_mqtt_show_the_same_digits(client: http.client.HTTPConnection) -> None:
    client.request("POST", INFER, json.dumps(question(rows())))
    over_http = client.getresponse().read().decode()
    value, probabilities = conclude({"probabilities": expected()}, graphs.CLASSES)
    document = Prediction("0" * 32, MODEL, 0.0, "ok", value, probabilities, graphs.CLASSES)
    over_mqtt = codec.encode(document).decode()
    digits = over_mqtt.partition('"probabilities":[')[2].partition("]")[0]
    assert digits and f'"data":[{digits}]' in over_http


def test_binary_in_json_out_and_back(client: http.client.HTTPConnection) -> None:
    data = rows(2).tobytes()
    tensor = {"name": "window", "datatype": "FP32", "shape": [2, graphs.SIZE, 2],
              "parameters": {"binary_data_size": len(data)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    status, document, _ = ask(client, "POST", INFER, head + data, {LENGTH: str(len(head))})
    assert status == 200 and document["outputs"][0]["data"] == expected(2).ravel().tolist()
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    status, raw, response = ask(client, "POST", INFER, head + data, {LENGTH: str(len(head))})
    assert status == 200 and response.headers["Content-Type"] == "application/octet-stream"
    cut = int(response.headers[LENGTH])
    (output,) = json.loads(raw[:cut])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(raw) - cut} and "data" not in output
    np.testing.assert_array_equal(np.frombuffer(raw[cut:], "<f4").reshape(2, 3), expected(2))


def test_one_output_can_be_asked_for_in_binary(client: http.client.HTTPConnection) -> None:
    wish = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    _, raw, response = ask(client, "POST", INFER, question(rows(), outputs=wish))
    assert raw[int(response.headers[LENGTH]) :] == expected().tobytes()


def test_strings_pass_as_json_and_as_binary(client: http.client.HTTPConnection) -> None:
    path, words = f"/v2/models/{TEXTS}/infer", ["a", "فلج", ""]
    tensor: dict[str, Any] = {"name": "x", "datatype": "BYTES", "shape": [3], "data": words}
    assert ask(client, "POST", path, {"inputs": [tensor]})[1]["outputs"][0]["data"] == words
    packed = b"".join(struct.pack("<I", len(w.encode())) + w.encode() for w in words)
    tensor = {"name": "x", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    _, raw, response = ask(client, "POST", path, head + packed, {LENGTH: str(len(head))})
    assert raw[int(response.headers[LENGTH]) :] == packed


def changed(**more: object) -> dict[str, Any]:
    asked = question(rows())
    asked["inputs"][0].update(more)
    return asked


BAD: list[object] = [
    b"", b"junk", b"[]", b"{}", {"inputs": []}, {"inputs": 5}, b"\xff\xfe", b"[" * 50_000,
    changed(name="other"), changed(datatype="FP64"), changed(datatype="FP16"), changed(datatype=5),
    changed(shape=[1, graphs.SIZE, 3]), changed(shape=[-1, 4, 2]), changed(shape=[0, 4, 2]), changed(shape=["1"]),
    changed(shape=[1 << 40, 1 << 40]), changed(data=None), changed(data="text"), changed(data=[1.0]),
    changed(data=["1"] * 8), changed(data=[True] * 8), changed(data=[None] * 8), changed(data=[[1.0], [1.0, 2.0]]),
    changed(data=[1e39] * 8), changed(data=[1 << 70] * 8),
    changed(parameters={"binary_data_size": 32}), changed(data=None, parameters={"binary_data_size": 32}),
    changed(data=None, parameters={"binary_data_size": -1}), changed(data=None, parameters={"binary_data_size": "x"}),
    {"inputs": question(rows())["inputs"] * 2}, question(rows(), outputs=[{"name": "nothing"}]),
    question(rows(), outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]),
]  # fmt: skip


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_a_question_that_is_wrong_is_told_so(
    client: http.client.HTTPConnection, serving: Serving, body: object
) -> None:
    before = serving.health(MODEL).errors
    status, document, _ = ask(client, "POST", INFER, body)
    assert status == 400 and list(document) == ["error"] and document["error"]
    assert serving.health(MODEL).errors == before
    assert ask(client, "POST", INFER, question(rows()))[0] == 200  # on the same connection


@pytest.mark.parametrize("length", ["x", "-1", "999999", "10"])
def test_a_wrong_json_length_is_refused(client: http.client.HTTPConnection, length: str) -> None:
    assert ask(client, "POST", INFER, question(rows()), {LENGTH: length})[0] == 400


def test_a_compressed_body_is_declined(client: http.client.HTTPConnection) -> None:
    assert ask(client, "POST", INFER, b"\x1f\x8b", {"Content-Encoding": "gzip"})[0] == 415


def test_an_answer_that_is_no_number_is_an_error_and_never_served(
    client: http.client.HTTPConnection, serving: Serving
) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [-1, 1]}
    status, document, _ = ask(client, "POST", f"/v2/models/{FAULTY}/infer", {"inputs": [tensor]})
    assert status == 500 and "NaN" in document["error"]
    assert serving.health(FAULTY).not_finite >= 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v2/models", 404), ("GET", "/v2/models/unknown", 404),
        ("GET", "/v2/models/Not%20A%20Name", 404), ("GET", f"/v2/models/{MODEL}/versions/6", 404),
        ("GET", f"/v2/models/{MODEL}/versions/6/ready", 404), ("POST", f"/v2/models/{MODEL}/versions/6/infer", 404),
        ("GET", INFER, 405), ("POST", "/v2", 405), ("DELETE", f"/v2/models/{MODEL}", 405), ("POST", "/metrics", 405),
        ("GET", f"/v2/models/{AWAY}", 503), ("GET", f"/v2/models/{AWAY}/ready", 503),
        ("POST", f"/v2/models/{AWAY}/infer", 503),
    ],
)  # fmt: skip
def test_what_is_not_there_has_its_status(
    client: http.client.HTTPConnection, method: str, path: str, status: int
) -> None:
    got, document, response = ask(client, method, path, b"{}" if method == "POST" else None)
    assert got == status and document["error"]
    assert ("Retry-After" in response.headers) == (status == 503)
    assert ("Allow" in response.headers) == (status == 405)


def test_a_device_without_models_is_alive_but_not_ready() -> None:
    pages = Pages(Serving(), Metrics(), dict, "0.1.0")
    assert pages.handle(Request("GET", "/v2/health/live")).status == 200
    ready = pages.handle(Request("GET", "/v2/health/ready"))
    assert ready.status == 503 and ("Retry-After", "1") in ready.headers


def test_status_and_metrics(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/v1/status?x=1")[1] == {"device": "box-1", "models": {MODEL: "steady"}}
    ask(client, "POST", INFER, question(rows()))
    _, page, response = ask(client, "GET", "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    text = page.decode()
    assert f'falaj_answers_total{{model="{MODEL}",version="7"}}' in text
    assert f'falaj_answer_seconds_count{{model="{MODEL}",version="7"}}' in text


# --- the wire ---------------------------------------------------------------------------------------------------


def dial(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def drain(peer: socket.socket) -> bytes:
    received = b""
    while piece := peer.recv(65536):
        received += piece
    return received


def raw(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_pipelined_requests_are_answered_in_order_whatever_their_size(server: HttpServer) -> None:
    sizes = [1, 500, 2, 700, 3]  # the large ones are answered in a thread
    asked = b"".join(raw(INFER, json.dumps(question(rows(n), id=str(n))).encode()) for n in sizes)
    with dial(server) as peer:
        peer.sendall(asked + raw("/v2", b"", "Connection: close", method="GET"))
        answers = drain(peer)
    ids = [int(part.partition(b'"')[0]) for part in answers.split(b'"id":"')[1:]]
    assert ids == sizes
    assert answers.count(b"HTTP/1.1 200 OK") == 6 and answers.endswith(b'"model_repository"]}')


def test_a_request_may_come_byte_by_byte(server: HttpServer) -> None:
    with dial(server) as peer:
        for byte in raw("/v2/health/live", b"", "Connection: close", method="GET"):
            peer.sendall(bytes([byte]))
        assert drain(peer).startswith(b"HTTP/1.1 200 OK")


def test_a_chunked_body_is_a_body(server: HttpServer) -> None:
    body = json.dumps(question(rows())).encode()
    half = len(body) // 2
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:half], body[half:], b""))
    with dial(server) as peer:
        peer.sendall(head.encode() + chunks)
        assert drain(peer).startswith(b"HTTP/1.1 200 OK")


def test_head_has_the_length_but_no_body(client: http.client.HTTPConnection) -> None:
    status, body, response = ask(client, "HEAD", "/v2")
    assert (status, body) == (200, b"") and int(response.headers["Content-Length"]) > 0
    assert ask(client, "GET", "/v2")[0] == 200


def test_http_1_0_is_answered_and_closed(server: HttpServer) -> None:
    with dial(server) as peer:
        peer.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert b"connection: close" in drain(peer)


def test_a_client_that_waits_for_100_continue_gets_it(server: HttpServer) -> None:
    body = json.dumps(question(rows())).encode()
    whole = raw(INFER, body, "Expect: 100-continue", "Connection: close")
    with dial(server) as peer:
        peer.sendall(whole[: -len(body)])
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(body)
        assert drain(peer).startswith(b"HTTP/1.1 200 OK")


def test_an_offer_to_upgrade_is_declined_by_plain_http(server: HttpServer) -> None:
    with dial(server) as peer:
        peer.sendall(raw("/v2", b"", "Connection: Upgrade", "Upgrade: h2c", method="GET"))
        assert drain(peer).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("stated", [True, False])
def test_a_body_too_large_is_refused_while_it_is_still_coming(server: HttpServer, stated: bool) -> None:
    body = b" " * (LIMITS.body + 1_000_000)
    chunked = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
    with dial(server) as peer:
        peer.sendall(raw(INFER, body) if stated else chunked + body)
        peer.shutdown(socket.SHUT_WR)
        answer = drain(peer)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("piece", [b"X-Long: " + b"a" * 8192, b"\r\n".join(b"X-%d: a" % i for i in range(900))])
def test_a_head_too_large_is_refused(server: HttpServer, piece: bytes) -> None:
    with dial(server) as peer:
        peer.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + piece[:4000])
        peer.sendall(piece[4000:] + b"\r\n\r\n")
        assert drain(peer).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"HELLO\r\n\r\n",
                                  b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"])  # fmt: skip
def test_what_is_no_http_is_told_so(server: HttpServer, junk: bytes) -> None:
    with dial(server) as peer:
        peer.sendall(junk)
        assert drain(peer).startswith(b"HTTP/1.1 400 ")


def test_a_page_that_points_its_own_name_at_us_is_refused(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/v2", headers={"Host": "evil.example"})[0] == 421
    for name in ("localhost", "127.0.0.1:80", "[::1]:80", "LOCALHOST:1"):
        assert ask(client, "GET", "/v2", headers={"Host": name})[0] == 200


def test_whoever_sends_too_slowly_is_let_go(server: HttpServer) -> None:
    with dial(server) as peer:
        peer.sendall(b"POST /v2 HTTP/1.1\r\nHost: loc")
        assert drain(peer).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed() -> None:
    server = HttpServer(lambda request: Response(200), limits=Limits(idle_s=0.05))
    server.start()
    with dial(server) as peer:
        assert drain(peer) == b""
    server.stop()


def test_connections_are_bounded_and_come_free_again() -> None:
    server = HttpServer(lambda request: Response(200), limits=Limits(connections=2))
    server.start()
    held = [dial(server) for _ in range(2)]
    for peer in held:
        peer.sendall(raw("/", method="GET"))
        assert peer.recv(100).startswith(b"HTTP/1.1 200")
    with dial(server) as third:
        assert drain(third).startswith(b"HTTP/1.1 503 ")
    for peer in held:
        peer.close()
    server.stop()


def test_a_client_that_never_reads_does_not_fill_our_memory(server: HttpServer) -> None:
    with dial(server) as peer:
        peer.settimeout(0.5)
        asked = raw("/metrics", method="GET") * 500_000
        with pytest.raises(OSError, match=r"timed out|reset|[Bb]roken"):
            peer.sendall(asked)
    with dial(server) as other:
        other.sendall(raw("/v2", b"", "Connection: close", method="GET"))
        assert drain(other).startswith(b"HTTP/1.1 200")


def test_a_failure_of_our_own_is_logged_and_the_connection_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    def handle(request: Request) -> Response:
        if request.path == "/bug":
            raise ZeroDivisionError("a bug")
        return Response(200)

    server = HttpServer(handle)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    assert ask(connection, "GET", "/bug")[0] == 500
    assert ask(connection, "GET", "/fine")[0] == 200
    connection.close()
    server.stop()
    assert "a bug" in caplog.text


def test_a_taken_port_is_named_with_what_to_do(server: HttpServer) -> None:
    with pytest.raises(CannotListen, match=rf"port {server.port} .*edge\.toml"):
        HttpServer(lambda request: Response(200), port=server.port).start()


def test_a_unix_socket_is_private_taken_over_when_stale_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = HttpServer(lambda request: Response(200, b"{}"), unix=path)
    server.start()
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(CannotListen, match="another program"):
        HttpServer(lambda request: Response(200), unix=path).start()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(raw("/", b"", "Connection: close", method="GET"))
        assert drain(peer).startswith(b"HTTP/1.1 200")
    server.stop()
    assert not path.exists()


def test_stopping_lets_what_is_under_way_finish() -> None:
    server = HttpServer(lambda request: Response(200, request.body))
    server.start()
    with dial(server) as idle, dial(server) as peer:
        body = b"x" * 100_000
        whole = raw("/", body, "Expect: 100-continue")
        peer.sendall(whole[:-100_000])
        assert peer.recv(100).startswith(b"HTTP/1.1 100")  # so the server knows that something is under way
        idle.sendall(raw("/", method="GET"))
        assert idle.recv(1000)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert drain(idle) == b""
        peer.sendall(body)
        assert drain(peer).endswith(body)
        stopping.join()


def test_labels_are_kept_by_id_and_those_that_are_not_are_told_why() -> None:
    known: dict[str, str] = {}

    def label(prediction_id: str, text: str) -> Refusal | None:
        known[prediction_id] = text
        return {"gone": Refusal.UNKNOWN_ID, "typo": Refusal.UNKNOWN_LABEL, "full": Refusal.NOT_KEPT}.get(prediction_id)

    pages = Pages(Serving(), Metrics(), dict, "0.1.0", label=label)
    told = {"a": "walk", "gone": "run", "typo": "rnu", "full": "run", "b": "run"}
    body = json.dumps({"labels": [{"id": one, "label": text} for one, text in told.items()]}).encode()
    answer = pages.handle(Request("POST", "/v1/labels", {}, body))
    document = json.loads(answer.body)
    assert answer.status == 200 and known == told
    assert (document["kept"], document["unknown"]) == (2, ["gone"])
    refused = [(one["id"], one["label"], one["code"]) for one in document["refused"]]
    assert refused == [("typo", "rnu", "unknown-label"), ("full", "run", "not-kept")]
    assert all(one["text"] for one in document["refused"])


def test_where_no_predictions_are_kept_every_id_is_unknown() -> None:
    body = json.dumps({"labels": [{"id": "a", "label": "walk"}]}).encode()
    answer = Pages(Serving(), Metrics(), dict, "0.1.0").handle(Request("POST", "/v1/labels", {}, body))
    assert json.loads(answer.body) == {"kept": 0, "unknown": ["a"], "refused": []}


def test_why_cards_are_those_of_the_status() -> None:
    card = WhyCard(MODEL, 1.0, "shadow", "worse-than-incumbent", "14 of 15", Side(2, Digest("2" * 64)), None)
    pages = Pages(Serving(), Metrics(), lambda: {"why": [card]}, "0.1.0")
    (told,) = json.loads(pages.handle(Request("GET", "/v1/why")).body)["why"]
    assert (told["criterion"], told["new"]["number"], told["old"]) == ("worse-than-incumbent", 2, None)
    assert pages.handle(Request("POST", "/v1/why")).status == 405
    none = Pages(Serving(), Metrics(), dict, "0.1.0").handle(Request("GET", "/v1/why"))
    assert (none.status, json.loads(none.body)) == (200, {"why": []})


def test_what_was_said_is_shown_without_its_inputs() -> None:
    said = Prediction("9f2c", MODEL, 12.5, "ok", "walk", (0.75, 0.25), ("walk", "run"), "w1", 3)
    basis = Basis("d" * 64, 2, {"machines": Looked(7, b"\x01\x02\x03\x04")})
    one = Remembered(said, (1, 2), b"\x05\x06\x07\x08" * 2, "run", 13.0, 14.0, basis)
    pages = Pages(
        Serving(), Metrics(), dict, "0.1.0", said=lambda number: [one] if number in (None, "9f2c") else []
    )  # fmt: skip
    told = json.loads(pages.handle(Request("GET", "/v1/predictions/9f2c")).body)
    assert told == {"prediction": json.loads(codec.encode(said)), "arrived": 13.0, "label": "run", "artifact": "d" * 64,
                    "config": 2, "lookups": {"machines": 7}}  # fmt: skip
    assert json.loads(pages.handle(Request("GET", "/v1/predictions")).body) == {"predictions": [told]}
    assert pages.handle(Request("GET", "/v1/predictions/other")).status == 404
    nothing = Pages(Serving(), Metrics(), dict, "0.1.0").handle(Request("GET", "/v1/predictions"))
    assert (nothing.status, json.loads(nothing.body)) == (200, {"predictions": []})


@pytest.mark.parametrize("body", [b"", b"[]", b'{"labels": [{"id": 1, "label": "x"}]}', b'{"labels": [{"id": "a"}]}'])
def test_labels_that_are_none_are_refused(body: bytes) -> None:
    pages = Pages(Serving(), Metrics(), dict, "0.1.0")
    assert pages.handle(Request("POST", "/v1/labels", {}, body)).status == 400
    assert pages.handle(Request("GET", "/v1/labels")).status == 405
    many = json.dumps({"labels": [{"id": "a", "label": "x"}] * 1001}).encode()
    assert pages.handle(Request("POST", "/v1/labels", {}, many)).status == 413


def test_a_loop_that_is_held_up_does_not_answer() -> None:
    """What the watchdog of the service goes by."""
    let_go = threading.Event()

    def hang(request: Request) -> Response:
        let_go.wait(20)
        return Response(200)

    server = HttpServer(hang)
    assert not server.answers(60.0), "before it has begun"
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), 20) as client:
            assert server.answers(60.0)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            end = time.monotonic() + 20
            while server.answers(1.0):
                assert time.monotonic() < end
                time.sleep(0.05)
            let_go.set()
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            while not server.answers(1.0):
                assert time.monotonic() < end
                time.sleep(0.05)
    finally:
        let_go.set()
        server.stop()
