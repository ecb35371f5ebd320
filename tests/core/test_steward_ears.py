"""What devices say: believed only under their own signature, in order, once; nothing else changes a thing."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from appliance.keys import new_device_keys
from core import orders
from core.catalog.fleet import WHYS_KEPT
from core.catalog.samples import Waiting
from core.steward.house import AGAIN
from core.steward.spooling import SHARE
from sync import codec, roles, topics
from sync.errors import Untrusted
from sync.link import Message
from sync.messages import (
    ALARM,
    EVENT,
    REPORTED_TYPE,
    SAMPLE,
    Ack,
    Assignment,
    DeviceEvent,
    Record,
    Reported,
    SampleBatch,
    Status,
)
from sync.names import DeviceId, Digest, Kind, ModelName, TrustFile
from sync.records import SealedBody
from sync.reports import Side, WhyCard
from tests.core.world import MODEL, ONE, REPORTS_KEY, START, TENANT, TWO, Device, World, request, serving

ROOT = Path(__file__).resolve().parents[2]
EVENT_1 = DeviceEvent("release-proved", "golden vectors passed", MODEL, "notice", {"p99_ms": 1.5})
ACK = topics.ack(TENANT, ONE, EVENT)


def report_of(world: World, name: DeviceId = ONE) -> Reported | None:
    row = world.catalog.fleet.device(name)
    return row.report if row else None


def refused(world: World, message: Message, code: str = "refused-untrusted") -> None:
    """Nothing but an event comes of it: no document of the device changes, and no answer is sent but where its records
    stand."""
    before, sent = world.catalog.fleet.devices(), len(world.sent)
    world.hear(message)
    event = world.catalog.events.newest(1)[0]
    assert (event.code, event.severity) == (code, "notice")
    assert world.catalog.fleet.devices() == before
    stands = codec.encode(Ack(1, world.catalog.fleet.received(ONE, 1, EVENT)))
    assert all((m.topic, m.payload) == (ACK, stands) for m in world.sent[sent:]), "where it stands, and nothing else"


def test_a_signed_report_is_kept_with_the_time_it_came(world: World, device: Device) -> None:
    world.now += 9
    world.hear(device.report({MODEL: serving(Digest("a" * 64))}))
    row = world.catalog.fleet.device(ONE)
    assert row is not None and row.report is not None
    assert (row.seen, row.report.seq, row.report.models[MODEL].phase) == (world.now, 1, "steady")


def test_only_the_newest_report_counts(world: World, device: Device) -> None:
    first, second = device.report(), device.report()
    for message in (second, first, second):
        world.hear(message)
    found = report_of(world)
    assert found is not None and found.seq == 2
    assert "refused-untrusted" not in world.codes(), "a late or repeated report is no offence"


@pytest.mark.parametrize("lies", [{"device": TWO}, {"tenant": "other"}, {"epoch": 2}, {"epoch": 0}], ids=str)
def test_a_report_that_speaks_of_somebody_else_is_refused(world: World, device: Device, lies: dict[str, Any]) -> None:
    refused(world, device.report(**lies))


def test_a_report_under_another_key_is_refused(world: World, device: Device) -> None:
    other = world.enrol(TWO)
    document = Reported(TENANT, ONE, 1, 5, START, "b", 0, {})
    forged = roles.sign(document, REPORTED_TYPE, other.keys.signing)
    refused(world, device.message("reported", forged))
    refused(world, device.message("reported", roles.sign(document, "application/json", device.keys.signing)))
    refused(world, device.message("reported", other.report().payload))


def test_a_report_whose_number_cannot_be_kept_is_refused(world: World, device: Device) -> None:
    for seq in (2**63, 2**64 - 1, 0, -1):
        refused(world, device.report(seq=seq), "refused-malformed")
    world.hear(device.report(seq=2**63 - 1))
    assert report_of(world) is not None


def test_a_report_that_is_too_long_is_refused_and_a_long_one_is_read(world: World, device: Device) -> None:
    long = {ModelName(f"m{i}"): serving(Digest("a" * 64)) for i in range(300)}
    world.hear(device.report(long))
    found = report_of(world)
    assert found is not None and len(found.models) == 300
    assert len(codec.encode(found)) > codec.LIMIT
    longer = {ModelName(f"m{i}"): serving(Digest("a" * 64)) for i in range(900)}
    refused(world, device.report(longer), "refused-malformed")


@pytest.mark.parametrize("payload", [b"{}", b"\xff", b"null", b"[" * 5000, b'{"payload":"%"}'])
@pytest.mark.parametrize("path", ["reported", "status", "up/event"])
def test_bytes_that_are_no_document_are_refused(world: World, device: Device, path: str, payload: bytes) -> None:
    refused(world, device.message(path, payload), "refused-malformed")


def test_strangers_are_refused(world: World, device: Device) -> None:
    good = device.report().payload
    for topic in (topics.reported(TENANT, TWO), "falaj/1/other/d/watch-1/reported"):
        refused(world, Message(topic, good, 1))
    refused(world, Message("falaj/1/acme/d/watch-1/elsewhere", good, 1), "refused-bad-name")
    refused(world, Message("falaj/1/acme/d/watch-1/up/Not-A-Kind", good, 1), "refused-bad-name")


def test_status_comes_and_goes(world: World, device: Device) -> None:
    for state in ("online", "offline"):
        world.hear(device.message("status", codec.encode(Status(state, START, "b", 1)), retained=True))
        row = world.catalog.fleet.device(ONE)
        assert row is not None and row.status == state


def test_chunks_that_are_missing_are_published_again(world: World, device: Device) -> None:
    number, _ = world.release(os.urandom(300_000))
    sizes = {d: len(world.house.blobs.get(d)) for d in world.catalog.releases.keys(MODEL, number)}
    large = max(sizes, key=lambda d: sizes[d])
    start = len(world.sent)
    world.hear(device.report(missing={large: (1, 3, 99), Digest("f" * 64): (0,)}))
    sent = [m.topic for m in world.sent[start:] if "/blob/" in m.topic]
    assert sent == [topics.blob(TENANT, large, 1), topics.blob(TENANT, large, 3)]


def test_a_report_that_is_read_again_as_the_broker_keeps_it_changes_nothing(world: World, device: Device) -> None:
    report = device.report()
    world.hear(report)
    world.now += 600
    world.hear(Message(report.topic, report.payload, 1, retained=True))
    found = world.catalog.fleet.device(ONE)
    assert found is not None and found.seen == world.now - 600 and found.active and "device-cloned" not in world.codes()


def test_a_blob_that_is_damaged_here_is_not_sent(world: World, device: Device) -> None:
    number, _ = world.release()
    digest = next(iter(world.catalog.releases.keys(MODEL, number)))
    (world.folder / "blobs" / digest).write_bytes(b"changed")
    world.hear(device.report(missing={digest: (0,)}))
    assert world.codes()[-1] == "blob-damaged" and report_of(world) is not None
    start = len(world.sent)
    world.take(world.steward.link_changed(True, world.now))
    assert world.codes()[-1] == "blob-damaged"
    assert topics.trust(TENANT, TrustFile("timestamp.json")) in [m.topic for m in world.sent[start:]]


# --- records ----------------------------------------------------------------------------------------------------


def acks(world: World) -> list[int]:
    return [codec.decode(Ack, m.payload).n for m in world.sent if m.topic == ACK]


def test_records_are_taken_in_order_and_once_and_acknowledged_by_number(world: World, device: Device) -> None:
    for n in (1, 2, 4, 2, 1, 3, 4):
        world.hear(device.record(EVENT_1, n))
    assert acks(world) == [1, 2, 2, 2, 2, 3, 4]
    taken = [e for e in reversed(world.catalog.events.newest()) if e.source == ONE]
    assert [e.facts["n"] for e in taken] == [1, 2, 3, 4]
    assert {(e.code, e.severity, e.model, e.facts["p99_ms"]) for e in taken} == {
        ("release-proved", "notice", MODEL, 1.5)
    }


def test_an_acknowledgement_waits_an_hour_and_is_not_retained(world: World, device: Device) -> None:
    world.hear(device.record(EVENT_1, 1))
    ack = next(m for m in world.sent if m.topic == ACK)
    assert (ack.retain, ack.expiry, ack.qos) == (False, 3600, 1)


def test_what_was_taken_survives_a_restart(world: World, device: Device) -> None:
    world.hear(device.record(EVENT_1, 1))
    world.reopen()
    world.hear(device.record(EVENT_1, 1))
    world.hear(device.record(EVENT_1, 2))
    assert acks(world) == [1, 1, 2]
    assert [e.facts["n"] for e in world.catalog.events.newest() if e.source == ONE] == [2, 1]


def test_a_record_that_cannot_be_read_does_not_stop_the_queue(world: World, device: Device) -> None:
    world.hear(device.record(b'{"code":7}', 1))
    world.hear(device.record(EVENT_1, 2))
    codes = [e.code for e in reversed(world.catalog.events.newest()) if e.source == ONE]
    assert codes == ["record-malformed", "release-proved"] and acks(world) == [1, 2]


def test_kinds_are_numbered_apart(world: World, device: Device) -> None:
    world.hear(device.record({"any": 1}, 1, kind="metrics"))
    world.hear(device.record(EVENT_1, 1))
    assert acks(world) == [1]
    assert world.last(topics.ack(TENANT, ONE, Kind("metrics"))) == codec.encode(Ack(1, 1, "b"))


def test_a_record_of_another_epoch_is_refused(world: World, device: Device) -> None:
    refused(world, device.record(EVENT_1, 1, epoch=2))
    world.enrol(ONE)
    refused(world, device.record(EVENT_1, 1))


def test_a_device_may_not_speak_in_the_cores_name(world: World, device: Device) -> None:
    world.hear(device.record(DeviceEvent("rollout-complete", "all is well"), 1))
    assert world.catalog.events.newest(1)[0].source == ONE


# --- what is planted on the broker ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["up/event", "up/Not-A-Kind", "up/metrics"])
def test_what_is_planted_is_cleared_and_not_believed(world: World, device: Device, path: str) -> None:
    planted = device.record(EVENT_1, 1)
    start = len(world.sent)
    world.hear(device.message(path, planted.payload, retained=True))
    (clearing,) = world.sent[start:]
    assert (clearing.topic, clearing.payload, clearing.retain) == (device.message(path, b"").topic, b"", True)
    assert world.codes()[-1] in ("refused-untrusted", "refused-bad-name")
    assert world.catalog.fleet.received(ONE, 1, "event") == 0
    events = len(world.codes())
    world.hear(device.message(path, b""))
    assert len(world.codes()) == events, "our own clearing comes back and says nothing"


def test_a_refused_report_is_not_cleared_for_it_may_be_retained(world: World, device: Device) -> None:
    start = len(world.sent)
    world.hear(device.message("reported", device.report(epoch=7).payload, retained=True))
    assert world.codes()[-1] == f"refused-{Untrusted.code}" and len(world.sent) == start


def test_an_envelope_with_a_key_id_that_is_no_text_is_refused(world: World, device: Device) -> None:
    forged = b'{"payload":"e30=","payloadType":"%b","signatures":[{"keyid":[],"sig":"AAAA"}]}' % REPORTED_TYPE.encode()
    refused(world, device.message("reported", forged), "refused-malformed")


def test_a_gap_stands_for_the_numbers_that_never_come(world: World, device: Device) -> None:
    world.hear(device.record(EVENT_1, 1))

    def gap(first: int, last: int) -> Message:
        return device.record(DeviceEvent(topics.GAP, "gone", None, "notice", {"first": first, "last": last}), last)

    for number in (3, 9):
        world.hear(device.record(EVENT_1, number))
    world.hear(gap(4, 9))
    assert world.catalog.fleet.received(ONE, 1, EVENT) == 1, "2 and 3 are still to come"
    world.hear(gap(1, 9))
    assert world.catalog.fleet.received(ONE, 1, EVENT) == 9
    world.hear(gap(2, 5))
    world.hear(device.record(EVENT_1, 10))
    assert world.catalog.fleet.received(ONE, 1, EVENT) == 10
    assert world.codes().count(topics.GAP) == 1


def test_an_alarm_is_an_event_with_numbers_of_its_own(world: World, device: Device) -> None:
    world.hear(device.record(EVENT_1, 1))
    fire = DeviceEvent("fire", "it burns", MODEL, "alarm")
    start = len(world.sent)
    for n in (2, 1, 1, 2):
        world.hear(device.record(replace(fire, text=f"alarm {n}"), n, kind=ALARM))
    known = [(e.code, e.severity, e.text, e.facts["n"]) for e in world.catalog.events.newest(3)]
    assert known[:2] == [("fire", "alarm", "alarm 2", 2), ("fire", "alarm", "alarm 1", 1)], "once each, in their order"
    received = [world.catalog.fleet.received(ONE, 1, kind) for kind in (ALARM, EVENT)]
    assert received == [2, 1]
    acks = [codec.decode(Ack, m.payload).n for m in world.sent[start:] if m.topic == topics.ack(TENANT, ONE, ALARM)]
    assert acks == [0, 1, 1, 2]


def test_a_device_that_asks_for_chunks_again_and_again_gets_them_now_and_then(world: World, device: Device) -> None:
    number, _ = world.release(os.urandom(300_000))
    digest = max(world.catalog.releases.keys(MODEL, number), key=lambda d: len(world.house.blobs.get(d)))
    start = len(world.sent)
    for _ in range(5):
        world.hear(device.report(missing={digest: (0, 2)}))
    assert len([m for m in world.sent[start:] if "/blob/" in m.topic]) == 2
    world.now += AGAIN
    world.hear(device.report(missing={digest: (0, 2)}))
    assert len([m for m in world.sent[start:] if "/blob/" in m.topic]) == 4


def test_what_is_refused_of_a_device_is_noted_as_its_own(world: World, device: Device) -> None:
    """Each source has room of its own, so a noisy device does not push out what the core noted."""
    world.hear(device.message("status", b"junk"))
    assert world.catalog.events.newest(1)[0].source == ONE


# --- samples and why cards --------------------------------------------------------------------------------------


def batch(content: bytes = b"sealed", **more: str) -> SampleBatch:
    said = {"data_class": "internal", "region": "", "sealed": base64.b64encode(content).decode()} | more
    return SampleBatch(ModelName(said.pop("model", MODEL)), **said)


def spooled(world: World) -> list[tuple[int, bytes]]:
    spool = world.house.spool
    return [(entry.n, spool.get(MODEL, entry)) for entry in spool.entries(MODEL)]


def test_samples_wait_in_the_spool_as_they_were_sealed(world: World, device: Device) -> None:
    for n, content in ((1, b"one"), (2, b"two"), (2, b"again"), (1, b"again"), (4, b"early")):
        world.hear(device.record(batch(content), n, kind="sample"))
    assert spooled(world) == [(1, b"one"), (2, b"two")]
    assert world.last(topics.ack(TENANT, ONE, SAMPLE)) == codec.encode(Ack(1, 2, "b"))
    assert world.catalog.samples.waiting(MODEL) == Waiting(2, 6, START)
    assert world.catalog.events.newest(1)[0].code == "device-enrolled", "each batch is no event"
    files = [f for f in (world.folder / "samples").rglob("*") if f.is_file()]
    assert len(files) == 2 and all(f.stat().st_mode & 0o077 == 0 for f in files)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.core.test_steward_ears import batch
from tests.core.world import ONE, World

world = World(Path(sys.argv[1])).ready()
device = world.enrol(ONE)
world.hear(device.record(batch(b"one"), 1, kind="sample"))
world.catalog.samples.add = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
world.hear(device.record(batch(b"two"), 2, kind="sample"))
"""


def test_a_kill_between_the_file_and_its_commit_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    world = World(tmp_path)
    assert world.catalog.fleet.received(ONE, 1, "sample") == 1 and len(spooled(world)) == 2
    device = Device(ONE, 1, new_device_keys(ONE), b"")
    world.hear(device.record(batch(b"two, sealed anew"), 2, kind="sample"))
    assert spooled(world) == [(1, b"one"), (2, b"two, sealed anew")]
    assert world.catalog.samples.waiting(MODEL).batches == 2
    world.catalog.close()


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"model":"No Name","data_class":"","region":"","sealed":""}', codec.encode(batch(sealed="*"))],
    ids=["no batch", "bad name", "no base64"],
)
def test_samples_that_cannot_be_read_do_not_stop_the_queue(world: World, device: Device, body: bytes) -> None:
    world.hear(device.record(body, 1, kind="sample"))
    assert world.codes()[-1] == "record-malformed" and spooled(world) == []
    world.hear(device.record(batch(b"two"), 2, kind="sample"))
    assert spooled(world) == [(2, b"two")]


def test_a_full_spool_drops_says_so_once_and_keeps_no_device_waiting(world: World, device: Device) -> None:
    world.house.spool_bytes = SHARE * 3 * 4096
    for n in range(1, 7):
        world.hear(device.record(batch(b"x" * 4096), n, kind="sample"))
    assert [n for n, _ in spooled(world)] == [1, 2, 3]
    assert world.last(topics.ack(TENANT, ONE, SAMPLE)) == codec.encode(Ack(1, 6, "b"))
    events = [e for e in world.catalog.events.newest() if e.code == "samples-dropped"]
    assert [(e.severity, e.model, e.facts["device"]) for e in events] == [("alarm", MODEL, ONE)]
    with world.catalog.transaction():
        world.catalog.samples.mark_landed(MODEL, ONE, 1, 2)
    for n in (7, 8, 9):
        world.hear(device.record(batch(b"y" * 4096), n, kind="sample"))
    assert [n for n, _ in spooled(world)][-2:] == [7, 8]
    assert world.codes().count("samples-dropped") == 2, "there was room again, and then there was not"


def test_a_disk_that_takes_no_samples_is_told_and_costs_only_samples(world: World, device: Device) -> None:
    (world.folder / "samples" / MODEL).write_bytes(b"in the way")
    world.hear(device.record(batch(), 1, kind="sample"))
    world.hear(device.record(EVENT_1, 1))
    assert world.codes()[-2:] == ["samples-dropped", "release-proved"] and acks(world) == [1]
    assert world.catalog.samples.waiting(MODEL).batches == 0


@pytest.mark.parametrize("kind", ["sample", "why"])
def test_a_gap_in_records_of_these_kinds_closes_as_in_events(world: World, device: Device, kind: str) -> None:
    gap = DeviceEvent(topics.GAP, "dropped", None, "notice", {"first": 1, "last": 4})
    world.hear(device.record(gap, 4, kind=kind))
    assert world.codes()[-1] == topics.GAP
    assert world.last(topics.ack(TENANT, ONE, Kind(kind))) == codec.encode(Ack(1, 4, "b"))
    body = batch() if kind == "sample" else CARD
    world.hear(device.record(body, 5, kind=kind))
    assert world.last(topics.ack(TENANT, ONE, Kind(kind))) == codec.encode(Ack(1, 5, "b"))
    assert len(spooled(world)) + len(world.catalog.fleet.whys()) == 1


CARD = WhyCard(
    MODEL, START, "shadow", "worse-than-incumbent", "worse in 9 of 12 blocks",
    Side(2, Digest("b" * 64), 0.4), Side(1, Digest("a" * 64), 0.9), log_harm=5.1, harm_at=4.6,
)  # fmt: skip


def test_a_why_card_is_kept_whole_and_told_as_an_alarm(world: World, device: Device) -> None:
    world.hear(device.record(CARD, 1, kind="why"))
    other = replace(CARD, model=ModelName("other"), new=replace(CARD.new, number=7))
    world.hear(device.record(other, 2, kind="why"))
    assert world.catalog.fleet.whys() == [(2, ONE, other), (1, ONE, CARD)]
    assert world.catalog.fleet.whys(MODEL) == [(1, ONE, CARD)] and len(world.catalog.fleet.whys(limit=1)) == 1
    event = world.catalog.events.newest(2)[1]
    assert (event.code, event.severity, event.source, event.model) == ("release-refused", "alarm", ONE, MODEL)
    assert event.facts == {"n": 1, "device_ts": START, "criterion": CARD.criterion, "phase": "shadow", "number": 2}
    world.hear(device.record(b'{"model":7}', 3, kind="why"))
    assert world.codes()[-1] == "record-malformed" and len(world.catalog.fleet.whys()) == 2


def test_a_device_that_sends_cards_without_end_keeps_its_newest(world: World, device: Device) -> None:
    with world.catalog.transaction():
        world.catalog.fleet.add_why(TWO, CARD, START)
        for n in range(WHYS_KEPT + 20):
            world.catalog.fleet.add_why(ONE, replace(CARD, ts=START + n), START)
    whys = world.catalog.fleet.whys(limit=1000)
    assert len(whys) == WHYS_KEPT + 1 and whys[0][2].ts == START + WHYS_KEPT + 19 and whys[-1][1] == TWO


def damaged(message: Message) -> Message:
    """The same record with one bit of its sealed body another."""
    record = codec.decode(Record, message.payload)
    sealed = bytearray(base64.b64decode(codec.decode(SealedBody, bytes(record.body)).sealed))
    sealed[-1] ^= 1
    body = SealedBody(base64.b64encode(bytes(sealed)).decode())
    return Message(message.topic, codec.encode(replace(record, body=msgspec.Raw(codec.encode(body)))), 1)


def test_a_record_that_does_not_open_is_not_acknowledged_and_its_repetition_is_taken(
    world: World, device: Device
) -> None:
    world.hear(damaged(device.record(EVENT_1, 1)))
    assert world.codes()[-1] == "refused-damaged" and codec.decode(Ack, world.last(ACK) or b"").n == 0
    world.hear(device.record(EVENT_1, 1))
    assert world.codes()[-1] == EVENT_1.code and codec.decode(Ack, world.last(ACK) or b"").n == 1


def test_a_record_in_the_clear_or_of_another_place_is_refused(world: World, device: Device) -> None:
    other = world.enrol(TWO)
    plain = Record(device.epoch, 1, START, "b", msgspec.Raw(codec.encode(EVENT_1)))
    world.hear(device.message("up/event", codec.encode(plain)))
    world.hear(device.message("up/event", other.record(EVENT_1, 1).payload))
    assert world.codes()[-2:] == ["refused-malformed", "refused-damaged"]
    assert world.catalog.fleet.received(ONE, device.epoch, EVENT) == 0


def test_assignments_and_the_answer_to_a_newcomer_name_the_key_of_reports(world: World) -> None:
    keys = new_device_keys(ONE)
    answer = world.must(orders.Enrol(envelope=request(world.token(ONE), keys).decode()))
    world.release()
    world.tick()
    envelope = world.last(topics.desired(TENANT, ONE))
    assert envelope is not None
    assigned = codec.decode(Assignment, roles.peek(envelope))
    assert assigned.reports_key == answer["reports_key"] == world.house.reports_key == REPORTS_KEY
