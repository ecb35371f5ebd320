"""A box that never had a network, over 90 days: it enrols, takes three releases, goes back from one and renews its
certificate by nothing but a folder that is carried to and fro. It has no clock either."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from appliance.core.trips import Trip
from appliance.edge.state import identity
from appliance.edge.trips import Visited
from core.orders import ApplyProject
from sync.messages import ALARM, EVENT
from sync.names import DeviceId
from tests.journey.by_folder import DAY, FarBox, FarCore, project

FAR = DeviceId("far-1")


class Courier:
    """Who carries the stick: a visit to the core, two days on the road, a visit to the box, two days back."""

    def __init__(self, home: Path) -> None:
        self.stick = home / "stick"
        self.stick.mkdir()
        self.core = FarCore(home, float(int(time.time())))
        self.core.order(ApplyProject(project=project((FAR,)), folder=str(home)))
        self.box = FarBox(home, FAR)
        self.begun = self.core.now

    @property
    def day(self) -> float:
        return (self.core.now - self.begun) / DAY

    def at_the_core(self) -> Trip:
        return self.core.trip(self.stick)

    def at_the_box(self) -> Visited:
        return self.box.visit(self.stick)

    def on_the_road(self, days: float = 2.0) -> None:
        self.core.pass_time(days)
        if self.box.boots:
            self.box.tick(DAY * days)

    def round(self, answers: int = 8, index: int = 0) -> Trip:
        """From the core to the box, where it is asked for answers, and back."""
        self.on_the_road()
        self.at_the_box()
        self.box.serve(answers, index)
        self.at_the_box()
        self.on_the_road()
        return self.at_the_core()


def test_ninety_days_without_a_network(ram: Path) -> None:
    courier = Courier(ram)
    core, box, stick = courier.core, courier.box, courier.stick

    box.ask_to_join(stick, core.token(FAR))
    courier.on_the_road()
    assert courier.at_the_core().enrolled == [FAR]
    courier.on_the_road()
    assert box.complete(stick) and _no_files(stick, "enrol")
    box.boot()
    first = courier.at_the_box()
    assert not first.refused and box.house.time.at(box.clock) == pytest.approx(core.now, abs=3 * DAY)
    assert identity(box.folder).device == FAR
    courier.on_the_road()
    assert courier.at_the_core().devices[FAR].news

    core.release(1, (1.0, 1.5, 1.25))
    core.trip(stick)
    courier.round()
    assert box.phase == "steady" and box.ask() == 1.0
    assert core.serving(FAR) == 1 and _rollout(core) == "complete"

    core.release(2, (2.0, 2.5, 2.25))
    core.trip(stick)
    courier.round()
    box.cut_power()  # in the middle of the three months the power fails, and the clock begins in 1970 again
    box.boot()
    assert box.ask() == 2.0 and core.serving(FAR) == 2

    core.release(3, (3.0, 3.5))  # good on its golden vectors, and it breaks where the box is asked for index 2
    core.trip(stick)
    courier.on_the_road()
    courier.at_the_box()
    assert box.ask() == 3.0 and box.phase == "probation"
    assert box.ask(2) is None
    box.tick(1.0)
    assert box.ask(2) == 2.25  # by itself, far from everybody
    courier.at_the_box()
    courier.on_the_road()
    courier.at_the_core()
    assert core.serving(FAR) == 2 and "release-refused" in core.codes(FAR)
    assert _rollout(core) in ("reversing", "reversed")

    before = identity(box.folder)
    while courier.day < 90:
        courier.round(answers=1)
    after = identity(box.folder)
    assert after.ends > before.ends and after.certificate != before.certificate
    assert "certificate-renewed" in core.codes() and "certificate-installed" in core.codes(FAR)
    assert box.ask() == 2.0 and core.serving(FAR) == 2 and _rollout(core) == "reversed"

    courier.round(answers=0)
    courier.on_the_road()
    courier.at_the_box()  # brings the last acknowledgements
    assert box.house.outbox.pending() == []
    numbers = _numbers(core)
    received = [core.catalog.fleet.received(FAR, 1, kind) for kind in (ALARM, EVENT)]
    assert numbers == sorted(n for last in received for n in range(1, last + 1)), "nothing lost, nothing twice"
    assert len(numbers) > 10 and box.house.outbox.dropped() == 0
    assert not {"clock-unset", "device-cloned", "refused-untrusted"} & set(core.codes())


def _rollout(core: FarCore) -> str:
    return str(core.get("/v1/rollouts")["rollouts"][0]["state"])


def _numbers(core: FarCore) -> list[int]:
    """The numbers of the box's events and alarms, as the core has them."""
    events = [e for e in core.catalog.events.newest(10_000) if e.source == FAR and e.code != "release-refused"]
    return sorted(int(e.facts["n"]) for e in events)


def _no_files(stick: Path, folder: str) -> bool:
    return not [p for p in (stick / "falaj/1/default" / folder).rglob("*") if p.is_file()]
