"""The agent's folder: identity as enrolment left it, and where each durable thing lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import Trouble
from appliance.keys import PROTECTION, DeviceKeys, check_private, write_private
from edge.agent import Identity
from sync import codec
from sync.enrolment import EnrolAnswer
from sync.mqtt import Tls
from sync.names import DeviceId, TenantId


class NotEnrolled(Trouble):
    """This folder holds no identity."""


class Enrolment(msgspec.Struct, frozen=True):
    """What is kept of the answer, beside the keys and certificates."""

    tenant: str
    device: str
    epoch: int
    uplink_host: str
    uplink_port: int


@dataclass(frozen=True)
class EdgeFolder:
    """Paths below an agent's state folder."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def journal(self) -> Path:
        return self.root / "journal.db"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox.db"

    @property
    def buffers(self) -> Path:
        return self.root / "buffers.db"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.db"

    @property
    def budget(self) -> Path:
        return self.root / "budget.db"

    @property
    def drift(self) -> Path:
        return self.root / "drift"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    def tls(self) -> Tls:
        own = self.identity
        return Tls(own / "ca.pem", own / "device.pem", own / "device.key")

    def enrolled(self) -> bool:
        return (self.identity / "enrolment.json").exists()

    def enrolment(self) -> Enrolment:
        """Raises NotEnrolled with the command that helps."""
        path = self.identity / "enrolment.json"
        if not path.exists():
            raise NotEnrolled(f"{self.root} is not enrolled: run `falaj edge enrol TOKEN --dir {self.root}` first")
        return msgspec.json.decode(path.read_bytes(), type=Enrolment)


def keep(folder: EdgeFolder, keys: DeviceKeys, answer: EnrolAnswer) -> None:
    """Writes the identity; `enrolment.json` last, so that half an enrolment is none."""
    own = folder.identity
    write_private(own / "device.key", keys.signing)
    write_private(own / "sealing.key", keys.sealing)
    write_private(own / "device.pem", answer.certificate.encode())
    write_private(own / "ca.pem", answer.ca.encode())
    write_private(own / "root.json", answer.root.encode())
    kept = Enrolment(answer.tenant, answer.device, answer.epoch, answer.uplink_host, answer.uplink_port)
    write_private(own / "enrolment.json", codec.encode(kept))


def identity(folder: EdgeFolder) -> Identity:
    """Who this device is; raises NotEnrolled or KeyUnsafe."""
    kept = folder.enrolment()
    own = folder.identity
    for name in ("device.key", "sealing.key"):
        check_private(own / name)
    return Identity(
        tenant=TenantId(kept.tenant),
        device=DeviceId(kept.device),
        epoch=kept.epoch,
        root=(own / "root.json").read_bytes(),
        signing_key=(own / "device.key").read_bytes(),
        sealing_key=(own / "sealing.key").read_bytes(),
        key_protection=PROTECTION,
    )
