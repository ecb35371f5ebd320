"""One short life of a device, told in lines: `python -m tests.faults.a_life FOLDER`. All it prints must be the same on
every machine (`test_34_same_everywhere`)."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from edge.agent.reporting import overview
from sync import codec
from tests.edge import graphs
from tests.edge.bound import BINDING, Box
from tests.edge.device import new_device
from tests.edge.world import MODEL, Core

FROM_KEYS = {"artifact", "boot", "manifest", "wanted", "ts", "since", "quarantined"}  # drawn anew in each life


def windows(folder: Path) -> None:
    """Readings in, predictions out: values, ids and the bytes of the documents."""
    box = Box(folder / "buffers.db")
    box.go_live(graphs.manifest(3, (BINDING,)))
    for entity in ("w1", "ä-2", "İ", "ß"):
        for ts in range(12):
            box.send(1_700_000_000.0 + ts, entity)
    box.buffers.close()
    for topic, payload in box.log:
        if topic != "ack":
            print(topic.encode(), hashlib.sha256(payload).hexdigest())
    for prediction in box.predictions()[:4]:
        print(prediction.id, prediction.value, [float(np.float32(p)).hex() for p in prediction.probabilities])


def releases(folder: Path) -> None:
    """A good release, one that is refused on trial, and what is said of both."""
    core = Core()
    device = new_device(core, folder / "device").boot().commit(core.ship(1))
    core.assign(core.ship(2, (2.0, 2.5, float("nan"))), device.identity)
    device.settle(4)
    device.ask(2)
    device.settle(2)
    print(device.codes(), device.answering)
    told = codec.builtins(overview(device.house))
    print(json.dumps(_plain(told["models"][MODEL]), sort_keys=True))
    print(sorted(file.name for file in device.folder.iterdir()))
    device.cut_power()


def _plain(document: object) -> object:
    if isinstance(document, dict):
        return {k: _plain(v) for k, v in document.items() if k not in FROM_KEYS}
    return [_plain(item) for item in document] if isinstance(document, list) else document


if __name__ == "__main__":
    windows(Path(sys.argv[1]))
    releases(Path(sys.argv[1]))
