"""The ways of carrying one blob to many agents that `delivery.py` compares; each agent has a session and a thread.

`Whole` is an agent as in the product, from its signed order on: order, trust files, walker, tick, chunks, until the
release is flushed, opened, verified and handed to the child that proves it. `Falaj` is the line alone: what an agent
does with chunks, by its own rooms (fetching, intake, download, artifacts, journal) and `sync.mqtt`; which blob, and its
key, it is given. Both are without proving, serving and local broker. The others write the same bytes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import http.server
import os
import queue
import shutil
import ssl
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep, time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core.fleet import enrolment
from edge.agent import House, Identity, fetching, intake
from edge.agent.line import Line
from edge.agent.news import Trust
from edge.agent.ports import Box
from edge.artifacts import Artifacts
from edge.journal import Journal
from edge.outbox import Outbox
from edge.serving import Serving
from edge.states import Deployment, Listen, Prove, Unlisten
from sync import chunks, codec, roles, sealing, topics
from sync.link import Message, Publish
from sync.manifest import Blob, Manifest
from sync.messages import ModelOrder
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DeviceId, Digest, Kind
from tests.attacks.ground import Ground
from tests.edge.world import GATES, MODEL, TENANT, Core, Shipped, new_identity
from tests.faults.field import Wired, WiredCore

PATIENCE = 300.0  # seconds until a run is given up
TICK = 0.25  # seconds, as in `appliance.edge.node`
GET, CHUNK_OF = Kind("get"), "chunk"  # of the request and the answer of (b)


@dataclass(frozen=True)
class Cargo:
    """One release that the core has published, and of it the blob that all ways carry."""

    core: Core
    shipped: Shipped
    blob: Blob
    papers: dict[str, Identity] = field(default_factory=dict)  # of whole agents, by name

    @classmethod
    def of(cls, core: WiredCore, size: int) -> Cargo:
        """Returns when the broker has it all."""
        shipped = core.ship_large(1, size)
        manifest = codec.decode(Manifest, shipped.manifest, len(shipped.manifest))
        return cls(core, shipped, manifest.variants[0].blob)

    @property
    def sealed(self) -> bytes:
        return self.shipped.sealed[self.blob.sealed]

    @property
    def key(self) -> bytes:
        return self.shipped.keys[self.blob.sealed]

    def order(self, name: str) -> Publish:
        """The signed order of the release for a device that was enrolled just now."""
        identity = self.papers[name] = replace(new_identity(self.core.root), device=DeviceId(name))
        public = X25519PrivateKey.from_private_bytes(identity.sealing_key).public_key().public_bytes_raw()
        keys = dict[Digest, str]()
        for digest, key in self.shipped.keys.items():
            wrapped = sealing.wrap(key, public, sealing.wrap_context(TENANT, name, digest))
            keys[digest] = base64.b64encode(wrapped).decode()
        order = ModelOrder(manifest=self.shipped.digest, number=1, keys=keys, gates=GATES)
        envelope = self.core.assignment(order, device=identity.device)
        return Publish(topics.desired(TENANT, identity.device), envelope, retain=True)


@dataclass
class Site:
    """The broker, its certificates by device, and where agents keep their files."""

    ground: Ground
    folder: Path
    papers: dict[str, Tls] = field(default_factory=dict)

    def tls(self, name: str) -> Tls:
        if name not in self.papers:
            self.papers[name] = self.ground.device_tls(DeviceId(name))
        return self.papers[name]

    def core_at(self, port: int) -> At:
        if "core" not in self.papers:
            pair = enrolment.issue_core(self.ground.authority, self.ground.now)
            self.papers["core"] = self.ground.tls(pair.certificate, pair.key)
        return At("127.0.0.1", port, topics.CORE_NAME, self.papers["core"], clean_start=True, session_expiry=0)

    def new_folder(self, name: str) -> Path:
        found = self.folder / name
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir(parents=True)
        return found


class Sink:
    """Where a plain download goes: each chunk hashed and written at its offset, flushed at once or at the end."""

    def __init__(self, path: Path, blob: Blob, *, flush: bool = True) -> None:
        self._file, self.blob, self._flush = os.open(path, os.O_CREAT | os.O_WRONLY), blob, flush
        self.have: set[int] = set()

    def put(self, index: int, payload: bytes) -> bool:
        """True once all is here."""
        assert hashlib.sha256(payload).hexdigest() == self.blob.hashes[index]
        os.pwrite(self._file, payload, index * self.blob.chunk)
        self.have.add(index)
        done = len(self.have) == len(self.blob.hashes)
        if self._flush or done:
            os.fsync(self._file)
        if done:
            os.close(self._file)
        return done


class Client(ABC):
    """One agent of any kind: a session, a thread of its own, and the moment it was done."""

    def __init__(self, site: Site, name: str, cargo: Cargo, port: int) -> None:
        self.name, self.cargo, self.folder = name, cargo, site.new_folder(name)
        self.done = threading.Event()
        self.came = 0  # bytes of chunks
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        at = At("127.0.0.1", port, name, site.tls(name), clean_start=True, session_expiry=0)
        self.link = MqttLink(at)
        self.link.start(self._inbox.put, lambda up, reason: None)
        assert self.link.wait_until_up(PATIENCE)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._inbox.put(None)
        self._thread.join(PATIENCE)
        self.link.stop()
        shutil.rmtree(self.folder)

    @abstractmethod
    def ask(self) -> None:
        """The first request."""

    @abstractmethod
    def take(self, message: Message) -> bool:
        """True once all is here."""

    def _run(self) -> None:
        self.ask()
        while (message := self._inbox.get()) is not None:
            self.came += len(message.payload)
            if not self.done.is_set() and self.take(message):
                self.done.set()


class Whole:
    """An agent as in the product, its session up: it waits for an order."""

    def __init__(self, site: Site, name: str, cargo: Cargo, port: int) -> None:
        self.folder, self.done, self.came = site.new_folder(name), threading.Event(), 0
        at = At("127.0.0.1", port, name, site.tls(name), clean_start=True, session_expiry=0)
        self.device = Wired(
            cargo.core, self.folder, cargo.papers[name], prover=self._verified, at=at, every=TICK
        ).boot()  # fmt: skip
        self.device.until(self._settled, "the session", patience=PATIENCE)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """The order begins it."""

    def end(self) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        self.device.cut_power()
        shutil.rmtree(self.folder)

    def _run(self) -> None:
        self.device.until(self._ended.is_set, "the end", patience=PATIENCE)

    def _settled(self) -> bool:
        """Whether it hears orders, knows what trust files there are, and has told all it had to tell."""
        link, house = self.device.link, self.device.house
        assert isinstance(link, MqttLink)
        heard = topics.desired(TENANT, house.identity.device) in link.listening
        return heard and bool(house.trust.index) and "timestamp.json" in house.trust.files and not link.unconfirmed

    def _verified(self, job: Prove) -> None:
        """All bytes are flushed, opened and what was signed: the child would prove it now."""
        self.came = self.device.bytes_came
        self.done.set()


class Falaj(Client):
    """The line alone: what an agent does with chunks, by its own rooms."""

    def __init__(self, site: Site, name: str, cargo: Cargo, port: int) -> None:
        super().__init__(site, name, cargo, port)
        private = X25519PrivateKey.generate()
        identity = Identity(TENANT, DeviceId(name), 1, b"", roles.new_signing_key(), private.private_bytes_raw())
        self.house = House(
            identity=identity, journal=Journal.open(self.folder / "journal.db"),
            artifacts=Artifacts(self.folder / "artifacts"), outbox=Outbox(self.folder / "outbox.db", 1, "boot"),
            trust=Trust(self.folder / "trust"), serving=Serving(), box=Box("boot", "0"), deployments={},
            line=Line(up=True),
        )  # fmt: skip
        self.context = sealing.wrap_context(TENANT, name, cargo.blob.sealed)
        self.wrapped = sealing.wrap(cargo.key, private.public_key().public_bytes_raw(), self.context)

    def end(self) -> None:
        super().end()
        self.house.journal.close()
        self.house.outbox.close()

    def ask(self) -> None:
        self._walk()

    def take(self, message: Message) -> bool:
        intake.take(self.house, message, time())
        return self._walk()

    def _walk(self) -> bool:
        house, blob = self.house, self.cargo.blob
        whole = fetching.fetch(house, Deployment(MODEL), [blob], time())
        actions, house.actions = house.actions, []
        for action in actions:
            match action:
                case Listen(patterns):
                    self.link.subscribe(*patterns)
                case Unlisten(patterns):
                    self.link.unsubscribe(*patterns)
        if whole:
            key = sealing.unwrap(self.wrapped, house.identity.sealing_key, self.context)
            house.artifacts.opened(blob, lambda sealed: sealing.unseal_artifact(sealed, key, TENANT, blob.plain))
        return whole


class Plain(Client):
    """(a): all retained chunks of a digest by one subscription."""

    def __init__(self, site: Site, name: str, cargo: Cargo, port: int, *, flush: bool = True) -> None:
        super().__init__(site, name, cargo, port)
        self.sink = Sink(self.folder / "plain", cargo.blob, flush=flush)

    def ask(self) -> None:
        self.link.subscribe(f"{topics.tenant_root(TENANT)}/blob/{self.cargo.blob.sealed}/+")

    def take(self, message: Message) -> bool:
        return self.sink.put(int(message.topic.rpartition("/")[2]), message.payload)


class Asking(Plain):
    """(b): the next chunk is asked for when the last has been flushed."""

    def ask(self) -> None:
        self.link.subscribe(f"{topics.tenant_root(TENANT)}/d/{self.name}/cmd/{CHUNK_OF}")
        while not self.link.listening:
            sleep(0.0005)
        self._next()

    def take(self, message: Message) -> bool:
        done = self.sink.put(len(self.sink.have), message.payload)
        if not done:
            self._next()
        return done

    def _next(self) -> None:
        topic = topics.up(TENANT, DeviceId(self.name), GET)
        self.link.publish(Publish(topic, str(len(self.sink.have)).encode()))


class Web:
    """(c): one HTTPS download from a server in Python's standard library, flushed at the end."""

    def __init__(self, site: Site, name: str, cargo: Cargo, port: int) -> None:
        self.name, self.cargo, self.folder, self.port = name, cargo, site.new_folder(name), port
        self.done, self.came = threading.Event(), 0
        self._context = site.tls(name).context()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._thread.join(PATIENCE)
        shutil.rmtree(self.folder)

    def _run(self) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=self._context)
        connection.request("GET", f"/{self.cargo.blob.sealed}")
        answer, digest = connection.getresponse(), hashlib.sha256()
        with (self.folder / "blob").open("wb") as file:
            while piece := answer.read(chunks.CHUNK):
                digest.update(piece)
                file.write(piece)
                self.came += len(piece)
            file.flush()
            os.fsync(file.fileno())
        connection.close()
        assert digest.hexdigest() == self.cargo.blob.sealed
        self.done.set()


class Steward:
    """The core's session, on which it publishes; it answers (b)."""

    def __init__(self, site: Site, port: int) -> None:
        self.cargo: Cargo | None = None
        self.link = MqttLink(site.core_at(port))
        self.link.subscribe(f"{topics.tenant_root(TENANT)}/d/+/up/{GET}")
        self.link.start(self._answer, lambda up, reason: None)
        while not self.link.listening:
            sleep(0.01)

    def settle(self) -> None:
        """Returns when the broker has confirmed all that was published."""
        while self.link.unconfirmed:
            sleep(0.01)

    def clear(self) -> None:
        """Takes the chunks off the broker."""
        assert self.cargo is not None
        for digest, sealed in self.cargo.shipped.sealed.items():
            for i in range(-(-len(sealed) // chunks.CHUNK)):
                self.link.publish(Publish(topics.blob(TENANT, digest, i), b"", retain=True))
        self.settle()

    def _answer(self, message: Message) -> None:
        assert self.cargo is not None
        device, blob = message.topic.split("/")[4], self.cargo.blob
        offset, length = chunks.span(blob, int(message.payload))
        piece = self.cargo.sealed[offset : offset + length]
        self.link.publish(Publish(f"{topics.tenant_root(TENANT)}/d/{device}/cmd/{CHUNK_OF}", piece))


def web(site: Site) -> http.server.ThreadingHTTPServer:
    """(c): an HTTPS server over a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Wide(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    server = Wide(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.new_folder("web"))))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(site.ground.folder / "server.pem", site.ground.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
