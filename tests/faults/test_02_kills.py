"""Fault 2: kill -9 at each write, sync and rename of an update, of the agent and of the core. The next start serves a
verified model at once, the update comes to its end, records are lost nowhere and counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.nth import told

SPARSE, LEAST = 97, 200  # every so many touches in the default run; how many there are at least


@pytest.mark.slow
def test_02_an_agent_that_is_killed_at_any_touch_of_the_disk(ram: Path) -> None:
    """The default run has this in fault 4, which begins with it."""
    assert told("killed", 1, ram) >= LEAST


@pytest.mark.parametrize("stride", [SPARSE, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_02_a_core_that_is_killed_at_any_touch_of_the_disk(ram: Path, stride: int) -> None:
    assert told("core", stride, ram) >= LEAST // stride
