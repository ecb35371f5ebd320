"""Times as people say them: `03:12`, `2026-11-23T03:12`, `-2h`. Pure; a time without an offset is meant in the zone of
whoever says it.

Where a clock is set back, an hour happens twice, and where it is set forward, one never happens: such a time is refused
with what to say instead, for nobody should read the wrong hour at night.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from appliance.errors import Trouble

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SHORT = re.compile(r"^(\d:)")
_CLOCK = re.compile(r"\d\d:\d\d")
_FORMS = "03:12, 03:12:30, 2026-11-23T03:12, 2026-11-23T03:12+04:00, 03:12Z or -2h"


class BadMoment(Trouble):
    """A time that nobody can tell."""


def duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `2h`, `1.5d`; raises BadMoment."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise BadMoment(f"{text!r} is no length of time: say 30s, 5m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def moment(text: str, now: float, zone: tzinfo | None = None) -> float:
    """Seconds since 1970. `03:12` is the last time it was that late; `zone` is whose, None the machine's own."""
    said = _SHORT.sub(r"0\1", text.strip())
    if said.startswith("-"):
        return now - duration(said[1:])
    try:
        if _CLOCK.match(said):
            return _last(time.fromisoformat(said), now, zone)
        return _placed(datetime.fromisoformat(said), zone).timestamp()
    except ValueError as error:
        raise BadMoment(f"{text!r} is no time: say {_FORMS}") from error


def spoken(ts: float, zone: tzinfo | None = None, *, day: bool = True) -> str:
    """A time for people: with its offset where the day is said, to the millisecond where it is not. A number
    that no calendar has (milliseconds of a sensor, say) is said as it is."""
    try:
        local = datetime.fromtimestamp(ts, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return str(ts)
    return f"{local:%Y-%m-%d %H:%M:%S} {_offset(local)}" if day else f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"


def utc(ts: float) -> str:
    """`2026-11-23 03:12:00Z`, as `moment` reads it back. Event times are a device's own and may be no date at all."""
    try:
        return f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return f"second {ts:g}"


def _last(clock: time, now: float, zone: tzinfo | None) -> float:
    own = clock.tzinfo or zone
    local = datetime.fromtimestamp(now, UTC).astimezone(own)
    said = datetime.combine(local.date(), clock.replace(tzinfo=None))
    # The wall clock tells it of an hour that never comes, the instant of one that comes twice.
    ahead = said > local.replace(tzinfo=None) and _in(said, own).timestamp() > now
    return _placed(said - timedelta(days=ahead), own).timestamp()


def _placed(said: datetime, zone: tzinfo | None) -> datetime:
    """With its offset; raises BadMoment where a naive time was there twice, or never."""
    if said.tzinfo is not None:
        return said
    first, second = (_in(said.replace(fold=fold), zone) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    what = "twice" if first.astimezone(UTC) < second.astimezone(UTC) else "never"
    either = f"{said:%Y-%m-%dT%H:%M:%S}{_offset(first)[3:]}"
    text = f"{said:%H:%M} was there {what} on {said:%Y-%m-%d}, for the clock was set: say {either}, or UTC with a Z"
    raise BadMoment(text)


def _in(said: datetime, zone: tzinfo | None) -> datetime:
    return said.replace(tzinfo=zone) if zone is not None else said.astimezone()


def _offset(local: datetime) -> str:
    return f"UTC{local.isoformat()[-6:]}"
