"""What tests of guardrails share: a real child that proves, a thread that ends late runs, and where bad models show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from edge import proving
from edge.deadlines import Deadlines
from edge.states import Prove
from tests.edge.device import Device
from tests.edge.world import MODEL

PATIENCE = 60.0
BAD = 2  # the index where they show what they are
NAN = float("nan")


def quarantined(device: Device) -> set[str]:
    return {q.manifest for q in device.house.journal.quarantined(MODEL)}


def in_the_child(job: Prove) -> object:
    return proving.prove(job.request, PATIENCE)


def index(i: int) -> dict[str, np.ndarray]:
    return {"i": np.array([i], np.int64)}


@contextmanager
def swept(deadlines: Deadlines) -> Iterator[None]:
    """A thread that ends late runs, as the agent has one."""
    over = threading.Event()

    def sweep() -> None:
        while not over.wait(0.02):
            deadlines.sweep()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
