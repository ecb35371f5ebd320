"""Who may speak to the server from another machine: whoever knows the token. Guesses are counted by their address.

The token has 256 random bits, so no limit is needed to make guessing hopeless; the limit keeps a guesser from costing
more than it pays. An address that guessed wrong too often is turned away unheard for the rest of the minute, and with
it whoever begins to speak from there: a connection that has shown the token goes on. Every request is asked for it, for
a proxy may send those of several people down one connection.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping

MINUTE = 60.0  # seconds
WRONG = 10  # guesses of one address in a minute that are compared
KNOWN = 1024  # addresses that are remembered; beyond it the rest counts as one
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

    def refuse(self, source: str, given: str, now: float, *, known: bool = False) -> Refusal | None:
        """Why this request is not heard, from the address `source` with this Authorization header; None: it is.
        `known`: its connection has shown the token before, so it is compared whatever else comes from there."""
        if not 0 <= now - self._begun < MINUTE:
            self._begun, self._wrong, self._told = now, {}, False
        who = source if source in self._wrong or len(self._wrong) < KNOWN else _REST
        if self._wrong.get(who, 0) >= WRONG and not known:
            return 429, "too many wrong tokens came from your address; wait a minute", ("Retry-After", "60")
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._digest):
            return None
        if given:
            self._count(who)
        return 401, "this server asks for a token: `Authorization: Bearer TOKEN`", ("WWW-Authenticate", "Bearer")

    def visitor(self, source: str) -> Visitor:
        """One connection from this address."""
        return Visitor(self, source)

    def _count(self, who: str) -> None:
        self._wrong[who] = self._wrong.get(who, 0) + 1
        if self._wrong[who] >= WRONG and not self._told:
            self._told = True
            self._flooded(who)


class Visitor:
    """One connection: what the doorkeeper knows of it."""

    def __init__(self, door: Doorkeeper, source: str) -> None:
        self._door, self._source, self._known = door, source, False

    def refuse(self, headers: Mapping[str, str], now: float) -> Refusal | None:
        """Why this request, by its headers (names in lowercase), is not heard; None: it is."""
        refusal = self._door.refuse(self._source, headers.get("authorization", ""), now, known=self._known)
        self._known = self._known or refusal is None
        return refusal


def _digest(token: str) -> bytes:
    """Equally long for all, so that comparing says nothing of the length."""
    return hashlib.sha256(token.encode()).digest()
