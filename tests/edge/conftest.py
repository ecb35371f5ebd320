"""Where most stories of the edge begin: a core, a device that serves, a stage for many devices, a TUF repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge import tuf_cases
from tests.edge.device import Device, serving_device
from tests.edge.stage import Stage, new_stage
from tests.edge.tuf_cases import Scene
from tests.edge.world import Core
from tests.faults.small_disk import SmallDisk, small_disk


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def device(core: Core, ram: Path) -> Device:
    """Release 1 is committed and answers; the events so far are acknowledged."""
    return serving_device(core, ram)


@pytest.fixture(scope="module")
def stage(shared_ram: Path) -> Stage:
    return new_stage(shared_ram / "stage")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Half a MiB."""
    with small_disk(tmp_path / "disk", 512) as found:
        yield found


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return tuf_cases.begin(tmp_path_factory.mktemp("begun") / "trust")


@pytest.fixture
def scene(begun: Scene, tmp_path: Path) -> Scene:
    """Where every TUF case begins: release 2 is accepted, release 3 is published."""
    return begun.at(tmp_path / "home" / "trust")
