"""What was heard on a broker, as lines for people and as a document: pure functions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from appliance.first_hour.overheard import Look
from appliance.first_hour.suggesting import Overheard, Suggestion, toml, window_toml
from appliance.screen import visible

MODEL = "my-model"  # the name in what is suggested
SIZE = 100  # readings of a suggested window
SHOWN, SUGGESTED = 50, 10  # topics and bindings that are printed; --json has all


def words(look: Look) -> str:
    """What a payload is, for people."""
    column = "" if look.fields else "column "
    when = f", time in {column}{look.time!r}" if look.time else ""
    unit = {1.0: "", 1e-3: " (ms)", 1e-6: " (us)", 1e-9: " (ns)"}[look.scale]
    many = f"{look.rows} readings each, " if look.rows > 1 else ""
    match look.kind:
        case "json":
            return f"JSON, {many}numbers: {', '.join(look.fields) or 'none'}{when}{unit}"
        case "rows" | "csv":
            name = "JSON list" if look.kind == "rows" else "CSV"
            return f"{name}, {many}{look.width} numbers{when}{unit}"
        case "scalar":
            return "one number"
        case "float32":
            return f"perhaps {look.width} raw float32"
        case "prediction":
            return "a prediction of an agent"
        case "error":
            return "an agent's complaint"
    return look.kind


def lines(heard: Overheard, found: list[Suggestion], place: str) -> Iterator[str]:
    if not heard.topics:
        yield f"nothing came from {place} in {heard.seconds:.3g} s: do sensors publish there? Else give --host"
        return
    yield f"{len(heard.topics)} topics on {place} in {heard.seconds:.3g} s"
    yield ""
    yield from _topics(heard)
    if not found:
        yield "\nno binding reads any of it: they take JSON objects, lists, CSV, numbers and raw float32"
        return
    yield "\nfor falaj.toml; say which numbers the model takes, in its order:"
    for one in found[:SUGGESTED]:
        yield from _suggested(one)
    if len(found) > SUGGESTED:
        yield f"\n{len(found) - SUGGESTED} more: see --json, or narrow them with --topic"
    tried = next(filter(None, map(tried_by, found)), "")
    if tried:
        yield f"\nto try a model with it, without a core: falaj edge try MODEL.onnx {visible(tried)}"


def _topics(heard: Overheard) -> Iterator[str]:
    """A line for each topic, under a heading."""
    shown = sorted(heard.topics.items())[:SHOWN]
    width = max(len(visible(topic)) for topic, _ in shown)
    yield f"{'topic':<{width}}  messages/s  bytes  what"
    for topic, one in shown:
        mixed = " (and others)" if len(one.kinds) > 1 else ""
        kept = " (retained)" if not one.messages else ""
        size = one.bytes // sum(one.kinds.values())
        what = visible(words(one.last)) + mixed + kept
        yield f"{visible(topic):<{width}}  {one.messages / heard.seconds:>10.1f}  {size:>5}  {what}"
    if len(heard.topics) > SHOWN:
        yield f"{len(heard.topics) - SHOWN} more topics: see --json, or narrow them with --topic"


def _suggested(one: Suggestion) -> Iterator[str]:
    """What belongs into the project file, with what was seen of it."""
    yield ""
    yield f"# {_heard(one)}"
    if one.period is not None:
        yield f"# the view of such a model: {window_toml(one, SIZE)}"
    yield toml(one, MODEL)


def _heard(one: Suggestion) -> str:
    sensors = f"{len(one.topics)} sensors" if one.sure else "one sensor: check which level of the topic names it"
    return f"{sensors}; " + (
        "too few readings to tell their rhythm" if one.period is None else f"a reading every {one.period:.2g} s"
    )


def tried_by(one: Suggestion) -> str:
    """The same binding in words of `falaj edge try`, which knows no units; empty where it needs them."""
    binding, timed = one.binding, one.binding.timed()
    if binding.units or binding.columns:
        return ""
    words = ["--bind", binding.topic.replace("{entity}", "+")]
    words += ["--channels", ",".join(binding.fields.get(name, name) for name in one.channels)]
    words += ["--format", binding.format] if binding.format != "json" else []
    time = binding.fields.get(binding.time_field, binding.time_field) if timed else ""
    words += ["--time", time] if time != "ts" and binding.format not in ("scalar", "float32") else []
    return shlex.join(words)


def document(heard: Overheard, found: list[Suggestion]) -> dict[str, Any]:
    seconds = heard.seconds
    topics = {
        topic: {
            "messages": one.messages, "per_s": one.messages / seconds, "retained": one.retained, "bytes": one.bytes,
            "readings": one.readings, "kinds": dict(one.kinds), "fields": list(one.last.fields), "time": one.last.time,
        }
        for topic, one in sorted(heard.topics.items())
    }  # fmt: skip
    bindings = [
        {"toml": toml(one, MODEL), "topics": list(one.topics), "channels": list(one.channels), "period": one.period}
        for one in found
    ]
    return {"seconds": seconds, "topics": topics, "beyond": heard.beyond, "suggestions": bindings}
