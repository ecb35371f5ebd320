"""The agent's folder: identity as enrolment left it, and where each durable thing lies."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from appliance import certificates
from appliance.certificates import Certificate
from appliance.errors import Trouble
from appliance.keys import PROTECTION, DeviceKeys, certificate_fingerprint, check_private
from edge.agent import Identity
from sync import codec, durable
from sync.durable import write_private
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
    reports_key: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class EdgeFolder:
    """Paths below an agent's state folder."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def coming(self) -> Path:
        """An identity that is being written; it becomes `identity` when it is whole."""
        return self.root / "identity.new"

    @property
    def asking(self) -> Path:
        """The keys of a box that asked to join and has no answer yet."""
        return self.root / "asking"

    @property
    def token(self) -> Path:
        """Where a box that was never enrolled finds its token."""
        return self.root / "enrol.token"

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
    def splits(self) -> Path:
        return self.root / "splits"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def door(self) -> Path:
        """The agent's Unix socket, for whoever comes with a folder."""
        return self.root / "agent.sock"

    @property
    def hold(self) -> Path:
        """While a person's file of this name is here, nothing new is tried and nothing switched."""
        return self.root / "hold"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    def tls(self) -> Tls:
        own = self.identity
        return Tls(own / "ca.pem", own / "device.pem", own / "device.key")

    def enrolled(self) -> bool:
        _settle(self)
        return (self.identity / "enrolment.json").exists()

    def enrolment(self) -> Enrolment:
        """Raises NotEnrolled with the command that helps."""
        _settle(self)
        path = self.identity / "enrolment.json"
        if not path.exists():
            raise NotEnrolled(f"{self.root} is not enrolled: run `falaj edge enrol TOKEN --dir {self.root}` first")
        return msgspec.json.decode(path.read_bytes(), type=Enrolment)


def keep(folder: EdgeFolder, keys: DeviceKeys, answer: EnrolAnswer) -> None:
    """Writes the identity, in place of one that is there: cut at any point, the old one holds or the new one."""
    own = folder.coming
    shutil.rmtree(own, ignore_errors=True)
    write_private(own / "device.key", keys.signing)
    write_private(own / "sealing.key", keys.sealing)
    write_private(own / "device.pem", answer.certificate.encode())
    write_private(own / "ca.pem", answer.ca.encode())
    write_private(own / "root.json", answer.root.encode())
    kept = Enrolment(
        answer.tenant, answer.device, answer.epoch, answer.uplink_host, answer.uplink_port, answer.reports_key,
        answer.labels,
    )  # fmt: skip
    write_private(own / "enrolment.json", codec.encode(kept))  # last: half an identity is none
    if folder.identity.exists():
        shutil.rmtree(folder.identity.with_name("identity.old"), ignore_errors=True)
        folder.identity.rename(folder.identity.with_name("identity.old"))
    _settle(folder)
    shutil.rmtree(folder.identity.with_name("identity.old"), ignore_errors=True)
    shutil.rmtree(folder.asking, ignore_errors=True)


def _settle(folder: EdgeFolder) -> None:
    """A whole identity that was written, and not yet put into its place."""
    if (folder.identity / "enrolment.json").exists() or not (folder.coming / "enrolment.json").exists():
        return
    shutil.rmtree(folder.identity, ignore_errors=True)
    durable.rename(folder.coming, folder.identity)


def identity(folder: EdgeFolder) -> Identity:
    """Who this device is; raises NotEnrolled or KeyUnsafe."""
    kept = folder.enrolment()
    own = folder.identity
    for name in ("device.key", "sealing.key"):
        check_private(own / name)
    certificate = (own / "device.pem").read_bytes()
    life = certificates.read(certificate)
    return Identity(
        tenant=TenantId(kept.tenant),
        device=DeviceId(kept.device),
        epoch=kept.epoch,
        root=(own / "root.json").read_bytes(),
        signing_key=(own / "device.key").read_bytes(),
        sealing_key=(own / "sealing.key").read_bytes(),
        key_protection=PROTECTION,
        certificate=certificate.decode(),
        fingerprint=certificate_fingerprint(certificate),
        authorities=certificates.authorities((own / "ca.pem").read_bytes()),
        reports_key=kept.reports_key,
        begins=life.begins,
        ends=life.ends,
    )


def install(folder: EdgeFolder, own: Identity, certificate: str, authorities: tuple[str, ...] = ()) -> Identity:
    """Keeps the next certificate, for the key that is there, and whom to believe to be the broker (none: as before).

    One file replaces one, the authorities first: any cut leaves a pair that fits, and the rest follows at the next
    start. Raises WrongCertificate, and then nothing has changed.
    """
    trusted = "".join(authorities).encode() or (folder.identity / "ca.pem").read_bytes()
    found = Certificate(own.device, own.begins, own.ends)
    if certificate == own.certificate:
        certificates.check_issued(certificate.encode(), trusted)  # who trusts another authority alone is cut off
    else:
        found = certificates.check_successor(certificate.encode(), found, own.signing_key, trusted)
    if authorities and authorities != own.authorities:
        write_private(folder.identity / "ca.pem", trusted)
    if certificate != own.certificate:
        write_private(folder.identity / "device.pem", certificate.encode())
    return replace(
        own, certificate=certificate, fingerprint=certificate_fingerprint(certificate.encode()),
        authorities=authorities or own.authorities, begins=found.begins, ends=found.ends,
    )  # fmt: skip
