"""Topic bindings: what a project file says of sensor topics and prediction topics, and what a signed manifest carries.

A binding checks itself; what depends on the model's channels is checked where the project is read.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from sync.features import Unit
from sync.topics import DESCRIBED, SPOKEN, filter_complaint, overlap, topic_complaint

Format = Literal["json", "rows", "csv", "scalar", "float32"]

ENTITY = "{entity}"
MOST = 1000  # bytes of a topic as it is written
LONGEST = 100  # predictions that a condition may look back on


class When(msgspec.Struct, frozen=True, rename={"label": "class"}):
    """A condition on the predictions of one entity, with hysteresis.

    It begins to hold when of the last `within` at least `of` lie above `above`, and ends when as many lie at or below
    `below`. What is compared is the probability of `label` (in files and on the wire: `class`), or the value of a model
    without classes. Only predictions since it last began or ended count, and only answered ones.
    """

    above: float
    label: str = ""
    below: float | None = None  # as `above` if not given
    of: int = 1
    within: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.of <= self.within <= LONGEST:
            raise ValueError(f"when: 1 <= of <= within <= {LONGEST}")
        if not math.isfinite(self.above) or (self.below is not None and not self.below <= self.above):
            raise ValueError("when: below is at most above")


class Binding(msgspec.Struct, frozen=True):
    """A topic binding: sensor topics in, predictions out, no code.

    Exactly one level of `topic` is the literal word `{entity}` (one level of the sensor topic); `output` may
    contain it too.

    `format` is what a payload is; each is one reading or several, in the order they were taken:
    `json`    an object, or a list of them, with one number a channel and the time: under its name, or where `fields`
              says, levels of objects separated by dots
    `rows`    a JSON list of numbers by `columns`, or a list of such lists
    `csv`     lines of numbers by `columns`, separated by commas
    `scalar`  one number, of the only channel
    `float32` numbers of 32 bits, little endian, row by row by `columns`
    `columns` names what stands where, empty names are skipped; not given: time, then the channels in their order.

    `time_field` names the time of a reading in seconds. Where it is empty, and for `scalar` and `float32`, a reading
    has none and is timed by its arrival. `units` makes the model's units of what a sensor sends
    (`sync.arrays.in_units`); the time may be among them.

    `emit` says which predictions are told: `always` all; `on-change` where the answer is another than the last that was
    told; `when` where its condition begins or ends to hold; `every` none of itself. With `every`, in seconds of event
    time, one is told after so long in any case. `no_model` is the value that is told while no release answers.
    `home_assistant`: what is told is described to Home Assistant.
    """

    topic: str
    output: str
    time_field: str = "ts"
    emit: Literal["always", "on-change", "every", "when"] = "always"
    format: Format = "json"
    fields: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    units: dict[str, Unit] = {}
    every: float | None = None
    when: When | None = None
    no_model: str | float | None = None
    home_assistant: bool = False

    def __post_init__(self) -> None:
        if self.every is not None and not 0 < self.every < math.inf:
            raise ValueError("binding: every is a number of seconds above 0")
        if self.emit == "every" and self.every is None:
            raise ValueError('binding: emit = "every" needs `every`, in seconds')
        if self.every is not None and self.emit == "always":
            raise ValueError('binding: emit = "always" tells all; with `every` it is "every", "on-change" or "when"')
        if (self.emit == "when") != (self.when is not None):
            raise ValueError('binding: emit = "when" and the table `when` go together')
        if self.fields and self.format != "json":
            raise ValueError('binding: `fields` are of format "json"')
        if self.columns and self.format not in ("rows", "csv", "float32"):
            raise ValueError('binding: `columns` are of format "rows", "csv" or "float32"')

    def timed(self) -> bool:
        """Whether readings bring their time; else they are timed by their arrival."""
        return bool(self.time_field) and self.format not in ("scalar", "float32")

    def laid_out(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """What stands in each column of a row."""
        return self.columns or ((self.time_field, *channels) if self.timed() else channels)


def complaint(binding: Binding) -> str:
    """Why no device can hear or say what this binding names, or must not; empty if it can. It is asked where a project
    is applied, where a release or a config is taken up, and before it is bound, once its variables are filled in; not
    where a document is read: what was stored before there was such a rule must open still."""
    levels = binding.topic.split("/")
    if levels.count(ENTITY) != 1:
        return f"topic {binding.topic[:MOST]!r} needs one level '{ENTITY}'"
    heard = "/".join("+" if level == ENTITY else level for level in levels)
    said = "/".join("+" if ENTITY in level else level for level in binding.output.split("/"))
    whole = f"{binding.output.replace(ENTITY, 'entity')}/error" if binding.output else ""
    for name, text, pattern, why in (
        ("topic", binding.topic, heard, filter_complaint(heard)),
        ("output", binding.output, said, topic_complaint(whole)),
    ):
        reason = why or _taken(text, pattern)
        if reason:
            return f"{name} {text[:MOST]!r}: {reason}"
    return ""


def _taken(text: str, pattern: str) -> str:
    if len(text.encode()) > MOST:
        return f"it is longer than {MOST} bytes"
    if text.startswith("$"):
        return "topics that begin with $ are the broker's own"
    if text.split("/")[0] == "falaj" or any(overlap(pattern, own) for own in (*SPOKEN, DESCRIBED)):
        return "the agent itself speaks there; name topics of your own"
    return ""
