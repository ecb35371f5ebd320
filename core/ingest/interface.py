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

from core.handoffs import Rejection

_REFUSED = "refused:"


class SourceError(Exception):
    """A source that cannot be read at all; the message says what to change."""

    code = "source-unreadable"


@dataclass(frozen=True)
class Unit:
    """The smallest piece that is taken in as a whole: typed rows, or why there are none."""

    origin: str
    digest: str
    rows: pa.Table | Rejection


class Feed(Protocol):
    """The port of all kinds of sources."""

    def count(self) -> int:
        """How many units there are, taken or not; raises SourceError if the source is not there."""
        ...

    def units(self, position: Mapping[str, str]) -> Iterator[Unit | None]:
        """All units in a stable order; None stands for one that `position` says is done."""
        ...


def taken(digest: str) -> str:
    """The mark of a unit whose rows are in the lake."""
    return digest


def refused(digest: str) -> str:
    """The mark of a unit of which nothing landed."""
    return _REFUSED + digest


def is_done(mark: str | None, digest: str) -> bool:
    """True if exactly these bytes were taken in or refused before."""
    return mark in (taken(digest), refused(digest))


def has_landed(mark: str | None) -> bool:
    """True if rows of this origin, from whatever bytes, are in the lake."""
    return mark is not None and not mark.startswith(_REFUSED)
