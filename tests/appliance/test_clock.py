"""The three clocks: what a suspended machine does to each of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from appliance import clock

READ = "from appliance import clock; print(clock.elapsed() - clock.ticks())"


def ahead(*before: str) -> float:
    """By how much `elapsed` is ahead of `ticks` in another process."""
    found = subprocess.run([*before, sys.executable, "-c", READ], capture_output=True, text=True, check=False)
    if found.returncode and before:
        pytest.skip(f"no other time can be told to a process here: {found.stderr.strip()}")
    return float(found.stdout)


def test_what_a_machine_slept_counts_for_ages_and_not_for_deadlines() -> None:
    """Since its boot this machine slept a day longer than it did: so a time namespace tells the process."""
    day = 86_400.0
    assert ahead("unshare", "--time", "--boottime", str(int(day))) - ahead() == pytest.approx(day, abs=60.0)


def test_neither_goes_back() -> None:
    for read in (clock.ticks, clock.elapsed):
        seen = [read() for _ in range(100)]
        assert seen == sorted(seen)
