"""What the tests of the edge's hands stand on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager that hears what this process notifies it of."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "manager"))
        found.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
        yield found
