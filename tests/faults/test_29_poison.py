"""Fault 29: a record that the core can never take in. It is put aside and told, and what is behind it goes on; a core
that is merely away, or that does not hear, never has a good record put aside."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from core.steward.ears import LAST_SEQ
from edge.agent.reporting import TRIES
from edge.outbox import ASIDE, POISONED, Outbox
from edge.states import Send
from sync import codec
from sync.codec import LIMIT
from sync.loopback import Faults
from sync.messages import EVENT, DeviceEvent
from sync.topics import GAP
from tests.edge.world import EPOCH
from tests.faults.ledger import OTHER
from tests.faults.tenant import Tenant


def beat(tenant: Tenant, text: str) -> None:
    assert tenant.box.house.outbox.add(EVENT, DeviceEvent("beat", text), tenant.box.now)


def sendings(tenant: Tenant, topic: str) -> list[bytes]:
    """What the device says on a topic from now on."""
    said: list[bytes] = []
    carry_out = tenant.box.carry_out

    def watched(actions: list) -> None:  # type: ignore[type-arg]
        said.extend(a.message.payload for a in actions if isinstance(a, Send) and a.message.topic.endswith(topic))
        carry_out(actions)

    tenant.box.carry_out = watched  # type: ignore[method-assign]
    return said


@pytest.mark.parametrize(
    "body",
    [{"beat": "x" * LIMIT}, msgspec.Raw(b'{"beat":')],
    ids=["larger than any document", "no document"],
)
def test_29_what_nobody_can_read_is_put_aside_at_once(tenant: Tenant, body: object) -> None:
    outbox, owed = tenant.box.house.outbox, tenant.box.owed
    said = sendings(tenant, "/up/event")
    beat(tenant, "before")
    before = len(owed)
    assert outbox.add(EVENT, body, tenant.box.now), "it is kept, though not in the queue"
    tenant.ledger.poison(owed[before])  # type: ignore[attr-defined]
    beat(tenant, "behind")
    tenant.heal()
    assert not any(b"x" * 1000 in payload for payload in said), "it is never sent"
    assert [e.text for e in tenant.core.catalog.events.newest(100) if e.code == "beat"] == ["behind", "before"]
    ((kind, n, why, document),) = outbox.quarantined()
    assert (kind, n) == (EVENT, owed[before].n) and why and len(document) > 20
    tenant.ledger.check()  # type: ignore[attr-defined]
    tenant.ledger.settled()  # type: ignore[attr-defined]


def test_29_what_the_core_never_takes_in_is_put_aside_after_so_many_tries(tenant: Tenant) -> None:
    """It fits as it lies in the outbox, and not once it is sealed: only the core finds out."""
    outbox, owed = tenant.box.house.outbox, tenant.box.owed
    before = len(owed)
    assert outbox.add(OTHER, {"beat": "x" * (LIMIT * 9 // 10)}, tenant.box.now)
    tenant.ledger.poison(owed[before])  # type: ignore[attr-defined]
    assert outbox.add(OTHER, {"beat": 2}, tenant.box.now)
    said = sendings(tenant, f"/up/{OTHER}")
    tenant.heal()
    large = [payload for payload in said if len(payload) > LIMIT]
    assert len(large) == TRIES
    codes = tenant.core.codes(200)
    assert codes.count(POISONED) == 1 and codes.count(GAP) == 1 and codes.count(f"record-{OTHER}") == 1
    tenant.ledger.settled()  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["away", "deaf", "slow"])
def test_29_a_core_that_does_not_answer_has_nothing_put_aside(tenant: Tenant, how: str) -> None:
    core, box = tenant.core, tenant.box
    for i in range(5):
        beat(tenant, f"beat {i}")
    if how == "away":
        core.lose_link()
    elif how == "slow":
        tenant.hub.faults = Faults(lose=0.5, repeat=0.5, reorder=0.5)
    for _ in range(3 * TRIES):
        box.live(31.0)
        if how == "deaf":
            tenant.hub.drop("core")
        tenant.deliver(3)
    assert box.house.outbox.quarantined() == []
    tenant.hub.faults = Faults()
    tenant.heal()
    assert POISONED not in core.codes(200)
    tenant.ledger.settled()  # type: ignore[attr-defined]


def test_29_only_so_many_are_kept_and_a_gap_is_never_one(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", EPOCH, "b")
    for _ in range(ASIDE + 5):
        assert outbox.add(OTHER, {"x": "y" * LIMIT}, 1.0)
    numbers = [n for _, n, _, _ in outbox.quarantined()]
    assert numbers == list(range(6, ASIDE + 6))
    held = outbox.pending(1000)
    assert all(len(document) < 1000 for _, _, document in held)
    assert outbox.quarantine(OTHER, 7, "again", 2.0) and outbox.quarantine(OTHER, LAST_SEQ, "none such", 2.0)
    assert outbox.pending(1000) == held and len(outbox.quarantined()) == ASIDE
    assert codec.LIMIT == LIMIT
    outbox.close()
