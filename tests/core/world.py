"""A small real world for the tests of the core: one tenant's steward on real files, its owner, and devices."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from appliance.keys import DeviceKeys, box_public, new_box_key, new_device_keys
from core import orders
from core.answers import Answer
from core.catalog import open_catalog
from core.fleet import enrolment
from core.fleet.enrolment import Pair
from core.handoffs import Artifact, Candidate, JobSpec, LakeFile, Landed, Score, Scorecard, Verdict
from core.ingest.spool import Spool
from core.orders import AnyOrder
from core.project import Column, Contract, Model, ModelGates, Project, Rollout, Source, View
from core.release import metadata, signing
from core.release.gates import NEEDED
from core.release.registry import ArtifactStore, BlobStore
from core.steward import Action, House, Keys, Send, SendBlob, StartJob, Steward
from sync import codec, records, roles, topics
from sync.enrolment import ENROLMENT_TYPE, EnrolRequest, Token
from sync.errors import Damaged
from sync.features import TensorSpec, WindowSpec
from sync.link import Message, Publish
from sync.messages import REPORTED_TYPE, SAMPLE, Record, Reported
from sync.names import DeviceId, Digest, Kind, ModelName, TenantId
from sync.reports import ModelReport, Release
from tests.core import people

TENANT = TenantId("acme")
MODEL = ModelName("motion")
ONE, TWO, THREE = DeviceId("watch-1"), DeviceId("watch-2"), DeviceId("watch-3")
START = 1_790_000_000.0
DAY = 86_400.0
WINDOW = WindowSpec(4, 2, 1.0, ("x", "y"), 2.0)
SEEN = 1 << 40  # what a device says that has taken in every assignment so far
CATALOG_KEY = bytes(range(32))

_online = {name: roles.new_signing_key() for name in ("director", "snapshot", "timestamp")}
_online["reports"] = bytes(range(32))  # X25519; also that of the devices of `tests.edge.world`
REPORTS_KEY = base64.b64encode(box_public(_online["reports"])).decode()
_owner = roles.new_signing_key()
BOX_KEY = new_box_key()  # what samples are sealed to, its private half
AUTHORITY = enrolment.create_authority(TENANT, START)


def project(canary: tuple[DeviceId, ...] = (ONE,)) -> Project:
    """One source, one view, one model; the canary is the first watch."""
    columns = {"ts": Column(type="float64"), "who": Column(type="string"), "label": Column(type="string"),
               "x": Column(type="float32"), "y": Column(type="float32")}  # fmt: skip
    return Project(
        sources={"watches": Source(kind="files", path="*.csv", contract="rows", time="ts")},
        contracts={"rows": Contract(columns=columns)},
        views={"windows": View(source="watches", entity="who", label="label", window=WINDOW)},
        models={MODEL: Model(view="windows", gates=ModelGates(min_accuracy=0.8), rollout=Rollout(canary=canary))},
    )


def landed(name: str = "day-1.parquet") -> Landed:
    file = LakeFile(name, 10, Digest("1" * 64))
    return Landed("watches", (file,), (), {"day-1.csv": "2" * 64}, 10)


@dataclass
class Device:
    """A device that enrolled: its keys, its certificate, and what it says, signed."""

    name: DeviceId
    epoch: int
    keys: DeviceKeys
    certificate: bytes
    seq: int = 0

    def report(self, models: dict[ModelName, ModelReport] | None = None, *, at: float = START, **other: Any) -> Message:
        """Its next `reported`, signed; `other` fields lie."""
        self.seq += 1
        said: dict[str, Any] = {"tenant": TENANT, "device": self.name, "epoch": self.epoch, "seq": self.seq}
        said |= {"seen": SEEN, "boot": "b"} | other
        document = Reported(ts=at, models=models or {}, **said)
        return self.message("reported", roles.sign(document, REPORTED_TYPE, self.keys.signing))

    def record(self, body: object, n: int, kind: str = "event", epoch: int | None = None) -> Message:
        """A record of its outbox as it leaves: sealed, unless it is a sample."""
        raw = body if isinstance(body, bytes) else codec.encode(body)
        record = Record(epoch or self.epoch, n, START, "b", msgspec.Raw(raw))
        if kind != SAMPLE:
            record = records.seal(record, TENANT, self.name, Kind(kind), REPORTS_KEY)
        return self.message(f"up/{kind}", codec.encode(record))

    def message(self, path: str, payload: bytes, *, retained: bool = False) -> Message:
        return Message(f"{topics.tenant_root(TENANT)}/d/{self.name}/{path}", payload, 1, retained)


def serving(manifest: Digest, number: int = 1, phase: str = "steady", **more: Any) -> ModelReport:
    """What a device says that answers with this release."""
    return ModelReport(phase, START, Release(number, manifest, Digest("3" * 64)), **more)


class OnlineKeys:
    """The steward's further online keys, in memory. A role without any has lost its files; those of a role among
    `damaged` do not open."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, ...]] = {}
        self.damaged: set[str] = set()

    def held(self, role: str) -> tuple[bytes, ...]:
        if role in self.damaged:
            raise Damaged(f"{role} does not open with this tenant's key: put it back from the backup, or move it away")
        return self.kept.get(role, ())

    def bring(self, role: str, pem: bytes, keep: bytes) -> None:
        if keep:
            self.held(role)
        self.kept[role] = (keep, pem) if keep else (pem,)


@dataclass
class Authorities:
    """The tenant's authorities, in memory."""

    present: Pair
    following: Pair | None = None

    def bring(self, pair: Pair) -> None:
        self.following = pair

    def settle(self) -> None:
        assert self.following is not None
        self.present, self.following = self.following, None


class World:
    """One tenant's core. `order` asserts nothing; `must` asserts that the order was done."""

    def __init__(self, folder: Path, *, authority: Pair = AUTHORITY, now: float = START) -> None:
        self.folder, self.authorities, self.now = folder, Authorities(authority), now
        self.owner = roles.signer(_owner)
        self.rng = random.Random(7)
        self.online = OnlineKeys()
        self.sent: list[Any] = []
        self.jobs: list[JobSpec] = []
        self.actions: list[Action] = []
        self.open()

    @property
    def authority(self) -> Pair:
        """The one in force."""
        return self.authorities.present

    def open(self) -> None:
        """The steward on what lies in the folder: also how it starts after it was killed."""
        self.catalog = open_catalog(self.folder / "catalog.db", CATALOG_KEY)
        self.house = House(
            tenant=TENANT,
            catalog=self.catalog,
            keys=Keys(**_online),
            online=self.online,
            authority=self.authorities.present,
            authorities=self.authorities,
            successor=self.authorities.following,
            artifacts=ArtifactStore(self.folder / "artifacts", TENANT, lambda name: bytes.fromhex(name)),
            blobs=BlobStore(self.folder / "blobs"),
            spool=Spool(self.folder / "samples"),
            random=self.rng.randbytes,
            enrol_url="https://core.test:8443",
            uplink=("core.test", 8883),
            tenant_key=base64.b64encode(box_public(BOX_KEY)).decode(),
        )
        self.steward = Steward(self.house)
        self.take(self.steward.start(self.now))

    def reopen(self) -> None:
        self.catalog.close()
        self.open()

    def take(self, actions: list[Action]) -> list[Action]:
        """Keeps what the steward wants done."""
        self.actions += actions
        self.sent += self.said(actions)
        self.jobs += [a.spec for a in actions if isinstance(a, StartJob)]
        return actions

    def said(self, actions: list[Action]) -> list[Publish]:
        """All that goes to the broker, in order; the chunks of a blob as they would be read one by one."""
        found: list[Publish] = []
        for action in actions:
            if isinstance(action, Send):
                found.append(action.message)
            elif isinstance(action, SendBlob):
                found += self.house.chunks(action)
        return found

    def order(self, order: AnyOrder) -> Answer:
        answer, actions = self.steward.order(order, self.now)
        self.take(actions)
        return answer

    def must(self, order: AnyOrder) -> dict[str, Any]:
        answer = self.order(order)
        assert answer.ok, answer
        return answer.result

    def hear(self, message: Message) -> list[Action]:
        return self.take(self.steward.handle(message, self.now))

    def tick(self, seconds: float = 0.0) -> list[Action]:
        self.now += seconds
        return self.take([*self.steward.tick(self.now), *self.steward.renew(self.now)])

    def codes(self, limit: int = 100) -> list[str]:
        """The codes of all events, oldest first."""
        return [e.code for e in reversed(self.catalog.events.newest(limit))]

    def last(self, topic: str) -> bytes | None:
        """The payload sent last on this topic."""
        return next((m.payload for m in reversed(self.sent) if m.topic == topic), None)

    # --- people ---

    def root_and_targets(self) -> tuple[bytes, bytes]:
        online = self.must(orders.TrustKeys())
        keys = {name: roles.key_from_dict(k["keyid"], {f: v for f, v in k.items() if f != "keyid"})
                for name, k in online.items()}  # fmt: skip
        return people.begun(self.owner, keys["snapshot"], keys["timestamp"], keys["director"], self.now)

    def ready(self, canary: tuple[DeviceId, ...] = (ONE,)) -> World:
        """Trust begun, project applied."""
        root, targets = self.root_and_targets()
        self.must(orders.TrustInit(root=root.decode(), targets=targets.decode()))
        self.must(orders.ApplyProject(project=project(canary), folder=str(self.folder)))
        return self

    def candidate(self, model: bytes = b"a model", *, accepted: bool = True, golden: bytes = b"golden") -> Candidate:
        store = self.house.artifacts
        artifact = Artifact("fp32", (), store.put(model), len(model))
        card = Scorecard(200, (Score("fp32", 0.9, 1.0, 50.0, 80.0, len(model)),), "fp32", "it is the best", 1e-7)
        verdict = Verdict("G2", "pass" if accepted else "fail", "accuracy 0.9, wanted 0.95")
        others = tuple(Verdict(gate, "pass", "") for gate in NEEDED if gate != "G2")
        return Candidate(
            MODEL, "s1", "v1", Digest("4" * 64), "cnn1d", 7, ("rest", "walk", "run"), WINDOW,
            (TensorSpec("window", "FP32", (-1, 4, 2)),), (TensorSpec("probabilities", "FP32", (-1, 3)),),
            (artifact,), store.put(golden), card, (verdict, *others), accepted,
        )  # fmt: skip

    def job(self) -> int:
        """A training job that was started."""
        if not self.catalog.datasets.files("watches"):
            ingest = self.must(orders.Ingest(source="watches"))["job"]
            self.must(orders.CommitRows(job=ingest, landed=landed()))
        return int(self.must(orders.Train(model=MODEL))["job"])

    def stage(self, model: bytes = b"a model") -> int:
        """A release that awaits approval; its number."""
        return int(self.must(orders.CommitCandidate(job=self.job(), candidate=self.candidate(model)))["number"])

    def approval(self, number: int) -> orders.Approve:
        """The owner's signature under a release."""
        found = self.catalog.releases.release(MODEL, number)
        assert found is not None
        drafts = people.approved(self.catalog.releases.trust(), MODEL, number, found[1], self.owner, self.now)
        return orders.Approve(
            model=MODEL, number=number, metadata={name: data.decode() for name, data in drafts.items()}
        )

    def release(self, model: bytes = b"a model") -> tuple[int, Digest]:
        """A release, approved: (number, manifest)."""
        number = self.stage(model)
        return number, Digest(self.must(self.approval(number))["digest"])

    def revocation(self, number: int) -> orders.RevokeRelease:
        """The owner's signature under the end of a release."""
        files = self.catalog.releases.trust()
        drafts = signing.revocation(files, MODEL, number, metadata.later(self.now, signing.LIFE))
        texts = {name: data.decode() for name, data in signing.sign(files, drafts, [self.owner]).items()}
        return orders.RevokeRelease(model=MODEL, number=number, metadata=texts, reason="a test")

    # --- devices ---

    def token(self, device: DeviceId, minutes: int = 60) -> Token:
        text = self.must(orders.IssueToken(device=device, minutes=minutes))["token"]
        return codec.decode(Token, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    def enrol(self, name: DeviceId) -> Device:
        keys = new_device_keys(name)
        answer = self.must(orders.Enrol(envelope=request(self.token(name), keys).decode()))
        return Device(name, answer["epoch"], keys, answer["certificate"].encode())


def request(token: Token, keys: DeviceKeys, signer: bytes | None = None, **lies: Any) -> bytes:
    """An enrolment request as a device sends it; `lies` replaces fields."""
    said = {"tenant": token.tenant, "device": token.device, "secret": token.secret, "csr": keys.csr.decode(),
            "sealing_key": base64.b64encode(keys.sealing_public).decode()} | lies  # fmt: skip
    return roles.sign(EnrolRequest(**said), ENROLMENT_TYPE, signer or keys.signing)
