"""Questions to devices and their answers: signed by the director, put together from parts, and no device can say more
than it was asked."""

from __future__ import annotations

import base64

import pytest

from core import orders
from core.catalog.questions import KEPT
from sync import codec, roles, topics
from sync.commands import COMMAND_TYPE, LIFE, PART, PARTS, PAUSE, AnswerPart, AskPredictions, AskSupport, Command
from sync.messages import DeviceEvent
from tests.core.world import MODEL, ONE, TENANT, TWO, Device, World

ASK = AskPredictions(10.0, 20.0, MODEL, inputs=True)


def put(world: World, device: Device) -> int:
    world.now += PAUSE
    return int(world.must(orders.Question(actor="cli:amal", device=device.name, ask=ASK))["seq"])


def part(seq: int, number: int, of: int, content: bytes = b"x") -> AnswerPart:
    return AnswerPart(seq, number, of, base64.b64encode(content).decode())


def test_a_question_is_a_command_that_the_director_signed_and_the_broker_drops_in_time(world: World) -> None:
    device = world.enrol(ONE)
    seq = put(world, device)
    (sent,) = [m for m in world.sent if m.topic == topics.command(TENANT, ONE, seq)]
    assert (sent.retain, sent.qos, sent.expiry) == (False, 1, int(LIFE))
    director = roles.signer(world.house.keys.director).public_key
    command = roles.verify(sent.payload, COMMAND_TYPE, Command, [director])
    assert (command.tenant, command.device, command.epoch, command.seq) == (TENANT, ONE, device.epoch, seq)
    assert (command.ask, command.expires) == (ASK, world.now + LIFE)
    (told,) = [e for e in world.catalog.events.newest(9) if e.code == "device-asked"]
    assert "cli:amal" in told.text, "who asks a device is told for good"


def test_an_answer_is_put_together_whatever_comes_twice(world: World) -> None:
    device = world.enrol(ONE)
    seq = put(world, device)
    for n, (number, content) in enumerate(((0, b"ab"), (0, b"ab"), (2, b"ef"), (1, b"cd")), start=1):
        found = world.catalog.questions.get(seq)
        assert found is not None and found.answered is None
        world.hear(device.record(part(seq, number, 3, content), n, kind="answer"))
    found = world.catalog.questions.get(seq)
    assert found is not None and found.answered == world.now and not found.open(world.now)
    assert world.catalog.questions.answer(seq) == b"abcdef" and "device-answered" in world.codes()


@pytest.mark.parametrize(
    "bad",
    [
        part(1, 0, 1),
        part(2**63, 0, 1),
        part(-(2**63), 0, 1),
        part(0, 0, PARTS + 1),
        part(0, -1, 2),
        part(0, 2, 2),
        part(0, 0, 1, bytes(PART + 1)),
        AnswerPart(0, 0, 1, "\u00e9"),
        {"seq": "x"},
    ],
)
def test_what_is_no_answer_to_a_question_of_this_device_is_kept_as_an_event(world: World, bad: object) -> None:
    device = world.enrol(ONE)
    seq = put(world, device)
    if isinstance(bad, AnswerPart) and bad.seq == 0:
        bad = AnswerPart(seq, bad.part, bad.parts, bad.content)
    world.hear(device.record(bad, 1, kind="answer"))
    found = world.catalog.questions.get(seq)
    assert found is not None and found.answered is None and world.catalog.questions.answer(seq) == b""
    assert "record-malformed" in world.codes()
    world.hear(device.record(part(seq, 0, 1), 2, kind="answer"))
    assert world.catalog.questions.answer(seq) == b"x", "and the queue behind it moves on"


def test_a_device_cannot_answer_for_another_nor_twice(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    seq = put(world, one)
    world.hear(two.record(part(seq, 0, 1, b"lie"), 1, kind="answer"))
    world.hear(two.record(DeviceEvent("command-refused", "no", facts={"seq": seq}), 1))
    found = world.catalog.questions.get(seq)
    assert found is not None and found.open(world.now)
    world.hear(one.record(part(seq, 0, 1, b"true"), 1, kind="answer"))
    world.hear(one.record(part(seq, 0, 1, b"late"), 2, kind="answer"))
    assert world.catalog.questions.answer(seq) == b"true"


def test_a_device_that_refuses_ends_the_waiting(world: World) -> None:
    device = world.enrol(ONE)
    seq = put(world, device)
    for n, other in enumerate((2**63, -(2**63), 0), start=1):
        world.hear(device.record(DeviceEvent("command-refused", "no such question", facts={"seq": other}), n))
    assert (found := world.catalog.questions.get(seq)) is not None and found.open(world.now)
    world.hear(device.record(DeviceEvent("command-refused", "not answered: no key", facts={"seq": seq}), 4))
    found = world.catalog.questions.get(seq)
    assert found is not None and found.refused == "not answered: no key" and not found.open(world.now)


def test_what_cannot_be_asked_is_said(world: World) -> None:
    assert world.order(orders.Question(device=ONE, ask=ASK)).code == "no-such-device"
    device = world.enrol(ONE)
    put(world, device)
    assert world.order(orders.Question(device=ONE, ask=AskSupport())).code == "asked-just-now"
    world.now += PAUSE
    assert world.order(orders.Question(device=ONE, ask=AskPredictions(2.0, 1.0))).code == "no-such-time"
    world.must(orders.Revoke(device=ONE, reason="a test"))
    assert world.order(orders.Question(device=ONE, ask=ASK)).code == "no-such-device"


def test_numbers_rise_also_when_the_clock_goes_back_and_the_oldest_go(world: World) -> None:
    device = world.enrol(ONE)
    first = put(world, device)
    world.hear(device.record(part(first, 0, 1), 1, kind="answer"))
    world.now -= 3600
    later = [put(world, device) for _ in range(KEPT)]
    assert [first, *later] == sorted({first, *later})
    assert world.catalog.questions.get(first) is None and world.catalog.questions.answer(first) == b""
    assert len(world.catalog.questions.newest()) == KEPT and codec.builtins(world.catalog.questions.get(later[0]))
