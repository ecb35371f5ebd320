"""Attack 24: malformed documents to core and agent, from a broker or a device that may sign what it likes. None raises,
none is believed, memory stays where it was, and the next genuine word is heard. Seeds are real documents."""

from __future__ import annotations

import base64
import json
import os
import random
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from core.catalog.events import FORGET_EVERY, KEPT
from core.catalog.fleet import ACTIVE
from core.console.facts import gather
from core.console.pages import compose
from core.fleet.floods import Floods
from edge.agent.trusting import TRUST_BYTES, TRUST_FILES
from edge.roots import TRUST_FILE_LIMIT
from sync import codec, roles, topics
from sync.link import Message
from sync.messages import ASSIGNMENT_TYPE, REPORTED_TYPE, DeviceEvent, Record, SampleBatch, Status
from sync.names import Digest
from sync.performance import Confidence, Interval, Tally
from sync.records import SealedBody
from sync.reports import Side, TrialReport, WhyCard
from tests.attacks.field import Field
from tests.attacks.mutants import change, mutants
from tests.core.world import MODEL, ONE, START, TENANT, TWO, World, serving
from tests.edge.device import committed
from tests.edge.world import DEVICE

SOME, MANY = 1000, 100_000
GROWTH = 64  # MiB that a process may have grown by the end, allocator and caches included
PAGE = os.sysconf("SC_PAGE_SIZE")
COUNTS = [pytest.param(SOME, id="some"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def signed_nonsense(documents: list[bytes], kind: str, key: bytes, count: int) -> list[bytes]:
    """What the holder of a key can make: any document under a good signature."""
    chance, made = random.Random(5), []
    for _ in range(count):
        document = json.loads(chance.choice(documents))
        for _ in range(chance.randint(1, 3)):
            change(document, chance)
        made.append(roles.sign(msgspec.Raw(json.dumps(document).encode()), kind, key))
    return made


@pytest.fixture
def alone(tmp_path: Path) -> World:
    return World(tmp_path / "core").ready()


def accepted(world: World) -> None:
    """Signed reports that contradict each other look like two boxes: a person says each time that it is one, so that
    the next is read too. What it reported before is forgotten with it."""
    with world.catalog.transaction():
        if not world.catalog.fleet.device(ONE).active:  # type: ignore[union-attr]
            world.catalog.fleet.set_state(ONE, ACTIVE)
        world.catalog.identities.forget_boots(ONE)
        world.catalog.fleet.forget_report(ONE)


@pytest.mark.parametrize("count", COUNTS)
def test_24_nothing_a_device_can_say_stops_the_core(alone: World, count: int) -> None:
    world, device, honest = alone, alone.enrol(ONE), alone.enrol(TWO)
    world.house.memory.floods = Floods(1e12)  # all of it shall be read (attack 23 has the quota)
    old, new = Side(1, Digest("a" * 64), 0.9), Side(2, Digest("b" * 64), 0.4)
    trial = TrialReport(new.manifest, old.manifest, 0, "labels", 10, 1, 70, 2, pairs=740)
    model = serving(Digest("a" * 64), quarantined={new.manifest: 0}, trial=trial)
    report = device.report({MODEL: model}, missing={Digest("c" * 64): (1, 2)})
    card = WhyCard(MODEL, START, "shadow", "worse-than-incumbent", "worse in 9", new, old, trial=trial)
    records = [
        device.record(DeviceEvent("release-committed", "well", MODEL, "info", {"n": 1}), 1),
        device.record(card, 1, kind="why"),
        device.record(Interval(MODEL, 1, START, 3600.0, Tally(3, 1, confidence={"walk": Confidence()})), 1, "metrics"),
        device.record(SampleBatch(MODEL, "internal", "", base64.b64encode(b"x" * 99).decode()), 1, kind="sample"),
    ]
    seeds = [report.payload, codec.encode(Status("online", START, "b", 1)), *(r.payload for r in records)]
    bent = list(mutants(seeds, count, seed=1))
    known = roles.peek(report.payload)
    forged = signed_nonsense([known], REPORTED_TYPE, device.keys.signing, count // 4)
    paths = [
        "reported",
        "status",
        "up/event",
        "up/why",
        "up/sample",
        "up/csr",
        "up/metrics",
        "up/Odd Kind",
        "cmd/x",
        "x",
    ]
    chance, before = random.Random(2), resident()
    for payload in (*bent, *forged):
        world.hear(device.message(chance.choice(paths), payload, retained=chance.random() < 0.2))
    for n, payload in enumerate(forged):
        world.hear(device.message("reported", payload))
        if n % 2:
            accepted(world)
        if n % 50 == 0:
            assert compose(gather(world.catalog, world.now), world.now), "whoever shows it does not stumble either"
    world.actions.clear()
    world.tick()
    assert resident() - before < GROWTH
    kept = world.catalog.events.newest(10 * KEPT)
    assert sum(e.source == ONE for e in kept) <= KEPT + 4 * FORGET_EVERY, "older ones go now and then"
    assert {e.code for e in kept} >= {"refused-malformed", "refused-untrusted", "device-cloned"}
    assert not world.house.memory.broken, "it is refused by name, not caught at the last border"
    world.hear(honest.report({MODEL: model}))
    row = world.catalog.fleet.device(TWO)
    assert row is not None and row.report is not None, "a genuine word of another is heard"
    world.catalog.close()


@pytest.mark.parametrize("count", COUNTS)
def test_24_nothing_a_broker_can_send_stops_the_agent(field: Field, count: int) -> None:
    device, core = field.device, field.core
    root = topics.tenant_root(topics.parse(topics.desired(TENANT, DEVICE)).tenant)
    seeds = [field.first, field.second, *core.files.values()]
    seeds += [b'{"labels":{"w1-1":"rest"}}', b'{"epoch":1,"n":3}', b'{"files":["1.root.json"]}', b'{"state":"online"}']
    known = [roles.peek(field.second)]
    places = [f"d/{DEVICE}/desired", f"d/{DEVICE}/labels", f"d/{DEVICE}/ack/event", f"d/{DEVICE}/cmd/a", "trust/index",
              "trust/2.root.json", "trust/timestamp.json", "trust/9.snapshot.json", "core/status", "d/other/desired",
              f"blob/{'a' * 64}/0", f"blob/{'a' * 64}/x", "trust/../x", "nowhere", ""]  # fmt: skip
    payloads = [*mutants(seeds, count, seed=3), *signed_nonsense(known, ASSIGNMENT_TYPE, core.owner, count // 8)]
    chance, before, told = random.Random(4), resident(), set[str]()
    for n, payload in enumerate(payloads):
        topic = f"{root}/{chance.choice(places)}"
        device.carry_out(device.agent.handle(Message(topic, payload, 1, chance.random() < 0.5), device.now))
        if n % 100 == 99:  # the core takes them in; an outbox that is full has tests of its own
            told |= set(device.codes())
            device.acknowledge(10**6)
    assert resident() - before < GROWTH
    files = device.house.trust.files
    assert len(files) <= TRUST_FILES and sum(map(len, files.values())) <= TRUST_BYTES
    assert max(map(len, files.values()), default=0) <= TRUST_FILE_LIMIT
    assert committed(device, 2), "it serves what it served"
    assert {"refused-untrusted", "refused-malformed"} <= told | set(device.codes())


@pytest.mark.parametrize("text", ["\U0001f980", "\u00e9" * 8, "=", "A", "A===", "\x00"])
@pytest.mark.parametrize("kind", ["event", "sample"])
def test_24_sealed_words_that_are_no_base64_are_refused(alone: World, kind: str, text: str) -> None:
    """What the mutants found: letters beyond ASCII ended the steward."""
    device = alone.enrol(ONE)
    record = Record(device.epoch, 1, START, "b", msgspec.Raw(b"{}"))
    said = codec.encode(SampleBatch(MODEL, "internal", "", text) if kind == "sample" else SealedBody(text))
    alone.hear(device.message(f"up/{kind}", codec.encode(replace(record, body=msgspec.Raw(said)))))
    assert alone.codes()[-1] in ("refused-malformed", "refused-damaged", "record-malformed", "samples-dropped")
    alone.catalog.close()


def test_24_trust_files_without_end_are_not_kept(field: Field) -> None:
    """A broker invents names: some thousand small files, and some large ones."""
    device, root = field.device, topics.tenant_root(topics.parse(topics.desired(TENANT, DEVICE)).tenant)
    large = b"x" * (TRUST_FILE_LIMIT - 1)
    for n in range(2 * TRUST_FILES):
        payload = large if n % 64 == 0 else b"{}"
        message = Message(f"{root}/trust/{n}.made-up.json", payload, 1, retained=True)
        device.carry_out(device.agent.handle(message, device.now))
        files = device.house.trust.files
        assert len(files) <= TRUST_FILES and sum(map(len, files.values())) <= TRUST_BYTES
    assert committed(device, 2) and "refused-untrusted" in device.codes()


def test_24_whoever_holds_the_directors_key_stops_no_agent_either(field: Field) -> None:
    """Any document under the director's good signature: the agent lives, and the next order is obeyed."""
    device, core = field.device, field.core
    genuine = json.loads(roles.peek(field.second))
    for payload in signed_nonsense([json.dumps(genuine).encode()], ASSIGNMENT_TYPE, core.director, SOME // 3):
        core.desire(payload)
        device.settle(1)
    assert device.answering in (None, 1, 2)
    mark = device.house.journal.counter("desired_seq")
    if mark < 2**62:
        core.seq = mark
        core.desire(core.assignment(replace(field.newer, retry=5)))
        device.settle(12, ask=0)
        assert committed(device, 2)
