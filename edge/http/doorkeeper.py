"""Who may speak to the server from another machine: whoever knows the token. Guesses are counted by their address.

A token that is right is let in, whatever else comes from its address or from all the others: it has 256 random bits, so
no limit is needed to make guessing hopeless, and one that turned away the right one too would let whoever has many
addresses lock everybody out. The limit keeps a guesser from being told more than "wait", and has it reported. Every
request is asked for the token, for a proxy may send those of several people down one connection.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable

MINUTE = 60.0  # seconds
WRONG = 10  # guesses of one address in a minute, after which it is told to wait
KNOWN = 1024  # addresses that are counted; beyond it the rest counts as one
SITE = 64  # bits of an IPv6 address that its owner cannot choose
LEAST = 32  # characters of a token
_REST = "the rest"

Refusal = tuple[int, str, tuple[str, str]]  # status, text, header


class Doorkeeper:
    """Asks every request for `Authorization: Bearer TOKEN`. `flooded` is called once a minute at most, with who
    guesses, on the thread of the server. Raises ValueError for a token of less than LEAST characters."""

    def __init__(self, token: str, flooded: Callable[[str], None]) -> None:
        if len(token) < LEAST:
            raise ValueError(f"a token of {len(token)} characters can be guessed; it needs {LEAST} or more")
        self._digest, self._flooded = _digest(token), flooded
        self._begun, self._wrong, self._told = float("-inf"), dict[str, int](), False

    def refuse(self, source: str, given: str, now: float) -> Refusal | None:
        """Why this request is not heard, from the address `source` with this Authorization header; None: it is."""
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._digest):
            return None
        if not 0 <= now - self._begun < MINUTE:
            self._begun, self._wrong, self._told = now, {}, False
        who = _site(source)
        who = who if who in self._wrong or len(self._wrong) < KNOWN else _REST
        if self._wrong.get(who, 0) >= WRONG:
            return 429, "too many wrong tokens came from your address; wait a minute", ("Retry-After", "60")
        if given:
            self._count(who)
        return 401, "this server asks for a token: `Authorization: Bearer TOKEN`", ("WWW-Authenticate", "Bearer")

    def _count(self, who: str) -> None:
        self._wrong[who] = self._wrong.get(who, 0) + 1
        if self._wrong[who] >= WRONG and not self._told:
            self._told = True
            self._flooded(who)


def _site(source: str) -> str:
    """Whom to count a guess against: an IPv6 host has 2^64 addresses of its own, which are one."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(address), SITE), strict=False))


def _digest(token: str) -> bytes:
    """Equally long for all, so that comparing says nothing of the length."""
    return hashlib.sha256(token.encode()).digest()
