"""Records until they are acknowledged: what is sent again, when, and what a clock or a silent core makes of it."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from edge.agent.ports import Outside
from edge.agent.reporting import FEW, IN_FLIGHT, RESEND, RESEND_LARGE
from edge.agent.returning import SPREAD, CoreWord, share
from edge.outbox import MOST, Outbox
from edge.states import Deployment
from sync import codec, records, topics
from sync.link import Message
from sync.messages import ALARM, EVENT, METRICS, SAMPLE, CoreStatus, DeviceEvent, Record, SampleBatch
from sync.names import DeviceId, Kind
from sync.sealing import public_half
from tests.edge.device import Device, new_device
from tests.edge.world import DEVICE, MODEL, REPORTS, TENANT, Core


class Heard:
    """A device, and how often the broker heard each kind of record since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self.core = Core()
        self.device: Device = new_device(self.core, folder).boot()
        self.found: Counter[str] = Counter()
        self.core.link.start(self._take, lambda *_: None)
        self.core.link.subscribe("#")
        self.device.settle(1)
        self.found.clear()

    def _take(self, message: Message) -> None:
        if "/up/" in message.topic:
            self.found[message.topic.rsplit("/", 1)[1]] += 1

    def after(self, seconds: float) -> dict[str, int]:
        self.device.now += seconds
        self.device.carry_out(self.device.agent.tick(self.device.now))
        self.core.hub.run()
        found, self.found = self.found, Counter()
        return dict(found)

    def add(self, kind: Kind, count: int) -> None:
        body = DeviceEvent("c", "t") if kind == EVENT else SampleBatch(MODEL, "", "", "sealed")
        for _ in range(count):
            assert self.device.house.outbox.add(kind, body, self.device.now)


@pytest.fixture
def heard(ram: Path) -> Heard:
    return Heard(ram / "d")


def test_a_record_is_sent_again_until_it_is_acknowledged(heard: Heard) -> None:
    heard.add(EVENT, 3)
    assert heard.after(0.25) == {"event": 3} and heard.after(RESEND - 1) == {}
    assert heard.after(1) == {"event": 3}
    heard.device.acknowledge(2)
    assert heard.after(RESEND) == {"event": 1}


def test_a_broker_that_confirms_nothing_is_given_no_more(heard: Heard) -> None:
    """The link keeps what is not confirmed: on a slow line, or by a broker's will, it would fill the memory."""
    house = heard.device.house
    sent: list[str] = []
    heard.add(EVENT, 2 * IN_FLIGHT)
    house.outside = Outside(unconfirmed=lambda: len(sent))
    heard.core.link.start(lambda message: sent.append(message.topic), lambda *_: None)
    for _ in range(20):
        heard.after(RESEND)
        house.dirty = True
    assert IN_FLIGHT <= len(sent) <= IN_FLIGHT + 2, "the records at once, beside the state"
    house.outside = Outside(unconfirmed=lambda: 0)
    heard.after(0.25)
    assert len(sent) > 2 * IN_FLIGHT, "as soon as it moves again"


def test_no_number_of_samples_keeps_an_alarm_waiting(heard: Heard) -> None:
    heard.add(SAMPLE, 2 * IN_FLIGHT)
    heard.add(EVENT, 1)
    assert heard.after(0.25) == {"event": 1, "sample": IN_FLIGHT - 1}


def test_an_alarm_overtakes_every_notice_once_the_core_knows_its_kind(heard: Heard) -> None:
    order: list[str] = []
    heard.core.link.start(lambda message: order.append(message.topic.rpartition("/up/")[2]), lambda *_: None)
    heard.add(EVENT, 2 * IN_FLIGHT)
    heard.device.house.events.report(heard.device.now, "fire", "for a core of before", severity="alarm")
    heard.after(0.25)
    assert {kind for kind in order if kind in (ALARM, EVENT)} == {EVENT}, "it would keep nothing of one"
    heard.core.desire(heard.core.assignment(alarms=True))
    heard.device.settle(1)
    heard.device.boot().settle(1)  # the journal's assignment says so, too
    assert order.count(EVENT) >= 2 * IN_FLIGHT, "a hundred were said in each session, and a hundred wait behind them"
    order.clear()
    heard.device.house.events.report(heard.device.now, "fire", "behind two hundred", severity="alarm")
    told = heard.device.house.events.happened(heard.device.now, "smoke", "with a change of state", MODEL, "alarm")
    heard.device.house.write(Deployment(MODEL), says=told)
    heard.after(0.25)
    assert [kind for kind in order if kind in (ALARM, EVENT)] == [ALARM, ALARM]


@pytest.mark.parametrize("kind", [SAMPLE, METRICS])
def test_a_core_that_says_nothing_does_not_have_what_is_large_sent_for_ever(heard: Heard, kind: Kind) -> None:
    """A day's budget is paid once; repeating all of it every half minute would be many times that."""
    heard.add(kind, 20)
    assert heard.after(0.25) == {kind: 20}
    assert sum(heard.after(60.0).get(kind, 0) for _ in range(60)) <= 3600 / RESEND_LARGE
    heard.device.house.outbox.acknowledged(kind, 1, 7)
    assert heard.after(0.25) == {kind: 1}, "the next one the core waits for"


def test_a_record_that_the_disk_changed_is_kept_aside_and_holds_up_nothing(heard: Heard) -> None:
    heard.add(EVENT, 3)
    outbox = heard.device.house.outbox
    (_, first, _), *_ = [one for one in outbox.pending() if one[0] == EVENT]
    outbox._db.execute("UPDATE record SET document = ? WHERE kind = 'event' AND n = ?", (b'{"v":1', first))
    heard.after(0.25)
    heard.after(0.25)
    assert outbox.aside() == 1 and "record-poisoned" in heard.device.codes()


def status(state: Literal["online", "offline"], ts: float) -> Message:
    return Message(topics.core_status(TENANT), codec.encode(CoreStatus(state, ts)), 1, retained=True)


def speak(heard: Heard, state: Literal["online", "offline"]) -> None:
    """The core says how it stands, now."""
    heard.device.carry_out(heard.device.agent.handle(status(state, heard.device.now), heard.device.now))
    heard.core.hub.run()


@pytest.mark.parametrize("kind", [EVENT, SAMPLE])
def test_what_a_core_missed_that_was_away_is_said_again_when_it_is_back(heard: Heard, kind: Kind) -> None:
    speak(heard, "online")
    speak(heard, "offline")
    heard.add(kind, 2)
    assert heard.after(0.25) == {kind: 2} and heard.after(1) == {}
    speak(heard, "online")
    again = heard.after(SPREAD)
    assert again == {kind: 2 if kind == EVENT else 1}, "before its next repetition, which comes in 30 or 600 s"
    assert heard.after(1) == {} == heard.after(RESEND - 2), "once"


def test_a_core_that_is_back_is_told_a_few_and_the_rest_as_it_answers(heard: Heard) -> None:
    """A fleet that says all it has at once fills the broker's queue, and what is dropped there has to be said again."""
    speak(heard, "online")
    speak(heard, "offline")
    heard.add(EVENT, 3 * FEW)
    assert heard.after(0.25) == {EVENT: 3 * FEW} and heard.after(1) == {}
    speak(heard, "online")
    assert heard.after(SPREAD) == {EVENT: FEW} and heard.after(0.25) == {}
    heard.device.acknowledge(FEW - 1)
    assert heard.after(0.25) == {EVENT: FEW - 1}


def test_the_devices_of_a_fleet_do_not_speak_at_once(heard: Heard) -> None:
    places = sorted(share(DeviceId(f"watch-{n}"), 7.0) for n in range(500))
    assert all(sum(low <= p < low + 0.1 for p in places) < 90 for low in (0.0, 0.3, 0.6, 0.9)), "50 a second, about"
    word = CoreWord()
    for state, ts in (("online", 1.0), ("offline", 2.0), ("online", 3.0)):
        word.heard(CoreStatus(state, ts), DEVICE, 100.0)  # type: ignore[arg-type]
    assert 100.0 < word.due < 100.0 + SPREAD and not word.again(99.0, 100.0) and word.again(99.0, word.due)
    assert not word.again(100.0, word.due), "it was said when the core was back"


def test_a_core_that_was_there_all_along_has_nothing_said_again(heard: Heard) -> None:
    """Its retained word comes again with every session of the device."""
    heard.add(EVENT, 1)
    assert heard.after(0.25) == {"event": 1}
    first = status("online", heard.device.now)
    for _ in range(2):
        heard.device.carry_out(heard.device.agent.handle(first, heard.device.now))
        assert heard.after(SPREAD) == {}


def test_a_clock_that_is_set_back_keeps_nothing_waiting(heard: Heard) -> None:
    heard.add(EVENT, 1)
    heard.add(SAMPLE, 1)
    assert heard.after(0.25) == {"event": 1, "sample": 1}
    assert heard.after(-86_400.0) == {"event": 1, "sample": 1}


class Reads(Outbox):
    """An outbox that counts how often its records are read."""

    count = 0

    def pending(self, limit: int = 100, most: int = MOST) -> list[tuple[Kind, int, bytes]]:
        self.count += 1
        return super().pending(limit, most)


def test_records_that_wait_are_not_read_again_before_one_is_due(ram: Path) -> None:
    device = new_device(Core(), ram / "d")
    device.outbox_kind = Reads
    device.boot().settle(1)
    box = device.house.outbox
    assert isinstance(box, Reads)
    device.house.events.report(device.now, "lamp-on", "t")

    def reads(seconds: float) -> int:
        before = box.count
        for _ in range(int(4 * seconds)):
            device.now += 0.25
            device.carry_out(device.agent.tick(device.now))
        return box.count - before

    assert reads(RESEND - 1) == 1, "when it came"
    assert reads(RESEND) == 1, "when it was due again"
    device.acknowledge(99)
    assert reads(2 * RESEND) <= 1
    for _ in range(3):
        assert box.add(SAMPLE, SampleBatch(MODEL, "", "", "sealed"), device.now)
    assert reads(RESEND_LARGE - 1) == 1
    assert reads(RESEND_LARGE) == 1, "the oldest alone is due again; those behind it wait for the core"


def said(device: Device, passed: list[tuple[str, bytes]]) -> list[DeviceEvent]:
    """The events among what went over the line, opened with the key of reports."""
    found = []
    for topic, payload in passed:
        if topic.endswith("up/event"):
            record = records.unseal(codec.decode(Record, payload), TENANT, DEVICE, EVENT, REPORTS)
            found.append(codec.decode(DeviceEvent, bytes(record.body)))
    return found


def test_no_word_of_an_event_is_in_the_clear_on_the_line_or_kept_by_the_broker(tmp_path: Path) -> None:
    core = Core()
    device = new_device(core, tmp_path / "d").boot().settle(1)
    device.house.events.report(device.now, "lamp-on", "the red lamp of hall seven", hall="the seventh")
    device.settle(1)
    assert "lamp-on" in [event.code for event in said(device, core.hub.passed)], "it was sent, and opens"
    stored = b"".join([*core.hub.retained.values(), *(payload for _, payload in core.hub.passed)])
    assert not [word for word in (b"lamp", b"hall", b"seventh", b"aW50IGxhbXA") if word in stored]


@pytest.mark.parametrize("assigned", ["", "no key", "newer"])
def test_records_are_sealed_to_the_newest_key_that_is_one(tmp_path: Path, assigned: str) -> None:
    """The enrolment's until an assignment has one; what was not acknowledged then is sealed anew."""
    core, newer = Core(), bytes(range(2, 34))
    device = new_device(core, tmp_path / "d").boot()
    key = base64.b64encode(public_half(newer)).decode() if assigned == "newer" else assigned
    core.desire(core.assignment(reports_key=key))
    device.settle(1)
    core.hub.passed.clear()
    device.house.events.report(device.now, "lamp-on", "x")
    device.settle(1)
    payload = next(p for t, p in core.hub.passed if t.endswith("up/event"))
    private = newer if assigned == "newer" else REPORTS
    assert records.unseal(codec.decode(Record, payload), TENANT, DEVICE, EVENT, private)


def test_without_a_key_nothing_is_said_until_an_assignment_brings_one(tmp_path: Path) -> None:
    """A device that an older core enrolled."""
    core = Core()
    device = new_device(core, tmp_path / "d")
    key, device.identity = device.identity.reports_key, replace(device.identity, reports_key="")
    device.boot()
    device.house.events.report(device.now, "lamp-on", "x")
    device.settle(2)
    assert not [topic for topic, _ in core.hub.passed if "/up/" in topic] and "lamp-on" in device.codes()
    core.desire(core.assignment(reports_key=key))
    device.settle(1)
    assert "lamp-on" in [event.code for event in said(device, core.hub.passed)]
