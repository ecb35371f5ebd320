"""The words of enrolment, over HTTPS or in a folder, before there is a certificate: whom a newcomer believes, and who
it is; and how a device asks for its next certificate.

In a folder the token's secret must not lie in the clear. There a request and its answer carry a *proof* instead: a MAC
under the secret's hash, which only the token's holder and the core know. The request is bound to its own key besides,
so whoever copies the folder can neither join by it nor change a word of the answer.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec
from msgspec.structs import replace

from sync import codec
from sync.messages import PROTOCOL
from sync.names import DeviceId, Digest, Serial, SiteId, TenantId

ENROLMENT_TYPE = "application/vnd.falaj.enrolment+json"
RENEWAL_TYPE = "application/vnd.falaj.renewal+json"


class Token(msgspec.Struct, frozen=True):
    """What `falaj device token` prints (base64url of this document): where to go and whom to believe.

    It is for one device, or with `site` for the boxes of a site, which say who they are by their serial number.
    """

    url: str
    tenant: TenantId
    device: DeviceId | None
    secret: str
    ca: Digest  # SHA-256 of the CA certificate (DER)
    root: Digest  # SHA-256 of the first TUF root
    expires: float
    site: SiteId | None = None
    v: int = PROTOCOL


class EnrolRequest(msgspec.Struct, frozen=True):
    """Signed (DSSE) by the key of the CSR, so that the sealing key is bound to the same holder. Either `device` (of
    its token) or `site` and `serial`."""

    tenant: TenantId
    device: DeviceId | None
    secret: str
    csr: str  # PEM
    sealing_key: str  # X25519 public key, base64
    site: SiteId | None = None
    serial: Serial | None = None
    proof: str = ""  # in a folder: of the same request without it, in place of the secret


class EnrolAnswer(msgspec.Struct, frozen=True):
    tenant: TenantId
    device: DeviceId
    epoch: int
    certificate: str  # PEM
    ca: str  # PEM
    root: str  # TUF root metadata (JSON text), its SHA-256 stands in the token
    uplink_host: str
    uplink_port: int
    reports_key: str = ""  # X25519 public key (base64): what records are sealed to before the first assignment
    labels: tuple[str, ...] = ()  # what the owner's list says that this box is; beside those of its own settings


class EnrolWaiting(msgspec.Struct, frozen=True):
    """The box may join when a person says so; `fingerprint` is what both can compare. It asks again with the same
    keys."""

    waiting: DeviceId
    fingerprint: str


class CarriedAnswer(msgspec.Struct, frozen=True):
    """An EnrolAnswer or an EnrolWaiting in a folder; `proof` is of its bytes."""

    answer: msgspec.Raw
    proof: str


class RenewalRequest(msgspec.Struct, frozen=True):
    """The body of `up/csr`, signed (DSSE) by the key of the present certificate; the answer stands in `desired`."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    csr: str  # PEM, by the same key


def hash_secret(secret: str) -> str:
    """What the catalog keeps of a token's secret (256 random bits need no slow hash)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def prove_request(request: EnrolRequest, secret_hash: str) -> EnrolRequest:
    """The request with a proof in place of the secret."""
    bare = replace(request, secret="", proof="")
    return replace(bare, proof=_mac(secret_hash, "request", codec.encode(bare)))


def knows_secret(request: EnrolRequest, secret_hash: str) -> bool:
    """Whether whoever wrote this request knows the secret of this hash: it says it, or proves it."""
    if request.proof:
        return hmac.compare_digest(prove_request(request, secret_hash).proof, request.proof)
    return hmac.compare_digest(hash_secret(request.secret), secret_hash)


def prove_answer(answer: bytes, key: bytes, secret_hash: str) -> CarriedAnswer:
    """An answer that lies in a folder, to the box of this public key (Ed25519, raw)."""
    return CarriedAnswer(msgspec.Raw(answer), _mac(secret_hash, f"answer to {place_of(key)}", answer))


def is_proved(answer: CarriedAnswer, key: bytes, secret_hash: str) -> bool:
    """Whether the core wrote this answer to the box of this public key."""
    return hmac.compare_digest(prove_answer(bytes(answer.answer), key, secret_hash).proof, answer.proof)


def place_of(public_key: bytes) -> str:
    """Under which name a box of this key (Ed25519, raw) asks in a folder: its fingerprint."""
    return fingerprint(public_key).replace(" ", "")


def _mac(secret_hash: str, what: str, document: bytes) -> str:
    message = f"falaj/1 enrolment {what}\n".encode() + document
    return hmac.new(secret_hash.encode(), message, hashlib.sha256).hexdigest()


def fingerprint(public_key: bytes) -> str:
    """What a person compares on both sides: the beginning of the SHA-256 of a raw Ed25519 public key, in fours."""
    text = hashlib.sha256(public_key).hexdigest()[:24]
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))
