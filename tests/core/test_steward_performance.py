"""What devices count of their releases: kept once, within bounds, added up; no number of theirs breaks a page."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from appliance.cli import metrics
from appliance.moments import utc
from core.catalog.performance import DAYS, RELEASES, PerformanceShelf
from core.console.facts import gather
from core.console.pages import compose
from core.fleet.performance import OUTSIDE, in_fleet, on_device
from core.handoffs import Calibration
from core.orders import CommitCandidate, Revoke
from sync import codec
from sync.manifest import LIMIT, Manifest
from sync.names import LAST, Digest, ModelName
from sync.performance import BINS, BUCKETS, MOST_CLASSES, Confidence, Interval, Tally
from sync.reports import LabelReport
from sync.sketch import COUNTERS, Sketch
from tests.core.desk import TwoVerbs
from tests.core.world import CATALOG_KEY, MODEL, ONE, START, TWO, Device, World, serving

HOUR = 3600.0
DAY = 86_400.0
SURE = Confidence((*[0] * (BINS - 2), 10, 0), (*[0] * (BINS - 2), 9_200_000, 0))
TALLY = Tally(10, 1, (0, 9, 0, 1, 1, *[0] * (BUCKETS - 5)), {"walk": SURE})
TOLD = Interval(MODEL, 1, START, HOUR, TALLY)


def tell(world: World, device: Device, *intervals: object) -> None:
    for body in intervals:
        n = world.catalog.fleet.received(device.name, device.epoch, "metrics") + 1
        world.hear(device.record(body, n, kind="metrics"))


def seen(world: World, query: str = "") -> dict[str, list[dict[str, object]]]:
    """As the API says it."""
    desk = TwoVerbs(world.folder / "catalog.db", CATALOG_KEY, world.order, lambda: world.now)
    return desk.get(f"/v1/performance{query}")  # type: ignore[no-any-return]


def test_an_interval_is_counted_once_however_often_it_is_said(world: World, device: Device) -> None:
    first = device.record(TOLD, 1, kind="metrics")
    for message in (first, first, device.record(replace(TOLD, until=START + HOUR), 2, kind="metrics"), first):
        world.hear(message)
    (row,) = world.catalog.performance.all()
    assert (row.newest.until, row.total) == (START + HOUR, TALLY.merge(TALLY))
    assert len(world.catalog.performance.hours(ONE, MODEL, 0.0)) == 2
    world.reopen()
    world.hear(first)
    assert world.catalog.performance.all() == [row], "also after a restart"


def test_releases_are_told_apart_and_devices_added_up(world: World, device: Device) -> None:
    other = world.enrol(TWO)
    world.release()
    world.release(b"another")
    tell(world, device, TOLD, replace(TOLD, number=2))
    tell(world, other, TOLD)
    found = {(row["number"], row["devices"]): row["total"]["answers"] for row in seen(world)["fleet"]}  # type: ignore[index]
    assert found == {(1, 2): 20, (2, 1): 10}
    assert [row.total for row in world.catalog.performance.all(ONE)] == [TALLY, TALLY]


def test_made_up_releases_and_devices_that_are_gone_are_in_no_sum(world: World, device: Device) -> None:
    other = world.enrol(TWO)
    world.release()
    tell(world, device, TOLD, replace(TOLD, number=7), replace(TOLD, model=ModelName("made-up")))
    tell(world, other, TOLD)
    world.must(Revoke(actor="test", device=TWO, reason="a test"))
    (row,) = seen(world)["fleet"]
    assert (row["model"], row["number"], row["devices"]) == (MODEL, 1, 1)
    assert len(seen(world)["devices"]) == 4, "what they said is shown as theirs"


BAD = [
    {"span": -1}, {"span": 1e300}, {"until": -5}, {"number": -1}, {"number": 2**63}, {"model": "../x"},
    {"tally": {"answers": -1}}, {"tally": {"answers": 2**70}}, {"tally": {"latency": [1]}},
    {"tally": {"latency": [0] * 1000}}, {"tally": {"confidence": {"a": {"counts": [1], "sums": [1]}}}},
    {"tally": {"confidence": {"a": {"counts": [1] * BINS, "sums": [LAST] * BINS}}}},
    {"tally": {"confidence": {str(i): {} for i in range(MOST_CLASSES + 1)}}}, {"tally": {"unlike": 0.5}},
    {"streams": ["x"]}, {"sketch": {"bins": "b", "counts": [[-1] * COUNTERS]}, "streams": ["x"]},
    {"streams": ["x" * 9000]}, {"v": 2}, {"tally": {"confidence": {"w" * 40_000: {}}}},
]  # fmt: skip


@pytest.mark.parametrize("lie", BAD, ids=lambda lie: str(lie)[:40])
def test_numbers_that_cannot_be_are_told_and_change_nothing(
    world: World, device: Device, lie: dict[str, object]
) -> None:
    tell(world, device, TOLD)
    before = seen(world)
    tell(world, device, json.dumps(codec.builtins(TOLD) | lie).encode())
    assert world.codes()[-1] == "record-malformed" and seen(world) == before
    tell(world, device, TOLD)
    assert world.catalog.performance.all()[0].total.answers == 20, "the queue behind it moves on"


@pytest.mark.parametrize("word", ["NaN", "Infinity", "1e999", '"9"', "null"])
def test_what_is_no_number_is_refused(world: World, device: Device, word: str) -> None:
    body = codec.encode(TOLD).decode().replace('"span":3600.0', f'"span":{word}')
    tell(world, device, body.encode())
    assert world.codes()[-1] in ("record-malformed", "refused-malformed", "refused-damaged")
    assert world.catalog.performance.all() == []


def test_counters_without_end_stay_what_can_be_kept_and_shown(world: World, device: Device) -> None:
    huge = replace(TOLD, until=1e11, span=1.0, tally=Tally(LAST, LAST, (LAST,) * BUCKETS, {"walk": SURE}, LAST))
    tell(world, device, huge, huge, replace(huge, span=0.0, until=0.0))
    world.release()
    (row,) = world.catalog.performance.all()
    assert (row.total.answers, row.total.unlike) == (LAST, LAST)
    assert all(metrics.device_lines(seen(world, f"?device={ONE}")))
    assert all(metrics.fleet_lines(seen(world)["fleet"]))


def test_a_device_that_invents_fills_its_own_room_alone(world: World, device: Device) -> None:
    other = world.enrol(TWO)
    tell(world, other, TOLD)
    shelf = world.catalog.performance = PerformanceShelf(world.catalog._db, releases=4, intervals=10)
    with world.catalog.transaction():
        for i in range(30):
            classes = {f"{i}-{j}": SURE for j in range(MOST_CLASSES)}
            shelf.add(ONE, replace(TOLD, number=1 + i % 8, tally=Tally(1, confidence=classes)), START + i)
    assert len(shelf.all(ONE)) == 4 and len(shelf.hours(ONE, None, 0.0)) == 10
    assert all(len(row.total.confidence) <= MOST_CLASSES for row in shelf.all(ONE))
    assert [row.total for row in shelf.all(TWO)] == [TALLY] and len(shelf.hours(TWO, None, 0.0)) == 1
    assert RELEASES >= 4 * 16, "four releases of each of sixteen models"


def test_intervals_age_and_a_clock_that_is_wrong_makes_none_eternal(world: World, device: Device) -> None:
    tell(world, device, replace(TOLD, until=0.0), TOLD, replace(TOLD, until=START + 90 * DAY))
    assert [hour.ts for hour in world.catalog.performance.hours(ONE, MODEL, 0.0)] == [START] * 3
    world.now += (DAYS + 1) * DAY
    tell(world, device, replace(TOLD, until=world.now))
    assert [hour.ts for hour in world.catalog.performance.hours(ONE, MODEL, 0.0)] == [world.now]
    assert world.catalog.performance.all()[0].total.answers == 40, "the sum does not age"


def test_the_estimate_stands_beside_the_labels_and_says_when_it_says_little(world: World, device: Device) -> None:
    known = (100, *[0] * (COUNTERS - 1))
    strange = (60, *[0] * (COUNTERS - 2), 40)
    sketch = Sketch("b", (known, strange))
    tell(world, device, replace(TOLD, streams=("x", "y"), sketch=sketch))
    world.hear(device.report({MODEL: serving(Digest("a" * 64), labelled=LabelReport(50, 45))}))
    rows = {row.device: row for row in world.catalog.fleet.devices()}
    (row,) = (on_device(one, rows) for one in world.catalog.performance.all())
    assert (row.newest.estimated, row.newest.seen, row.labels, row.right) == (pytest.approx(0.92), 10, 50, 45)
    assert (row.newest.p50_ms, row.newest.p99_ms, row.per_hour) == (0.25, 2.5, 10.0)
    assert row.outside == {"x": 0.0, "y": 0.4} and row.doubtful and OUTSIDE < 0.4
    (fleet,) = in_fleet(world.catalog.performance.all())
    assert (fleet.total.estimated, fleet.devices, fleet.since) == (pytest.approx(0.92), 1, row.since)
    text = "\n".join(metrics.device_lines(seen(world, f"?device={ONE}&model={MODEL}")))
    for word in ("10 answers, 1 errors, p50 up to 0.25 ms", "92.0%", "by labels 90.0% of 50", "y 40.0%", "says little"):
        assert word in text


def test_the_console_says_it_beside_the_labels(world: World, device: Device) -> None:
    number, digest = world.release()
    labelled = LabelReport(50, 45)
    world.hear(device.report({MODEL: serving(digest, number, labelled=labelled)}))
    quiet = compose(gather(world.catalog, world.now), world.now)
    tell(world, device, replace(TOLD, number=number), replace(TOLD, number=number + 1))
    (line,) = compose(gather(world.catalog, world.now), world.now).devices
    assert (quiet.devices[0].performance, quiet.releases[0].field) == ("", "")
    assert line.performance == "10 an hour, p99 up to 2.5 ms, estimated 92.0 % right (not calibrated)"
    assert line.labelled == "45 of 50 right"
    (release,) = compose(gather(world.catalog, world.now), world.now).releases
    assert release.field == "estimated 92.0 % right (not calibrated)"


def test_the_estimate_of_a_calibrated_release_says_so(world: World, device: Device) -> None:
    candidate = world.candidate()
    score = replace(candidate.scorecard.scores[0], ece=0.012, ece_before=0.041)
    card = replace(candidate.scorecard, scores=(score,), calibration=Calibration(1.8, 400, "calibrated: it helps"))
    world.must(CommitCandidate(job=world.job(), candidate=replace(candidate, scorecard=card)))
    digest = Digest(world.must(world.approval(1))["digest"])
    kept = world.catalog.releases.release(MODEL, 1)
    assert kept is not None
    figures = codec.decode(Manifest, kept[1], LIMIT).lineage.metrics
    assert (figures["temperature"], figures["ece"], figures["ece_before"]) == (1.8, 0.012, 0.041)
    world.hear(device.report({MODEL: serving(digest, 1)}))
    tell(world, device, TOLD)
    (line,) = compose(gather(world.catalog, world.now), world.now).devices
    assert line.performance.endswith("estimated 92.0 % right (calibrated)")
    found = seen(world, f"?device={ONE}")
    assert "estimated accuracy 92.0% (calibrated) by 10 answers" in "\n".join(metrics.device_lines(found))
    (told,) = metrics.fleet_lines(found["fleet"])
    assert "92.0% (calibrated)" in told and f" on 1 device since {utc(world.now)}: " in told
    assert not world.catalog.releases.is_calibrated(MODEL, 2), "there is none"
