"""Labels on their way to a device, cut to what one message bears. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sync import codec
from sync.messages import Labels

MOST = 500  # labels of one message
_ROOM = codec.LIMIT - 1024  # bytes of its labels


class TooLong(ValueError):
    """A label that no message bears; the message of the error names it."""

    code = "label-too-long"


def messages(labels: Mapping[str, str]) -> Iterator[Labels]:
    """All of them, in their order, none twice; each message has at most MOST and fits a document of the wire."""
    part: dict[str, str] = {}
    size = 0
    for prediction, label in labels.items():
        bytes_ = len(codec.encode({prediction: label}))
        if bytes_ > _ROOM:
            raise TooLong(f"the label of {prediction[:40]!r} is {bytes_} bytes long; {_ROOM} is the most")
        if part and (len(part) == MOST or size + bytes_ > _ROOM):
            yield Labels(part)
            part, size = {}, 0
        part[prediction] = label
        size += bytes_
    if part:
        yield Labels(part)
