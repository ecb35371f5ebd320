"""The pure half of topic bindings: whose a sensor message is, and what its predictions are called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from sync.bindings import ENTITY
from sync.features import WindowSpec
from sync.manifest import Binding
from sync.messages import PROTOCOL
from sync.names import DeviceId, ModelName, TenantId
from sync.topics import matches


class ErrorDocument(msgspec.Struct, frozen=True):
    """What stands on `{output}/error`: a message or window that led to no prediction, and why; nothing of a payload is
    quoted. `suppressed` counts those before it on this topic that were kept back, because they came too fast."""

    code: str
    text: str
    model: ModelName
    entity: str
    topic: str
    ts: float | None = None  # event time of the window, if it came to one
    suppressed: int = 0
    v: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Bound:
    """One binding of one model, with what is needed to serve it while no release of it is live."""

    model: ModelName
    binding: Binding
    window: WindowSpec
    classes: tuple[str, ...]


def entity_of(pattern: str, topic: str) -> str | None:
    """What stands for `{entity}` in `topic`, None if the topic is not the binding's."""
    if not matches(pattern.replace(ENTITY, "+"), topic):
        return None
    return topic.split("/")[pattern.split("/").index(ENTITY)]


def prediction_id(tenant: TenantId, device: DeviceId, model: ModelName, entity: str, end: float) -> str:
    """32 hex digits that are the same whenever the same window is predicted again."""
    text = "|".join((tenant, device, model, entity, repr(end)))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
