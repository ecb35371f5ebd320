"""The line to the core as the walker knows it: the session there is, and what it may carry."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.agent.strangers import Strangers
from edge.metering import Meter
from edge.states import LinkChanged
from sync.link import packet_size


@dataclass
class Line:
    """The first four as the link said them last: its next word replaces them all."""

    up: bool = False
    keeps: bool = False  # it keeps what is said: all that waits may be said at once
    session: int | None = None  # the link's number of this session: what is asked for in it is void in the next
    limit: int = 0  # bytes of the largest packet it takes; 0: any
    meter: Meter = field(default_factory=Meter)  # what it may carry down
    strangers: Strangers = field(default_factory=Strangers)  # who stood in the broker's place

    def changed(self, link: LinkChanged) -> None:
        """It came up or went down."""
        self.up, self.keeps, self.session, self.limit = link.up, link.keeps, link.session, link.limit

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes it: one packet beyond what it takes ends the session, and so the next one."""
        return not self.limit or packet_size(topic, len(payload)) <= self.limit
