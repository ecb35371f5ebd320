"""The record that stands for those that will never come: an event under the last of their numbers.

The core waits for each number of a kind in turn, and would wait for good for one that is gone.
"""

from __future__ import annotations

from sync import codec, topics
from sync.errors import Malformed
from sync.messages import DeviceEvent, Record


def body(first: int, last: int) -> DeviceEvent:
    """What stands for the numbers `first` to `last`."""
    text = (
        f"records {first} to {last} are gone: no room, an unreadable outbox, one that nobody could take in, or a "
        "core restored from a backup"
    )
    return DeviceEvent(topics.GAP, text, None, "notice", {"first": first, "last": last})


def first_of(n: int, document: bytes) -> int:
    """The first number a record stands for: its own, or of a gap the one it begins with."""
    event = _event(document)
    first = event.facts.get("first") if event is not None and event.code == topics.GAP else None
    return first if isinstance(first, int) else n


def is_gap(document: bytes) -> bool:
    """Whether this record stands for others."""
    event = _event(document)
    return event is not None and event.code == topics.GAP


def _event(document: bytes) -> DeviceEvent | None:
    """What it says, if it is an event of any kind; a record may be larger than what the wire lets through."""
    try:
        return codec.decode(DeviceEvent, bytes(codec.decode(Record, document, len(document)).body))
    except Malformed:
        return None
