"""MQTT on the device's own broker. Topic bindings: sensor messages in, prediction documents out; `reading` is pure,
`stream` carries it out. `requests` answers applications that ask."""

from edge.answers import BadOutput, conclude
from edge.bindings.reading import (
    BadReading,
    ErrorDocument,
    entity_of,
    prediction_id,
    read,
)
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
