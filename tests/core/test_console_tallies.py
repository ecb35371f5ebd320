"""The console's figures of performance: the same as if all were reckoned anew, and only what is new is read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.catalog import Catalog, open_catalog
from core.catalog.performance import PerformanceShelf, Performed
from core.console.pages import create_pages
from core.console.tallies import Tallies, Told
from core.fleet.performance import in_fleet
from sync.messages import Reported
from sync.names import LAST, DeviceId, ModelName
from sync.performance import BINS, BUCKETS, Confidence, Interval, Tally
from sync.reports import ModelReport
from tests.core.console_world import KEY, NOW, TENANT, steady

MODELS = [ModelName(f"model-{k}") for k in range(4)]
DEVICES = [DeviceId(f"box-{k}") for k in range(5)]
SURE = Confidence((*[0] * (BINS - 1), 3), (*[0] * (BINS - 1), 2_900_000))
TALLY = Tally(10, 1, (0, 9, 0, 1, 1, *[0] * (BUCKETS - 5)), {"walk": SURE})


class Counting(PerformanceShelf):
    """Remembers which rows were read."""

    def __init__(self, db: object) -> None:
        super().__init__(db)
        self.read: list[tuple[DeviceId, ModelName, int]] = []

    def of(self, device: DeviceId, model: ModelName, number: int) -> Performed | None:
        self.read.append((device, model, number))
        return super().of(device, model, number)


@pytest.fixture
def shelf(catalog: Catalog) -> Counting:
    catalog.performance = found = Counting(catalog._db)
    return found


def serve(catalog: Catalog, device: DeviceId, models: dict[ModelName, ModelReport]) -> None:
    """This device says that it has these from now on."""
    seq = next((row.report.seq for row in catalog.fleet.devices() if row.device == device and row.report), 0)
    if not seq:
        catalog.fleet.put_device(device, 1, b"c", b"s" * 32, b"k" * 32, NOW - 86_400)
    report = Reported(TENANT, device, 1, seq + 1, NOW, "b", 1, models, agent="0.1.0")
    assert catalog.fleet.put_report(report, b"{}", NOW)


def tell(catalog: Catalog, device: DeviceId, model: ModelName, number: int = 1, tally: Tally = TALLY) -> None:
    with catalog.transaction():
        catalog.performance.add(device, Interval(model, number, NOW - 10, 3600.0, tally), NOW)


def read(tallies: Tallies, catalog: Catalog) -> Told:
    return tallies.read(catalog, catalog.fleet.devices())


def test_only_what_was_told_since_the_page_before_is_read(catalog: Catalog, shelf: Counting) -> None:
    for device in DEVICES:
        serve(catalog, device, dict.fromkeys(MODELS, steady(1)))
        for model in MODELS:
            tell(catalog, device, model)
    tallies = Tallies()
    first = read(tallies, catalog)
    assert len(shelf.read) == len(set(shelf.read)) == len(DEVICES) * len(MODELS) == len(first.here)
    shelf.read.clear()
    assert read(tallies, catalog) == first and not shelf.read
    tell(catalog, DEVICES[1], MODELS[2])
    tell(catalog, DEVICES[1], MODELS[2], 7)  # serves nowhere
    then = read(tallies, catalog)
    assert shelf.read == [(DEVICES[1], MODELS[2], 1)]
    assert then.fleet[MODELS[2], 1] == first.fleet[MODELS[2], 1].merge(TALLY)
    assert first.here.keys() == then.here.keys() and then.fleet.keys() == first.fleet.keys()


def test_what_came_to_serve_is_read_and_what_serves_no_more_is_in_no_sum(catalog: Catalog, shelf: Counting) -> None:
    for device in DEVICES:
        serve(catalog, device, {MODELS[0]: steady(1)})
        tell(catalog, device, MODELS[0])
        tell(catalog, device, MODELS[0], 2)
    tallies = Tallies()
    read(tallies, catalog)
    shelf.read.clear()
    serve(catalog, DEVICES[0], {MODELS[0]: steady(2)})
    found = read(tallies, catalog)
    assert shelf.read == [(DEVICES[0], MODELS[0], 2)] and found.here[DEVICES[0], MODELS[0]].number == 2
    assert {key: total.answers for key, total in found.fleet.items()} == {(MODELS[0], 1): 40, (MODELS[0], 2): 10}
    for device in DEVICES:
        serve(catalog, device, {})
    assert read(tallies, catalog) == Told({}, {})


@pytest.mark.parametrize("seed", range(6))
def test_the_sums_are_those_of_all_rows_whatever_happened(catalog: Catalog, seed: int) -> None:
    chance, tallies = random.Random(seed), Tallies()
    for _ in range(60):
        device, model, number = chance.choice(DEVICES), chance.choice(MODELS), chance.randrange(1, 3)
        match chance.randrange(5):
            case 0:
                models = chance.sample(MODELS, chance.randrange(4))
                serve(catalog, device, {name: steady(chance.randrange(1, 3)) for name in models})
            case 1:
                assert read(tallies, catalog) == read(Tallies(), catalog)
            case _:
                largest = chance.choice([5, LAST])  # a device may count what it likes
                tell(catalog, device, model, number, replace(TALLY, answers=chance.randrange(largest)))
    found = read(tallies, catalog)
    assert found == read(Tallies(), catalog) and found.here
    rows = [catalog.performance.of(*key, one.number) for key, one in found.here.items()]
    bounded = {key: min(total.answers, LAST) for key, total in found.fleet.items()}
    assert bounded == {(one.model, one.number): one.total.answers for one in in_fleet(filter(None, rows))}


def test_a_catalog_that_was_put_back_is_read_from_its_beginning(catalog: Catalog, tmp_path: Path) -> None:
    tallies = Tallies()
    serve(catalog, DEVICES[0], {MODELS[0]: steady(1)})
    for _ in range(3):
        tell(catalog, DEVICES[0], MODELS[0])
    assert read(tallies, catalog).fleet[MODELS[0], 1].answers == 30
    other = open_catalog(tmp_path / "other.db", KEY)
    serve(other, DEVICES[0], {MODELS[0]: steady(1)})
    tell(other, DEVICES[0], MODELS[0])
    assert read(tallies, other).fleet[MODELS[0], 1].answers == 10
    other.close()


class Opened(Catalog):
    """A catalog that many pages read one after the other; whoever made it closes it."""

    def close(self) -> None:
        """Stays open."""


@pytest.fixture
def pages(catalog: Catalog, shelf: Counting) -> Opened:
    opened = Opened(catalog._db)
    opened.performance = shelf
    return opened


def test_a_page_that_is_asked_for_again_reads_nothing_anew(catalog: Catalog, pages: Opened, shelf: Counting) -> None:
    serve(catalog, DEVICES[0], {MODELS[0]: steady(1)})
    tell(catalog, DEVICES[0], MODELS[0])
    client = create_pages(lambda: pages, "token", lambda: NOW).test_client()
    client.get("/?token=token")
    first = client.get("/").data
    assert b"10 an hour" in first and len(shelf.read) == 1
    assert client.get("/fragment/overview").status_code == 200 and client.get("/").data == first
    assert len(shelf.read) == 1
    tell(catalog, DEVICES[0], MODELS[0], tally=replace(TALLY, answers=12))
    assert b"12 an hour" in client.get("/").data and len(shelf.read) == 2
