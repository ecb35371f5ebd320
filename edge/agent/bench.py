"""What is in memory of releases that are proved or on trial. A restart clears it: then they are loaded and measured
anew, by what the journal says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge.health import Growth
from edge.serving import Loaded
from sync.names import Digest, ModelName
from sync.reports import Validated

Times = tuple[list[float], list[float]]  # ms that the release and the one in turn with it took lately


@dataclass
class Bench:
    """Candidates, who stays warm behind them, and what is measured of both."""

    proving: dict[ModelName, Digest] = field(default_factory=dict)  # what the child is at, by plaintext digest
    shadows: dict[ModelName, tuple[Loaded, Validated]] = field(default_factory=dict)  # candidates in memory
    warm: dict[ModelName, Loaded | None] = field(default_factory=dict)  # to go back to, until commit; None: not loaded

    paces: dict[ModelName, Times] = field(default_factory=dict)  # see `pacing`
    lane_paces: dict[tuple[ModelName, int], Times] = field(default_factory=dict)  # of arms, see `splitting`
    host_slow: set[ModelName] = field(default_factory=set)  # models on trial for which that was told

    begun: float = -math.inf  # when this process began
    before: dict[ModelName, float] = field(default_factory=dict)  # MiB it held before a release on trial came in
    growth: Growth = field(default_factory=Growth)  # while arms of splits answer
