"""Topic bindings: sensor messages in, prediction documents out. `reading` is pure, `stream` carries it out."""

from edge.answers import BadOutput, conclude
from edge.bindings.reading import (
    BadReading,
    ErrorDocument,
    entity_of,
    prediction_id,
    read,
)
from edge.bindings.stream import Bindings

__all__ = [
    "BadOutput",
    "BadReading",
    "Bindings",
    "ErrorDocument",
    "conclude",
    "entity_of",
    "prediction_id",
    "read",
]
