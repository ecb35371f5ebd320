"""Times as people say them, in their own zone; an hour that was there twice is never guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.moments import BadMoment, duration, moment, spoken

MUSCAT, BERLIN = ZoneInfo("Asia/Muscat"), ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC).timestamp()  # 13:00 in Muscat, 10:00 in Berlin


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("03:12", MUSCAT, "2026-11-22T23:12:00Z"),
        ("3:12", MUSCAT, "2026-11-22T23:12:00Z"),
        ("12:59:59", MUSCAT, "2026-11-23T08:59:59Z"),
        ("13:00:01", MUSCAT, "2026-11-22T09:00:01Z"),
        ("03:12Z", MUSCAT, "2026-11-23T03:12:00Z"),
        ("03:12+02:00", MUSCAT, "2026-11-23T01:12:00Z"),
        ("2026-11-21T03:12", BERLIN, "2026-11-21T02:12:00Z"),
        ("2026-11-21 03:12", BERLIN, "2026-11-21T02:12:00Z"),
        ("2026-07-21T03:12", BERLIN, "2026-07-21T01:12:00Z"),
        ("2026-10-25T02:30+01:00", BERLIN, "2026-10-25T01:30:00Z"),
        ("-2h", MUSCAT, "2026-11-23T07:00:00Z"),
        ("-1.5d", BERLIN, "2026-11-21T21:00:00Z"),
    ],
)
def test_a_time_is_meant_where_it_is_said(text: str, zone: ZoneInfo, expected: str) -> None:
    assert datetime.fromtimestamp(moment(text, NOW, zone), UTC) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-10-25T02:30", r"there twice .* say 2026-10-25T02:30:00\+02:00, or UTC with a Z"),
        ("2026-03-29T02:30", "there never"),
        ("25:00", "say 03:12"),
        ("yesterday", "say 03:12"),
        ("", "say 03:12"),
        ("-2x", "say 30s"),
    ],
)
def test_a_time_that_nobody_can_tell_is_refused_with_what_to_say(text: str, said: str) -> None:
    with pytest.raises(BadMoment, match=said):
        moment(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        ("2026-10-25T01:00+02:00", "02:30", "2026-10-24T02:30+02:00"),  # today's two are still to come
        ("2026-10-25T04:00+01:00", "03:30", "2026-10-25T03:30+01:00"),
        ("2026-03-29T01:45+01:00", "02:30", "2026-03-28T02:30+01:00"),  # today's never comes
        ("2026-03-29T01:45+01:00", "01:45", "2026-03-29T01:45+01:00"),
    ],
)
def test_on_the_day_the_clock_is_set_the_last_time_is_meant(now: str, text: str, expected: str) -> None:
    found = moment(text, datetime.fromisoformat(now).timestamp(), BERLIN)
    assert found == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize("now", ["2026-10-25T02:15+01:00", "2026-10-25T09:00+01:00", "2026-03-29T03:01+02:00"])
def test_once_the_hour_is_there_it_is_not_guessed(now: str) -> None:
    with pytest.raises(BadMoment, match="was there"):
        moment("02:30", datetime.fromisoformat(now).timestamp(), BERLIN)


@pytest.mark.parametrize("ts", [1.7e12, -1e11, 1e300, float("inf"), float("nan")])
def test_what_no_calendar_has_is_said_as_a_number(ts: float) -> None:
    assert spoken(ts, BERLIN) == spoken(ts, None, day=False) == str(ts)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from([MUSCAT, BERLIN]))
def test_what_is_spoken_with_its_offset_is_heard_again(when: datetime, zone: ZoneInfo) -> None:
    ts = when.replace(microsecond=0, tzinfo=UTC).timestamp()
    day, clock, offset = spoken(ts, zone).split(" ")
    assert moment(f"{day}T{clock}{offset.removeprefix('UTC')}", NOW, MUSCAT) == ts


def test_lengths_have_a_unit() -> None:
    assert [duration(text) for text in ("30s", "5m", "2h", "1.5d")] == [30, 300, 7200, 129_600]
    with pytest.raises(BadMoment):
        duration("5")
    assert spoken(NOW + 0.25, MUSCAT, day=False) == "13:00:00.250"
