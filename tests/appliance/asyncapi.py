"""docs/asyncapi.yaml is made from the code by this module: topics from `sync.topics`, documents from `sync.messages`
and, for a device's own broker, from `edge.bindings`.

`python -m tests.appliance.asyncapi` writes it anew. It is JSON, which every reader of YAML understands.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from edge import bindings
from edge.bindings import requests
from sync import answers, commands, enrolment, messages, performance, records, reports, topics
from sync.names import DeviceId, Name

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
        "Numbered records of the outbox. The body of kind `sample` is a SampleBatch; of all others a SealedBody, in "
        "which is for `event` a DeviceEvent, for `why` a WhyCard, for `metrics` an "
        "Interval, for `csr` a RenewalRequest in a DSSE envelope, for "
        "`answer` an AnswerPart: all parts of one together are a SealedFile.",
        (
            messages.Record, records.SealedBody, messages.DeviceEvent, reports.WhyCard, messages.SampleBatch,
            commands.AnswerPart, answers.SealedFile, performance.Interval,
        ), _JSON,
    ),
    "ack": ("d/{device}/ack/{kind}", "core", False, "All up to `n` is committed.", (messages.Ack,), _JSON),
    "labels": ("d/{device}/labels", "core", False, "What predictions really were.", (messages.Labels,), _JSON),
    "cmd": (
        "d/{device}/cmd/{id}", "core", False,
        "A one-off question, in a DSSE envelope signed by the director; `{id}` is its number.",
        (commands.Command,), _DSSE,
    ),
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

_DEVICE, _MODEL = DeviceId("device"), "{model}"
# channel -> (address on a device's own broker, what it is, who sends, documents)
LOCAL: dict[str, tuple[str, str, str, tuple[type, ...]]] = {
    "local-infer": (
        f"{topics.local_requests(_DEVICE)}/{_MODEL}",
        "A question of a program beside the agent, in the Open Inference Protocol's form or the short one.",
        "program", (requests.Asked,),
    ),
    "local-reply": (
        f"{topics.local_replies(_DEVICE)}/{{asker}}",
        "Its answer: what HTTP answers (docs/openapi-edge.yaml) to `inputs`, Told to `data`, or Declined. `{asker}` "
        "may have several levels; the MQTT 5 response topic or `reply_to` names them.",
        "device", (requests.Told, requests.Declined),
    ),
    "local-error": (
        topics.local_errors(_DEVICE), "A question whose answer has no place.", "device", (requests.Declined,),
    ),
    "local-status": (
        topics.local_status(_DEVICE),
        "Whether the agent is there, retained: the text `online` or `offline`. Also the will of its session.",
        "device", (),
    ),
    "local-prediction": (
        "{output}",
        "What a binding of the project file tells of an entity; `{output}` is the binding's output topic.",
        "device", (messages.Prediction,),
    ),
    "local-prediction-error": (
        "{output}/error",
        "A sensor's message, or a window, that led to no prediction. At most five at once and one in ten seconds on "
        "each topic; `suppressed` counts what was kept back.",
        "device", (bindings.ErrorDocument,),
    ),
    "local-home-assistant": (
        "homeassistant/{component}/falaj_{tenant}_{device}/{object}/config",
        "Home Assistant's MQTT discovery, retained; empty: gone. Bindings with `home_assistant` are described.",
        "device", (),
    ),
}  # fmt: skip
LOCAL_RETAINED = ("local-status", "local-home-assistant")


def document() -> dict[str, Any]:
    """The whole description."""
    kinds = [k for _, _, _, _, documents, _ in CHANNELS.values() for k in documents]
    kinds += [kind for _, _, _, documents in LOCAL.values() for kind in documents]
    kinds += [messages.Prediction, enrolment.Token, enrolment.EnrolRequest, enrolment.EnrolAnswer]
    kinds += [enrolment.EnrolWaiting, enrolment.CarriedAnswer, enrolment.RenewalRequest]
    kinds += [answers.Predictions, answers.Support]
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
        "servers": {
            "tenant": {"host": "core.example:8883", "protocol": "secure-mqtt", "protocolVersion": "5"},
            "local": {"host": "127.0.0.1:1883", "protocol": "mqtt", "description": "A device's own; 3.1.1 or 5."},
        },
        "defaultContentType": _JSON,
        "channels": {name: _channel(name) for name in CHANNELS} | {name: _local(name) for name in LOCAL},
        "operations": {name: _operation(name) for name in CHANNELS} | {name: _locally(name) for name in LOCAL},
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in dict.fromkeys(kinds)},
            "schemas": schemas,
        },
    }


def text() -> str:
    return json.dumps(document(), indent=2) + "\n"


def _local(name: str) -> dict[str, Any]:
    address, says, _, documents = LOCAL[name]
    whole = address.replace(f"/{_DEVICE}/", "/{device}/")
    return {
        "address": whole,
        "servers": [{"$ref": "#/servers/local"}],
        "description": says,
        "parameters": {word: {} for word in re.findall(r"{(\w+)}", whole)},
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in documents}
        or {"text": {"contentType": "text/plain" if name == "local-status" else _JSON}},
    }


def _locally(name: str) -> dict[str, Any]:
    """By the device's eyes: it receives what programs ask."""
    sender = LOCAL[name][2]
    return {
        "action": "send" if sender == "device" else "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "bindings": {"mqtt": {"retain": name in LOCAL_RETAINED}},
    }


def _channel(name: str) -> dict[str, Any]:
    address, _, _, says, documents, media = CHANNELS[name]
    whole = f"{ROOT}/{address}"
    told = {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in documents}
    return {
        "address": whole,
        "servers": [{"$ref": "#/servers/tenant"}],
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
    raise TypeError(f"no schema is known of {kind.__name__}")


if __name__ == "__main__":
    FILE.write_text(text())
