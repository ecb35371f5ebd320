"""A whole small world around one agent: an owner who signs, a core that publishes on a loopback broker, and a
device whose folder outlives its agents. Real keys, real sealing, real TUF files, real tiny ONNX graphs.

A release is a lookup table: index i is answered with `table[i]`, so an answer tells which release gave it. A NaN in
the table is a number that is not finite, an index beyond the table is a run that breaks.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from core.release import publish
from edge import proving, runtime
from edge.agent import Agent, House, Identity
from edge.artifacts import Artifacts
from edge.journal import Journal
from edge.outbox import Outbox
from edge.serving import Answer, Serving
from edge.states import Action, Deployment, Failure, LinkChanged, Listen, Phase, Proof, Prove, Proved, Send, Unlisten
from sync import chunks, codec, golden, roles, sealing, topics
from sync.features import TensorSpec
from sync.link import Publish
from sync.loopback import Hub, LoopbackLink
from sync.manifest import Blob, Lineage, Manifest, Profile, Variant
from sync.messages import (
    ASSIGNMENT_TYPE,
    REPORTED_TYPE,
    Ack,
    Assignment,
    DeviceEvent,
    Gates,
    ModelOrder,
    Record,
    Reported,
    TrustIndex,
)
from sync.names import DeviceId, Digest, ModelName, TenantId, TrustFile
from tests.edge import graphs

TENANT = TenantId("acme")
DEVICE = DeviceId("press-1")
MODEL = ModelName("motion")
EPOCH = 1
NOW = float(int(time.time()))  # tuf reads the clock itself, so the world's time starts at the real one
DAY = 86_400.0
CHUNK = 256  # bytes: a few chunks a blob
PROFILE = Profile()
GATES = Gates(soak_answers=3)


def lookup(*table: float) -> bytes:
    """`y` = `table`[`i`]."""
    constant = numpy_helper.from_array(np.array(table, np.float32), "table")
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    inputs, outputs = [graphs.value("i", ["n"], TensorProto.INT64)], [graphs.value("y", ["n"])]
    return graphs.finish([node], inputs, outputs, [constant])


def table_of(number: int) -> tuple[float, ...]:
    return (float(number), number + 0.5, number + 0.25)


@dataclass(frozen=True)
class Shipped:
    """One signed release as the core keeps it."""

    number: int
    manifest: bytes
    keys: dict[Digest, bytes]
    sealed: dict[Digest, bytes]

    @property
    def digest(self) -> Digest:
        return chunks.digest(self.manifest)


@dataclass
class Core:
    """Owner, director and publisher of one tenant, and the broker they publish on."""

    hub: Hub = field(default_factory=Hub)
    now: float = NOW
    owner: bytes = field(default_factory=roles.new_signing_key)
    director: bytes = field(default_factory=roles.new_signing_key)
    files: dict[str, bytes] = field(default_factory=dict)
    seq: int = 0

    def __post_init__(self) -> None:
        self._signer = roles.signer(self.owner)
        self.online = publish.OnlineSigners(
            roles.signer(roles.new_signing_key()), roles.signer(roles.new_signing_key())
        )
        self.root = publish.first_root(
            self._signer, self.online.snapshot.public_key, self.online.timestamp.public_key,
            roles.signer(self.director).public_key, self.now,
        )  # fmt: skip
        self.files |= {"1.root.json": self.root, "1.targets.json": publish.first_targets(self._signer, self.now)}
        self.link = self.hub.connect("core")
        self.link.start(lambda message: None, lambda up, reason: None)
        self.renew()

    def renew(self, now: float | None = None) -> None:
        self.files |= publish.renew(self.files, self.online, self.now if now is None else now)

    def ship(
        self,
        number: int,
        table: tuple[float, ...] | None = None,
        golden_table: tuple[float, ...] | None = None,
        needs: tuple[str, ...] = (),
        profile: Profile = PROFILE,
        model: ModelName = MODEL,
        tenant: TenantId = TENANT,
    ) -> Shipped:
        """Seals, signs and publishes one release; `golden_table` is what the golden vectors claim it answers."""
        table = table_of(number) if table is None else table
        claimed = table if golden_table is None else golden_table
        questions = {"i": np.array([0, 1], np.int64)}
        answers = golden.Expected(golden.pack({"y": np.array(claimed[:2], np.float32)}), 1e-4)
        vectors = golden.Golden(golden.pack(questions), {"fp32": answers})
        keys: dict[Digest, bytes] = {}
        sealed: dict[Digest, bytes] = {}
        blobs = [_seal(part, keys, sealed) for part in (lookup(*table), golden.encode(vectors))]
        manifest = Manifest(
            tenant, model, number, self.now, (Variant("fp32", needs, blobs[0]),), blobs[1],
            (TensorSpec("i", "INT64", (-1,)),), (TensorSpec("y", "FP32", (-1,)),), (), None, (), profile,
            Lineage("s", "v", "cnn1d", 7, {}, "the only one"),
        )  # fmt: skip
        shipped = Shipped(number, codec.encode(manifest), keys, sealed)
        self.approve(shipped, model=model)
        return shipped

    def approve(self, shipped: Shipped, number: int | None = None, model: ModelName = MODEL) -> None:
        """The owner signs the manifest as release `number` of `model`; all of it goes on the broker."""
        number = shipped.number if number is None else number
        targets, role = publish.approve(self.files, model, number, shipped.manifest, self._signer, self.now)
        self.files |= publish.approved_files(model, shipped.manifest, targets, role)
        self.renew()
        self.publish_trust()
        for digest in shipped.sealed:
            self.publish_blob(shipped, digest)

    def publish_trust(self) -> None:
        names = publish.current(self.files)
        for name in names:
            self.retain(topics.trust(TENANT, TrustFile(name)), self.files[name])
        self.retain(f"{topics.tenant_root(TENANT)}/trust/index", codec.encode(TrustIndex(names)))

    def publish_blob(self, shipped: Shipped, digest: Digest) -> None:
        for i, piece in enumerate(chunks.split(shipped.sealed[digest], CHUNK)):
            self.retain(topics.blob(TENANT, digest, i), piece)

    def retain(self, topic: str, payload: bytes) -> None:
        self.link.publish(Publish(topic, payload, retain=True))

    def order(self, shipped: Shipped, identity: Identity, **changes: object) -> ModelOrder:
        public = X25519PrivateKey.from_private_bytes(identity.sealing_key).public_key().public_bytes_raw()
        keys = {}
        for digest, key in shipped.keys.items():
            wrapped = sealing.wrap(key, public, sealing.wrap_context(TENANT, DEVICE, digest))
            keys[digest] = base64.b64encode(wrapped).decode()
        fields = {"manifest": shipped.digest, "number": shipped.number, "keys": keys, "gates": GATES} | changes
        return ModelOrder(**fields)  # type: ignore[arg-type]

    def assignment(self, order: ModelOrder | None = None, seq: int | None = None, **changes: object) -> bytes:
        """A signed assignment with the next number, unless told otherwise; `by` signs it."""
        self.seq = self.seq + 1 if seq is None else seq
        by = changes.pop("by", self.director)
        fields = {
            "tenant": TENANT, "device": DEVICE, "epoch": EPOCH, "seq": self.seq, "ts": self.now,
            "expires": self.now + 7 * DAY, "models": {MODEL: order} if order else {},
        } | changes  # fmt: skip
        return roles.sign(Assignment(**fields), ASSIGNMENT_TYPE, by)  # type: ignore[arg-type]

    def assign(self, shipped: Shipped, identity: Identity, **changes: object) -> None:
        self.desire(self.assignment(self.order(shipped, identity, **changes)))

    def desire(self, envelope: bytes) -> None:
        self.retain(topics.desired(TENANT, DEVICE), envelope)


def _seal(plain: bytes, keys: dict[Digest, bytes], sealed: dict[Digest, bytes]) -> Blob:
    key = hashlib.sha256(plain).digest()  # any fresh key would do; this one makes a run repeatable
    plain_digest = chunks.digest(plain)
    closed = sealing.seal(plain, key, TENANT, plain_digest)
    blob = chunks.describe(closed, plain_digest, CHUNK)
    keys[blob.sealed], sealed[blob.sealed] = key, closed
    return blob


def new_identity(root: bytes) -> Identity:
    return Identity(
        TENANT, DEVICE, EPOCH, root, roles.new_signing_key(), X25519PrivateKey.generate().private_bytes_raw()
    )


def honest_prover(action: Prove) -> Proof | Failure:
    """The real measurement and verdict on outputs, in this process; time and memory as this world has them: none."""
    proof = proving.measure(action.request, lambda: 0.0)
    return Proof(proof.passed, proof.worst, 1.0, 1.0, proof.detail)


@dataclass
class Device:
    """One device: a folder, an identity and, while it is switched on, an agent with its uplink."""

    core: Core
    folder: Path
    identity: Identity
    now: float = NOW
    prover: Callable[[Prove], Proof | Failure | None] = honest_prover
    journal_kind: Callable[[Path], Journal] = Journal.open
    outbox_kind: Callable[[Path, int, str], Outbox] = Outbox
    artifacts_kind: Callable[[Path], Artifacts] = Artifacts
    flags: frozenset[str] = frozenset()
    boots: int = 0
    jobs: list[Prove] = field(default_factory=list)

    def boot(self, *, link: bool = True) -> Device:
        """A new agent on the old folder; `link`: its uplink comes up too."""
        self.boots += 1
        boot = f"boot-{self.boots}"
        journal = self.journal_kind(self.folder / "journal.db")
        self.house = House(
            identity=self.identity, journal=journal, artifacts=self.artifacts_kind(self.folder / "artifacts"),
            outbox=self.outbox_kind(self.folder / "outbox.db", EPOCH, boot), trust_folder=self.folder / "trust",
            serving=Serving(), cpu_flags=self.flags, boot=boot, agent_version="0", deployments=journal.deployments(),
        )  # fmt: skip
        self.agent = Agent(self.house)
        self.jobs.clear()
        self.link: LoopbackLink = self.core.hub.connect(DEVICE)
        self.carry_out(self.agent.start(self.now))
        if link:
            self.connect()
        return self

    def connect(self) -> None:
        self.link = self.core.hub.connect(DEVICE)
        self.link.start(
            lambda message: self.carry_out(self.agent.handle(message, self.now)),
            lambda up, reason: self.carry_out(self.agent.handle(LinkChanged(up), self.now)),
        )

    def cut_power(self) -> None:
        """The agent is gone in the middle of whatever it did; only the folder stays."""
        self.core.hub._clients.pop(DEVICE, None)
        self.core.hub._queue.clear()
        self.house.journal.close()
        self.house.outbox.close()

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.link.publish(message)
                case Listen(patterns):
                    self.link.subscribe(*patterns)
                case Unlisten(patterns):
                    self.link.unsubscribe(*patterns)
                case Prove():
                    self.jobs.append(action)

    def settle(self, seconds: int = 3, *, ask: int | None = None) -> Device:
        """Lets everything under way come to an end; `ask` is asked of what serves, each second."""
        for _ in range(seconds):
            self.core.hub.run()
            while self.jobs:
                job = self.jobs.pop(0)
                outcome = self.prover(job)
                if outcome is not None:
                    self.carry_out(self.agent.handle(Proved(job.model, job.artifact, outcome), self.now))
                self.core.hub.run()
            if ask is not None and self.house.serving.incumbent(MODEL) is not None:
                self.ask(ask)
            self.now += 1.0
            self.carry_out(self.agent.tick(self.now))
        self.core.hub.run()
        return self

    def ask(self, index: int = 0) -> Answer | None:
        """One question; None where the model fails to answer it."""
        try:
            return self.house.serving.predict(MODEL, {"i": np.array([index], np.int64)})
        except runtime.ModelError:
            return None

    # --- what is seen from outside ---

    @property
    def state(self) -> Deployment:
        return self.house.deployments[MODEL]

    @property
    def answering(self) -> int | None:
        """The number of the release that answers, as its own answer tells; None if nothing does."""
        answer = self.ask()
        return math.floor(float(answer.outputs["y"][0])) if answer else None

    def codes(self) -> list[str]:
        """The codes of all events since the folder was made, oldest first."""
        return [event.code for event in self.events()]

    def events(self) -> list[DeviceEvent]:
        found = []
        for _, _, document in self.house.outbox.pending(10_000):
            found.append(codec.decode(DeviceEvent, bytes(codec.decode(Record, document).body)))
        return found

    def reported(self) -> Reported:
        """The newest report on the broker, its signature checked."""
        envelope = self.core.hub.retained[topics.reported(TENANT, DEVICE)]
        return roles.verify(envelope, REPORTED_TYPE, Reported, [roles.signer(self.identity.signing_key).public_key])

    def acknowledge(self, n: int) -> None:
        ack = codec.encode(Ack(EPOCH, n))
        self.core.link.publish(Publish(f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/event", ack))
        self.core.hub.run()


def new_device(core: Core, folder: Path) -> Device:
    folder.mkdir(parents=True, exist_ok=True)
    return Device(core, folder, new_identity(core.root))


def committed(device: Device, number: int) -> bool:
    """Whether this release passed its trial and answers."""
    state = device.state
    return (
        state.phase is Phase.STEADY
        and state.serving is not None
        and state.serving.release.number == number
        and device.answering == number
    )
