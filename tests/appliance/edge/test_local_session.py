"""The agent on a real Mosquitto of its own: its status, and what Home Assistant finds there, over every kind of end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from appliance.edge.local_session import TOGETHER, LocalSession
from appliance.settings import LocalBroker
from edge.bindings import Bindings, Requests
from edge.bindings.stream import Observe, Taken
from edge.buffers import Buffers
from edge.inference import Record, unrecorded
from edge.runtime import load
from edge.serving import Answer, Loaded, Serving
from sync.bindings import Binding, When
from sync.golden import Arrays
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import DeviceId, ModelName
from tests.edge import graphs
from tests.edge.graphs import MODEL, TENANT, manifest
from tests.waiting import eventually

pytestmark = pytest.mark.broker
DEVICE = DeviceId("box-1")
STATUS, REPLY = "falaj/local/box-1/status", "falaj/local/box-1/reply/panel"
NODE = "falaj_default_box-1"
DESCRIBED = Binding("site/{entity}/accel", "site/{entity}/motion", home_assistant=True)
PLAIN = Binding("site/{entity}/accel", "site/{entity}/motion")


@dataclass
class Program:
    """A program beside the agent: the newest payload on each topic, and all that came."""

    link: MqttLink
    newest: dict[str, bytes] = field(default_factory=dict)
    came: list[tuple[str, bytes]] = field(default_factory=list)

    def hear(self, message: Message) -> None:
        self.came.append((message.topic, message.payload))
        self.newest[message.topic] = message.payload

    def documents(self) -> list[dict[str, Any]]:
        """What Home Assistant knows now."""
        return [json.loads(p) for t, p in sorted(self.newest.items()) if t.startswith("homeassistant/") and p]


class Site:
    """A broker, and whoever joins it; all of them leave with the test."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        write_passwords(folder, ("falaj", "app"))
        self.broker = Broker(folder, "127.0.0.1", self.port, "x")
        self.broker.start(local_config(folder, self.port))
        self.programs: list[Program] = []
        self.agents: list[Agent] = []

    def program(self, name: str) -> Program:
        password = (self.folder / "app.password").read_text()
        link = MqttLink(At("127.0.0.1", self.port, name, None, "app", password, True, 0))
        program = Program(link)
        self.programs.append(program)
        link.subscribe(STATUS, "homeassistant/#", "site/#")
        link.start(program.hear, lambda up, reason: None)
        eventually(lambda: len(link.listening) == 3, "the program's session")
        return program

    def close(self) -> None:
        for agent in self.agents:
            agent.stop()
        for program in self.programs:
            program.link.stop()
        self.broker.stop()


def _unseen(model: ModelName, ts: float, rows: Taken) -> None:
    """Nobody watches the streams."""


class Agent:
    """Bindings and requests of one device, on their session."""

    def __init__(
        self, site: Site, *bindings: Binding, observe: Observe = _unseen, bound: bool = True,
        record: Record = unrecorded, rows: int = 1,
    ) -> None:  # fmt: skip
        self.reports: list[tuple[str, str]] = []
        data = graphs.classifier()
        self.runs: list[int] = []  # answers of each
        serving = Serving(observe=lambda model, number, seconds, answers: self.runs.append(answers))
        serving.put(MODEL, Loaded(load(data), graphs.slot(4, data), rows))
        password = (site.folder / "falaj.password").read_text()
        at = LocalBroker(port=site.port)
        self.session = LocalSession(
            at, password, DEVICE, lambda: None, lambda code, text: self.reports.append((code, text))
        )
        self.buffers = Buffers(site.folder / f"{len(site.agents)}.db", TENANT, bytes(32))
        self.bindings = Bindings(TENANT, DEVICE, serving, self.buffers, self.session.publish, observe=observe)
        self.requests = Requests(DEVICE, serving, self.session.publish, lambda: 0.0, record)
        self.stopped = False
        site.agents.append(self)
        if bound:
            self.bind(*bindings)
        else:
            self.session.listen(self.bindings, self.requests)
        self.session.start(self.bindings, self.requests)
        eventually(lambda: len(self.session.listening) >= 1 + bool(bindings), "the agent's session")

    def bind(self, *bindings: Binding) -> None:
        self.bindings.bind(manifest(4, bindings))
        self.session.listen(self.bindings, self.requests)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.session.stop()
            self.buffers.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def feed(program: Program, entity: str, start: float = 0.0) -> None:
    for ts in range(4):
        payload = json.dumps({"ts": start + ts, "x": 3.0, "y": 0.0}).encode()
        program.link.publish(Publish(f"site/{entity}/accel", payload))


def described_and_gone(site: Site) -> Program:
    """A panel that was told of one sensor, by an agent that has stopped since."""
    panel = site.program("panel")
    first = Agent(site, DESCRIBED)
    feed(panel, "w1")
    eventually(lambda: len(panel.documents()) == 1, "the document")
    first.stop()
    return panel


def test_the_status_says_whether_the_agent_is_there_however_it_goes(site: Site) -> None:
    panel = site.program("panel")
    agent = Agent(site)
    eventually(lambda: panel.newest.get(STATUS) == b"online", "the agent")
    agent.session._link._client.socket().shutdown(socket.SHUT_RDWR)  # as if the process had been killed
    eventually(lambda: [p for _, p in panel.came] == [b"online", b"offline", b"online"], "will and return")
    agent.stop()
    eventually(lambda: panel.newest[STATUS] == b"offline", "the farewell")
    late = site.program("late")
    eventually(lambda: late.newest.get(STATUS) == b"offline", "the retained farewell")


def test_home_assistant_finds_each_sensor_and_loses_it_with_its_binding(site: Site) -> None:
    panel = site.program("panel")
    agent = Agent(site, DESCRIBED)
    for entity in ("w1", "w2"):
        feed(panel, entity)
    eventually(lambda: len(panel.documents()) == 2, "two documents")
    late = site.program("home-assistant")
    eventually(lambda: len(late.documents()) == 2, "retained documents")
    one = next(d for d in late.documents() if d["state_topic"] == "site/w1/motion")
    assert one["availability"] == [{"topic": STATUS}] and one["device"]["identifiers"] == [NODE]
    assert one["value_template"] == "{{ value_json.value }}" and one["options"] == list(graphs.CLASSES)
    assert len({d["unique_id"] for d in late.documents()}) == 2
    assert json.loads(panel.newest["site/w1/motion"])["value"] in one["options"]
    agent.bind(PLAIN)
    eventually(lambda: not panel.documents(), "their end")
    feed(panel, "w1", 100.0)
    eventually(lambda: json.loads(panel.newest["site/w1/motion"])["ts"] >= 100, "predictions go on")
    assert not panel.documents() and not site.program("later").documents()


def test_a_condition_is_a_binary_sensor(site: Site) -> None:
    panel = site.program("panel")
    when = When(0.5, "rest")
    Agent(site, Binding("site/{entity}/accel", "site/{entity}/alarm", emit="when", when=when, home_assistant=True))
    feed(panel, "w1")
    eventually(lambda: bool(panel.documents()), "the document")
    (topic,) = (t for t in panel.newest if t.startswith("homeassistant/"))
    assert topic.startswith(f"homeassistant/binary_sensor/{NODE}/") and topic.endswith("/config")
    eventually(lambda: "site/w1/alarm" in panel.newest, "the alarm")
    assert json.loads(panel.newest["site/w1/alarm"])["holds"] is True


def test_a_document_whose_binding_went_while_the_agent_was_away_is_taken_away(site: Site) -> None:
    panel = described_and_gone(site)
    stranger = f"homeassistant/sensor/{NODE}/what_is_this/config"
    panel.link.publish(Publish(stranger, b"not ours", retain=True))
    Agent(site, DESCRIBED)
    eventually(lambda: panel.newest.get(stranger) == b"", "what nobody declares")
    assert len(panel.documents()) == 1, "what is declared stays, before the sensor is heard again"
    site.agents[-1].stop()
    Agent(site, PLAIN)
    eventually(lambda: not panel.documents(), "the end of the document")


def test_a_broker_that_forgot_its_documents_is_told_again(site: Site) -> None:
    panel = site.program("panel")
    Agent(site, DESCRIBED)
    feed(panel, "w1")
    eventually(lambda: len(panel.documents()) == 1, "the document")
    site.broker.stop()
    site.broker.start(local_config(site.folder, site.port))
    late = site.program("late")
    eventually(lambda: len(late.documents()) == 1, "the document, though no sensor was heard since")


def test_a_message_that_breaks_the_agent_is_reported_and_let_go_and_the_session_goes_on(site: Site) -> None:
    heard: list[float] = []

    def breaks(model: ModelName, ts: float, rows: Taken) -> None:
        heard.append(ts)
        if ts == 666.0:
            raise ArithmeticError("nobody thought of that")

    panel = site.program("panel")
    agent = Agent(site, PLAIN, observe=breaks)
    poison = json.dumps({"ts": 666.0, "x": 1.0, "y": 1.0}).encode()
    for _ in range(3):
        panel.link.publish(Publish("site/w1/accel", poison))
    feed(panel, "w2")
    eventually(lambda: "site/w2/motion" in panel.newest, "a prediction after them")
    ((code, text),) = agent.reports
    assert code == "message-failed" and "ArithmeticError in test_local_session.py" in text and "thought" not in text
    agent.stop()
    heard.clear()
    Agent(site, PLAIN, observe=breaks)
    feed(panel, "w3")
    eventually(lambda: "site/w3/motion" in panel.newest, "what comes after a restart")
    assert 666.0 not in heard, "each was acknowledged"


def question(number: int, size: int = 0) -> Publish:
    """Padded to `size` bytes."""
    body = {"id": number, "reply_to": REPLY, "data": [[float(number), 0.0]] * graphs.SIZE}
    return Publish(f"falaj/local/{DEVICE}/infer/{MODEL}", json.dumps(body).encode().ljust(size))


@pytest.mark.parametrize(("stacks", "run"), [(16, 3), (1, 1)])
def test_questions_that_came_together_go_before_a_reading_behind_them(site: Site, stacks: int, run: int) -> None:
    begun, come = threading.Event(), threading.Event()

    def waits(model: ModelName, ts: float, rows: Taken) -> None:
        if ts == 0.0:  # so that all of the others come together
            begun.set()
            assert come.wait(20)

    def record(inputs: Arrays, answer: Answer) -> str:
        (rows,) = inputs.values()
        if rows[0, 0, 0] == 666.0:
            raise ArithmeticError("nobody thought of that")
        return "id"

    panel = site.program("panel")
    agent = Agent(site, PLAIN, observe=waits, record=record, rows=stacks)
    panel.link.subscribe(REPLY)
    eventually(lambda: REPLY in panel.link.listening, "the panel")
    readings = [Publish("site/w1/accel", json.dumps({"ts": float(n), "x": 3.0, "y": 0.0}).encode()) for n in range(4)]
    panel.link.publish(readings[0])
    assert begun.wait(20)
    for message in (*readings[1:3], question(1), question(666), question(2), readings[3], question(3)):
        panel.link.publish(message)
    eventually(lambda: not panel.link.unconfirmed, "the broker has them all")
    come.set()
    eventually(lambda: b'"id":3' in panel.newest.get(REPLY, b""), "the last answer")
    said = [json.loads(p)["id"] if t == REPLY else t for t, p in panel.came if t in (REPLY, "site/w1/motion")]
    assert said[-4:] == [1, 2, "site/w1/motion", 3]
    assert max(agent.runs) == run and [code for code, _ in agent.reports] == ["message-failed"]
    agent.stop()
    before = len(panel.came)
    late = Agent(site, PLAIN, record=record)
    panel.link.publish(question(9))
    eventually(lambda: b'"id":9' in panel.newest[REPLY], "an answer after a restart")
    said = [json.loads(p)["id"] for t, p in panel.came[before:] if t == REPLY]
    assert said == [9] and not late.reports, "each was acknowledged"


@pytest.mark.parametrize(("size", "run"), [(TOGETHER // 2, 2), (TOGETHER // 2 + 1, 1), (TOGETHER + 1, 1)])
def test_no_more_bytes_of_questions_wait_than_may(site: Site, size: int, run: int) -> None:
    """One read hands over all that the broker has sent meanwhile."""
    begun, come = threading.Event(), threading.Event()

    def waits(model: ModelName, ts: float, rows: Taken) -> None:
        begun.set()
        assert come.wait(20)

    panel = site.program("panel")
    agent = Agent(site, PLAIN, observe=waits, rows=16)
    panel.link.subscribe(REPLY)
    eventually(lambda: REPLY in panel.link.listening, "the panel")
    panel.link.publish(Publish("site/w1/accel", json.dumps({"ts": 0.0, "x": 3.0, "y": 0.0}).encode()))
    assert begun.wait(20)
    for n in range(6):
        panel.link.publish(question(n, size))
    eventually(lambda: not panel.link.unconfirmed, "the broker has them all")
    come.set()
    eventually(lambda: b'"id":5' in panel.newest.get(REPLY, b""), "the last answer")
    assert [json.loads(p)["id"] for t, p in panel.came if t == REPLY] == list(range(6)) and not agent.reports
    assert max(agent.runs) <= run and sum(agent.runs) == 6


def test_documents_stay_while_a_start_does_not_know_its_bindings_yet(site: Site) -> None:
    panel = described_and_gone(site)
    late = Agent(site, bound=False)
    eventually(lambda: bool(late.bindings.discovery._known), "the retained document")
    late.bind(DESCRIBED)
    feed(panel, "w2")
    eventually(lambda: len(panel.documents()) == 2, "both documents")
    assert all(p for t, p in panel.came if t.startswith("homeassistant/")), "none was taken away in between"
