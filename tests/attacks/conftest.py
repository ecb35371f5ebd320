"""One broker for all attacks on it, and one of its own for those that change who may speak; each test leaves no session
behind. `world` is a core beside the broker of its own, `field` a device that serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from core.answers import Answer
from core.console import create_enrolment
from core.orders import Enrol, Order
from tests.attacks.field import Field
from tests.attacks.ground import Ground, open_ground
from tests.core.world import World
from tests.edge.world import Core


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = open_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.broker.stop()


@pytest.fixture
def ground(standing: Ground) -> Iterator[Ground]:
    yield standing
    standing.close_sessions()


@pytest.fixture
def own_ground(tmp_path: Path) -> Iterator[Ground]:
    """A broker of its own: who is revoked on it, or what is planted there, is so nowhere else."""
    made = open_ground(tmp_path / "ground")
    yield made
    made.close_sessions()
    made.broker.stop()


@pytest.fixture
def world(own_ground: Ground, tmp_path: Path) -> Iterator[World]:
    """The core of that broker's tenant: its authority issues the certificates."""
    made = World(tmp_path, authority=own_ground.authority, now=own_ground.now).ready()
    yield made
    made.catalog.close()


@pytest.fixture
def lone_world(tmp_path: Path) -> Iterator[World]:
    """A core without a broker: newcomers knock at its door."""
    made = World(tmp_path).ready()
    yield made
    made.catalog.close()


@pytest.fixture
def client(world: World) -> FlaskClient:
    """The door where newcomers ask for a certificate."""

    def steward(order: Order) -> Answer:
        assert isinstance(order, Enrol), "the listener passes on nothing else"
        return world.order(order)

    return create_enrolment(steward, world.authority.certificate).test_client()


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def field(core: Core, tmp_path: Path) -> Field:
    return Field(core, tmp_path)
