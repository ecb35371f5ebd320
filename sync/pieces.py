"""A table or config as an assignment names it and a device answers for it: plain types, without numpy, for the
documents that carry them. What is inside them, and what is made of it, is `sync.lookups`.
"""

from __future__ import annotations

import msgspec

from sync.manifest import Blob
from sync.names import Count


class Piece(msgspec.Struct, frozen=True):
    """One version of a table or of the config, as a device shall hold it: its sealed blob, the key wrapped to the
    device (base64), and `as_of`, when the core last found its source to say so."""

    version: Count
    blob: Blob
    key: str
    as_of: float


class PieceReport(msgspec.Struct, frozen=True):
    """The version in force on a device (0: none), as of when, and why a newer one is not, if it is not."""

    version: Count
    as_of: float
    refused: str = ""
