"""Who may say what where: every topic of the protocol, built and parsed in one place.

The table `DEVICE_RULES` is the access control of the tenant's broker *and* of the in-memory twin, so both
refuse the same things (protocol.md, "Topics").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sync.names import BadName, DeviceId, Digest, Kind, TenantId, TrustFile

ROOT = "falaj/1"
CORE_NAME = "core@falaj"  # the CN of the core's own certificate: '@' can stand in no device's name

# What each side may do, as patterns below the tenant; {device} is the CN of the session's certificate.
DEVICE_RULES: tuple[tuple[Literal["read", "write"], str], ...] = (
    ("read", "d/{device}/desired"),
    ("read", "d/{device}/ack/+"),
    ("read", "d/{device}/labels"),
    ("read", "d/{device}/cmd/+"),
    ("write", "d/{device}/reported"),
    ("write", "d/{device}/status"),
    ("write", "d/{device}/up/+"),
    ("read", "trust/+"),
    ("read", "blob/+/+"),
    ("read", "core/status"),
)

LOCAL = "falaj/local"  # on the broker that a device shares with its applications; bindings name topics of their own

# What an agent itself says and hears on that broker, questions, answers, its status; and what it tells Home Assistant.
SPOKEN = (f"{LOCAL}/+/infer/+", f"{LOCAL}/+/reply/#", f"{LOCAL}/+/error", f"{LOCAL}/+/status")
DESCRIBED = "homeassistant/+/+/+/config"

LONGEST, LEVELS = 65_535, 200  # bytes by the standard; levels by Mosquitto
_UNSAID = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")  # a broker ends the session

INDEX_DIGITS = 9  # of a chunk's number: no blob has more chunks

DEVICE_RETAINED = ("reported", "status")  # the only topics a device may retain; the core ignores others

GAP = "records-dropped"  # the code of the event that stands for records `first` to `last` of an `up/{kind}`

Area = Literal["desired", "reported", "status", "up", "ack", "labels", "cmd", "trust", "blob", "core-status"]


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed topic. `device`, `kind`, `digest`, `index`, `file` are set as the area needs them."""

    tenant: TenantId
    area: Area
    device: DeviceId | None = None
    kind: Kind | None = None
    digest: Digest | None = None
    index: int | None = None
    file: TrustFile | None = None


def tenant_root(tenant: TenantId) -> str:
    return f"{ROOT}/{tenant}"


def desired(tenant: TenantId, device: DeviceId) -> str:
    return f"{ROOT}/{tenant}/d/{device}/desired"


def reported(tenant: TenantId, device: DeviceId) -> str:
    return f"{ROOT}/{tenant}/d/{device}/reported"


def status(tenant: TenantId, device: DeviceId) -> str:
    return f"{ROOT}/{tenant}/d/{device}/status"


def up(tenant: TenantId, device: DeviceId, kind: Kind) -> str:
    return f"{ROOT}/{tenant}/d/{device}/up/{kind}"


def ack(tenant: TenantId, device: DeviceId, kind: Kind) -> str:
    return f"{ROOT}/{tenant}/d/{device}/ack/{kind}"


def labels(tenant: TenantId, device: DeviceId) -> str:
    return f"{ROOT}/{tenant}/d/{device}/labels"


def command(tenant: TenantId, device: DeviceId, number: int) -> str:
    return f"{ROOT}/{tenant}/d/{device}/cmd/{number}"


def trust(tenant: TenantId, file: TrustFile) -> str:
    return f"{ROOT}/{tenant}/trust/{file}"


def blob(tenant: TenantId, digest: Digest, index: int) -> str:
    return f"{ROOT}/{tenant}/blob/{digest}/{index}"


def is_chunk(topic: str) -> bool:
    """Whether this is a topic of one chunk, told from all others of the protocol; nothing in it is checked."""
    parts = topic.split("/", 4)
    return len(parts) == 5 and parts[3] == "blob"


def core_status(tenant: TenantId) -> str:
    return f"{ROOT}/{tenant}/core/status"


def core_reports(tenant: TenantId) -> str:
    """What all devices report."""
    return f"{ROOT}/{tenant}/d/+/reported"


def core_subscriptions(tenant: TenantId) -> tuple[str, ...]:
    """What the core listens to: everything devices may write."""
    root = f"{ROOT}/{tenant}/d/+"
    return (core_reports(tenant), f"{root}/status", f"{root}/up/+")


def device_subscriptions(tenant: TenantId, device: DeviceId) -> tuple[str, ...]:
    """What a device always listens to; trust files and chunks are subscribed one by one, as they are lacked."""
    own = f"{ROOT}/{tenant}/d/{device}"
    shared = (core_status(tenant), f"{ROOT}/{tenant}/trust/index")
    return (f"{own}/desired", f"{own}/ack/+", f"{own}/labels", f"{own}/cmd/+", *shared)


def parse(topic: str) -> Address:
    """The address of a topic of ours; raises BadName for anything else, however close."""
    parts = topic.split("/")
    if len(parts) < 5 or "/".join(parts[:2]) != ROOT:
        raise BadName(f"{topic!r} is no topic below {ROOT}/")
    tenant, rest = TenantId(parts[2]), parts[3:]
    match rest:
        case ["d", device, "desired" | "reported" | "status" | "labels" as area]:
            return Address(tenant, area, device=DeviceId(device))
        case ["d", device, "up" | "ack" | "cmd" as area, kind]:
            return Address(tenant, area, device=DeviceId(device), kind=Kind(kind))
        case ["trust", file]:
            return Address(tenant, "trust", file=TrustFile(file))
        case ["blob", digest, index] if index.isdecimal() and index.isascii() and len(index) <= INDEX_DIGITS:
            return Address(tenant, "blob", digest=Digest(digest), index=int(index))
        case ["core", "status"]:
            return Address(tenant, "core-status")
    raise BadName(f"{topic!r} is no topic of the protocol")


def speaker(topic: str) -> str:
    """Whose topic it is by its place, also where the rest is no topic of ours: a broker lets nobody else write there.
    Empty where there is no such place."""
    parts = topic.split("/", 5)
    return parts[4] if len(parts) > 5 and parts[3] == "d" else ""


def local_requests(device: DeviceId) -> str:
    """Prediction requests of applications, one level below for each model."""
    return f"{LOCAL}/{device}/infer"


def local_replies(device: DeviceId) -> str:
    """Below it lies every topic that an answer may go to."""
    return f"{LOCAL}/{device}/reply"


def local_errors(device: DeviceId) -> str:
    """Where requests are told of that name no place for their answer."""
    return f"{LOCAL}/{device}/error"


def local_status(device: DeviceId) -> str:
    """Whether the agent is there: `online` or `offline`, retained; also the will of its session."""
    return f"{LOCAL}/{device}/status"


def topic_complaint(topic: str) -> str:
    """Why no broker takes a publish on this topic: by MQTT 5 (4.7) it ends the session. Empty if one does."""
    if "+" in topic or "#" in topic:
        return "a topic has no wildcard: no + and no #"
    return _text_complaint(topic)


def filter_complaint(pattern: str) -> str:
    """Why no broker takes a subscription to this filter; empty if one does."""
    levels = pattern.split("/")
    if any(len(level) > 1 and ("+" in level or "#" in level) for level in levels) or "#" in levels[:-1]:
        return "in a filter + and # are levels of their own, and # is the last"
    return _text_complaint(pattern)


def _text_complaint(text: str) -> str:
    if not text:
        return "it is empty"
    if _UNSAID.search(text):
        return "it has a control character, or one that is none"
    if len(text.encode()) > LONGEST or text.count("/") >= LEVELS:
        return f"it is longer than {LONGEST} bytes or {LEVELS} levels"
    return ""


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both filters match."""
    left, right = one.split("/"), other.split("/")
    for a, b in zip(left, right, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    shorter, longer = sorted((left, right), key=len)
    return len(left) == len(right) or longer[len(shorter)] == "#"


def matches(pattern: str, topic: str) -> bool:
    """MQTT topic filter matching (MQTT 5, section 4.7): '+' is one level, '#' the rest."""
    if topic.startswith("$") and not pattern.startswith("$"):
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(given) or (level != "+" and level != given[i]):
            return False
    return len(wanted) == len(given)


def device_may(action: Literal["read", "write"], tenant: TenantId, device: DeviceId, topic: str) -> bool:
    """Whether the rules let this device read or write this topic."""
    root = tenant_root(tenant)
    return any(
        allowed == action and matches(f"{root}/{pattern.format(device=device)}", topic)
        for allowed, pattern in DEVICE_RULES
    )
