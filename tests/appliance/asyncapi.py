"""docs/asyncapi.yaml is made from the code by this module: topics from `sync.topics`, documents from `sync.messages`.

`python -m tests.appliance.asyncapi` writes it anew. It is JSON, which every reader of YAML understands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from sync import enrolment, messages, topics
from sync.names import Name

FILE = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.yaml"
ROOT = f"{topics.ROOT}/{{tenant}}"

# channel -> (address below the tenant, who sends, retained, what it is, documents, media type)
_Channel = tuple[str, str, bool, str, tuple[type, ...], str]
_DSSE, _JSON = "application/vnd.dsse+json", "application/json"
CHANNELS: dict[str, _Channel] = {
    "desired": (
        "d/{device}/desired", "core", True,
        "The whole desired state of one device, in a DSSE envelope signed by the director.",
        (messages.Assignment,), _DSSE,
    ),
    "reported": (
        "d/{device}/reported", "device", True,
        "The whole reported state, in a DSSE envelope signed by the key of the device's certificate.",
        (messages.Reported,), _DSSE,
    ),
    "status": ("d/{device}/status", "device", True, "Also the will of the session.", (messages.Status,), _JSON),
    "up": (
        "d/{device}/up/{kind}", "device", False,
        "Numbered records of the outbox; the body of kind `event` is a DeviceEvent, of `why` a WhyCard, of `sample` a "
        "SampleBatch, of `csr` a RenewalRequest in a DSSE envelope.",
        (messages.Record, messages.DeviceEvent, messages.WhyCard, messages.SampleBatch), _JSON,
    ),
    "ack": ("d/{device}/ack/{kind}", "core", False, "All up to `n` is committed.", (messages.Ack,), _JSON),
    "labels": ("d/{device}/labels", "core", False, "What predictions really were.", (messages.Labels,), _JSON),
    "cmd": ("d/{device}/cmd/{id}", "core", False, "Reserved: one-off requests.", (), _JSON),
    "trust": (
        "trust/{file}", "core", True,
        "TUF metadata and manifests, one message a file; `trust/index` is a TrustIndex.",
        (messages.TrustIndex,), _JSON,
    ),
    "blob": (
        "blob/{digest}/{i}", "core", True,
        "Chunk `i` of a sealed blob, raw bytes; empty = cleared.", (), "application/octet-stream",
    ),
    "core-status": ("core/status", "core", True, "Also the will of the core's session.", (messages.CoreStatus,), _JSON),
}  # fmt: skip


def document() -> dict[str, Any]:
    """The whole description."""
    kinds = [k for _, _, _, _, documents, _ in CHANNELS.values() for k in documents]
    kinds += [messages.Prediction, enrolment.Token, enrolment.EnrolRequest, enrolment.EnrolAnswer]
    kinds += [enrolment.EnrolWaiting, enrolment.RenewalRequest]
    _, schemas = msgspec.json.schema_components(kinds, schema_hook=_named, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Falaj: the protocol between core and devices",
            "version": str(messages.PROTOCOL),
            "license": {"name": "Apache-2.0"},
            "description": "MQTT 5 over TLS 1.3 with client certificates; docs/protocol.md has the rules. "
            "Made from sync/topics.py and sync/messages.py by tests/appliance/asyncapi.py: do not edit.",
        },
        "servers": {"tenant": {"host": "core.example:8883", "protocol": "secure-mqtt", "protocolVersion": "5"}},
        "defaultContentType": _JSON,
        "channels": {name: _channel(name) for name in CHANNELS},
        "operations": {name: _operation(name) for name in CHANNELS},
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in dict.fromkeys(kinds)},
            "schemas": schemas,
        },
    }


def text() -> str:
    return json.dumps(document(), indent=2) + "\n"


def _channel(name: str) -> dict[str, Any]:
    address, _, _, says, documents, media = CHANNELS[name]
    whole = f"{ROOT}/{address}"
    told = {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in documents}
    return {
        "address": whole,
        "description": says,
        "parameters": {part[1:-1]: {} for part in whole.split("/") if part.startswith("{")},
        "messages": told or {"bytes" if "octet" in media else "reserved": {"contentType": media}},
    }


def _operation(name: str) -> dict[str, Any]:
    """By the core's eyes: it sends, or it receives what a device may write."""
    _, sender, retained, _, _, media = CHANNELS[name]
    return {
        "action": "send" if sender == "core" else "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"{sender} to {'device' if sender == 'core' else 'core'}, {media}",
        "bindings": {"mqtt": {"qos": 1, "retain": retained}},
    }


def _message(kind: type) -> dict[str, Any]:
    return {"contentType": _JSON, "payload": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _named(kind: type) -> dict[str, Any]:
    if issubclass(kind, Name):
        return {"type": "string", "pattern": f"^{kind.shape.pattern}$"}
    raise NotImplementedError(kind)


if __name__ == "__main__":
    FILE.write_text(text())
