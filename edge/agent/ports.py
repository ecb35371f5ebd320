"""What the process around the walker hands it: what this box is, what guards it, what is remembered beside it, and the
few questions only the process can answer. Each has an answer of its own, so a walker works without all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.deadlines import Deadlines, standing
from edge.outcomes import Outcomes
from edge.states import Answered
from edge.trials import Trials
from sync.commands import Ask
from sync.names import Digest, ModelName
from sync.reports import DriftReport, LabelReport, RoadReport


@dataclass(frozen=True)
class Box:
    """This device as a release finds it, and the agent that runs on it."""

    boot: str  # names this process
    agent_version: str
    cpu_flags: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()  # what this box is: releases may require it (`sync.manifest.all_labels`)


@dataclass
class Guarded:
    """What models in this process are held to, and what its guard knows of it."""

    deadlines: Deadlines = field(default_factory=lambda: Deadlines(standing))  # of single answers
    room_mb: float = math.inf  # MiB that all models together may take
    memory: Callable[[], float] = lambda: 0.0  # MiB that this process holds now
    held: Callable[[], bool] = lambda: False  # whether a person holds this device at what it runs
    crashed: frozenset[Digest] = frozenset()  # artifacts that were being asked when the last process ended of a fault


@dataclass
class Evidence:
    """What is remembered of answers, and how releases are judged by it."""

    trials: Trials = field(default_factory=Trials)
    outcomes: Outcomes = field(default_factory=Outcomes)  # of splits
    label: Callable[[str, str], str | None] = lambda prediction_id, label: None  # why it is not kept, or None
    labelled: Callable[[ModelName, int], LabelReport | None] = lambda model, release: None
    drift: Callable[[ModelName], DriftReport | None] = lambda model: None
    road: Callable[[ModelName], RoadReport | None] = lambda model: None  # what of it leaves this device


@dataclass(frozen=True)
class Outside:
    """What the walker asks of the process, or tells it."""

    bindings_changed: Callable[[], None] = lambda: None
    unconfirmed: Callable[[], int] = lambda: 0  # messages that the link has taken and the broker has not confirmed
    csr: Callable[[], str] | None = None  # makes a certificate request (PEM) for the key this device has
    answer: Callable[[Ask, int, float], Answered | str] = lambda ask, seq, now: "nothing is remembered here"  # or why
