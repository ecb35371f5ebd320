"""A device joins: makes its keys, finds the core by its token, believes only the CA the token names.

1. Fetch the CA certificate without trusting anybody, and compare its fingerprint with the token's.
2. Connect again, trusting that CA alone, and send the signed request.
3. Compare the root of trust in the answer with the token's hash. Only then anything is written.
"""

from __future__ import annotations

import base64
import http.client
import ssl
from urllib.parse import urlsplit

import msgspec

from appliance.edge_state import EdgeFolder, keep
from appliance.errors import Trouble
from appliance.keys import certificate_fingerprint, new_device_keys
from sync import codec, roles
from sync.chunks import digest
from sync.enrolment import ENROLMENT_TYPE, EnrolAnswer, EnrolRequest, Token
from sync.errors import Malformed

LIMIT = 256 * 1024
PATIENCE = 20.0  # seconds


class EnrolFailed(Trouble):
    """The device did not join; the message says why and what to do. Nothing was kept."""


class _Refusal(msgspec.Struct, frozen=True):
    error: str
    hint: str = ""


def read_token(text: str) -> Token:
    """The token as `falaj device token` printed it; raises EnrolFailed."""
    padded = text.strip() + "=" * (-len(text.strip()) % 4)
    try:
        return codec.decode(Token, base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, Malformed) as error:
        raise EnrolFailed("this is no enrolment token: paste it whole, as `falaj device token` printed it") from error


def enrol(folder: EdgeFolder, token: Token, now: float) -> EnrolAnswer:
    """Joins and keeps the identity in `folder`; raises EnrolFailed."""
    if folder.enrolled():
        raise EnrolFailed(f"{folder.root} is enrolled already as {folder.enrolment().device}: use another --dir")
    if now > token.expires:
        raise EnrolFailed(f"the token for {token.device} has expired: ask for a new one with `falaj device token`")
    ca = _request(token, "GET", "/v1/ca", None, _trusting_nobody())
    try:
        fingerprint = certificate_fingerprint(ca)
    except ValueError as error:
        raise EnrolFailed(f"{token.url} sent no CA certificate: {error}") from error
    if fingerprint != token.ca:
        raise EnrolFailed(f"{token.url} shows another CA than the token names: this is not your core, or it was reset")
    context = ssl.create_default_context(cadata=ca.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    keys = new_device_keys(token.device)
    sealing_key = base64.b64encode(keys.sealing_public).decode()
    request = EnrolRequest(token.tenant, token.device, token.secret, keys.csr.decode(), sealing_key)
    envelope = roles.sign(request, ENROLMENT_TYPE, keys.signing)
    try:
        answer = codec.decode(EnrolAnswer, _request(token, "POST", "/v1/enrol", envelope, context), LIMIT)
    except Malformed as error:
        raise EnrolFailed(f"{token.url} gave no enrolment's answer ({error}): is it a Falaj core?") from error
    if digest(answer.root.encode()) != token.root:
        raise EnrolFailed(
            "the root of trust in the answer is not the one the token names: nothing was kept. "
            "If the core's trust was made anew, ask for a new token; if not, somebody stands between you and it"
        )
    keep(folder, keys, answer)
    return answer


def _trusting_nobody() -> ssl.SSLContext:
    """For step 1 only: what comes back is compared with the token's fingerprint, and nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(token: Token, method: str, path: str, body: bytes | None, context: ssl.SSLContext) -> bytes:
    try:
        place = urlsplit(token.url)
        connection = http.client.HTTPSConnection(place.hostname or "", place.port, timeout=PATIENCE, context=context)
    except ValueError as error:
        raise EnrolFailed(f"the token's address {token.url!r} cannot be used: {error}") from error
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read(LIMIT)
    except (OSError, http.client.HTTPException) as error:
        raise EnrolFailed(f"no core at {token.url} ({error}): is `falaj core run` running and reachable?") from error
    finally:
        connection.close()
    if response.status != 200:
        raise EnrolFailed(f"the core refused: {_reason(content)}")
    return content


def _reason(content: bytes) -> str:
    """What the listener's error document says, or the beginning of whatever else came."""
    try:
        refusal = codec.decode(_Refusal, content, LIMIT)
    except Malformed:
        return content.decode(errors="replace")[:500]
    return f"{refusal.error}\n  {refusal.hint}" if refusal.hint else refusal.error
