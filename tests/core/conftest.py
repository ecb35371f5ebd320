"""Where most stories of the core begin: a core, a device that joined it, its doors over a real encrypted catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from core.catalog import Catalog, open_catalog
from core.console import create_api, create_pages
from tests.core.console_world import KEY, NOW
from tests.core.doors import TOKEN, Steward
from tests.core.pairs import Fleet, begun
from tests.core.world import ONE, Device, World


@pytest.fixture
def bare(ram: Path) -> Iterator[World]:
    """A core whose trust nobody has begun."""
    made = World(ram)
    yield made
    made.catalog.close()


@pytest.fixture
def world(bare: World) -> World:
    """Trust begun, project applied."""
    return bare.ready()


@pytest.fixture
def device(world: World) -> Device:
    return world.enrol(ONE)


@pytest.fixture
def fleet(bare: World) -> Fleet:
    """Two watches committed the first release, and labels decide from now on."""
    return begun(bare)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """What the doors show; empty, until a test puts something in."""
    opened = open_catalog(tmp_path / "catalog.db", KEY)
    yield opened
    opened.close()


@pytest.fixture
def steward() -> Steward:
    return Steward()


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path, steward: Steward) -> FlaskClient:
    """The JSON API."""

    def read_only() -> Catalog:
        return open_catalog(tmp_path / "catalog.db", KEY, read_only=True)

    return create_api(read_only, steward.ask, lambda: NOW).test_client()


@pytest.fixture
def stranger(catalog: Catalog, tmp_path: Path) -> FlaskClient:
    """A browser that has not shown the token."""
    path = tmp_path / "catalog.db"
    return create_pages(lambda: open_catalog(path, KEY, read_only=True), TOKEN, lambda: NOW).test_client()


@pytest.fixture
def operator(stranger: FlaskClient) -> FlaskClient:
    """A browser that came by the link."""
    assert stranger.get("/", query_string={"token": TOKEN}).status_code == 200
    return stranger
