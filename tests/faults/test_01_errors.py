"""Fault 1: one write, sync or rename of the agent's fails, at each place of an update. Whoever asks is answered, the
update comes to its end, and nothing that a producer was told is kept is lost or counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.nth import told

SPARSE, LEAST = 97, 200  # every so many touches in the default run; how many there are at least


@pytest.mark.parametrize("stride", [SPARSE, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_01_an_error_at_any_touch_of_the_disk_only_delays_the_update(ram: Path, stride: int) -> None:
    assert told("error", stride, ram) >= LEAST // stride
