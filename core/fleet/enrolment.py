"""The tenant's certificate authority: issues the broker's, the core's and every device's certificate.

A device makes its keys itself and sends a request signed by its own key (so the sealing key in it belongs to the
same holder); a single-use token names the tenant and the device. The CA composes the certificate: CN and SAN come
from the token, never from the request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sync import codec, roles, sealing
from sync.enrolment import ENROLMENT_TYPE, EnrolRequest, knows_secret
from sync.enrolment import hash_secret as hash_secret
from sync.errors import Malformed, SyncError, Untrusted
from sync.names import DeviceId, Digest, TenantId
from sync.topics import CORE_NAME

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
SUCCESSOR_LIFE = timedelta(minutes=10)
BACKDATE = timedelta(days=1)  # a device whose clock is a little behind must still accept its peer


class Refused(SyncError):
    """An enrolment that is not admitted; the message never says which part of a token was wrong."""

    code = "enrolment-refused"


class WrongSecret(Refused):
    """Whoever asks does not know the token: no fault of who does."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Applicant:
    """Whoever asks to join, its request checked: it holds the key of the request, and knows the token."""

    request: EnrolRequest
    signing_key: bytes  # Ed25519 public, raw
    sealing_key: bytes  # X25519 public, raw


def create_authority(tenant: TenantId, now: float) -> Pair:
    """A new CA for one tenant (P-256, so that every TLS stack accepts it). Its name is its own: two of one tenant, side
    by side, have revocation lists that are told apart by it."""
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Falaj"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"tenant {tenant}"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, identifier.digest.hex()),
    ])  # fmt: skip
    builder = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return Pair(certificate.public_bytes(Encoding.PEM), _pem(key))


def issue_server(authority: Pair, hosts: tuple[str, ...], now: float, key_pem: bytes | None = None) -> Pair:
    """A server certificate for these host names and addresses (the broker, the enrolment listener); for a key that is
    there, or a new one."""
    key = _own_key(key_pem)
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    certificate = _leaf(authority, hosts[0], key.public_key(), names, ExtendedKeyUsageOID.SERVER_AUTH, now)
    return Pair(certificate, _pem(key))


def issue_core(authority: Pair, now: float, key_pem: bytes | None = None) -> Pair:
    """The core's own client certificate. No device's name can be taken for its."""
    key = _own_key(key_pem)
    san: list[x509.GeneralName] = [x509.UniformResourceIdentifier("falaj:core")]
    certificate = _leaf(authority, CORE_NAME, key.public_key(), san, ExtendedKeyUsageOID.CLIENT_AUTH, now)
    return Pair(certificate, _pem(key))


def issue_successor(authority: Pair, device: DeviceId, now: float) -> Pair:
    """A certificate of a few minutes by which the core itself takes a device's session over, and so ends it: a broker
    closes the older session of a name, and no word of ours closes the only one."""
    key = ec.generate_private_key(ec.SECP256R1())
    san: list[x509.GeneralName] = [x509.UniformResourceIdentifier("falaj:core")]
    certificate = _leaf(
        authority, device, key.public_key(), san, ExtendedKeyUsageOID.CLIENT_AUTH, now, SUCCESSOR_LIFE
    )  # fmt: skip
    return Pair(certificate, _pem(key))


def certify(
    authority: Pair, tenant: TenantId, device: DeviceId, signing_key: bytes, now: float, life: timedelta
) -> bytes:
    """A device's certificate (PEM) for its Ed25519 public key (raw), `life` long."""
    san: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"falaj:{tenant}:{device}")]
    public = Ed25519PublicKey.from_public_bytes(signing_key)
    return _leaf(authority, device, public, san, ExtendedKeyUsageOID.CLIENT_AUTH, now, life)


def fits(pair: Pair) -> bool:
    """Whether the key is the certificate's."""
    return x509.load_pem_x509_certificate(pair.certificate).public_key() == _key(pair).public_key()


def fingerprint(certificate: bytes) -> Digest:
    """SHA-256 of a PEM certificate's DER form."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    return Digest(hashlib.sha256(der).hexdigest())


def empty_revocations(authority: Pair, now: float) -> bytes:
    """A CRL without entries (PEM); the broker wants one from the start, so that revoking is a reload."""
    return revocations(authority, (), 1, now)


def revocations(authority: Pair, revoked: Iterable[tuple[int, float]], number: int, now: float) -> bytes:
    """The CRL (PEM) of these serial numbers and when each was revoked; `number` rises with each list."""
    ca = x509.load_pem_x509_certificate(authority.certificate)
    moment = datetime.fromtimestamp(now, UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(moment - BACKDATE)
        .next_update(moment + CA_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(when, UTC)).build())
    return builder.sign(_key(authority), hashes.SHA256()).public_bytes(Encoding.PEM)


def peek(envelope: bytes) -> EnrolRequest:
    """The request in an envelope, unchecked: only to find the token it speaks of."""
    return codec.decode(EnrolRequest, roles.peek(envelope))


def check(envelope: bytes, tenant: TenantId, secret_hash: str) -> Applicant:
    """Checks a request against a token's stored hash.

    Raises WrongSecret (secret, tenant), Refused (key forms), Untrusted (the envelope is not signed by the CSR's key)
    or Malformed. The caller has found the token's row and checks its expiry and its uses.
    """
    request = peek(envelope)
    if request.tenant != tenant or not knows_secret(request, secret_hash):
        raise WrongSecret("the token does not hold; ask for a new one with `falaj device token`")
    public, _ = read_csr(request.csr)
    try:
        sealing_key = base64.b64decode(request.sealing_key, validate=True)
    except ValueError as error:
        raise Malformed(f"enrolment request: sealing key: {error}") from error
    if public is None or not _can_be_wrapped_to(sealing_key):
        raise Refused("the request needs an Ed25519 key with a valid signature and an X25519 sealing key")
    checked = roles.verify(envelope, ENROLMENT_TYPE, EnrolRequest, [roles.public_key(public)])
    if checked != request:
        raise Untrusted("the envelope changed between two readings")
    return Applicant(request, public.public_bytes_raw(), sealing_key)


def read_csr(pem: str) -> tuple[Ed25519PublicKey | None, str]:
    """The key of a certificate request and the name it asks for (RFC 4514); no key unless it is an Ed25519 key that
    signed the request. Raises Malformed, whatever a stranger wrote."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        public, signed, subject = csr.public_key(), csr.is_signature_valid, csr.subject.rfc4514_string()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed(f"certificate request: {error}") from error
    return (public if signed and isinstance(public, Ed25519PublicKey) else None), subject


def _can_be_wrapped_to(sealing_key: bytes) -> bool:
    """X25519 has points of low order that no key agreement accepts; found here, not when a release is assigned."""
    try:
        sealing.wrap(bytes(sealing.KEY_BYTES), sealing_key, "falaj/1 enrolment")
    except ValueError:
        return False
    return True


def _leaf(
    authority: Pair,
    common_name: str,
    public: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    san: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: float,
    life: timedelta = LEAF_LIFE,
) -> bytes:
    ca = x509.load_pem_x509_certificate(authority.certificate)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, ca.subject, public, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .add_extension(_issuer(ca), critical=False)
    )
    return builder.sign(_key(authority), hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    now: float,
    life: timedelta,
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATE)
        .not_valid_after(moment + life)
    )


def _issuer(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key(authority: Pair) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(authority.key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Untrusted("a key of the core is not P-256")
    return key


def _own_key(pem: bytes | None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1()) if pem is None else _key(Pair(b"", pem))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
