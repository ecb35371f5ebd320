"""Fault 4: killed during an update, and killed again while it recovers from that. The third start serves a verified
model, and the update comes to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.nth import told

SPARSE, LEAST = 61, 200  # every so many touches in the default run; how many there are at least


@pytest.mark.parametrize("stride", [SPARSE, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_04_killed_again_while_it_recovers(ram: Path, stride: int) -> None:
    assert told("killed-twice", stride, ram) >= LEAST // stride
