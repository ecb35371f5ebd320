"""A box alone: an hour without its uplink, and a power-cycle with no broker, no core and the clock at 1970.

Real processes: the agent, its local Mosquitto, an application that publishes readings and listens for predictions. In
the hour there is a reading a second, by the readings' own time and by the agent's clock, which is put on as they come.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.world import CLASSES, MODEL
from tests.faults.box import Box
from tests.journey.site import BINDING, GOOD, PATIENCE, Site, open_site

HOUR, MINUTE = 3600, 60
BEGIN = 1_790_000_000.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as found:
        yield found


def put_on(clock: Path, seconds: float) -> None:
    """The agent reads the file at every look at its clock, so it must never find half a number."""
    beside = clock.with_suffix(".new")
    beside.write_text(str(seconds))
    beside.rename(clock)


def arrived(box: Box, prediction: dict[str, Any]) -> float:
    """When a prediction was made, by the agent's clock."""
    address = f"http://127.0.0.1:{box.http_port}/v1/predictions/{prediction['id']}"
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return float(json.load(answer)["arrived"])


@pytest.mark.slow
def test_an_hour_without_the_uplink_costs_no_local_prediction(site: Site, tmp_path: Path) -> None:
    """The uplink goes after the first minute, and the clock runs for an hour more."""
    box, clock, uplink = site.box, tmp_path / "clock", site.ground.broker
    put_on(clock, 0)
    box.start(answering=False, program=("tests.faults.other_clock", str(clock)))
    box.until(lambda: site.serves() and box.status()["uplink"] == "up", "the uplink")
    begin = float(int(time.time()))
    with site.application("plant/+/state") as application:
        for second in range(MINUTE + HOUR):
            if second == MINUTE:
                uplink.stop()
                box.until(lambda: box.status()["uplink"] == "down", "the cut to be seen")
            put_on(clock, second)
            application.send(begin + second)
            if second % MINUTE == MINUTE - 1:  # the clock goes with the readings, not ahead of them
                application.until(second + 1)
        assert box.status()["uplink"] == "down"
        said = {document["ts"]: document for document in application.heard}
        assert sorted(said) == [begin + second for second in range(MINUTE + HOUR)]
        assert len(application.heard) == MINUTE + HOUR, "each was answered once"
        assert {(d["quality"], d["value"], d["release"]) for d in said.values()} == {("ok", CLASSES[0], 1)}
        first, last = (arrived(box, said[begin + second]) for second in (MINUTE, MINUTE + HOUR - 1))
        assert last - first >= HOUR - MINUTE, "the agent's own clock ran on for the hour, too"
        uplink.start((uplink.folder / "mosquitto.conf").read_text())
        box.until(lambda: box.status()["uplink"] == "up", "the uplink again")


def test_a_cold_start_alone_with_the_clock_at_1970_serves_and_installs_nothing(site: Site, tmp_path: Path) -> None:
    box, wrong = site.box, tmp_path / "clock"
    site.core.assign(site.core.ship(2, says=GOOD, bindings=(BINDING,)), site.device.identity)
    site.core.settle()
    site.ground.broker.stop()
    put_on(wrong, -time.time())
    box.start(answering=False, program=("tests.faults.other_clock", str(wrong)))
    box.until(site.serves, "release 1")
    with site.application("plant/+/state") as application:
        application.send(BEGIN)
        application.until(1)
        assert application.heard[0]["quality"] == "ok" and application.heard[0]["release"] == 1

        uplink = site.ground.broker
        uplink.start((uplink.folder / "mosquitto.conf").read_text())  # the broker is back, the clock is not
        box.until(lambda: box.status()["assignment"] == 2, "the assignment")
        assert site.number() == 1 and box.status()["models"][MODEL]["phase"] == "steady"
        assert box.status()["models"][MODEL]["wanted"] != box.status()["models"][MODEL]["serving"]["artifact"]

        put_on(wrong, 0)
        for second in range(1, HOUR):
            application.send(BEGIN + second)
            if site.number() == 2:
                break
            time.sleep(0.05)
        box.until(lambda: site.number() == 2, "release 2, fetched and proved now that there is a time")
