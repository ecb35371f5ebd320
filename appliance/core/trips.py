"""The core's side of a trip: what devices left in a folder goes to the steward, what they shall have goes into it.

The steward decides; here files are moved, in the order that makes every cut harmless: blobs and trust files first, the
assignment that names them after them. Run again, it goes on where it was.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.api import Refused
from appliance.stick import Stick, StickFailed, StickFull
from core.orders import CarryIn, CarryOut, EnrolByFolder
from sync import codec
from sync.chunks import split
from sync.errors import Damaged
from sync.names import DeviceId, Digest

ESCAPED = 1000  # bytes: more than the quotes of an envelope take when it travels as a text

FIRST_ROOT = "trust/1.root.json"  # no two owners have the same

Blobs = Callable[[Digest], bytes]  # sealed bytes; raises Damaged
Say = Callable[[str], None]


class Core(Protocol):
    """What is asked of the core (`appliance.api.Api`)."""

    def order(self, order: Any) -> dict[str, Any]:
        """The result of an order; raises Refused."""


@dataclass
class Told:
    """What one device said and was given."""

    device: DeviceId
    bundles: int = 0
    words: int = 0
    made: float = 0.0  # when its newest bundle was made; 0: it said nothing yet
    news: bool = False
    models: dict[str, Any] = field(default_factory=dict)
    expires: float = 0.0  # when what it was given ends
    refused: list[str] = field(default_factory=list)


@dataclass
class Trip:
    """What one run did."""

    devices: dict[DeviceId, Told] = field(default_factory=dict)
    enrolled: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    turned_away: dict[str, str] = field(default_factory=dict)  # fingerprint -> why
    written: int = 0
    bytes: int = 0


def trip(stick: Stick, core: Core, blobs: Blobs, names: Iterable[DeviceId], say: Say) -> Trip:
    """Hears all devices that have been at this folder, and fills it anew for them and for `names`."""
    done, found = Trip(), stick.names()
    for device in sorted({DeviceId(name.split("/")[1]) for name in found if name.startswith("d/")}):
        told = done.devices[device] = Told(device)
        say(f"hearing {device}")
        _hear(stick, core, [name for name in found if name.startswith(f"d/{device}/up/")], told)
    _enrol(stick, core, found, done)  # after what a box said under the identity that it gives up by this
    everyone = sorted({*done.devices, *names, *(DeviceId(name) for name in done.enrolled)})
    done.devices = {device: done.devices.get(device, Told(device)) for device in everyone}
    keep: set[str] = set()
    whole = True
    for device in everyone:
        say(f"packing for {device}")
        try:
            out = core.order(CarryOut(device=device))
            try:
                keep |= _pack(stick, out, blobs, done)
            except StickFull:
                say("the folder is full: what no device needs any more goes first")
                _make_room(stick, core, everyone)
                keep |= _pack(stick, out, blobs, done)
        except Refused as refusal:
            done.devices[device].refused.append(str(refusal))
        except Damaged as error:
            done.devices[device].refused.append(f"{error}: restore `blobs` of the core's folder")
            whole = False
    if keep and whole:
        _prune(stick, found, keep)
    return done


def _enrol(stick: Stick, core: Core, found: list[str], done: Trip) -> None:
    for name in found:
        if not name.startswith("enrol/") or not name.endswith("/request"):
            continue
        box = name.split("/")[1]
        request = stick.read(name)
        if request is None:
            continue
        try:
            result = core.order(EnrolByFolder(envelope=request.decode(errors="replace")))
        except Refused as refusal:
            done.turned_away[box] = str(refusal)
            continue
        _write(stick, f"enrol/{box}/answer", result["answer"].encode(), done)
        (done.enrolled if result["device"] else done.waiting).append(result["device"] or result["waiting"])


def _hear(stick: Stick, core: Core, bundles: list[str], told: Told) -> None:
    """In the order of their numbers: records are taken in one after the other."""
    for name in sorted(bundles, key=lambda n: int(n.rsplit("/", 1)[1])):
        bundle = stick.read(name)
        if bundle is None:
            continue
        text = bundle.decode(errors="replace")
        if len(codec.encode(text)) > len(bundle) + ESCAPED:  # junk, that would grow beyond what the core takes
            told.refused.append(f"{name}: it is no bundle of a device")
            continue
        try:
            result = core.order(CarryIn(device=told.device, bundle=text))
        except Refused as refusal:
            told.refused.append(f"{name}: {refusal}")
            continue
        told.bundles += 1
        told.words += result["words"]
        told.made = max(told.made, result["made"])
        told.news = told.news or result["news"]


def _pack(stick: Stick, out: dict[str, Any], blobs: Blobs, done: Trip) -> set[str]:
    """What the assignment names, then the assignment; the names that are needed now."""
    keep: set[str] = set()
    trust = {f"trust/{name}": base64.b64decode(data) for name, data in out["trust"].items()}
    _check_owner(stick, trust.get(FIRST_ROOT))
    for digest, chunk in out["blobs"].items():
        for index, piece in enumerate(split(blobs(Digest(digest)), chunk)):
            keep.add(f"blob/{digest}/{index}")
            _write(stick, f"blob/{digest}/{index}", piece, done)
    last = ("trust/timestamp.json", "trust/index")
    for name in (*(n for n in trust if n not in last), *(n for n in last if n in trust)):
        _write(stick, name, trust[name], done)
    device = DeviceId(out["device"])
    for name in ("desired", "down"):
        _write(stick, f"d/{device}/{name}", out[name].encode(), done)
    told = done.devices[device]
    told.models, told.expires = out["models"], out["expires"]
    return keep | trust.keys()


def _check_owner(stick: Stick, root: bytes | None) -> None:
    """Raises StickFailed where the files of another owner lie, whose tenant has the same name: each would overwrite
    what the other's devices need, and clear it away."""
    theirs = stick.read(FIRST_ROOT)
    if theirs is not None and root is not None and theirs != root:
        raise StickFailed(
            f"{stick.place} has the files of another owner, or of a trust that was made anew since; it was left alone. "
            f"Use a folder of its own; if nobody needs those files, remove {stick.place / 'falaj'} first"
        )


def _write(stick: Stick, name: str, content: bytes, done: Trip) -> None:
    if stick.write(name, content):
        done.written += 1
        done.bytes += len(content)


def _make_room(stick: Stick, core: Core, everyone: list[DeviceId]) -> None:
    """Before all is packed, as it is not where there is room: a cut now would leave devices without what only their
    older assignment names, until the next trip."""
    needed: set[str] = set()
    for device in everyone:
        with suppress(Refused):  # told where it is packed for
            needed |= core.order(CarryOut(device=device))["blobs"].keys()
    for name in stick.names("blob"):
        if name.split("/")[1] not in needed:
            stick.remove(name)


def _prune(stick: Stick, found: list[str], keep: set[str]) -> None:
    """What no device at this folder needs any more."""
    for name in found:
        if name.startswith(("blob/", "trust/")) and name not in keep:
            stick.remove(name)
