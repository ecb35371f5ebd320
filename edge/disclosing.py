"""What a device may tell of its predictions when it is asked: always what it said, its inputs only where the release's
owner signed that they may leave (`Uplink.asked`), within the day's budget. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from sync import codec
from sync.messages import Prediction
from sync.names import ModelName
from sync.remembered import Remembered

MOST = 500  # predictions of one answer over the line
ROOM = 340 * 1024  # bytes of them, as they are written: twice in base64 they still fit the parts of an answer


@dataclass(frozen=True, slots=True)
class Open:
    """What of a model's inputs may leave: of these releases, and so many bytes more."""

    releases: frozenset[int]
    left: float


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What is told, in order; bytes of inputs by model; models whose inputs stay; whether something did not fit."""

    predictions: tuple[Remembered, ...]
    spent: dict[ModelName, int] = field(default_factory=dict)
    withheld: tuple[ModelName, ...] = ()
    more: bool = False


class Told(msgspec.Struct, frozen=True):
    """A prediction as people beside the device are told of it: what was said, by which variant, with which versions of
    tables and config, and what it really was. No input."""

    prediction: Prediction
    arrived: float
    label: str | None
    artifact: str
    config: int
    lookups: dict[str, int]


def disclose(found: Sequence[Remembered], let_out: Mapping[ModelName, Open], room: float = ROOM) -> Disclosed:
    """Of `found`, in order of time, the newest that fit into `room` bytes; what a budget has left is theirs, too."""
    told: list[Remembered] = []
    spent: dict[ModelName, int] = {}
    withheld: set[ModelName] = set()
    for one in reversed(found):
        model, size = one.prediction.model, len(codec.encode(one))
        may = let_out.get(model)
        paid = spent.get(model, 0) + size
        whole = may is not None and one.prediction.release in may.releases and paid <= may.left
        if not whole:
            one = without_inputs(one)
            size = len(codec.encode(one))
        if size > room:
            return Disclosed(tuple(reversed(told)), spent, tuple(sorted(withheld)), more=True)
        room -= size
        told.append(one)
        if whole:
            spent[model] = paid
        else:
            withheld.add(model)
    return Disclosed(tuple(reversed(told)), spent, tuple(sorted(withheld)))


def withhold(told: Disclosed, models: Collection[ModelName]) -> Disclosed:
    """The same without the inputs of some models."""
    left = (without_inputs(one) if one.prediction.model in models else one for one in told.predictions)
    spent = {model: size for model, size in told.spent.items() if model not in models}
    return Disclosed(tuple(left), spent, tuple(sorted({*told.withheld, *models})), told.more)


def shown(one: Remembered) -> Told:
    """What people beside the device are told of it."""
    versions = {name: looked.version for name, looked in one.basis.lookups.items()}
    return Told(one.prediction, one.arrived, one.label, one.basis.artifact, one.basis.config, versions)


def without_inputs(one: Remembered) -> Remembered:
    """What was said and by whom, and nothing that a sensor, a table or a program said. Outputs that are no class and no
    number go too: a graph may repeat its inputs in them."""
    bare = {name: replace(looked, vector=b"") for name, looked in one.basis.lookups.items()}
    return replace(one, shape=(), window=b"", basis=replace(one.basis, lookups=bare), inputs={}, outputs={})
