"""A whole small world around one agent: an owner who signs and a core that publishes on a loopback broker
(`tests.edge.device` is the device). Real keys, real sealing, real TUF files, real tiny ONNX graphs.

A release is a lookup table: index i is answered with `table[i]`, so an answer tells which release gave it. A NaN in
the table is a number that is not finite, an index beyond the table is a run that breaks.
"""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from core.release import publish, signing
from edge.agent import Identity
from sync import chunks, codec, golden, roles, sealing, topics
from sync.features import TensorSpec, WindowSpec
from sync.link import Publish
from sync.loopback import Hub
from sync.manifest import Binding, Blob, Lineage, Manifest, Precision, Profile, Variant
from sync.messages import (
    ASSIGNMENT_TYPE,
    Assignment,
    Gates,
    ModelOrder,
    TrustIndex,
)
from sync.names import DeviceId, Digest, ModelName, TenantId, TrustFile
from tests.core import people
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
REPORTS = bytes(range(32))  # X25519, private: what opens the records of a device; also that of `tests.core.world`
CLASSES = ("rest", "walk", "run")  # what a release says that was shipped with `says`
WINDOW = WindowSpec(1, 1, 1.0, ("i",), 2.0)


def lookup(*table: float) -> bytes:
    """`y` = `table`[`i`]."""
    constant = numpy_helper.from_array(np.array(table, np.float32), "table")
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    inputs, outputs = [graphs.value("i", ["n"], TensorProto.INT64)], [graphs.value("y", ["n"])]
    return graphs.finish([node], inputs, outputs, [constant])


def speaking(table: tuple[float, ...], says: tuple[int, ...]) -> bytes:
    """The same of a `window` that holds the index, which also speaks: `probabilities` is sure of class `says`[i]."""
    sure = np.eye(len(CLASSES), dtype=np.float32)[list(says)]
    constants = [
        numpy_helper.from_array(np.array(table, np.float32), "table"),
        numpy_helper.from_array(sure, "sure"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["sure", "i"], ["probabilities"]),
        helper.make_node("Gather", ["table", "i"], ["y"]),
    ]
    outputs = [graphs.value("probabilities", ["n", len(CLASSES)]), graphs.value("y", ["n"])]
    return graphs.finish(nodes, [graphs.value("window", ["n", 1, 1])], outputs, constants)


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
        self.root, targets = people.begun(
            self._signer, self.online.snapshot.public_key, self.online.timestamp.public_key,
            roles.signer(self.director).public_key, self.now,
        )  # fmt: skip
        self.files |= {"1.root.json": self.root, "1.targets.json": targets}
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
        says: tuple[int, ...] = (),
        graph: bytes = b"",
        shape: tuple[int, ...] = (-1,),
        int8: bytes = b"",
        bindings: tuple[Binding, ...] = (),
        vectors: bytes = b"",
    ) -> Shipped:
        """Seals, signs and publishes one release; `golden_table` is what the golden vectors claim it answers.

        With `says` it listens to windows and answers with classes, see `speaking`. `graph` is shipped in place of the
        table's, or of the one that speaks, with outputs of `shape`; `int8` is a variant that comes before it; `vectors`
        are sealed in place of golden vectors.
        """
        table = table_of(number) if table is None else table
        claimed = table if golden_table is None else golden_table
        questions: dict[str, np.ndarray] = {"i": np.array([0, 1], np.int64)}
        claims = {"y": np.array(claimed[:2], np.float32)}
        inputs, window = TensorSpec("i", "INT64", (-1,)), None
        if says:
            questions = {"window": np.array([0, 1], np.float32).reshape(2, 1, 1)}
            claims = {"probabilities": np.eye(len(CLASSES), dtype=np.float32)[list(says[:2])]} | claims
            inputs, window, graph = TensorSpec("window", "FP32", (-1, 1, 1)), WINDOW, graph or speaking(table, says)
        elif shape != (-1,):
            questions, claims = {"i": np.array([0], np.int64)}, {"y": np.array(table, np.float32).reshape(shape)}
        answers = golden.Expected(golden.pack(claims), 1e-4)
        parts: dict[Precision, bytes] = {"int8-static": int8} if int8 else {}
        parts["fp32"] = graph or lookup(*table)
        vectors = vectors or golden.encode(golden.Golden(golden.pack(questions), dict.fromkeys(parts, answers)))
        keys: dict[Digest, bytes] = {}
        sealed: dict[Digest, bytes] = {}
        variants = tuple(Variant(p, needs, _seal(part, keys, sealed)) for p, part in parts.items())
        manifest = Manifest(
            tenant, model, number, self.now, variants, _seal(vectors, keys, sealed),
            (inputs,), (TensorSpec("y", "FP32", shape),), CLASSES if says else (), window, bindings, profile,
            Lineage("s", "v", "cnn1d", 7, {}, "the only one"),
        )  # fmt: skip
        shipped = Shipped(number, codec.encode(manifest), keys, sealed)
        self.approve(shipped, model=model)
        return shipped

    def approve(self, shipped: Shipped, number: int | None = None, model: ModelName = MODEL) -> None:
        """The owner signs the manifest as release `number` of `model`; all of it goes on the broker."""
        number = shipped.number if number is None else number
        drafts = people.approved(self.files, model, number, shipped.manifest, self._signer, self.now)
        self.files |= {f"{shipped.digest}.manifest": shipped.manifest, **signing.as_files(drafts)}
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
        TENANT, DEVICE, EPOCH, root, roles.new_signing_key(), X25519PrivateKey.generate().private_bytes_raw(),
        reports_key=base64.b64encode(sealing.public_half(REPORTS)).decode(),
    )  # fmt: skip
