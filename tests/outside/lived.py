"""What `/v1/status` says of a device that has lived: it serves release 1, refused release 3 in its shadow and has
release 2 there now; a table and a config came, and its line is rationed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from edge.agent import renewing
from edge.metering import Meter
from sync.lookups import Config
from tests.edge.on_trial import LABELS, Field, live
from tests.edge.synced import MACHINES, Shelf, machines

LISTENING = ["falaj/local/press-1/infer/+", "plant/+/vib"]


@cache
def status() -> dict[str, object]:
    """The document as the agent's process makes it, all of it by the walker itself; one life a run of the tests."""
    with TemporaryDirectory() as folder:
        field = Field(Path(folder))
        device = field.device()
        house = device.house
        house.line.meter = Meter(1 << 20, 4096, None)
        field.order(device, 3)
        device.settle(4)
        live(device, 60)
        shelf = Shelf(field.core, device.identity)
        table, config = shelf.piece(machines(pump=(1.0, 2.0))), shelf.piece(Config({"line": "b"}))
        order = field.core.order(field.shipped[2], device.identity, mode="shadow", gates=LABELS)
        field.core.desire(field.core.assignment(order, lookups={MACHINES: table}, config=config))
        device.settle(6)
        live(device, 4)
        own, now = device.identity, device.now
        paper = {"state": renewing.state(own, now), "text": renewing.words(own, now)}
        found = {**device.agent.overview(), "certificate": paper, "listening": LISTENING}
        device.cut_power()
        return found
