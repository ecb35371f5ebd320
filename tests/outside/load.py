"""Applications that ask a box without a pause, over HTTP and MQTT together, and keep every answer they got.

Each question has an id of its own, or a time of its own where a sensor sends readings, so it shows which answers are
missing and which came twice. Those over HTTP go several at once down one connection, as over MQTT they do anyway.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from socket import SHUT_WR, create_connection
from typing import Any, BinaryIO

from tests.edge.world import DEVICE, MODEL
from tests.journey.site import PATIENCE, Application, Site
from tests.waiting import eventually

AT_ONCE = 16  # questions of one asker under way
ASKERS = 3  # connections over HTTP
REPLY = f"falaj/local/{DEVICE}/reply/asker"


@dataclass(frozen=True)
class Said:
    """One answer: to which question, by which release, and its word or number."""

    question: str
    release: int
    value: Any


@dataclass
class Road:
    """What came back on one road: of an HTTP connection, or an MQTT client. `faults` is all that was no answer."""

    asked: int = 0
    said: list[Said] = field(default_factory=list)
    faults: list[Any] = field(default_factory=list)

    def turns(self) -> list[int]:
        """The releases that answered, in order, each once for as long as it went on."""
        return [number for number, _ in groupby(one.release for one in self.said)]


@dataclass
class Load:
    """All roads of one load; `over` ends them, and each waits for what it has asked."""

    http: list[Road] = field(default_factory=lambda: [Road() for _ in range(ASKERS)])
    requests: Road = field(default_factory=Road)
    sensor: Road = field(default_factory=Road)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def roads(self) -> list[Road]:
        return [*self.http, self.requests, self.sensor]

    @property
    def asked(self) -> int:
        """Questions so far; each road has at most `AT_ONCE` of them under way."""
        return sum(road.asked for road in self.roads)


@contextmanager
def load(site: Site, begin: float) -> Iterator[Load]:
    """Asks until left, and then until all has been answered; raises what went wrong with an asker. Readings bear times
    from `begin` on."""
    found = Load()
    with ThreadPoolExecutor(ASKERS + 2) as pool:
        askers = [pool.submit(_http, site, str(n), road, found.over) for n, road in enumerate(found.http)]
        askers += [pool.submit(_requests, site, found), pool.submit(_sensor, site, found, begin)]
        try:
            yield found
        finally:
            found.over.set()
        for asker in askers:
            asker.result(PATIENCE)


def _question(number: str) -> bytes:
    tensor = {"name": "window", "datatype": "FP32", "shape": [1, 1, 1], "data": [0.0]}
    body = json.dumps({"id": number, "inputs": [tensor], "outputs": [{"name": "y"}]}).encode()
    head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _http(site: Site, who: str, road: Road, over: threading.Event) -> None:
    """`AT_ONCE` questions down one connection, then their answers, over and over; nothing else may come."""
    with create_connection(("127.0.0.1", site.box.http_port), PATIENCE) as peer, peer.makefile("rb") as stream:
        while not over.is_set():
            peer.sendall(b"".join(_question(f"{who}-{road.asked + n}") for n in range(AT_ONCE)))
            road.asked += AT_ONCE
            for _ in range(AT_ONCE):
                status, body = _answer(stream)
                if status == 200:
                    road.said.append(Said(body["id"], body["parameters"]["release"], body["outputs"][0]["data"][0]))
                else:
                    road.faults.append((status, body))
        peer.shutdown(SHUT_WR)  # no more questions
        road.faults += [left] if (left := stream.read()) else []


def _answer(stream: BinaryIO) -> tuple[int, Any]:
    """Status and document of the next answer."""
    status = int(stream.readline().split()[1])
    headers = dict(line.rstrip().lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
    return status, json.loads(stream.read(int(headers[b"content-length"])))


def _requests(site: Site, load: Load) -> None:
    """A program that asks over MQTT 3.1.1 and hears the answers on a topic of its own."""
    road = load.requests

    def ask(number: int) -> None:
        asker.publish(f"falaj/local/{DEVICE}/infer/{MODEL}", {"id": number, "reply_to": REPLY, "data": [0.0]})

    with site.application(REPLY, f"falaj/local/{DEVICE}/error", name="asker") as asker:
        _go_on(asker, road, load.over, ask)
    for answer in asker.heard:
        said = answer.get("prediction", {})
        if said.get("quality") == "ok":
            road.said.append(Said(str(answer["id"]), said["release"], said["value"]))
        else:
            road.faults.append(answer)


def _sensor(site: Site, load: Load, begin: float) -> None:
    """A sensor with a reading for each second, and whoever listens to what is said of them."""
    road = load.sensor
    with site.application("plant/+/state", "plant/+/state/error", name="sensor") as sensor:
        _go_on(sensor, road, load.over, lambda number: sensor.send(begin + number))
    for answer in sensor.heard:
        if answer.get("quality") == "ok":
            road.said.append(Said(str(int(answer["ts"] - begin)), answer["release"], answer["value"]))
        else:
            road.faults.append(answer)


def _go_on(client: Application, road: Road, over: threading.Event, ask: Callable[[int], None]) -> None:
    """Asks with at most `AT_ONCE` under way until it is over, and then waits for the rest."""
    while not over.is_set():
        if road.asked - len(client.heard) < AT_ONCE:
            ask(road.asked)
            road.asked += 1
        else:
            over.wait(0.001)
    eventually(lambda: len(client.heard) >= road.asked, "the last answers", PATIENCE)
    threading.Event().wait(0.2)  # a second answer to one of them would come now
