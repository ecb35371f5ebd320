"""Reads certificates: how long they hold, whose they are, whether one fits a key and an authority; and asks for one.

It decides nothing: what has ended is said by those who ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from appliance.errors import Trouble


class WrongCertificate(Trouble):
    """A certificate that is not the next one of this device; the one before is kept."""


@dataclass(frozen=True)
class Certificate:
    """What of a certificate counts here; times in seconds since 1970."""

    name: str
    begins: float
    ends: float


def read(pem: bytes) -> Certificate:
    """The first certificate of a PEM file; raises ValueError for anything else."""
    found = x509.load_pem_x509_certificate(pem)
    names = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return Certificate(name, found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


def ends_of(files: list[Path]) -> tuple[tuple[str, float], ...]:
    """(path, end) of the certificates among `files` that are there and can be read."""
    found = []
    for path in files:
        try:
            found.append((str(path), read(path.read_bytes()).ends))
        except (OSError, ValueError):  # not there, or not ours to read: other findings say so
            continue
    return tuple(found)


def unproven(reason: str) -> str:
    """Why a server was turned away, out of the reason why a link did not come up; empty where it was the line. The name
    that OpenSSL gives it stands in every text of it: another authority, another host, expired, no server's."""
    return reason if "CERTIFICATE_VERIFY_FAILED" in reason else ""


def authorities(pem: bytes) -> tuple[str, ...]:
    """Each certificate of a PEM file, in its order; raises ValueError where there is none."""
    return tuple(one.public_bytes(Encoding.PEM).decode() for one in x509.load_pem_x509_certificates(pem))


def check_issued(pem: bytes, authority: bytes) -> x509.Certificate:
    """A certificate by the authority (PEM), or by one of several. Raises WrongCertificate."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        issuers = x509.load_pem_x509_certificates(authority)
    except ValueError as error:
        raise WrongCertificate(f"the certificate that came is not by this device's authority: {error}") from error
    for issuer in issuers:
        try:
            found.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):  # not this one: the next, or the refusal below
            continue
        return found
    raise WrongCertificate("the certificate that came is not by this device's authority")


def check_successor(pem: bytes, before: Certificate, key: bytes, authority: bytes) -> Certificate:
    """The next certificate of the device of `before`: for the private `key` (PEM) it has, by the `authority` (PEM, or
    one of several), and longer. Raises WrongCertificate."""
    found = check_issued(pem, authority)
    told = read(pem)
    if told.name != before.name:
        raise WrongCertificate(f"the certificate that came is {told.name}'s, and this is {before.name}")
    if found.public_key() != load_pem_private_key(key, None).public_key():
        raise WrongCertificate("the certificate that came is for another key")
    if told.ends <= before.ends:
        raise WrongCertificate("the certificate that came does not hold longer than the one before")
    return told


def request(device: str, key: bytes) -> str:
    """A certificate request (PEM) of this device for the Ed25519 key (PEM) it has."""
    signing = load_pem_private_key(key, None)
    if not isinstance(signing, Ed25519PrivateKey):
        raise WrongCertificate("a device's key is Ed25519")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(signing, None)
    return made.public_bytes(Encoding.PEM).decode()
