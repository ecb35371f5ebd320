"""A device on a disk of its own, which ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from tests.faults.box import Box, new_box
from tests.faults.small_disk import small_disk


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with small_disk(tmp_path / "disk", 2048) as disk:
        one, two, three = free_ports(3)
        found = new_box(disk, tmp_path, (one, two, three))
        yield found
        if found.process is not None:
            found.end()
