"""The descriptions of the interfaces say what the code does: topics, documents, paths, event codes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from core.handoffs import RolloutState
from edge.bindings import Requests
from edge.bindings.discovery import Discovery
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync import answers, commands, enrolment, messages, performance, pieces, records, remembered, reports, topics
from sync.link import Message, Publish
from sync.messages import Prediction
from sync.names import DeviceId, TenantId
from sync.remembered import Remembered
from tests.appliance import asyncapi
from tests.edge import graphs

ROOT = Path(__file__).resolve().parents[2]
EDGE = (ROOT / "docs" / "openapi-edge.yaml").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


# --- asyncapi.yaml ----------------------------------------------------------------------------------------------


def test_the_description_of_the_protocol_is_the_one_the_code_makes() -> None:
    assert asyncapi.FILE.read_text() == asyncapi.text(), "run: python -m tests.appliance.asyncapi"


def test_it_names_every_area_and_every_document() -> None:
    document = json.loads(asyncapi.FILE.read_text())
    assert set(document["channels"]) == set(get_args(topics.Area)) | set(asyncapi.LOCAL)
    structs = {
        name
        for room in (messages, enrolment, records, pieces, reports, performance, commands, remembered, answers)
        for name, value in vars(room).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == room.__name__
    }
    beside = {
        "Blob",
        "LineReport",
        "Sketch",
        "InputTensor",
        "WantedOutput",
        "Asked",
        "Told",
        "Declined",
        "ErrorDocument",
    }
    assert set(document["components"]["schemas"]) == structs | beside


def test_its_addresses_and_directions_are_those_of_the_rules() -> None:
    sample = {"tenant": "acme", "device": "dev-1", "kind": "event", "id": "x", "file": "index", "digest": "a" * 64}
    document = json.loads(asyncapi.FILE.read_text())
    for name in get_args(topics.Area):
        channel = document["channels"][name]
        topic = channel["address"].format(**sample, i=0)
        address = topics.parse(topic)
        assert address.area == name
        device = address.device or DeviceId("dev-1")
        acts = "write" if document["operations"][name]["action"] == "receive" else "read"
        assert topics.device_may(acts, TenantId("acme"), device, topic)
        retained = document["operations"][name]["bindings"]["mqtt"]["retain"]
        if acts == "write":
            assert retained == (name in topics.DEVICE_RETAINED)


def test_its_addresses_on_a_devices_own_broker_are_those_that_requests_listen_and_answer_on() -> None:
    channels = {name: json.loads(asyncapi.FILE.read_text())["channels"][name] for name in asyncapi.LOCAL}
    said: list[Publish] = []
    desk = Requests(DeviceId("dev-1"), Serving(), said.append, lambda: 0.0)
    words = {"device": "dev-1", "model": "m", "asker": "me", "output": "x"}
    words |= {"tenant": "acme", "component": "sensor", "object": "o"}
    where = {name: one["address"].format(**words) for name, one in channels.items()}
    assert where["local-status"] == topics.local_status(DeviceId("dev-1"))
    described = Discovery(TenantId("acme"), DeviceId("dev-1"), said.append, tuple)
    assert topics.matches(described.subscription(), where["local-home-assistant"])
    assert [topics.matches(pattern, where["local-infer"]) for pattern in desk.subscriptions()] == [True]
    for reply in (where["local-reply"], None):
        desk.handle(Message(where["local-infer"], b'{"data": []}', response_topic=reply), lambda: None)
    assert [one.topic for one in said] == [where["local-reply"], where["local-error"]]


# --- openapi-edge.yaml ------------------------------------------------------------------------------------------


def described() -> Iterator[tuple[str, str]]:
    path = ""
    for line in EDGE.splitlines():
        if found := re.fullmatch(r"  (/\S+):", line):
            path = found[1]
        elif found := re.fullmatch(r"    (get|post|put|delete|patch):", line):
            yield path, found[1].upper()


@pytest.fixture(scope="module")
def pages() -> Pages:
    serving = Serving()
    serving.put(graphs.MODEL, Loaded(load(graphs.classifier()), graphs.slot(7, graphs.classifier())))
    said = Prediction("9f2c", graphs.MODEL, 1.0, "ok", entity="w1")
    return Pages(
        serving, Metrics(), lambda: {"device": "box-1"}, "0.1.0", predict=lambda model, entity: said,
        said=lambda number: [Remembered(said, (), b"")] if number in (None, "9f2c") else [],
    )  # fmt: skip


def ask(pages: Pages, method: str, path: str) -> int:
    tensor = graphs.windows(1)["window"]
    window = {"name": "window", "datatype": "FP32", "shape": tensor.shape, "data": tensor.ravel().tolist()}
    bodies = {"infer": {"inputs": [window]}, "labels": {"labels": []}}
    document = bodies.get(path.rsplit("/", 1)[-1])
    return pages.handle(Request(method, path, {}, json.dumps(document).encode() if document else b"")).status


@pytest.mark.parametrize(("path", "method"), list(described()))
def test_every_described_path_answers_and_takes_only_the_described_method(pages: Pages, path: str, method: str) -> None:
    place = path.format(model=graphs.MODEL, version="7", entity="w1", id="9f2c")
    assert ask(pages, method, place) == (403 if place.endswith("load") else 200)  # loading over HTTP is declined
    assert ask(pages, "POST" if method == "GET" else "GET", place) == 405
    assert ask(pages, method, place + "/more") == 404


def test_every_route_of_the_pages_is_described() -> None:
    source = (ROOT / "edge" / "http" / "pages.py").read_text()
    cases = re.findall(r"case \[(.*?)\]:", source)
    words = {word for case in cases for word in re.findall(r'"(\w+)"', case)}
    told = {part for path, _ in described() for part in path.strip("/").split("/")}
    assert words <= told
    assert "versions" in told


def test_every_reference_in_it_leads_somewhere() -> None:
    for kind, name in re.findall(r"#/components/(\w+)/(\w+)", EDGE):
        part = EDGE.partition(f"\n  {kind}:\n")[2]
        assert re.search(rf"^    {name}:", part, re.MULTILINE), f"{kind}/{name}"


# --- operations.md ----------------------------------------------------------------------------------------------

CALLS = {"event", "complain", "happened", "put_off", "report", "_report", "_say", "Failure", "_verdict", "_environment"}
ERRORS = (
    "edge/runtime.py", "edge/serving.py", "edge/live.py", "edge/artifacts.py", "edge/trust.py",
    "edge/accepted.py",
    "edge/agent/loading.py", "edge/lookups.py",
)  # fmt: skip


def codes() -> set[str]:
    """Codes that the source gives to events: literal arguments, and the `code` of errors that are passed on."""
    found = {f"rollout-{state}" for state in RolloutState}
    found |= {f"refused-{code}" for code in _declared(ROOT / "sync" / "errors.py")} | {"refused-bad-name"}
    found.add(topics.GAP)
    for file in ERRORS:
        found |= _declared(ROOT / file)
    found |= _declared(ROOT / "edge" / "outbox.py", "POISONED = ")
    for file in (f for package in ("core", "edge", "appliance/edge") for f in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and _called(node) in CALLS:
                found |= {text for text in _literals(node.args[:2])[:1] if re.fullmatch(r"[a-z]+(-[a-z]+)*", text)}
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".events.add"):
                found |= set(_literals(node.args[2:3]))
    return (found | {f"{purpose}-state-lost" for purpose in _kept()}) - {"no-model"}


def _kept() -> set[str]:
    """What rooms of the edge keep sealed files for; one that is lost is told as `<purpose>-state-lost`."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / "appliance" / "edge").glob("*.py")]
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) == "Kept"]
    return {text for call in calls for text in _literals(call.args[3:4])}


def _literals(args: list[ast.expr]) -> list[str]:
    return [arg.value for arg in args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _declared(file: Path, what: str = "    code = ") -> set[str]:
    return set(re.findall(rf'^{what}"([a-z-]+)"', file.read_text(), re.MULTILINE))


def test_the_operators_page_explains_every_event_code_and_no_other() -> None:
    table = OPERATIONS.partition("## Events")[2]
    told = {code for line in table.splitlines() if line.startswith("| `") for code in _codes_of(line)}
    assert told == codes()


def _codes_of(line: str) -> list[str]:
    return re.findall(r"`([a-z-]+)`", line.split("|")[1])


def test_the_operators_page_names_every_port_and_its_default() -> None:
    for setting, default in (("ports.uplink", 8883), ("ports.enrol", 8443), ("ports.console", 8080),
                             ("http_port", 8000), ("local_broker.port", 1883)):  # fmt: skip
        assert re.search(rf"\| {default} \| `{re.escape(setting)}` in", OPERATIONS)
