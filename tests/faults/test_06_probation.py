"""Fault 6: a release degrades on trial. It leaves within one look of the walker, and there is no to and fro after.

Here it breaks, or says what is no number. One that is too slow is in `tests/edge/test_agent_pacing.py`, by a real clock
in `tests/edge/test_bad_models.py`, which also has one that grows and one that says the same to everything.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sync.messages import Gates
from tests.edge.device import committed, new_device
from tests.edge.world import Core

LONG = Gates(soak_answers=10_000)
NAN = float("nan")


@pytest.mark.parametrize(
    ("table", "index"), [((2.0, 2.5, NAN), 2), ((2.0, 2.5, 2.25), 99)], ids=["no-number", "breaks"]
)
def test_what_went_home_is_not_tried_again_whatever_is_said_or_cut(
    ram: Path, table: tuple[float, ...], index: int
) -> None:
    core = Core()
    device = new_device(core, ram).boot().commit(core.ship(1))
    bad = core.ship(2, table)
    core.assign(bad, device.identity, gates=LONG)
    device.settle(4)
    assert device.answering == 2
    device.ask(index)
    device.settle(1)
    assert committed(device, 1)
    for _ in range(5):
        core.assign(bad, device.identity, gates=LONG)  # the core says it again ...
        device.settle(20, ask=0)
        device.cut_power()  # ... and the device forgets what it may
        device.boot()
        device.settle(20, ask=0)
        assert committed(device, 1)
    assert device.codes().count("probation-begun") == 2, "one trial for each release, ever"
    assert [card.criterion for card in device.house.journal.why()] == ["guardrail"]
