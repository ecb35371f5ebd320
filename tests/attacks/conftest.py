"""One broker for all attacks on it; each test leaves no session behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.ground import Ground, open_ground


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = open_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.broker.stop()


@pytest.fixture
def ground(standing: Ground) -> Iterator[Ground]:
    yield standing
    standing.close_sessions()
