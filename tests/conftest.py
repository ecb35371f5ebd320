"""A folder for tests that make thousands of small durable writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def ram() -> Iterator[Path]:
    """A real folder in memory where there is one: power cuts are simulated, so nothing waits for a disk to sync."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)
