"""What a source is: it yields units of rows, each under a name and a digest, and continues where it
stopped.

The position of a source maps the origin of each unit to a mark made here; it is committed together with the
rows. A unit that was refused as a whole leaves a mark of its own, so that its corrected version is taken
in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from core.handoffs import REFUSED, Rejection

_SEEN = "@"


class SourceError(Exception):
    """A source that cannot be read at all; the message says what to change."""

    code = "source-unreadable"


@dataclass(frozen=True)
class Unit:
    """The smallest piece that is taken in as a whole: typed rows, or why there are none. `seen` is what it looks like
    from outside, without `@`, where that tells whether it must be read again; None for rows: it was read again in vain,
    and only looks otherwise."""

    origin: str
    digest: str
    rows: pa.Table | Rejection | None
    seen: str = ""


class Feed(Protocol):
    """The port of all kinds of sources."""

    def count(self) -> int:
        """How many units there are, taken or not; raises SourceError if the source is not there."""
        ...

    def units(self, position: Mapping[str, str]) -> Iterator[Unit | None]:
        """All units in a stable order; None stands for one that `position` says is done."""
        ...


def taken(unit: Unit) -> str:
    """The mark of a unit whose rows are in the lake."""
    return _mark(unit.digest, unit.seen)


def refused(unit: Unit) -> str:
    """The mark of a unit of which nothing landed."""
    return _mark(REFUSED + unit.digest, unit.seen)


def renewed(mark: str, unit: Unit) -> str:
    """The mark of a unit that only looks otherwise than under `mark`."""
    return _mark(mark.partition(_SEEN)[0], unit.seen)


def is_done(mark: str | None, digest: str) -> bool:
    """True if exactly these bytes were taken in or refused before."""
    return mark is not None and mark.partition(_SEEN)[0] in (digest, REFUSED + digest)


def looks_done(mark: str | None, seen: str) -> bool:
    """True if what was taken in or refused before looked just so."""
    return mark is not None and mark.partition(_SEEN)[2] == seen


def has_landed(mark: str | None) -> bool:
    """True if rows of this origin, from whatever bytes, are in the lake."""
    return mark is not None and not mark.startswith(REFUSED)


def _mark(digest: str, seen: str) -> str:
    return digest + (_SEEN + seen if seen else "")
