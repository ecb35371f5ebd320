"""Faults 1, 2, 4, 8, 12, 13, 14 and 29 in any order: histories that hypothesis makes up and cuts down to the shortest
that goes wrong. After each step, against a model of what producers were told: nothing acknowledged is lost or counted
twice, numbers have no holes, nothing that rises ever falls, and whoever starts serves a verified model. At the end
everything heals and comes to one state.

The default run lives a few; `-m slow` lives HISTORIES of them.
"""

from __future__ import annotations

import base64
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core import orders
from edge.agent.reporting import TRIES
from sync.codec import LIMIT
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.loopback import Faults
from sync.messages import ALARM, CSR, EVENT, METRICS, SAMPLE, WHY, DeviceEvent, SampleBatch
from sync.names import Digest
from sync.performance import Interval, Tally
from sync.reports import Side, WhyCard
from sync.roles import sign
from tests.conftest import MEMORY
from tests.edge.world import DEVICE, MODEL, TENANT
from tests.faults.ledger import OTHER, Ledger
from tests.faults.tenant import RELEASES, Prepared, Tenant, prepare

HISTORIES = 500
FEW = 8
STEPS = 50
JUMPS = (3600.0, -3600.0, 31_536_000.0, -31_536_000.0, -1.7e9)  # an hour, a year, 1970
chances = st.sampled_from([0.0, 0.1, 0.3])


class History(RuleBasedStateMachine):
    """One tenant's life. `made` is what every history begins with a copy of; `lived` counts them."""

    made: ClassVar[Prepared]
    lived: ClassVar[Counter[str]] = Counter()

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.folder = Path(mkdtemp(dir=self.made.folder.parent))
        self.tenant: Tenant = self.made.copy(self.folder, Random(seed))
        self.ledger = Ledger(self.tenant, self.made.artifacts)
        self.beats = 0
        self.lived["histories"] += 1

    # --- what producers say ---

    @precondition(lambda self: self.tenant.box.on)
    @rule(kind=st.sampled_from([ALARM, EVENT, METRICS, OTHER, SAMPLE, WHY, CSR]), times=st.sampled_from([1, 3, 7]))
    def tell(self, kind: str, times: int) -> None:
        box = self.tenant.box
        for _ in range(times):
            self.beats += 1
            box.house.outbox.add(kind, self._body(kind), box.now)  # type: ignore[arg-type]

    @precondition(lambda self: self.tenant.box.on)
    @rule(kind=st.sampled_from([ALARM, EVENT, OTHER]), what=st.sampled_from(["large", "broken", "swelling"]))
    def tell_poison(self, kind: str, what: str) -> None:
        """Too large as it is, no document, or too large only once it is sealed."""
        box = self.tenant.box
        bodies = {
            "large": {"beat": "x" * LIMIT},
            "broken": msgspec.Raw(b'{"beat":'),
            "swelling": {"beat": "x" * (LIMIT * 9 // 10)},
        }
        before = len(box.owed)
        if box.house.outbox.add(kind, bodies[what], box.now):  # type: ignore[arg-type]
            self.ledger.poison(box.owed[before])
            self.lived["poison"] += 1

    def _body(self, kind: str) -> object:
        beat, box = self.beats, self.tenant.box
        match kind:
            case "sample":
                return SampleBatch(MODEL, "personal", "ae", base64.b64encode(b"batch %d" % beat).decode())
            case "why":
                side = Side(1, Digest(f"{beat:064x}"))
                return WhyCard(MODEL, float(beat), "probation", "guardrail", f"beat {beat}", side, None)
            case "metrics":
                return Interval(MODEL, 1, box.now, 1.0, Tally(answers=beat))
            case "csr":
                papers = box.papers
                request = RenewalRequest(TENANT, DEVICE, papers.epoch, papers.keys.csr.decode())
                return msgspec.Raw(sign(request, RENEWAL_TYPE, papers.keys.signing))
            case _:
                return DeviceEvent("beat", f"beat {beat}", MODEL, "info", {"beat": beat})

    # --- the line ---

    @rule(lose=chances, repeat=chances, reorder=chances)
    def weather(self, lose: float, repeat: float, reorder: float) -> None:
        self.tenant.hub.faults = Faults(lose, repeat, reorder)

    @rule(most=st.sampled_from([1, 2, 5, 20, 1000]))
    def deliver(self, most: int) -> None:
        self.lived["messages"] += self.tenant.deliver(most)

    @rule(area=st.sampled_from(["desired", "ack/", "reported", "up/"]), which=st.integers(0, 1_000))
    def replay(self, area: str, which: int) -> None:
        self.tenant.hub.replay(area, which)

    @rule(who=st.sampled_from(["device", "core"]), back=st.booleans())
    def cut(self, who: str, back: bool) -> None:
        """What was under way to that end is lost with its session."""
        (self.tenant.box if who == "device" else self.tenant.core).lose_link()
        if back:
            self.connect()

    @rule()
    def miss_the_core(self) -> None:
        """It is away for longer than any record is sent in vain."""
        self.tenant.core.lose_link()
        self.live(31.0, TRIES + 3)

    @rule()
    def connect(self) -> None:
        if self.tenant.box.on and not self.tenant.box.up:
            self.tenant.box.connect()
        if not self.tenant.core.up:
            self.tenant.core.connect(self.tenant.hub)

    # --- time ---

    @rule(seconds=st.sampled_from([0.5, 1.0, 31.0, 700.0]), rounds=st.sampled_from([1, 1, 3, TRIES + 3]))
    def live(self, seconds: float, rounds: int) -> None:
        """All who run do what is due, and some of what they say arrives."""
        for _ in range(rounds):
            if self.tenant.box.on:
                self.tenant.box.live(seconds)
            self.tenant.core.tick(1.0)
            self.deliver(20)

    @rule(seconds=st.sampled_from(JUMPS))
    def jump(self, seconds: float) -> None:
        self.tenant.box.now = max(0.0, self.tenant.box.now + seconds)
        self.lived["jumps"] += 1

    # --- kills ---

    @rule(wiped=st.booleans(), back=st.booleans())
    def kill_the_broker(self, wiped: bool, back: bool) -> None:
        self.tenant.hub.kill(wiped=wiped)
        self.tenant.box.lose_link()
        self.tenant.core.lose_link()
        self.lived["broker kills"] += 1
        if back:
            self.connect()

    @precondition(lambda self: self.tenant.box.on)
    @rule(back=st.booleans())
    def kill_the_agent(self, back: bool) -> None:
        self.tenant.box.cut_power()
        self.lived["agent kills"] += 1
        if back:
            self.start_the_agent(True)

    @precondition(lambda self: not self.tenant.box.on)
    @rule(link=st.booleans())
    def start_the_agent(self, link: bool) -> None:
        self.tenant.box.boot(link=link)
        self.ledger.serves()

    @rule(heard=st.sampled_from([0, 1, 3]))
    def kill_the_core(self, heard: int) -> None:
        """It commits so many messages more, and is killed before it says a word of them."""
        core = self.tenant.core
        core.mute = True
        self.deliver(heard)
        core.mute = False
        core.restart(self.tenant.hub)
        self.lived["core kills"] += 1

    @rule(n=st.integers(1, 12))
    def refuse_from_the_nth_write_on(self, n: int) -> None:
        if not self.tenant.box.refusal.now:
            self.tenant.box.refusal.left = n
            self.lived["bad disks"] += 1

    @rule()
    def mend_the_disk(self) -> None:
        self.tenant.box.refusal.heal()

    # --- people ---

    @rule(number=st.sampled_from(RELEASES))
    def roll_out(self, number: int) -> None:
        """A newer or an older release: a roll-back is a newer order too."""
        answer = self.tenant.core.order(orders.Force(model=MODEL, number=number, reason="a history"))
        assert answer.ok or answer.code == "serves-everywhere", answer
        self.lived["orders"] += answer.ok

    # --- what must hold ---

    @invariant()
    def holds(self) -> None:
        self.ledger.check()
        self.lived["steps"] += 1

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        try:
            self.tenant.hub.faults = Faults()
            self.tenant.box.now = max(self.tenant.core.now, self.made.now)
            self.tenant.heal()
            self.ledger.check()
            self.ledger.settled()
            self.lived["records"] += len(self.ledger.owed())
        finally:
            self.tenant.close()
            shutil.rmtree(self.folder)


def live(histories: int, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Lives so many; returns what happened in them."""
    base = Path(mkdtemp(dir=MEMORY)) if MEMORY.is_dir() else tmp_path_factory.mktemp("histories")
    History.lived.clear()
    History.made = prepare(base / "made")
    limits = settings(
        max_examples=histories, stateful_step_count=STEPS, deadline=None, database=None,
        derandomize=histories < HISTORIES, suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    try:
        run_state_machine_as_test(History, settings=limits)
    finally:
        shutil.rmtree(base)
    return History.lived


def test_a_few_histories(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert live(FEW, tmp_path_factory)["histories"] >= FEW


@pytest.mark.slow
def test_many_histories(tmp_path_factory: pytest.TempPathFactory) -> None:
    lived = live(HISTORIES, tmp_path_factory)
    print(dict(lived))
    assert lived["histories"] >= HISTORIES
    assert min(lived[k] for k in ("agent kills", "core kills", "broker kills", "jumps", "poison", "bad disks")) > 100
