"""Signed envelopes: only the right key under the right type opens them, and no bytes cause surprise."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import Key

from sync import codec, roles
from sync.errors import Malformed, SyncError, Untrusted
from sync.messages import ASSIGNMENT_TYPE, REPORTED_TYPE, Ack, CoreStatus

DIRECTOR = roles.new_signing_key()
STRANGER = roles.new_signing_key()
DOCUMENT = Ack(1, 2)


def public(pem: bytes) -> Key:
    return roles.signer(pem).public_key


def envelope() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(roles.sign(DOCUMENT, ASSIGNMENT_TYPE, DIRECTOR))
    return parsed


def opened(wire: dict[str, Any] | bytes, keys: list[Key] | None = None) -> Ack:
    payload = wire if isinstance(wire, bytes) else json.dumps(wire).encode()
    return roles.verify(payload, ASSIGNMENT_TYPE, Ack, keys or [public(DIRECTOR)])


def test_a_signed_document_comes_back() -> None:
    assert opened(envelope()) == DOCUMENT
    assert opened(envelope(), [public(STRANGER), public(DIRECTOR)]) == DOCUMENT


def test_a_strangers_signature_is_not_trusted() -> None:
    with pytest.raises(Untrusted):
        opened(roles.sign(DOCUMENT, ASSIGNMENT_TYPE, STRANGER))


def test_a_stranger_under_the_directors_key_id_is_not_trusted() -> None:
    wire = json.loads(roles.sign(DOCUMENT, ASSIGNMENT_TYPE, STRANGER))
    wire["signatures"][0]["keyid"] = public(DIRECTOR).keyid
    with pytest.raises(Untrusted):
        opened(wire)


def test_no_keys_trust_nothing() -> None:
    with pytest.raises(Untrusted):
        roles.verify(roles.sign(DOCUMENT, ASSIGNMENT_TYPE, DIRECTOR), ASSIGNMENT_TYPE, Ack, [])


def test_a_type_cannot_be_taken_for_another() -> None:
    wire = envelope()
    with pytest.raises(Untrusted, match="envelope holds"):
        roles.verify(json.dumps(wire).encode(), REPORTED_TYPE, Ack, [public(DIRECTOR)])
    wire["payloadType"] = REPORTED_TYPE  # relabelled on the way: the type is part of what was signed
    with pytest.raises(Untrusted):
        roles.verify(json.dumps(wire).encode(), REPORTED_TYPE, Ack, [public(DIRECTOR)])


def test_changed_content_is_found() -> None:
    wire = envelope()
    wire["payload"] = base64.b64encode(codec.encode(Ack(1, 3))).decode()
    with pytest.raises(Untrusted):
        opened(wire)


def test_without_a_signature_nothing_opens() -> None:
    wire = envelope()
    wire["signatures"] = []
    with pytest.raises(Untrusted):
        opened(wire)


def test_a_true_signature_under_a_wrong_document_is_malformed() -> None:
    payload = roles.sign(CoreStatus("online", 1.0), ASSIGNMENT_TYPE, DIRECTOR)
    with pytest.raises(Malformed):
        opened(payload)


@pytest.mark.parametrize(
    "signatures",
    [
        [{}],
        [{"keyid": "x"}],
        [{"keyid": 1, "sig": "AAAA"}],
        [{"keyid": "x", "sig": "no base64!"}],
        [{"keyid": "x", "sig": 7}],
        [{"keyid": "x", "sig": "é"}],
    ],
)
def test_broken_signatures_are_refused(signatures: list[dict[str, Any]]) -> None:
    wire = envelope()
    wire["signatures"] = signatures
    with pytest.raises(SyncError):
        opened(wire)


@pytest.mark.parametrize("payload", ["no base64!", "é", "AAA"])
def test_a_broken_payload_is_malformed(payload: str) -> None:
    wire = envelope()
    wire["payload"] = payload
    with pytest.raises(Malformed):
        opened(wire)


@given(st.binary(max_size=100))
def test_foreign_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        opened(data)
    with pytest.raises(Malformed):
        roles.peek(data)


def test_peek_shows_the_content_without_trusting_it() -> None:
    assert roles.peek(roles.sign(DOCUMENT, ASSIGNMENT_TYPE, STRANGER)) == codec.encode(DOCUMENT)


def test_the_same_key_gives_the_same_id_from_pem_and_from_metadata() -> None:
    key = public(DIRECTOR)
    assert roles.key_from_dict(key.keyid, key.to_dict()) == key


def test_only_ed25519_signs() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(Untrusted, match="Ed25519"):
        roles.signer(pem)


@pytest.mark.parametrize("keyid", ["[]", "{}", "5", "null"])
def test_a_key_id_that_is_no_text_is_malformed(keyid: str) -> None:
    """It must not get as far as a dictionary: a retained one would end its reader at every start."""
    envelope = f'{{"payload":"e30=","payloadType":"k","signatures":[{{"keyid":{keyid},"sig":"AAAA"}}]}}'
    key = roles.signer(roles.new_signing_key()).public_key
    with pytest.raises(Malformed):
        roles.verify(envelope.encode(), "k", Ack, [key])
