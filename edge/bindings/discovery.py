"""Home Assistant finds the predictions of a device by itself: a retained document for each entity, on its own broker.

The broker's retained documents are the truth: they are heard again after a restart, so one whose binding has gone is
taken away even where the agent was not running when it went. Home Assistant's MQTT discovery says what they look like.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import orjson

from sync import topics
from sync.bindings import Binding
from sync.link import Publish
from sync.names import DeviceId, ModelName, TenantId

MOST = 500  # documents of one device: whoever invents entities must not fill Home Assistant
_ROOT = "homeassistant"
_LONGEST = 1024 * 1024  # bytes of a document that was heard: no manifest has so many classes that its own is longer

Declared = Callable[[], Iterable[tuple[ModelName, str]]]  # (model, output topic with {entity}) described at present


class _Known(msgspec.Struct, frozen=True):
    """What is read of a document that was heard."""

    state_topic: str


class Discovery:
    """The documents of one device. Any thread may call; `publish` must not block."""

    def __init__(
        self, tenant: TenantId, device: DeviceId, publish: Callable[[Publish], None], declared: Declared
    ) -> None:
        self._tenant, self._device, self._publish, self._declared = tenant, device, publish, declared
        self._node = f"falaj_{tenant}_{device}"  # names have no '_', so two devices never share one
        self._known: dict[str, bytes] = {}
        self._described: dict[str, tuple[str, ...]] = {}  # topic -> classes, since bindings changed last
        self._settled = False  # until then nobody knows which bindings there are
        self._lock = threading.Lock()

    def subscription(self) -> str:
        """The topic filter of this device's documents."""
        return f"{_ROOT}/+/{self._node}/+/config"

    def hears(self, topic: str) -> bool:
        return topic.startswith(f"{_ROOT}/") and topics.matches(self.subscription(), topic)

    def announce(self, model: ModelName, classes: tuple[str, ...], binding: Binding, entity: str) -> None:
        """An entity of a binding was answered: it is described, once, and anew where that has become another text."""
        kind = "binary_sensor" if binding.when is not None else "sensor"
        output = binding.output.replace("{entity}", entity)
        name = f"{model}_{hashlib.sha256(output.encode(errors='surrogatepass')).hexdigest()[:16]}"
        topic = f"{_ROOT}/{kind}/{self._node}/{name}/config"
        if self._described.get(topic) == classes:
            return
        payload = orjson.dumps(self._document(name, model, classes, binding, entity, output))
        with self._lock:
            before = self._known.get(topic)
            if before is None and len(self._known) >= MOST:
                return
            self._known[topic], self._described[topic] = payload, classes
        if payload == before:
            return
        self._publish(Publish(topic, payload, retain=True))

    def heard(self, topic: str, payload: bytes) -> None:
        """A document as the broker has it: kept in mind, or taken away if no binding declares it any more. While
        bindings are not known yet it is kept."""
        if not payload:
            with self._lock:
                self._known.pop(topic, None)
                self._described.pop(topic, None)
            return
        with self._lock:
            stands = not self._settled or self._stands(topic, payload)
            if stands and len(self._known) < MOST:
                self._known.setdefault(topic, payload)
        if not stands:
            self._publish(Publish(topic, b"", retain=True))

    def settle(self) -> None:
        """All bindings are known, or have changed: documents of those that have gone are taken away."""
        with self._lock:
            self._settled = True
            self._described.clear()
            gone = [topic for topic, payload in self._known.items() if not self._stands(topic, payload)]
            for topic in gone:
                del self._known[topic]
        for topic in gone:
            self._publish(Publish(topic, b"", retain=True))

    def renew(self) -> None:
        """The session with the broker is new: it may have lost what it kept."""
        with self._lock:
            known = list(self._known.items())
        for topic, payload in known:
            self._publish(Publish(topic, payload, retain=True))

    def _stands(self, topic: str, payload: bytes) -> bool:
        """Whether a binding declares what this document describes."""
        try:
            output = msgspec.json.decode(payload[:_LONGEST], type=_Known).state_topic
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False  # nothing of ours
        model = topic.split("/")[3].partition("_")[0]
        return any(model == name and _fits(pattern, output) for name, pattern in self._declared())

    def _document(
        self, name: str, model: ModelName, classes: tuple[str, ...], binding: Binding, entity: str, output: str
    ) -> dict[str, Any]:
        document: dict[str, Any] = {
            "name": f"{model} {entity}" if "{entity}" in binding.output else str(model),
            "unique_id": f"{self._node}_{name}",
            "state_topic": output,
            "json_attributes_topic": output,
            "availability": [{"topic": topics.local_status(self._device)}],
            "device": {"identifiers": [self._node], "name": self._device, "manufacturer": "Falaj"},
            "origin": {"name": "falaj"},
        }
        if binding.when is not None:
            return document | {"value_template": "{{ 'ON' if value_json.holds else 'OFF' }}"}
        document["value_template"] = "{{ value_json.value }}"
        if not classes:
            return document | {"state_class": "measurement"}
        extra = [binding.no_model] if isinstance(binding.no_model, str) and binding.no_model not in classes else []
        return document | {"device_class": "enum", "options": [*classes, *extra]}


def _fits(pattern: str, output: str) -> bool:
    """Whether an output topic is one of a binding's, whose entity may stand anywhere in it."""
    return re.fullmatch("[^/]+".join(map(re.escape, pattern.split("{entity}"))), output) is not None
