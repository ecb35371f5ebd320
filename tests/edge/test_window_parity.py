"""What reaches the model through bindings and buffers is what the kernel cuts and what SQL says of the same events."""

from __future__ import annotations

from itertools import pairwise, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.serving import Serving
from sync import codec
from sync.features import WindowSpec
from sync.link import Publish
from sync.messages import Prediction
from sync.names import DeviceId
from tests.edge import graphs
from tests.edge.served_windows import loaded, manifest, readings, served, without_holes
from tests.sync import oracle
from tests.sync.oracle import Event
from tests.sync.parity import agree, kernel
from tests.sync.streams import specs, streams

ENTITIES = ("w1", "w2")


class Box:
    """A device with real buffers; `cut_power` drops it, and what it had not acknowledged comes again."""

    def __init__(self, folder: Path, spec: WindowSpec) -> None:
        self.folder, self.spec = folder, spec
        self.serving = Serving()
        self.serving.put(graphs.MODEL, loaded(spec))
        self.said: dict[str, dict[float, Prediction]] = {entity: {} for entity in ENTITIES}
        self.unsure: list[tuple[str, bytes]] = []
        self.start()

    def start(self) -> None:
        self.buffers = Buffers(self.folder / "buffers.db", graphs.TENANT, bytes(32), max_unacked=5)
        self.bindings = Bindings(graphs.TENANT, DeviceId("box-1"), self.serving, self.buffers, self._publish)
        self.bindings.bind(manifest(self.spec))

    def _publish(self, message: Publish) -> None:
        prediction = codec.decode(Prediction, message.payload)
        known = self.said[prediction.entity].setdefault(prediction.ts, prediction)
        assert known == prediction, "a window that comes again says the same"

    def send(self, entity: str, payload: bytes) -> None:
        message = (entity, payload)
        self.unsure.append(message)
        self.bindings.handle(f"site/{entity}/accel", payload, 1, lambda: self.unsure.remove(message))

    def cut_power(self) -> None:
        self.buffers._db.close()
        self.start()
        again, self.unsure = self.unsure, []
        for entity, payload in again:
            self.send(entity, payload)


def messages(events: list[Event], cuts: list[int]) -> list[bytes]:
    """The stream in messages of several readings each."""
    edges = [0, *sorted({cut % len(events) for cut in cuts} - {0}), len(events)]
    return [readings(events[a:b]) for a, b in pairwise(edges)]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_vectors_that_are_served_are_those_of_the_kernel_and_of_sql(data: st.DataObject) -> None:
    spec = data.draw(specs)
    said = {entity: data.draw(streams(spec.period, 25)) for entity in ENTITIES}
    cuts = st.lists(st.integers(0, 100), max_size=30)
    sent = [messages(events, data.draw(cuts)) for events in said.values()]
    killed = data.draw(st.sets(st.integers(0, 20), max_size=2))
    with TemporaryDirectory() as folder:
        box = Box(Path(folder), spec)
        for number, pair in enumerate(zip_longest(*sent)):
            if number in killed:
                box.cut_power()
            for entity, payload in zip(ENTITIES, pair, strict=True):
                if payload is not None:
                    box.send(entity, payload)
        box.buffers.close()
    for entity, events in said.items():
        found = served(list(box.said[entity].values()), spec)
        agree(found, without_holes(kernel(spec, events), spec), spec.period)
        agree(found, without_holes(oracle.windows(spec, events), spec), spec.period)
