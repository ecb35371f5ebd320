"""Orders of every kind, windows, failures and power cuts in any order: what holds at the end of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.lifecycle import AT_REST
from edge.states import Phase
from sync.reports import Evidence
from tests.edge.device import Device
from tests.edge.on_trial import BEYOND, LABELS, Field, live
from tests.edge.world import MODEL

Order = tuple[int, Literal["shadow", "live"], Evidence, int, int, int]  # ... block, more retries, seconds
orders = st.tuples(
    st.integers(1, 3), st.sampled_from(["shadow", "live"]), st.sampled_from(["labels", "agreement", "guardrails"]),
    st.integers(1, 3), st.integers(0, 1), st.sampled_from([1, 2, 4]),
)  # fmt: skip
moments = st.one_of(orders, orders, st.integers(1, 30), st.sampled_from(["cut", "cut", "break", "unlabelled"]))
numbers = count()
MEMORY = Path("/dev/shm")  # power cuts are simulated, so nothing waits for a disk to sync


@pytest.fixture(scope="module")
def world() -> Iterator[Field]:
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Field(Path(folder))


@given(st.lists(moments, min_size=2, max_size=12))
@settings(max_examples=25, deadline=None)
def test_whoever_was_committed_answers_and_a_trial_leaves_nothing_behind(
    world: Field, story: list[Order | int | str]
) -> None:
    device, retry = world.device(f"d{next(numbers)}"), 0
    for moment in story:
        if isinstance(moment, tuple):
            number, mode, evidence, block, more, seconds = moment
            retry += more
            gates = replace(LABELS, evidence=evidence, block=block)
            world.order(device, number, mode=mode, gates=gates, retry=retry)
            device.settle(seconds)
        elif isinstance(moment, int):
            live(device, moment)
        elif moment == "unlabelled":
            live(device, 5, label=None)
        elif moment == "break":
            live(device, 1, index=BEYOND)
        else:
            device.cut_power()
            device.boot().settle(1)
        check(device)
    device.cut_power()


def check(device: Device) -> None:
    house, phase = device.house, device.state.phase
    assert device.answering is not None and phase is not Phase.NO_MODEL
    assert MODEL not in house.bench.shadows or phase is Phase.SHADOW
    books = device.folder / "trials" / MODEL
    if phase in AT_REST:
        assert not house.bench.shadows and not house.bench.warm
        assert house.evidence.trials.report(MODEL) is None and not books.exists()
    cards, verdicts = house.journal.why(), {q.manifest for q in house.journal.quarantined(MODEL)}
    assert {card.new.manifest for card in cards} == verdicts, "never one without the other"
    assert sorted(c.ts for c in device.cards()) == sorted(c.ts for c in cards), "told, and once"
    assert device.complaints == []
