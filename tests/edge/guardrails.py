"""What tests of guardrails share: a real child that proves, a thread that ends late runs, and where bad models show."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np

from edge import proving
from edge.deadlines import Deadlines
from edge.states import Prove
from tests.edge.device import Device
from tests.edge.world import MODEL
from tests.waiting import meanwhile

PATIENCE = 60.0
BAD = 2  # the index where they show what they are
NAN = float("nan")


def quarantined(device: Device) -> set[str]:
    return {q.manifest for q in device.house.journal.quarantined(MODEL)}


def in_the_child(job: Prove) -> object:
    return proving.prove(job.request, PATIENCE)


def index(i: int) -> dict[str, np.ndarray]:
    return {"i": np.array([i], np.int64)}


def swept(deadlines: Deadlines) -> AbstractContextManager[None]:
    """A thread that ends late runs, as the agent has one."""
    return meanwhile(deadlines.sweep, 0.02)
