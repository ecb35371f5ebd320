"""What arrives on the uplink is not believed: a wrong message changes nothing and leaves one event with its code."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.agent import trusting
from edge.complaints import BURST
from edge.overflow import CAPACITY
from edge.roots import TRUST_FILE_LIMIT
from edge.states import CLOCK_FLOOR, Phase
from sync import codec, roles, topics
from sync.link import Message, Publish
from sync.messages import EVENT, DeviceEvent, Labels, TrustIndex
from sync.names import DeviceId, TenantId
from tests.edge.device import Device, committed
from tests.edge.world import DAY, DEVICE, MODEL, NOW, TENANT, Core

FIELDS = ["payload", "payloadType", "signatures", "files", "epoch", "n", "v", "signed", "keyid", "sig"]


def deliver(device: Device, topic: str, payload: bytes) -> None:
    device.carry_out(device.agent.handle(Message(topic, payload, 1), device.now))


def untouched(device: Device, core: Core) -> bool:
    """Release 1 still answers, and nothing else is under way."""
    return committed(device, 1) and device.house.journal.counter("desired_seq") == 1


# --- assignments ---


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"by": roles.new_signing_key()}, "refused-untrusted"),
        ({"device": DeviceId("press-2")}, "refused-untrusted"),
        ({"tenant": TenantId("rival")}, "refused-untrusted"),
        ({"expires": NOW - 1}, "refused-untrusted"),
        ({"seq": 0}, "refused-untrusted"),
        ({"epoch": 0}, "refused-untrusted"),
        ({"seq": 2**63}, "refused-malformed"),
        ({"epoch": -1}, "refused-malformed"),
        ({"v": 2}, "refused-malformed"),
    ],
    ids=[
        "wrong-key",
        "other-device",
        "other-tenant",
        "expired",
        "replayed",
        "earlier-epoch",
        "beyond",
        "below",
        "newer",
    ],
)
def test_a_wrong_assignment_changes_nothing(core: Core, device: Device, changes: dict[str, object], code: str) -> None:
    order = core.order(core.ship(2), device.identity)
    core.desire(core.assignment(order, **changes))  # type: ignore[arg-type]
    device.settle(4, ask=0)
    assert untouched(device, core)
    assert device.codes() == [code]
    assert device.events()[0].severity == "alarm"


@pytest.mark.parametrize("other", ["b3RoZXI=", ""])
def test_the_key_that_readings_are_sealed_to_stays_while_the_director_does(
    core: Core, device: Device, other: str
) -> None:
    """Whoever broke into the core holds the director's key, and must not read what only the tenant may."""
    order = core.order(core.ship(2), device.identity)
    core.desire(core.assignment(order, seq=2, tenant_key="dGVuYW50"))
    device.settle(2, ask=0)
    core.desire(core.assignment(order, seq=3, tenant_key=other))
    device.settle(2, ask=0)
    assert device.answering is not None and device.house.journal.counter("desired_seq") == 2
    assert device.codes().count("refused-untrusted") == 1
    assert device.house.assignment is not None and device.house.assignment.tenant_key == "dGVuYW50"


def test_keys_of_the_same_house_do_not_sign_assignments(core: Core, device: Device) -> None:
    """Owner and device sign other things; only the director signs these."""
    order = core.order(core.ship(2), device.identity)
    for key in (core.owner, device.identity.signing_key):
        core.desire(core.assignment(order, by=key))
    device.settle(3)
    assert untouched(device, core) and device.codes() == ["refused-untrusted"] * 2


def test_another_document_of_the_director_is_no_assignment(core: Core, device: Device) -> None:
    core.desire(roles.sign(device.reported(), "application/vnd.falaj.reported+json", core.director))
    device.settle(2)
    assert untouched(device, core) and device.codes() == ["refused-untrusted"]


def test_a_flood_of_wrong_messages_is_told_a_few_times_and_counted(core: Core, device: Device) -> None:
    """Each of them as an event would push what really happened out of the outbox."""
    device.house.events.report(device.now, "beat", "what really happened")
    wrong = [
        Message(topics.desired(TENANT, DEVICE), b"{", 1),
        Message("falaj/1/acme/d/press-2/desired", b"{}", 1),
        Message("NO TOPIC", b"", 1),
        Message(topics.labels(TENANT, DEVICE), codec.encode(Labels({"x" * 32: "walk"})), 1),
    ]
    device.house.evidence.label = lambda one, label: "unknown-prediction"
    for n in range(4000):
        device.carry_out(device.agent.handle(wrong[n % 4], device.now))
    codes = device.codes()
    assert codes[0] == "beat" and len(codes) == 1 + 4 * BURST
    assert {codes.count(code) for code in set(codes) - {"beat"}} == {BURST}
    device.now += 3600.0
    device.carry_out(device.agent.handle(wrong[0], device.now))
    (last,) = device.events()[-1:]
    assert (last.code, last.facts["suppressed"]) == ("refused-malformed", 1000 - BURST) and untouched(device, core)


def test_a_flood_that_lasts_for_months_leaves_half_of_the_outbox_to_the_rest(core: Core, device: Device) -> None:
    """Nobody acknowledges: whoever says all this can keep the core's word away too."""
    outbox = device.house.outbox
    with outbox._db.transaction():
        for n in range(CAPACITY // 2 - 1):
            outbox._append(EVENT, DeviceEvent("beat", str(n)), device.now)
    for _ in range(50):
        device.now += 86_400.0
        deliver(device, topics.desired(TENANT, DEVICE), b"{")
    assert outbox.waiting(EVENT) == CAPACITY // 2 and outbox.dropped() == 0
    device.acknowledge(10**6)
    deliver(device, topics.desired(TENANT, DEVICE), b"{")
    assert device.events()[-1].facts["suppressed"] == 49


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[]", b"{}" * 50_000])
def test_bytes_that_are_no_envelope_are_malformed(core: Core, device: Device, payload: bytes) -> None:
    deliver(device, topics.desired(TENANT, DEVICE), payload)
    assert untouched(device, core) and device.codes() == ["refused-malformed"]


def test_the_retained_copy_of_the_same_assignment_is_no_event(core: Core, device: Device) -> None:
    device.link.cut()
    device.connect()
    device.settle(2)
    assert untouched(device, core) and device.codes() == []


def test_before_the_clock_is_set_nothing_is_installed_and_serving_goes_on(core: Core, device: Device) -> None:
    device.now = 1000.0
    core.assign(core.ship(2), device.identity)
    device.settle(4, ask=0)
    assert committed(device, 1)
    assert device.codes() == ["clock-unset"]
    assert device.reported().clock == "unset"
    device.now = NOW + 60
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_an_assignment_that_expired_while_it_waited_starts_nothing(core: Core, device: Device) -> None:
    device.now = CLOCK_FLOOR - 100
    core.assign(core.ship(2), device.identity)
    device.settle(2)
    device.now = NOW + 8 * DAY
    device.settle(4, ask=0)
    assert committed(device, 1)


def test_an_expired_assignment_goes_on_serving_what_it_installed(core: Core, device: Device) -> None:
    device.cut_power()
    device.now += 400 * DAY
    device.boot(link=False)
    device.settle(3, ask=0)
    assert committed(device, 1)


# --- addresses ---


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("falaj/1/rival/trust/index", "refused-untrusted"),
        ("falaj/1/acme/d/press-2/desired", "refused-untrusted"),
        ("falaj/1/acme/d/press-1/unheard-of", "unknown-topic"),
        ("falaj/1/acme/blob/short/0", "unknown-topic"),
        ("something/else", "unknown-topic"),
    ],
)
def test_messages_to_others_and_to_nobody_are_refused(core: Core, device: Device, topic: str, code: str) -> None:
    deliver(device, topic, b"{}")
    assert untouched(device, core) and device.codes() == [code]


def test_what_a_stranger_sends_makes_no_record_too_large_for_the_core(device: Device) -> None:
    deliver(device, "x" * 60_000, b"")
    deliver(device, f"{topics.tenant_root(TENANT)}/d/{DEVICE}/{'y' * 60_000}", b"")
    assert device.codes() == ["unknown-topic"] * 2
    assert max(len(document) for _, _, document in device.house.outbox.pending()) < codec.LIMIT // 8


def test_areas_that_this_agent_does_not_act_on_are_quiet(core: Core, device: Device) -> None:
    for rest in ("status", "reported", "up/event"):
        deliver(device, f"{topics.tenant_root(TENANT)}/d/{DEVICE}/{rest}", b"anything")
    assert untouched(device, core) and device.codes() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=8,
)
any_topic = st.sampled_from(
    [
        topics.desired(TENANT, DEVICE),
        f"{topics.tenant_root(TENANT)}/trust/index",
        f"{topics.tenant_root(TENANT)}/trust/timestamp.json",
        f"{topics.tenant_root(TENANT)}/trust/1.model.motion.json",
        f"{topics.tenant_root(TENANT)}/blob/{'a' * 64}/0",
        f"{topics.tenant_root(TENANT)}/blob/{'a' * 64}/99999999999999999999",
        f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/event",
        f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/{'k' * 64}",
    ]
) | st.text(max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(any_topic, st.binary(max_size=60) | json_values.map(json.dumps).map(str.encode)), max_size=9))
def test_no_bytes_on_any_topic_bring_the_agent_down(
    core: Core, device: Device, messages: list[tuple[str, bytes]]
) -> None:
    for topic, payload in messages:
        deliver(device, topic, payload)
    assert untouched(device, core)


# --- trust files ---


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "x" * 200, "nul\0"])
def test_a_lying_index_cannot_bring_the_agent_down(core: Core, device: Device, name: str) -> None:
    shipped = core.ship(2)
    deliver(device, f"{topics.tenant_root(TENANT)}/trust/index", codec.encode(TrustIndex((name,))))
    assert device.codes() == ["refused-malformed"]
    core.assign(shipped, device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_a_flood_of_trust_files_delays_and_no_more(core: Core, device: Device) -> None:
    for number in range(trusting.TRUST_FILES + 1):
        deliver(device, f"{topics.tenant_root(TENANT)}/trust/{number}.junk", b"x")
    assert device.codes() == ["refused-untrusted"]
    core.assign(core.ship(2), device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_a_file_that_grows_under_its_name_counts_as_what_it_is_now(core: Core, device: Device) -> None:
    """Small files first, then each again as large as one may be: that way 76 MiB were held where 8 are allowed."""
    room = trusting.TRUST_BYTES // TRUST_FILE_LIMIT
    for size in (1, TRUST_FILE_LIMIT):
        for number in range(2 * room):
            deliver(device, f"{topics.tenant_root(TENANT)}/trust/{number}.junk", b"x" * size)
            assert sum(map(len, device.house.trust.files.values())) <= trusting.TRUST_BYTES
    assert "refused-untrusted" in device.codes()
    core.assign(core.ship(2), device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_metadata_that_is_named_no_more_is_not_held(core: Core, device: Device) -> None:
    """Releases for others, with a list and a snapshot each: what came with one goes when the next is read."""
    sizes = set()
    for number in range(2, 8):
        core.ship(number)
        device.settle(1)
        sizes.add(len(device.house.trust.files))
    assert len(sizes) == 1, "it does not grow"
    named = {name for name in device.house.trust.index if not name.endswith(".manifest")}
    assert {name for name in device.house.trust.files if not name.endswith(".manifest")} == named
    assert len([name for name in device.house.trust.files if name.endswith(".manifest")]) == 1, "of what is assigned"


def test_a_trust_file_too_large_for_any_is_not_held(core: Core, device: Device) -> None:
    deliver(device, f"{topics.tenant_root(TENANT)}/trust/9.root.json", b"x" * (TRUST_FILE_LIMIT + 1))
    assert device.codes() == ["refused-untrusted"] and "9.root.json" not in device.house.trust.files


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot", "role"])
@pytest.mark.parametrize(
    "change",
    [lambda data: b"{}", lambda data: data.replace(b'"expires":"2', b'"expires":"3'), lambda data: data[:-9]],
    ids=["empty", "changed", "cut"],
)
def test_bad_trust_files_are_refused_and_asked_for_again(core: Core, device: Device, name: str, change: object) -> None:
    """A hostile broker delays a release; it cannot have it quarantined, and once it is honest all goes on."""
    shipped = core.ship(2)
    names = {"timestamp.json": "timestamp.json", "snapshot": "3.snapshot.json", "role": "2.model.motion.json"}
    good = dict(core.files)
    core.files[names[name]] = change(good[names[name]])  # type: ignore[operator]
    core.publish_trust()
    core.assign(shipped, device.identity)
    device.settle(4, ask=0)
    assert device.state.phase is Phase.FETCHING and device.answering == 1
    assert device.house.journal.quarantined(MODEL) == ()
    assert [c for c in device.codes() if c != "release-offered"] == ["refused-untrusted"], "one event, not one a try"
    core.files = good
    core.publish_trust()
    device.settle(12, ask=0)
    assert committed(device, 2)


def test_a_replayed_release_list_is_refused_by_the_mark_after_the_trust_folder_was_lost(
    core: Core, device: Device
) -> None:
    old = dict(core.files)
    second = core.ship(2)
    core.assign(second, device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)
    shutil.rmtree(device.house.trust.folder)
    device.house.trust.files.clear()
    device.acknowledge(99)
    core.files = old
    core.publish_trust()
    third = core.order(second, device.identity, number=1, manifest=core_first(old))
    core.desire(core.assignment(third))
    device.settle(4, ask=0)
    assert device.answering == 2 and device.state.phase is Phase.FETCHING
    assert [c for c in device.codes() if c != "release-offered"] == ["refused-untrusted"]


def core_first(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.endswith(".manifest")).removesuffix(".manifest")


# --- chunks ---


def test_a_chunk_with_a_flipped_bit_is_not_written_and_the_right_one_completes(core: Core, device: Device) -> None:
    shipped = core.ship(2)
    digest = next(iter(shipped.sealed))
    topic = topics.blob(TENANT, digest, 1)
    right = core.hub.retained[topic]
    core.retain(topic, bytes([right[0] ^ 1]) + right[1:])
    core.assign(shipped, device.identity)
    device.settle(3, ask=0)
    assert "chunk-damaged" in device.codes()
    assert device.state.phase is Phase.FETCHING and device.answering == 1
    download = device.house.downloads[digest]
    assert device.house.artifacts.present(download.blob) == set(range(len(download.blob.hashes))) - {1}
    core.retain(topic, right)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_missing_chunks_are_named_in_the_report_and_come_in_the_end(core: Core, device: Device) -> None:
    shipped = core.ship(2)
    digest = next(iter(shipped.sealed))
    topic = topics.blob(TENANT, digest, 0)
    right = core.hub.retained.pop(topic)
    core.assign(shipped, device.identity)
    device.settle(9)
    assert device.reported().missing == {digest: (0,)}
    assert "download-stalled" in device.codes()
    core.retain(topic, right)
    device.settle(12, ask=0)
    assert committed(device, 2)
    assert device.reported().missing == {}


def test_a_disk_that_refuses_a_chunk_is_told_and_tried_again_later(core: Core, device: Device) -> None:
    shipped = core.ship(2)
    digest = next(iter(shipped.sealed))
    in_the_way = device.house.artifacts.folder / f"{digest}.part"
    in_the_way.mkdir()
    core.assign(shipped, device.identity)
    device.settle(3)
    refusals = device.codes().count("disk-refused")
    assert 1 <= refusals <= len(device.house.downloads[digest].blob.hashes), "no loop between disk and broker"
    in_the_way.rmdir()
    device.settle(12, ask=0)
    assert committed(device, 2)


def test_chunks_of_nothing_under_way_are_ignored(core: Core, device: Device) -> None:
    deliver(device, topics.blob(TENANT, next(iter(core.ship(2).sealed)), 0), b"x")
    assert untouched(device, core) and device.codes() == []


# --- acknowledgements ---


def test_an_acknowledgement_empties_the_outbox_up_to_its_number(core: Core, device: Device) -> None:
    for name in ("a", "b"):
        deliver(device, f"unknown/{name}", b"")
    (first, second) = [n for _, n, _ in device.house.outbox.pending()]
    device.acknowledge(first)
    assert [n for _, n, _ in device.house.outbox.pending()] == [second]
    deliver(device, f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/event", b"{}")
    assert device.codes()[-1] == "refused-malformed"


# --- labels ---


LABELS = topics.labels(TENANT, DEVICE)


def listening(device: Device) -> dict[str, str]:
    """Has the device keep labels in a dict; two ids have a reason not to be kept."""
    kept: dict[str, str] = {}

    def label(prediction_id: str, text: str) -> str | None:
        if prediction_id in ("gone", "typo"):
            return {"gone": "unknown-id", "typo": "unknown-label"}[prediction_id]
        kept[prediction_id] = text
        return None

    device.house.evidence.label = label
    return kept


def test_labels_of_the_core_are_kept_and_those_that_are_not_are_told(core: Core, device: Device) -> None:
    kept = listening(device)
    core.link.publish(Publish(LABELS, codec.encode(Labels({"a": "walk", "b": "run"}))))
    device.settle(1)
    assert kept == {"a": "walk", "b": "run"} and device.codes() == []
    deliver(device, LABELS, codec.encode(Labels({"gone": "run", "typo": "rnu", "c": "sit"})))
    (event,) = device.events()
    assert kept["c"] == "sit" and event.code == "labels-refused"
    assert "2 of 3" in event.text and "1 unknown-id, 1 unknown-label" in event.text
    assert untouched(device, core)


def test_labels_that_are_retained_are_refused(core: Core, device: Device) -> None:
    kept = listening(device)
    planted = Message(LABELS, codec.encode(Labels({"a": "walk"})), 1, retained=True)
    device.carry_out(device.agent.handle(planted, device.now))
    assert kept == {} and device.codes() == ["refused-untrusted"]


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"labels": ["a"]}', b'{"labels": {"a": 1}}', b" " * 70_000])
def test_labels_that_are_none_or_too_many_change_nothing(device: Device, payload: bytes) -> None:
    kept = listening(device)
    deliver(device, LABELS, payload)
    assert kept == {} and device.codes() == ["refused-malformed"]
