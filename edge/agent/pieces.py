"""Tables and config beside the releases (`edge.agent.gathering`): what is in force, and what is under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.agent.patience import Patience
from edge.lookups import Lookups
from edge.states import HeldPiece
from sync.names import Digest, ModelName
from sync.pieces import Piece


@dataclass(frozen=True)
class Turned:
    """A table or config that was refused as it was ordered, the releases that were here then, and why."""

    piece: Piece
    here: frozenset[tuple[ModelName, int]]
    reason: str


@dataclass
class Pieces:
    """All of them, by the name of the table."""

    lookups: Lookups = field(default_factory=Lookups)  # in force
    held: dict[str, HeldPiece] = field(default_factory=dict)  # what is on disk of each
    turned: dict[str, Turned] = field(default_factory=dict)
    gathers: set[Digest] = field(default_factory=set)  # sealed digests of those under way
    waits: Patience = field(default_factory=Patience)  # those that the disk refused
