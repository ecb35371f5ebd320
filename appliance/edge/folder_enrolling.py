"""A device joins without a network: its request goes in a folder, and so does the answer.

1. `ask`: the keys are made and kept, and with them the token; the request proves that the box knows the token's secret.
2. Somebody carries the folder to the core and back.
3. `complete`: the answer's proof, its CA and its root of trust are compared with the token. Only then an identity is
   written. Each step may be repeated as often as it takes, with the same keys.
"""

from __future__ import annotations

import base64
from pathlib import Path

from appliance.edge.enrolling import LIMIT, EnrolFailed, Waits, check, keys_of, read_token
from appliance.edge.state import EdgeFolder, keep
from appliance.keys import DeviceKeys, certificate_fingerprint
from appliance.stick import Stick
from sync import codec, roles
from sync.chunks import digest
from sync.durable import write_private
from sync.enrolment import (
    ENROLMENT_TYPE,
    CarriedAnswer,
    EnrolAnswer,
    EnrolRequest,
    EnrolWaiting,
    Token,
    fingerprint,
    hash_secret,
    is_proved,
    place_of,
    prove_request,
)
from sync.errors import Malformed
from sync.names import Serial


def ask(
    folder: EdgeFolder, place: Path, text: str, now: float, serial: Serial | None = None, *, again: bool = False
) -> str:
    """Leaves the request in the folder `place`, for the token `text`; returns the fingerprint of the box's key, for a
    person to compare. Raises EnrolFailed or StickFailed."""
    token = read_token(text)
    check(folder, token, now, serial, again=again)
    stick = Stick(place, token.tenant)
    keys = keys_of(folder, token, serial, again=again, kept=True)
    write_private(_token_file(folder), text.strip().encode())
    sealing_key = base64.b64encode(keys.sealing_public).decode()
    bare = EnrolRequest(token.tenant, token.device, "", keys.csr.decode(), sealing_key, token.site, serial)
    request = prove_request(bare, hash_secret(token.secret))
    stick.write(f"enrol/{place_of(_public(keys))}/request", roles.sign(request, ENROLMENT_TYPE, keys.signing))
    return fingerprint(_public(keys))


def asks(folder: EdgeFolder) -> bool:
    """Whether a request is on its way in a folder."""
    return _token_file(folder).exists()


def complete(folder: EdgeFolder, place: Path) -> EnrolAnswer | None:
    """Keeps the identity that the folder `place` brought; None if there is no answer in it yet. Raises Waits if a
    person has to accept the box first, EnrolFailed for an answer that is not the token's core's."""
    token = read_token(_token_file(folder).read_text())
    stick = Stick(place, token.tenant)
    keys = keys_of(folder, token, None, again=folder.enrolled(), kept=True)
    name = f"enrol/{place_of(_public(keys))}"
    content = stick.read(f"{name}/answer")
    if content is None:
        return None
    answer = _answer(token, content, keys)
    keep(folder, keys, answer)
    for end in ("request", "answer"):
        stick.remove(f"{name}/{end}")
    return answer


def _answer(token: Token, content: bytes, keys: DeviceKeys) -> EnrolAnswer:
    try:
        carried = codec.decode(CarriedAnswer, content, LIMIT)
    except Malformed as error:
        raise EnrolFailed(f"the answer in the folder cannot be read ({error}): carry it to the core again") from error
    if not is_proved(carried, _public(keys), hash_secret(token.secret)):
        raise EnrolFailed("the answer in the folder is not this token's core's: nothing was kept. Take the folder to "
                          "the core again; if it stays so, somebody writes into it")  # fmt: skip
    body = bytes(carried.answer)
    try:
        answer = codec.decode(EnrolAnswer, body, LIMIT)
    except Malformed:
        waits = codec.decode(EnrolWaiting, body, LIMIT)
        raise Waits(
            f"{waits.waiting} waits until a person says so: this box's fingerprint is {waits.fingerprint}; compare it "
            f"there, then `falaj device accept {waits.waiting}` on the core, and carry the folder once more"
        ) from None
    if certificate_fingerprint(answer.ca.encode()) != token.ca or digest(answer.root.encode()) != token.root:
        raise EnrolFailed("the answer names another CA or root of trust than the token: nothing was kept; if the "
                          "core's trust was made anew, ask for a new token")  # fmt: skip
    return answer


def _public(keys: DeviceKeys) -> bytes:
    return bytes.fromhex(roles.signer(keys.signing).public_key.keyval["public"])


def _token_file(folder: EdgeFolder) -> Path:
    return folder.asking / "token"
