"""Fault 7: nothing on the device can be trusted any more. Nobody answers, and says so in every language it speaks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request
from edge.states import Phase
from sync import codec
from sync.link import Publish
from sync.manifest import Binding
from sync.messages import Prediction
from tests.edge import graphs
from tests.edge.device import Device, committed, serving_device
from tests.edge.world import DEVICE, MODEL, TENANT, WINDOW, Core

BINDING = Binding("site/{entity}/accel", "site/{entity}/motion")


@pytest.fixture
def bare(ram: Path) -> Device:
    """Two committed releases, both rotten on disk, and no uplink to fetch them from."""
    core = Core()
    device = serving_device(core, ram).commit(core.ship(2))
    assert [slot.release.number for slot in device.state.previous] == [1]
    for blob in device.house.artifacts.folder.iterdir():
        blob.write_bytes(b"rot")
    device.cut_power()
    return device.boot(link=False)


def test_nobody_answers_rather_than_somebody_unverified(bare: Device) -> None:
    assert bare.state.phase is Phase.FETCHING and bare.state.serving is None, "it begins anew by itself"
    assert bare.house.serving.models() == {MODEL: None}
    assert {"load-failed", "return-failed"} <= set(bare.codes())
    bare.connect()
    bare.settle(10, ask=0)
    assert committed(bare, 2), "fetched and proved anew"


def test_http_says_503_and_when_to_come_back(bare: Device) -> None:
    pages = Pages(bare.house.serving, Metrics(), dict, "0")
    question = {"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [0]}]}
    for method, path in (("POST", f"/v2/models/{MODEL}/infer"), ("GET", "/v2/health/ready")):
        said = pages.handle(Request(method, path, {}, json.dumps(question).encode() if method == "POST" else b""))
        assert said.status == 503 and ("Retry-After", "1") in said.headers
    assert pages.handle(Request("GET", "/v2/health/live")).status == 200


def test_mqtt_answers_every_window_with_no_model(bare: Device, tmp_path: Path) -> None:
    said: list[Publish] = []
    buffers = Buffers(tmp_path / "buffers.db", TENANT, bytes(32))
    bindings = Bindings(TENANT, DEVICE, bare.house.serving, buffers, said.append)
    bindings.bind(graphs.manifest(bindings=(BINDING,), window=WINDOW, model=MODEL))
    for ts in range(5):
        bindings.handle("site/w1/accel", json.dumps({"ts": float(ts), "i": np.sin(ts)}).encode(), 1, lambda: None)
    buffers.close()
    documents = [codec.decode(Prediction, message.payload) for message in said]
    assert [(d.quality, d.value) for d in documents] == [("no_model", None)] * 5
