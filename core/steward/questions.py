"""Asks a device something once, by a signed command, and takes in its answer part by part. Nothing is decided by it: a
person reads it, in a process of their own that has the key."""

from __future__ import annotations

import base64
from typing import Any

from msgspec.structs import replace

from core import orders
from core.catalog.questions import Question
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import codec, roles, topics
from sync.commands import COMMAND_TYPE, LIFE, PART, PARTS, PAUSE, AnswerPart, AskPredictions, Command
from sync.errors import Malformed
from sync.messages import DeviceEvent
from sync.names import DeviceId

REFUSED = "command-refused"  # the device's event, with `seq` among its facts


def ask(house: House, order: orders.Question, now: float) -> dict[str, Any]:
    """Signs a command and sends it; the broker keeps it for a device that is away, until it expires."""
    device = house.catalog.fleet.device(order.device)
    if device is None or not device.active:
        raise Refusal("no-such-device", f"no device {order.device} is enrolled here", "`falaj device list` lists them")
    if isinstance(order.ask, AskPredictions) and not order.ask.since <= order.ask.until:
        raise Refusal("no-such-time", "the time asked for ends before it begins", "correct it")
    before = next(iter(house.catalog.questions.newest(device.device, 1)), None)
    if before is not None and 0 <= now - before.asked < PAUSE:
        raise Refusal(
            "asked-just-now", f"{device.device} was asked {now - before.asked:.0f} seconds ago",
            f"a device answers every {PAUSE:.0f} seconds: wait, and ask again",
        )  # fmt: skip
    seq = house.catalog.questions.next_seq(now)
    command = Command(house.tenant, device.device, device.epoch, seq, now, now + LIFE, order.ask)
    envelope = roles.sign(command, COMMAND_TYPE, house.keys.director)
    question = Question(seq, device.device, device.epoch, order.actor, now, command.expires, order.ask)
    house.catalog.questions.put(question)
    what = type(order.ask).__struct_config__.tag
    house.event(now, "device-asked", f"{order.actor} asks {device.device} for {what}", device=device.device)
    house.send(topics.command(house.tenant, device.device, seq), envelope, expiry=int(LIFE))
    return {"seq": seq, "device": device.device, "status": device.status, "expires": command.expires}


def take_part(house: House, device: DeviceId, epoch: int, body: bytes, now: float) -> None:
    """One part, of a question that was put to this very device and waits; any other is malformed."""
    part = codec.decode(AnswerPart, body)
    question = house.catalog.questions.get(part.seq)
    if question is None or (question.device, question.epoch) != (device, epoch) or question.answered is not None:
        raise Malformed(f"{device} answers question {part.seq}, which does not wait for its answer")
    if not (0 <= part.part < part.parts <= PARTS):
        raise Malformed(f"{device} answers in part {part.part} of {part.parts}")
    try:
        content = base64.b64decode(part.content, validate=True)
    except ValueError as error:
        raise Malformed(f"answer of {device}: not base64: {error}") from error
    if len(content) > PART:
        raise Malformed(f"answer of {device}: a part of {len(content)} bytes, {PART} are allowed")
    if house.catalog.questions.put_part(part.seq, part.part, content) == part.parts:
        house.catalog.questions.put(replace(question, answered=now))
        house.event(now, "device-answered", f"{device} answered question {part.seq}", source=device)


def heard(house: House, device: DeviceId, event: DeviceEvent) -> None:
    """A device says that it does not answer: whoever waits need not wait on."""
    seq = event.facts.get("seq")
    if event.code != REFUSED or not isinstance(seq, int):
        return
    question = house.catalog.questions.get(seq)
    if question is not None and question.device == device and question.answered is None:
        house.catalog.questions.put(replace(question, refused=event.text[:1000]))
