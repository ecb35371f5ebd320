"""One-off questions of the core to a device, and the parts in which the answer comes back.

Nothing converges by them: a device that never hears one is no worse off. What may be asked is this closed list; what
may be told is bounded by the device, and for inputs by the release's signed policy (`Uplink.asked`).
"""

from __future__ import annotations

import msgspec

from sync.messages import PROTOCOL
from sync.names import Count, DeviceId, Kind, ModelName, TenantId

COMMAND_TYPE = "application/vnd.falaj.command+json"
ANSWER = Kind("answer")
LIFE = 86_400.0  # seconds that a command holds: what the broker keeps for a device that is away
PAUSE = 10.0  # seconds between two commands that a device answers
PART = 32 * 1024  # bytes of an answer in one record: sealed and in base64 it is a document all the same
PARTS = 16  # of one answer, at most


class AskPredictions(msgspec.Struct, frozen=True, tag="predictions"):
    """What was predicted from event time `since` to `until` (seconds since 1970), of one model or of all; with `inputs`
    what it takes to make them again, as far as the signed policy lets that out."""

    since: float
    until: float
    model: ModelName | None = None
    inputs: bool = False


class AskSupport(msgspec.Struct, frozen=True, tag="support"):
    """What a person needs to help: versions, status, last events and log lines. No reading, no key."""


Ask = AskPredictions | AskSupport


class Command(msgspec.Struct, frozen=True):
    """One question; travels signed by the director under COMMAND_TYPE. `seq` rises, and a device hears each once."""

    tenant: TenantId
    device: DeviceId
    epoch: Count
    seq: Count
    ts: float
    expires: float
    ask: Ask
    v: int = PROTOCOL


class AnswerPart(msgspec.Struct, frozen=True):
    """The body of `up/answer`: part `part` (from 0) of `parts` of the answer to command `seq`, base64."""

    seq: int
    part: int
    parts: int
    content: str
