"""MQTT on the device's own broker. Topic bindings: sensor messages in, prediction documents out. `payloads`, `reading`
and `emitting` are pure, `stream` and `telling` carry them out. `requests` answers applications that ask."""

from edge.answers import BadOutput, conclude
from edge.bindings.payloads import BadReading, read
from edge.bindings.reading import ErrorDocument, entity_of, prediction_id
from edge.bindings.requests import Requests
from edge.bindings.stream import Bindings

__all__ = [
    "BadOutput",
    "BadReading",
    "Bindings",
    "ErrorDocument",
    "Requests",
    "conclude",
    "entity_of",
    "prediction_id",
    "read",
]
