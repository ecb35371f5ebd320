"""Which bindings would read what was heard, as a project file has them. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from appliance.first_hour.overheard import NOTHING, Kind, Look, look
from appliance.first_hour.rhythm import Rhythm
from sync.bindings import Binding, Format
from sync.features import Unit

MOST, LEVELS = 1000, 32  # topics, and levels of one for which a binding is suggested
_FORMATS: dict[Kind, Format] = {"json": "json", "rows": "rows", "csv": "csv", "scalar": "scalar", "float32": "float32"}
NOT_SENSORS = ("falaj", "homeassistant")  # first levels of what programs say to each other
_ENTITY = "{entity}"


@dataclass(slots=True)
class Topic:
    """What came on one topic; `retained` messages lay there before."""

    messages: int = 0
    retained: int = 0
    readings: int = 0
    bytes: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    last: Look = NOTHING  # the newest that a binding could read, else the newest


class Overheard:
    """All that was heard. `hear` is called from one thread."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.beyond = 0  # messages on topics beyond the first MOST
        self.seconds = 0.0  # how long was listened
        self.rhythm = Rhythm(MOST)

    def hear(self, topic: str, payload: bytes, retained: bool, now: float) -> None:
        """Takes in one message; `now` is seconds since 1970."""
        one = self.topics.get(topic)
        if one is None:
            if len(self.topics) >= MOST:
                self.beyond += 1
                return
            one = self.topics[topic] = Topic()
        seen = look(payload, now)
        one.kinds[seen.kind] += 1
        one.bytes += len(payload)
        if seen.kind in _FORMATS or one.last.kind not in _FORMATS:
            one.last = seen
        one.retained += retained
        if not retained:
            one.messages += 1
            one.readings += seen.rows
            self.rhythm.see(topic, now if seen.ts is None else seen.ts, seen.rows)


@dataclass(frozen=True)
class Suggestion:
    """A binding that reads what was heard on `topics`. `sure`: several topics show which level names the sensor."""

    binding: Binding
    channels: tuple[str, ...]
    topics: tuple[str, ...]
    period: float | None
    sure: bool


def suggestions(heard: Overheard) -> list[Suggestion]:
    """Bindings for everything that one could read, topics of one form together; those of most topics first."""
    alike: dict[object, list[str]] = defaultdict(list)
    for topic, one in sorted(heard.topics.items()):
        seen = one.last
        if seen.kind in _FORMATS and (seen.fields or seen.width) and one.messages and _bindable(topic):
            alike[replace(seen, ts=None, rows=1), topic.count("/")].append(topic)
    found = [_suggestion(pattern, topics, heard) for group in alike.values() for pattern, topics in patterns(group)]
    return sorted(found, key=lambda one: (-len(one.topics), one.binding.topic))


def patterns(topics: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Topics of as many levels each as patterns with `{entity}`, at the level by which most of them differ alone; of
    two such levels at the deeper one."""
    left, found = list(topics), -1
    while left:
        alike: dict[tuple[int, str], list[str]] = defaultdict(list)
        for topic in left:
            for place in range(topic.count("/") + 1):
                alike[place, _at(topic, place)].append(topic)
        (place, pattern), them = max(alike.items(), key=lambda item: (len(item[1]), item[0][0]))
        if len(them) == 1:
            yield from ((_at(topic, found if found >= 0 else _guess(topic)), (topic,)) for topic in left)
            return
        found = place
        yield pattern, tuple(them)
        left = [topic for topic in left if topic not in them]


def _at(topic: str, place: int) -> str:
    levels = topic.split("/")
    return "/".join([*levels[:place], _ENTITY, *levels[place + 1 :]])


def _guess(topic: str) -> int:
    """Which level names an only sensor: the last one with a digit, else the last but one."""
    levels = topic.split("/")
    numbered = [place for place, level in enumerate(levels) if any(sign.isdigit() for sign in level)]
    return numbered[-1] if numbered else max(0, len(levels) - 2)


def toml(suggestion: Suggestion, model: str) -> str:
    """The binding as it stands in a project file, of a model of this name."""
    given = suggestion.binding
    lines = [f"[[models.{model}.bindings]]"]
    for one in msgspec.structs.fields(Binding):
        value = getattr(given, one.name)
        if one.required or value != (one.default_factory() if callable(one.default_factory) else one.default):
            lines.append(f"{one.name} = {_toml(_said(value))}")
    return "\n".join(lines)


def window_toml(suggestion: Suggestion, size: int) -> str:
    """A view's window that fits the binding: `size` readings, the rhythm that was heard, the channels in its order."""
    period = _rounded(suggestion.period or 1.0)
    names = _toml(list(suggestion.channels))
    gap = f", max_gap = {5 * period:g}" if 5 * period > 1 else ""
    return f"window = {{ size = {size}, step = {max(1, size // 2)}, period = {period:g}, channels = {names}{gap} }}"


def _bindable(topic: str) -> bool:
    levels = topic.split("/")
    plain = topic.isprintable() and not set(topic) & set("{}$")
    return plain and all(levels) and len(levels) <= LEVELS and levels[0] not in NOT_SENSORS


def _said(value: object) -> object:
    """What has to be written of it: of units only what makes a difference."""
    if isinstance(value, dict):
        return {name: _said(item) for name, item in value.items()}
    return {"scale": value.scale} if isinstance(value, Unit) else value


def _rounded(period: float) -> float:
    """To two digits: a rhythm is never known better."""
    return float(f"{period:.2g}")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in text)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _suggestion(pattern: str, topics: tuple[str, ...], heard: Overheard) -> Suggestion:
    seen = heard.topics[topics[0]].last
    clock = _name(seen.time, set()) if seen.fields and seen.time else "ts" if seen.time else ""
    paths: dict[str, str] = {}
    for path in seen.fields or [f"c{n}" for n in range(1, seen.width + 1)]:
        paths[_name(path, {clock, *paths})] = path
    channels = tuple(paths)
    told = {**paths, clock: seen.time} if clock and seen.fields else paths
    binding = Binding(
        pattern,
        f"{pattern}/prediction",
        time_field=clock if seen.kind in ("json", "rows", "csv") else "ts",
        format=_FORMATS[seen.kind],
        fields={name: path for name, path in told.items() if name != path},
        columns=_columns(seen, channels, clock),
        units={clock: Unit(scale=seen.scale)} if seen.scale != 1 else {},
    )
    periods = [period for topic in topics if (period := heard.rhythm.period(topic, 3)) is not None]
    return Suggestion(binding, channels, topics, min(periods, default=None), len(topics) > 1)


def _columns(seen: Look, channels: tuple[str, ...], clock: str) -> tuple[str, ...]:
    """What stands in each column, where it is not the time and then the channels."""
    place = int(seen.time) if seen.time and not seen.fields else 0
    return (*channels[:place], clock, *channels[place:]) if place else ()


def _name(path: str, taken: set[str]) -> str:
    """A name for what stands at a path, that nothing else has."""
    own = path.replace(".", "_")
    names = (own, *(f"{own}_{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if name and name not in taken)
