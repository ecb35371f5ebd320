"""One-off questions on the uplink: nobody but the director may ask, nothing is asked twice, the answer is bounded."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from edge.agent.ports import Outside
from edge.states import Answered
from sync import codec, roles, topics
from sync.commands import ANSWER, COMMAND_TYPE, LIFE, PART, PARTS, PAUSE, AnswerPart, Ask, AskPredictions, Command
from sync.link import Message
from sync.messages import ASSIGNMENT_TYPE, Record
from sync.names import DeviceId, TenantId
from tests.edge.device import Device, committed
from tests.edge.world import DEVICE, EPOCH, TENANT, Core

ASK = AskPredictions(1.0, 2.0)


@pytest.fixture
def device(device: Device) -> Device:
    """It answers each question with 70,000 bytes."""
    answering(device, bytes(70_000))
    return device


def answering(device: Device, file: bytes | str) -> list[Ask]:
    """What it was asked from now on."""
    asked: list[Ask] = []

    def answer(ask: Ask, seq: int, now: float) -> Answered | str:
        asked.append(ask)
        return file if isinstance(file, str) else Answered(file, "told")

    device.house.outside = Outside(answer=answer)
    return asked


def say(core: Core, device: Device, seq: int, /, *, by: bytes = b"", kind: str = COMMAND_TYPE, **changes: Any) -> None:
    fields = {"tenant": TENANT, "device": DEVICE, "epoch": EPOCH, "expires": device.now + LIFE, "seq": seq} | changes
    command = Command(ts=device.now, ask=ASK, **fields)
    deliver(device, roles.sign(command, kind, by or core.director), seq)


def deliver(device: Device, payload: bytes, seq: int = 1, *, retained: bool = False) -> None:
    message = Message(topics.command(TENANT, DEVICE, seq), payload, 1, retained=retained)
    device.carry_out(device.agent.handle(message, device.now))


def parts(device: Device) -> list[AnswerPart]:
    found = [codec.decode(Record, document) for kind, _, document in device.house.outbox.pending() if kind == ANSWER]
    return [codec.decode(AnswerPart, bytes(record.body)) for record in found]


def test_a_signed_question_is_answered_once_in_parts(core: Core, device: Device) -> None:
    asked = answering(device, bytes(70_000))
    for _ in range(3):  # the broker may say it again
        say(core, device, 7)
    assert asked == [ASK] and device.codes() == ["command-answered"]
    found = parts(device)
    assert [(one.seq, one.part, one.parts) for one in found] == [(7, 0, 3), (7, 1, 3), (7, 2, 3)]
    assert b"".join(base64.b64decode(one.content) for one in found) == bytes(70_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": roles.new_signing_key()},
        {"kind": ASSIGNMENT_TYPE},
        {"device": DeviceId("press-2")},
        {"tenant": TenantId("rival")},
        {"epoch": EPOCH + 1},
        {"expires": 1.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_whoever_is_not_the_director_learns_nothing(core: Core, device: Device, wrong: dict[str, Any]) -> None:
    asked = answering(device, b"secret")
    say(core, device, 7, **wrong)
    assert (asked, parts(device), device.codes()) == ([], [], ["refused-untrusted"]) and committed(device, 1)


@pytest.mark.parametrize("number", [2**63, -1, 0])
def test_a_number_that_no_file_holds_is_no_question(core: Core, device: Device, number: int) -> None:
    asked = answering(device, b"secret")
    say(core, device, 7, seq=number)
    assert (asked, device.codes()) == ([], ["refused-malformed"]) and committed(device, 1)


def test_whoever_answers_is_told_the_number_of_the_question(core: Core, device: Device) -> None:
    device.house.outside = Outside(answer=lambda ask, seq, now: Answered(str(seq).encode(), "told"))
    say(core, device, 7)
    assert [base64.b64decode(one.content) for one in parts(device)] == [b"7"]


def test_a_question_of_before_is_no_question_also_after_a_restart(core: Core, device: Device) -> None:
    say(core, device, 7)
    device.cut_power()
    device.boot()
    asked = answering(device, b"secret")
    device.now += PAUSE
    say(core, device, 7)
    say(core, device, 6)
    assert asked == [] and device.codes() == ["command-answered", "refused-untrusted"]


def test_a_device_that_lost_its_memory_answers_nothing_that_was_asked_before(core: Core, device: Device) -> None:
    """The journal was damaged and put aside: what the broker, or somebody who kept it, has of before is not answered a
    second time; whoever still wants to know asks again."""
    asked = answering(device, b"told")
    device.now -= 3600.0
    say(core, device, 7)
    say(core, device, 8)
    device.now += 3600.0
    assert len(asked) == 1
    device.cut_power()
    (device.folder / "journal.db").write_bytes(b"rust" * 5000)
    device.boot()
    device.settle(2)
    asked = answering(device, b"told")
    device.now -= 3600.0
    say(core, device, 7)
    device.now += 3600.0
    assert asked == [] and device.codes()[-1] == "command-refused"
    device.now = time.time() + 60.0  # the file was put aside by the real clock
    say(core, device, 9)
    assert len(asked) == 1 and device.codes()[-1] == "command-answered"


def test_a_journal_of_a_clock_that_was_ahead_silences_a_device_for_one_question(core: Core, device: Device) -> None:
    """The damaged file bore a time years off: until then every question would be one of before."""
    asked = answering(device, b"told")
    device.house.journal.set_counter("command_time", int((device.now + 700 * 86_400) * 1000))
    say(core, device, 7)
    assert asked == [] and device.codes() == ["command-refused"]
    device.now += 1.0
    say(core, device, 8)
    assert len(asked) == 1 and device.codes() == ["command-refused", "command-answered"]


def test_a_time_to_come_stays_while_the_clock_cannot_be_right(core: Core, device: Device) -> None:
    mark, signed = int((device.now + 700 * 86_400) * 1000), device.now + 699 * 86_400
    device.house.journal.set_counter("command_time", mark)
    device.house.journal.set_counter("signed_time", int(signed))
    for seq in (7, 8):
        say(core, device, seq)
        device.now += 1.0
    assert device.house.journal.counter("command_time") == mark and device.codes() == ["command-refused"] * 2


def test_questions_are_answered_no_faster_than_they_may_be(core: Core, device: Device) -> None:
    asked = answering(device, b"told")
    for seq in range(1, 9):
        say(core, device, seq)
        device.now += PAUSE / 4
    assert len(asked) == 2, "the others are told that they came too soon"
    assert device.codes().count("command-refused") == 6


def test_what_a_device_does_not_answer_it_says(core: Core, device: Device) -> None:
    answering(device, "nothing is remembered here")
    say(core, device, 1)
    answering(device, bytes(PARTS * PART + 1))
    device.now += PAUSE
    say(core, device, 2)
    assert parts(device) == [] and device.codes() == ["command-refused"] * 2
    assert [event.facts["seq"] for event in device.events()] == [1, 2]


def test_a_planted_question_and_an_unreadable_one_are_refused(core: Core, device: Device) -> None:
    asked = answering(device, b"told")
    command = Command(TENANT, DEVICE, EPOCH, 3, device.now, device.now + LIFE, ASK)
    deliver(device, roles.sign(command, COMMAND_TYPE, core.director), retained=True)
    deliver(device, b"{}")
    assert asked == [] and device.codes() == ["refused-untrusted", "refused-malformed"]


def test_a_device_listens_for_its_own_questions_alone() -> None:
    own = topics.command(TENANT, DEVICE, 5)
    heard = topics.device_subscriptions(TENANT, DEVICE)
    assert any(topics.matches(pattern, own) for pattern in heard)
    other = topics.command(TENANT, DeviceId("press-2"), 5)
    assert not any(topics.matches(pattern, other) for pattern in heard)
