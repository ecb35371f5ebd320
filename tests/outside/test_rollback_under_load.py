"""A release goes on trial, gets its verdict and goes home while HTTP and MQTT ask the agent's own process: every
question has one good answer, of one release, and nobody is answered by who has gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sync.messages import Gates
from tests.edge.on_trial import BAD
from tests.edge.world import CLASSES, MODEL
from tests.journey.site import BINDING, GOOD, Site, open_site
from tests.outside.load import ASKERS, AT_ONCE, Load, load

pytestmark = pytest.mark.broker

AGREEMENT = Gates(evidence="agreement", margin=0.05, block=2, soak_answers=10**9)
SOAK = Gates(soak_answers=500)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as found:
        found.begin()
        yield found


def model(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.box.status()["models"][MODEL]
    return found


def serves(site: Site, number: int) -> bool:
    """At rest."""
    state = model(site)
    return state["phase"] == "steady" and state["serving"]["number"] == number


def send_home(site: Site, number: int, home: int) -> None:
    """Release `number` says something else than the one before it: on trial its pairs speak against it."""
    shipped = site.core.ship(number, says=BAD, bindings=(BINDING,))
    site.core.assign(shipped, site.device.identity, gates=AGREEMENT)
    site.box.until(lambda: any(card["new"]["number"] == number for card in site.box.status()["why"]), "the verdict")
    (card,) = [card for card in site.box.status()["why"] if card["new"]["number"] == number]
    assert (card["phase"], card["criterion"]) == ("probation", "worse-than-incumbent")
    assert card["new"]["errors"] == 0 and card["new"]["answers"] > 0
    site.box.until(lambda: serves(site, home), "the release before it")


def commit(site: Site, number: int) -> None:
    site.core.assign(site.core.ship(number, says=GOOD, bindings=(BINDING,)), site.device.identity, gates=SOAK)
    site.box.until(lambda: serves(site, number), "its commit")


def go_on(site: Site, under: Load, questions: int) -> None:
    begun = under.asked
    site.box.until(lambda: under.asked >= begun + questions, "more questions")


def check(under: Load, *story: int) -> None:
    """Every question was answered once and well, and on each road the releases answered in the order of the story."""
    bad = {number for number, after in pairwise(story) if number > after}
    for road, who in zip(under.roads, (*(f"{n}-" for n in range(ASKERS)), "", ""), strict=True):
        assert not road.faults and road.asked
        assert Counter(one.question for one in road.said) == Counter(f"{who}{n}" for n in range(road.asked))
        left = iter(story)
        assert all(number in left for number in road.turns()), "whoever has gone does not answer again"
        assert road.said[0].release == story[0] and road.said[-1].release == story[-1]
    for road in under.http:
        assert {one.value - one.release for one in road.said} == {0.0}, "of that very release"
    for road in (under.requests, under.sensor):
        assert all(one.value == CLASSES[(BAD if one.release in bad else GOOD)[0]] for one in road.said)
    assert {one.release for road in under.roads for one in road.said} == set(story)


def test_a_release_is_taken_back_under_load_and_costs_no_answer(site: Site) -> None:
    with load(site, float(int(time.time()))) as under:
        go_on(site, under, 200)
        send_home(site, 2, home=1)
        go_on(site, under, 200)
    check(under, 1, 2, 1)


@pytest.mark.slow
def test_releases_come_and_go_under_load_for_long(site: Site) -> None:
    with load(site, float(int(time.time()))) as under:
        for number in (2, 3, 4, 5):
            send_home(site, number, home=1)
            go_on(site, under, 1000)
        commit(site, 6)
        go_on(site, under, 1000)
        for number in (7, 8, 9):
            send_home(site, number, home=6)
            go_on(site, under, 1000)
    check(under, 1, 2, 1, 3, 1, 4, 1, 5, 1, 6, 7, 6, 8, 6, 9, 6)
    assert under.asked - len(under.roads) * AT_ONCE > 8000
