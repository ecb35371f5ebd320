"""Programs that ask many models of one device in turn, over HTTP and MQTT 3.1.1, until they are told to stop."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.serving import Serving
from sync.names import ModelName
from tests.journey.site import PATIENCE, Application
from tests.outside.field import bound
from tests.waiting import eventually

REPLY = "falaj/local/watch-1/reply/me"
AT_ONCE = 16  # questions over MQTT under way


@dataclass
class Outside:
    """Good answers by (road, model), and all that was none."""

    answered: Counter[tuple[str, ModelName]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def asked_from_outside(serving: Serving, names: Sequence[ModelName], says: float, folder: Path) -> Iterator[Outside]:
    """Index 0 of each of these tables is asked, and answered by `says`; on leaving all questions have their answer."""
    found = Outside()
    with ExitStack() as ends:
        (port,) = free_ports(1)
        write_passwords(folder / "broker", ("falaj", "app"))
        broker = Broker(folder / "broker", "127.0.0.1", port, "a free port")
        broker.start(local_config(folder / "broker", port))
        ends.callback(broker.stop)
        ends.enter_context(bound(folder, port, serving))
        pages = Pages(serving, Metrics(), dict, "0.1.0")
        server = HttpServer(pages.handle, together=pages.handle_all)
        server.start()
        ends.callback(server.stop)
        pool = ends.enter_context(ThreadPoolExecutor(2))
        password = (folder / "broker" / "app.password").read_text()
        askers = [
            pool.submit(_http, server.port, names, says, found),
            pool.submit(_mqtt, password, port, names, says, found),
        ]
        try:
            yield found
        finally:
            found.over.set()
        for asker in askers:
            asker.result(PATIENCE)


def _http(port: int, names: Sequence[ModelName], says: float, found: Outside) -> None:
    peer = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    while not found.over.is_set():
        for name in names:
            number = str(found.answered.total())
            tensor = {"name": "i", "datatype": "INT64", "shape": [1], "data": [0]}
            peer.request("POST", f"/v2/models/{name}/infer", json.dumps({"id": number, "inputs": [tensor]}))
            answer = peer.getresponse()
            said = json.loads(answer.read())
            if (answer.status, said.get("id")) == (200, number) and said["outputs"][0]["data"] == [says]:
                found.answered["http", name] += 1
            else:
                found.lost.append(f"{name} over HTTP: {answer.status} {said}")
    peer.close()


def _mqtt(password: str, port: int, names: Sequence[ModelName], says: float, found: Outside) -> None:
    asked: list[ModelName] = []
    with Application(password, port, (REPLY, "falaj/local/watch-1/error"), "asker") as asker:
        while not found.over.is_set():
            if len(asked) - len(asker.heard) >= AT_ONCE:
                found.over.wait(0.001)
                continue
            name = names[len(asked) % len(names)]
            asker.publish(f"falaj/local/watch-1/infer/{name}", {"id": len(asked), "reply_to": REPLY, "data": [0]})
            asked.append(name)
        eventually(lambda: len(asker.heard) >= len(asked), "the last answers", PATIENCE)
    for answer in asker.heard:
        if answer.get("prediction", {}).get("value") == says:
            found.answered["mqtt", asked[answer["id"]]] += 1
        else:
            found.lost.append(f"over MQTT: {answer}")
    numbers = Counter(answer.get("id") for answer in asker.heard)
    found.lost += [
        f"{number} was answered {numbers[number]} times" for number in range(len(asked)) if numbers[number] != 1
    ]
