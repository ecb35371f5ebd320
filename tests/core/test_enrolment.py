"""The tenant's authority: names come from the token, keys from the device, and nobody gets in by asking nicely."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.keys import certificate_fingerprint, new_device_keys
from core.fleet import enrolment
from sync import roles
from sync.enrolment import Token
from sync.errors import Malformed, SyncError, Untrusted
from sync.names import Digest, TenantId
from tests.core.newcomers import certified
from tests.core.world import ONE, START, TENANT, request

AUTHORITY = enrolment.create_authority(TENANT, START)
SECRET = "s" * 43
HASH = enrolment.hash_secret(SECRET)
TOKEN = Token("https://core.test", TENANT, ONE, SECRET, Digest("a" * 64), Digest("b" * 64), START + 60)
KEYS = new_device_keys(ONE)


def admit(envelope: bytes, tenant: TenantId = TENANT) -> bytes:
    return certified(AUTHORITY, envelope, HASH, START, tenant)[1]


def csr(names: list[tuple[x509.ObjectIdentifier, str]], san: str = "") -> str:
    """A request by the device's own key that asks for these names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    key = load_pem_private_key(KEYS.signing, None)
    assert isinstance(key, Ed25519PrivateKey)
    return builder.sign(key, None).public_bytes(Encoding.PEM).decode()


def test_a_device_gets_the_name_its_token_says() -> None:
    found, pem = certified(AUTHORITY, request(TOKEN, KEYS), HASH, START)
    certificate = x509.load_pem_x509_certificate(pem)
    assert found.request.device == ONE
    assert [(a.oid, a.value) for a in certificate.subject] == [(NameOID.COMMON_NAME, ONE)]
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [n.value for n in san] == [f"falaj:{TENANT}:{ONE}"]
    assert certificate.public_key() == load_pem_private_key(KEYS.signing, None).public_key()
    assert found.sealing_key == KEYS.sealing_public


def test_names_asked_for_in_the_request_are_ignored() -> None:
    wish = csr([(NameOID.COMMON_NAME, "core@falaj"), (NameOID.ORGANIZATION_NAME, "Evil")], san="core.test")
    certificate = x509.load_pem_x509_certificate(admit(request(TOKEN, KEYS, csr=wish)))
    assert certificate.subject.rfc4514_string() == f"CN={ONE}"
    assert b"core.test" not in certificate.public_bytes(Encoding.DER)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def foreign_algorithm() -> str:
    """A well-formed request whose key is of a kind that nobody knows."""
    der = x509.load_pem_x509_csr(KEYS.csr).public_bytes(Encoding.DER)
    changed = der.replace(bytes.fromhex("06032b6570"), bytes.fromhex("06032b6563"), 1)
    text = base64.encodebytes(changed).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def elliptic() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


REFUSED: dict[str, tuple[type[SyncError], dict[str, Any]]] = {
    "a wrong secret": (enrolment.Refused, {"secret": "t" * 43}),
    "no secret": (enrolment.Refused, {"secret": ""}),
    "another tenant": (enrolment.Refused, {"tenant": "other"}),
    "a key that is not Ed25519": (enrolment.Refused, {"csr": elliptic()}),
    "a key of an unknown kind": (Malformed, {"csr": foreign_algorithm()}),
    "no request": (Malformed, {"csr": "-----BEGIN CERTIFICATE REQUEST-----"}),
    "a request of another key": (Untrusted, {"csr": new_device_keys(ONE).csr.decode()}),
    "a sealing key that is not base64": (Malformed, {"sealing_key": "%%%"}),
    "a sealing key that is too short": (enrolment.Refused, {"sealing_key": base64.b64encode(bytes(31)).decode()}),
    "a sealing key of low order": (enrolment.Refused, {"sealing_key": base64.b64encode(bytes(32)).decode()}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_hold_is_not_admitted(case: str) -> None:
    error, lies = REFUSED[case]
    with pytest.raises(error):
        admit(request(TOKEN, KEYS, **lies))


def test_the_envelope_is_signed_by_the_key_that_gets_the_certificate() -> None:
    with pytest.raises(Untrusted):
        admit(request(TOKEN, KEYS, signer=roles.new_signing_key()))


def test_a_token_of_one_tenant_does_not_open_another() -> None:
    with pytest.raises(enrolment.Refused):
        admit(request(TOKEN, KEYS), TenantId("other"))


def test_a_request_for_a_name_that_is_none_cannot_even_be_read() -> None:
    for name in ("core@falaj", "#", "+", "a/b", "watch-1\x00", "", "w" * 64, "wаtch"):
        with pytest.raises(Malformed):
            enrolment.peek(request(TOKEN, KEYS, device=name))


@pytest.mark.parametrize("kind", ["device", "core", "server"])
def test_openssl_agrees_that_the_authority_signed_it(kind: str, tmp_path: Path) -> None:
    made = {
        "device": lambda: admit(request(TOKEN, KEYS)),
        "core": lambda: enrolment.issue_core(AUTHORITY, START).certificate,
        "server": lambda: enrolment.issue_server(AUTHORITY, ("core.test", "127.0.0.1"), START).certificate,
    }
    (tmp_path / "leaf.pem").write_bytes(made[kind]())
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.certificate)
    (tmp_path / "crl.pem").write_bytes(enrolment.empty_revocations(AUTHORITY, START))
    command = ["openssl", "verify", "-x509_strict", "-crl_check", "-attime", str(int(START)),
               "-purpose", "sslserver" if kind == "server" else "sslclient",
               "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "leaf.pem"]  # fmt: skip
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def test_a_server_is_named_by_its_hosts() -> None:
    pair = enrolment.issue_server(AUTHORITY, ("core.test", "127.0.0.1"), START)
    san = x509.load_pem_x509_certificate(pair.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(n.value) for n in san.value] == ["core.test", "127.0.0.1"]


def test_the_empty_revocation_list_is_the_authoritys() -> None:
    crl = x509.load_pem_x509_crl(enrolment.empty_revocations(AUTHORITY, START))
    authority = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key) and list(crl) == [] and crl.issuer == authority.subject
    assert crl.next_update_utc is not None and crl.next_update_utc > datetime.fromtimestamp(START, UTC)


def test_both_ends_compute_the_same_fingerprint() -> None:
    assert enrolment.fingerprint(AUTHORITY.certificate) == certificate_fingerprint(AUTHORITY.certificate)
