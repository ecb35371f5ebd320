"""A real core for the tests that need one: its processes, its sockets, its broker, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance import clock
from appliance.core import owner
from appliance.demo.fleet import Machines
from tests.appliance.running import RunningCore


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCore]:
    """One core for the whole run; tests use sources, devices and models of their own names."""
    home = tmp_path_factory.mktemp("core")
    machines = Machines(home)
    try:
        machines.start_core()
        owner.init(machines.api, home / "owner", "test", clock.now())
        yield RunningCore(machines, home / "owner")
    finally:
        machines.stop()
