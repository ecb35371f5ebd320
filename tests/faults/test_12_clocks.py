"""Fault 12: the device's clock jumps an hour, a year, or back to 1970. Whoever asks is answered, records go on, orders
count by their number; one that seemed expired counts as soon as the clock is right."""

from __future__ import annotations

import pytest

from core import orders
from sync.messages import EVENT, DeviceEvent
from tests.edge.device import committed
from tests.edge.world import MODEL
from tests.faults.tenant import Tenant

HOUR, YEAR = 3600.0, 31_536_000.0
JUMPS = {"an hour on": HOUR, "an hour back": -HOUR, "a year on": YEAR, "a year back": -YEAR, "1970": None}


def roll_out(tenant: Tenant, number: int) -> None:
    assert tenant.core.order(orders.Force(model=MODEL, number=number, reason="a test")).ok


def live(tenant: Tenant, rounds: int = 10) -> None:
    """Time passes; at each moment somebody verified answers, and the books hold."""
    for _ in range(rounds):
        tenant.deliver()
        tenant.box.live(1.0, asked=2)
        tenant.core.tick(1.0)
        tenant.deliver()
        tenant.ledger.check()  # type: ignore[attr-defined]


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
def test_12_a_clock_that_jumps_and_comes_back(tenant: Tenant, jump: str, restarts: bool) -> None:
    box, right = tenant.box, tenant.box.now
    seconds = JUMPS[jump]
    box.now = 0.0 if seconds is None else right + seconds
    if restarts:
        box.cut_power()
        box.boot()
    box.house.outbox.add(EVENT, DeviceEvent("beat", "told by a wrong clock"), box.now)
    roll_out(tenant, 1)
    live(tenant)
    assert not box.house.outbox.pending() or seconds is None, "records need no right time"
    box.now = tenant.core.now
    tenant.heal()
    assert committed(box, 1), "without a new session, without another order"
    tenant.ledger.settled()  # type: ignore[attr-defined]


def test_12_an_order_that_seemed_expired_counts_once_the_clock_is_right_unless_a_newer_one_came(tenant: Tenant) -> None:
    box, right = tenant.box, tenant.box.now
    box.now = right + YEAR
    roll_out(tenant, 1)
    live(tenant, 3)
    assert (
        committed(box, 3)
        and box.codes().count("refused-untrusted") + tenant.core.codes().count("refused-untrusted") == 1
    ), "told once"
    roll_out(tenant, 2)
    live(tenant, 3)
    box.now = tenant.core.now
    live(tenant)
    assert committed(box, 2), "the newest of those that waited"
    assert box.house.journal.counter("desired_seq") == box.house.assignment.seq  # type: ignore[union-attr]


def test_12_a_word_that_took_longer_than_the_next_start_is_no_second_box(tenant: Tenant) -> None:
    """It has a lower number and, by a clock that was set back since, a later time."""
    core, papers = tenant.core, tenant.box.papers
    row = core.catalog.fleet.device(papers.name)
    assert row is not None and row.report is not None
    papers.seq, right = row.report.seq, core.now
    tenant.box.cut_power()
    core.hear(papers.report(boot="first", at=right))
    late = papers.report(boot="first", at=right + 1)
    core.hear(papers.report(boot="second", at=right - HOUR))
    core.hear(late)
    assert core.catalog.fleet.device(papers.name).state == "enrolled"  # type: ignore[union-attr]
    papers.seq -= 2
    core.hear(papers.report(boot="another box", at=right + 2))
    assert core.catalog.fleet.device(papers.name).state == "cloned"  # type: ignore[union-attr]


def test_12_a_clock_that_goes_back_during_an_update_ends_no_soak_and_repeats_no_number(tenant: Tenant) -> None:
    box = tenant.box
    roll_out(tenant, 1)
    seen = []
    for back in (0.0, HOUR, HOUR, YEAR):
        box.now -= back
        live(tenant, 2)
        row = tenant.core.catalog.fleet.device(box.identity.device)
        assert row is not None and row.report is not None
        seen.append(row.report.seq)
    assert seen == sorted(seen) and "device-cloned" not in tenant.core.codes(), "order by number, whatever the time"
    tenant.heal()
    assert committed(box, 1)
