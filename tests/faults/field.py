"""A core that publishes on a real broker and a whole agent that fetches from it over a line that can be made bad.

Keys, TUF files, sealing, chunks of 96 KiB, journal and artifacts are the real ones, and so are `sync.mqtt`, TLS and
Mosquitto. Only the proving child runs in this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from appliance.broker import Broker
from edge.states import LinkChanged, Listen, Proved
from sync import chunks, codec, golden, sealing, topics
from sync.features import TensorSpec
from sync.link import Message
from sync.manifest import Blob, Lineage, Manifest, Variant
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import Digest
from tests.edge.device import Device, committed
from tests.edge.world import MODEL, PROFILE, TENANT, Core, Shipped, lookup, new_identity
from tests.faults.proxy import CLEAR, FaultProxy, PacketFilter, Weather

PATIENCE = 60.0  # seconds until a test that waits gives up; nothing is measured by it
TICK = 0.05


@dataclass
class WiredCore(Core):
    """Publishes by MQTT, in chunks of the real size."""

    def connect(self, at: At) -> WiredCore:
        self.link = MqttLink(at)  # type: ignore[assignment]
        self.link.start(lambda message: None, lambda up, reason: None)
        assert self.link.wait_until_up(PATIENCE)  # type: ignore[attr-defined]
        return self

    def ship_large(self, number: int, size: int) -> Shipped:
        """A release whose model has about `size` bytes, signed and published; returns when the broker has it."""
        table = np.random.default_rng(number).random(size // 4, np.float32)
        table[0] = number
        answers = golden.Expected(golden.pack({"y": table[:2]}), 1e-4)
        vectors = golden.Golden(golden.pack({"i": np.array([0, 1], np.int64)}), {"fp32": answers})
        keys: dict[Digest, bytes] = {}
        sealed: dict[Digest, bytes] = {}
        blobs = [_seal(part, keys, sealed) for part in (lookup(*table), golden.encode(vectors))]
        manifest = Manifest(
            TENANT, MODEL, number, self.now, (Variant("fp32", (), blobs[0]),), blobs[1],
            (TensorSpec("i", "INT64", (-1,)),), (TensorSpec("y", "FP32", (-1,)),), (), None, (), PROFILE,
            Lineage("s", "v", "table", 7, {}, "the only one"),
        )  # fmt: skip
        shipped = Shipped(number, codec.encode(manifest), keys, sealed)
        self.approve(shipped)
        self.settle()
        return shipped

    def publish_blob(self, shipped: Shipped, digest: Digest) -> None:
        manifest = codec.decode(Manifest, shipped.manifest, len(shipped.manifest))
        blobs = (manifest.golden, *(variant.blob for variant in manifest.variants))
        chunk = next(blob.chunk for blob in blobs if blob.sealed == digest)
        for i, piece in enumerate(chunks.split(shipped.sealed[digest], chunk)):
            self.retain(topics.blob(TENANT, digest, i), piece)

    def settle(self) -> None:
        end = time.monotonic() + PATIENCE
        while self.link.unconfirmed:  # type: ignore[attr-defined]
            assert time.monotonic() < end, "waited for the broker to have it all"
            time.sleep(0.01)


def _seal(plain: bytes, keys: dict[Digest, bytes], sealed: dict[Digest, bytes]) -> Blob:
    key = hashlib.sha256(plain).digest()
    digest = chunks.digest(plain)
    closed = sealing.seal(plain, key, TENANT, digest)
    blob = chunks.describe(closed, digest)
    keys[blob.sealed], sealed[blob.sealed] = key, closed
    return blob


def size_of(shipped: Shipped) -> int:
    """Bytes of all sealed blobs of a release."""
    return sum(map(len, shipped.sealed.values()))


@dataclass
class Wired(Device):
    """The device with a real session: whatever a link's thread brings waits for the one thread of the test."""

    at: At = field(kw_only=True)
    clock: Callable[[], float] = time.time  # what the agent takes for the time
    every: float = TICK  # seconds between two ticks
    inbox: queue.SimpleQueue[Message | LinkChanged] = field(default_factory=queue.SimpleQueue)
    came: Counter[str] = field(default_factory=Counter)  # chunks that the session brought, by topic
    bytes_came: int = 0  # of chunks
    sessions: int = 0

    def boot(self, *, link: bool = True) -> Wired:
        super().boot(link=link)
        return self

    def connect(self) -> None:
        link = self.link = MqttLink(self.at)  # type: ignore[assignment]
        self.link.start(
            self.inbox.put, lambda up, reason: self.inbox.put(LinkChanged(up, session=link.session, limit=link.limit))
        )

    def listen(self, action: Listen) -> None:
        self.link.subscribe(*action.patterns, session=action.session)  # type: ignore[call-arg]

    def cut_power(self) -> None:
        """The process is gone; what its session had read and not handed over goes with it."""
        self.link.stop()
        while not self.inbox.empty():
            self.inbox.get()
        super().cut_power()

    def until(self, done: Callable[[], bool], what: str, ask: int | None = None, patience: float = PATIENCE) -> None:
        """Lives until `done`, as its process would: one thing at a time, and a tick now and then."""
        end, due = time.monotonic() + patience, 0.0
        while not done():
            assert time.monotonic() < end, f"waited for {what}: {self.house.deployments}"
            with contextlib.suppress(queue.Empty):  # else: time to tick
                self._take(self.inbox.get(timeout=self.every))
            while self.jobs:
                job = self.jobs.pop(0)
                outcome = self.prover(job)
                if outcome is not None:
                    self.carry_out(self.agent.handle(Proved(job.model, job.artifact, outcome), self.now))
            if time.monotonic() >= due:
                self._tick(ask)
                due = time.monotonic() + self.every

    def has(self, number: int) -> bool:
        """Whether this release passed its trial and answers."""
        return MODEL in self.house.deployments and committed(self, number)

    def chunk_ratio(self, shipped: Shipped) -> float:
        """Bytes of chunks that came, per byte of the release."""
        return self.bytes_came / size_of(shipped)

    def _tick(self, ask: int | None) -> None:
        self.now = self.clock()
        self.carry_out(self.agent.tick(self.now))
        if ask is not None and self.house.serving.incumbent(MODEL) is not None:
            self.ask(ask)

    def _take(self, happened: Message | LinkChanged) -> None:
        self.now = self.clock()
        if isinstance(happened, Message) and "/blob/" in happened.topic:
            self.came[happened.topic] += 1
            self.bytes_came += len(happened.payload)
        if isinstance(happened, LinkChanged) and happened.up:
            self.sessions += 1
        self.carry_out(self.agent.handle(happened, self.now))


@dataclass
class Field:
    """A broker, a core that publishes on it, and one device."""

    folder: Path
    broker: Broker
    core: WiredCore
    device_at: At  # with the broker's own port

    @contextmanager
    def over(self, weather: Weather = CLEAR, packets: PacketFilter | None = None) -> Iterator[tuple[FaultProxy, Wired]]:
        """The device, switched on, its uplink over such a line."""
        folder = self.folder / "device"
        folder.mkdir()
        with FaultProxy(self.broker.port, weather, packets) as line:
            at = replace(self.device_at, port=line.port)
            device = Wired(self.core, folder, new_identity(self.core.root), at=at).boot()
            try:
                yield line, device
            finally:
                device.cut_power()


def hurried(speed: float) -> Callable[[], float]:
    """A clock that begins right and then runs `speed` times too fast: patience costs a test less."""
    begun, ticks = time.time(), time.monotonic()
    return lambda: begun + speed * (time.monotonic() - ticks)
