"""A device joins: makes its keys, finds the core by its token, believes only the CA the token names.

1. Fetch the CA certificate without trusting anybody, and compare its fingerprint with the token's.
2. Connect again, trusting that CA alone, and send the signed request.
3. Compare the root of trust in the answer with the token's hash. Only then an identity is written.

With a token of a site the box says who it is by its serial number, and keeps its keys from the first try on: its answer
may be that a person has to say so first, or be lost on its way.
"""

from __future__ import annotations

import base64
import http.client
import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from appliance import certificates
from appliance.edge.state import EdgeFolder, keep
from appliance.errors import Trouble
from appliance.keys import DeviceKeys, box_public, certificate_fingerprint, new_device_keys
from sync import codec, roles
from sync.chunks import digest
from sync.durable import write_private
from sync.enrolment import ENROLMENT_TYPE, EnrolAnswer, EnrolRequest, EnrolWaiting, Token, fingerprint
from sync.errors import Malformed
from sync.link import pause
from sync.names import BadName, Serial

LIMIT = 256 * 1024
PATIENCE = 20.0  # seconds
SERIALS = (Path("/sys/class/dmi/id/product_serial"), Path("/sys/firmware/devicetree/base/serial-number"))
NO_SERIAL = frozenset({"", "0", "none", "default string", "to be filled by o.e.m.", "system serial number",
                       "not specified", "not applicable"})  # fmt: skip

log = logging.getLogger("falaj.enrol")


class EnrolFailed(Trouble):
    """The device did not join; the message says why and what to do. Nothing was kept."""


class Unreachable(EnrolFailed):
    """Nobody answers at the token's address."""


class TurnedAway(EnrolFailed):
    """The core says no. A person there can change that: import the box, or give another token."""


class Waits(Trouble):
    """The box may join when a person at the core says so; it asks again with the same keys."""


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


def enrol(
    folder: EdgeFolder, token: Token, now: float, serial: Serial | None = None, *, again: bool = False
) -> EnrolAnswer:
    """Joins and keeps the identity in `folder`; raises EnrolFailed, or Waits.

    `serial` is who the box says it is, wanted by a token of a site. `again`: in place of the identity that is there,
    by a token for the same name; what it keeps sealed stays readable.
    """
    check(folder, token, now, serial, again=again)
    ca = _request(token, "GET", "/v1/ca", None, _trusting_nobody())
    try:
        shown = certificate_fingerprint(ca)
    except ValueError as error:
        raise EnrolFailed(f"{token.url} sent no CA certificate: {error}") from error
    if shown != token.ca:
        raise EnrolFailed(f"{token.url} shows another CA than the token names: this is not your core, or it was reset")
    context = ssl.create_default_context(cadata=ca.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    keys = keys_of(folder, token, serial, again=again, kept=token.site is not None)
    sealing_key = base64.b64encode(keys.sealing_public).decode()
    request = EnrolRequest(
        token.tenant, token.device, token.secret, keys.csr.decode(), sealing_key, token.site, serial
    )  # fmt: skip
    envelope = roles.sign(request, ENROLMENT_TYPE, keys.signing)
    answer = _answer(token, _request(token, "POST", "/v1/enrol", envelope, context), keys)
    if digest(answer.root.encode()) != token.root:
        raise EnrolFailed(
            "the root of trust in the answer is not the one the token names: nothing was kept. "
            "If the core's trust was made anew, ask for a new token; if not, somebody stands between you and it"
        )
    keep(folder, keys, answer)
    return answer


def check(folder: EdgeFolder, token: Token, now: float, serial: Serial | None, *, again: bool) -> None:
    """Raises EnrolFailed where this box has no use for this token."""
    if folder.enrolled() and not again:
        raise EnrolFailed(f"{folder.root} is enrolled already as {folder.enrolment().device}: use another --dir")
    if again and folder.enrolled() and folder.enrolment().device != token.device:
        raise EnrolFailed(f"{folder.root} is {folder.enrolment().device}, and the token is for {token.device}")
    asked = token.site is not None and (folder.asking / "device.key").exists()
    if now > token.expires and not asked:  # whoever asked in time may wait longer for a person than the token holds
        raise EnrolFailed(f"the token for {token.device or token.site} has expired: ask for a new one with "
                          "`falaj device token`")  # fmt: skip
    if token.site is not None and serial is None:
        raise EnrolFailed("this is a site's token, and the box has to say who it is: give --serial")


def keys_of(folder: EdgeFolder, token: Token, serial: Serial | None, *, again: bool, kept: bool) -> DeviceKeys:
    """Fresh ones; those of the first try where the box may have to ask twice (`kept`), and the sealing key of before
    where what is kept was sealed to it."""
    name = str(token.device or serial)
    if kept and (folder.asking / "device.key").exists():
        signing, sealing = (folder.asking / "device.key").read_bytes(), (folder.asking / "sealing.key").read_bytes()
        return DeviceKeys(signing, sealing, box_public(sealing), certificates.request(name, signing).encode())
    keys = new_device_keys(name)
    if again and folder.enrolled():
        sealing = (folder.identity / "sealing.key").read_bytes()
        keys = replace(keys, sealing=sealing, sealing_public=box_public(sealing))
    if kept:
        write_private(folder.asking / "sealing.key", keys.sealing)
        write_private(folder.asking / "device.key", keys.signing)  # last: both are there, or none is used
    return keys


def _answer(token: Token, content: bytes, keys: DeviceKeys) -> EnrolAnswer:
    try:
        return codec.decode(EnrolAnswer, content, LIMIT)
    except Malformed as error:
        no_answer = error
    try:
        waits = codec.decode(EnrolWaiting, content, LIMIT)
    except Malformed:
        raise EnrolFailed(
            f"{token.url} gave no enrolment's answer ({no_answer}): is it a Falaj core?"
        ) from no_answer  # fmt: skip
    own = fingerprint(bytes.fromhex(roles.signer(keys.signing).public_key.keyval["public"]))
    raise Waits(
        f"{waits.waiting} waits until a person says so: this box's fingerprint is {own}; compare it there, then "
        f"`falaj device accept {waits.waiting}` on the core, and try again here"
    )


def find_serial(given: str | None, folder: EdgeFolder, places: tuple[Path, ...] = SERIALS) -> Serial | None:
    """The box's serial number: given, else from `serial` in its folder, else from where its maker left it; None where
    nobody left one. Raises EnrolFailed for one that cannot be used."""
    if given is not None:
        return _serial(given)
    for place in (folder.root / "serial", *places):
        try:
            text = place.read_text(errors="replace").strip("\0 \n\t")
        except OSError:  # not there, or for root alone: the next place
            continue
        if text.lower() not in NO_SERIAL:
            return _serial(text)
    return None


def _serial(text: str) -> Serial:
    try:
        return Serial(re.sub(r"[ /]+", "-", text.strip()).strip("-"))
    except BadName as error:
        raise EnrolFailed(f"{error}; give another with --serial, and import the box under it") from error


def first_boot(
    folder: EdgeFolder,
    token: Callable[[], str],
    serial: Serial | None,
    now: Callable[[], float],
    wait: Callable[[float], object],
    chance: Callable[[], float],
) -> EnrolAnswer:
    """Joins as soon as it can: the network, the list of boxes or a person's word may come later. `wait` sleeps so many
    seconds. Raises EnrolFailed where trying again would not help: this is not the core of the token, or no token."""
    tries = 0
    while True:
        try:
            return enrol(folder, read_token(token()), now(), serial)
        except (Waits, Unreachable, TurnedAway) as later:
            log.warning("not enrolled yet: %s", later)
        wait(pause(tries, chance()))
        tries += 1


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
        raise Unreachable(f"no core at {token.url} ({error}): is `falaj core run` running and reachable?") from error
    finally:
        connection.close()
    if response.status == 503:
        raise Unreachable(f"the core at {token.url} is not ready: {_reason(content)}")
    if response.status not in (200, 202):
        raise TurnedAway(f"the core refused: {_reason(content)}")
    return content


def _reason(content: bytes) -> str:
    """What the listener's error document says, or the beginning of whatever else came."""
    try:
        refusal = codec.decode(_Refusal, content, LIMIT)
    except Malformed:
        return content.decode(errors="replace")[:500]
    return f"{refusal.error}\n  {refusal.hint}" if refusal.hint else refusal.error
