"""Fault 14: a line that loses, repeats, swaps, delays and cuts short. It takes longer, and ends as on a good one."""

from __future__ import annotations

import pytest

from edge.states import Phase
from tests.edge.world import MODEL
from tests.faults.field import Field, Wired, hurried
from tests.faults.proxy import CLEAR, Mishaps, Weather

pytestmark = pytest.mark.broker
SIZE = 1_000_000  # bytes of the model: 11 chunks
AFTER = Weather(cut_after=700_000)  # what is lost of state is told again in the next session, so there are some


def outcome(device: Wired) -> tuple[object, ...]:
    """All that a line must not change."""
    serving, own = device.state.serving, device.house
    assert serving is not None
    return (
        device.state.phase, serving.release, own.artifacts.have(), device.answering, own.journal.quarantined(MODEL),
        sum(p.suffix == ".part" for p in own.artifacts.folder.iterdir()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mishaps", "weather", "speed"),
    [
        pytest.param(Mishaps("falaj/"), CLEAR, 10.0, id="none"),
        pytest.param(Mishaps("falaj/", drop=9), AFTER, 10.0, id="loses", marks=pytest.mark.slow),
        pytest.param(Mishaps("falaj/", repeat=2, swap=3), CLEAR, 10.0, id="repeats-and-swaps"),
        pytest.param(Mishaps("falaj/"), Weather(delay=0.15), 200.0, id="delays-30-s", marks=pytest.mark.slow),
        pytest.param(Mishaps("/blob/", halve=5), CLEAR, 10.0, id="cuts-short", marks=pytest.mark.slow),
        pytest.param(Mishaps("falaj/", repeat=4, swap=5, drop=19), AFTER, 10.0, id="all-at-once"),
    ],
)
def test_14_the_end_is_that_of_a_good_line(open_field: Field, mishaps: Mishaps, weather: Weather, speed: float) -> None:
    shipped = open_field.core.ship_large(1, SIZE)
    with open_field.over(weather, mishaps) as (_, device):
        device.clock = hurried(speed)
        open_field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0, patience=120.0)
        phase, release, have, answering, quarantined, parts = outcome(device)
    assert (phase, answering, have) == (Phase.STEADY, 1, tuple(sorted(shipped.sealed)))
    assert release.manifest == shipped.digest and not quarantined and not parts  # type: ignore[attr-defined]
    wanted = {"drop": mishaps.dropped, "repeat": mishaps.repeated, "swap": mishaps.swapped, "halve": mishaps.halved}
    assert all(count for name, count in wanted.items() if getattr(mishaps, name)), "the line did what it was asked to"
