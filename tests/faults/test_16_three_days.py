"""Fault 16: three days without a line. The device serves all the while, its backlog is complete, drains in order and at
a bounded pace, and the order that came meanwhile is carried out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from core import orders
from edge.agent.reporting import IN_FLIGHT
from edge.states import Send
from sync.messages import EVENT, WHY, DeviceEvent
from sync.names import Digest
from sync.reports import Side, WhyCard
from tests.edge.device import committed
from tests.edge.world import MODEL
from tests.faults.ledger import Ledger
from tests.faults.tenant import Tenant, prepare

MINUTES = 3 * 24 * 60


def backlog(tenant: Tenant) -> None:
    """Three days, a record a minute, and a verdict in the end; the core goes on meanwhile."""
    box, core = tenant.box, tenant.core
    for minute in range(MINUTES):
        assert box.house.outbox.add(EVENT, DeviceEvent("beat", f"minute {minute}"), box.now)
        box.live(60.0, asked=minute % 60 == 0)
        if minute % 60 == 0:
            assert box.answering == 3
            core.tick(3600.0)
    card = WhyCard(MODEL, box.now, "probation", "guardrail", "it ran hot", Side(4, Digest("9" * 64)), None)
    box.house.outbox.add(WHY, card, box.now)


@pytest.mark.slow
def test_16_three_days_without_a_line(ram: Path) -> None:
    made = prepare(ram / "made")
    tenant = made.copy(ram / "life", Random(1))
    ledger, box, core = Ledger(tenant, made.artifacts), tenant.box, tenant.core
    box.lose_link()
    backlog(tenant)
    assert core.order(orders.Force(model=MODEL, number=1, reason="meanwhile")).ok
    assert box.house.outbox.dropped() == 0 and box.house.outbox.waiting(EVENT) >= MINUTES

    sent: list[str] = []
    carry_out = box.carry_out

    def counted(actions: list) -> None:  # type: ignore[type-arg]
        sent.extend(a.message.topic for a in actions if isinstance(a, Send) and "/up/" in a.message.topic)
        carry_out(actions)

    box.carry_out = counted  # type: ignore[method-assign]
    box.connect()
    box.live(1.0)
    assert len(sent) <= IN_FLIGHT and any(topic.endswith("/up/why") for topic in sent), "why does not wait behind it"
    tenant.heal()
    assert committed(box, 1)
    beats = [e.text for e in reversed(core.catalog.events.newest(100_000)) if e.code == "beat"]
    assert beats == [f"minute {minute}" for minute in range(MINUTES)], "complete, in order, once"
    ledger.check()
    ledger.settled()
    tenant.close()
