"""The agent as a whole: stories from the first release to a bad one, power cuts at every durable write, bad lines."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.states import Drifted, Phase, Prove
from edge.untold import MOST
from sync import codec, roles, topics
from sync.loopback import Faults
from sync.messages import Arm, Gates, Status
from sync.reports import DriftReport
from tests.edge.device import Device, committed, honest_prover
from tests.edge.power import Fuse, PowerCut
from tests.edge.refusal import Refusal
from tests.edge.stage import HARMFUL, Stage, assert_sane, new_stage, outcome
from tests.edge.world import DEVICE, MODEL, TENANT, Shipped, new_identity


def of_changes(device: Device) -> Counter[str]:
    """How often each change of state was told that no restart repeats."""
    final = {"release-offered", "release-proved", "release-committed", "returned", "guardrail", "golden-mismatch"}
    return Counter(code for code in device.codes() if code in final)


# --- stories ---


def test_the_first_release_is_fetched_proved_tried_and_committed(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d", settled=False)
    stage.core.assign(stage.shipped[1], device.identity)
    device.boot()
    phases = []
    for _ in range(7):
        device.settle(1, ask=0)
        phases.append(device.reported().models[MODEL].phase)
    assert committed(device, 1)
    assert phases[-1] == "steady"
    assert device.codes() == ["release-offered", "release-proved", "probation-begun", "release-committed"]
    report = device.reported().models[MODEL]
    assert report.serving is not None and report.serving.number == 1
    assert report.validated is not None and report.validated.artifact == report.serving.artifact
    assert set(device.reported().have) == set(stage.shipped[1].sealed)
    assert device.reported().seen == stage.core.seq
    assert device.reported().trust == device.house.journal.high_water()


def test_what_served_before_serves_after_a_restart_without_any_link(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot(link=False)
    assert committed(device, 1)
    assert device.state.validated is not None and device.state.validated.ts == device.now


def test_words_that_were_too_many_to_keep_are_counted_and_told(stage: Stage, ram: Path) -> None:
    """The outbox took nothing while more than `MOST` changes of state had something to say."""
    device, refusal = stage.device(ram / "home"), Refusal()
    device.outbox_kind = refusal.outbox()
    device.boot(link=False)
    refusal.left = 0
    house, said = device.house, MOST + 7
    for n in range(said):
        house.write(device.state, says=house.events.happened(device.now, "returned", f"word {n}", MODEL))
    assert len(house.journal.untold()) == MOST
    device.cut_power()
    refusal.heal()
    device.boot(link=False)
    device.settle(2)
    events = [event for event in device.events() if event.code in ("returned", "untold-lost")]
    assert [event.text for event in events[:-1]] == [f"word {n}" for n in range(7, said)]
    assert (events[-1].code, events[-1].severity, events[-1].facts["lost"]) == ("untold-lost", "alarm", 7)
    device.settle(40)
    assert device.codes().count("untold-lost") == 1


def test_an_unreadable_outbox_costs_its_records_and_no_more(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d")
    (device.folder / "outbox.db").write_bytes(b"rust" * 5000)
    device.boot()
    assert committed(device, 1)
    assert device.codes() == ["records-dropped", "outbox-unreadable"], "and the core is led over what is gone"


def test_an_unreadable_journal_costs_the_past_and_no_more(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d")
    (device.folder / "journal.db").write_bytes(b"rust" * 5000)
    device.boot(link=False)
    assert device.answering is None and device.house.deployments == {}
    assert device.codes()[-1] == "journal-unreadable"
    stage.core.assign(stage.shipped[1], device.identity)
    device.connect()
    device.settle(7, ask=0)
    assert committed(device, 1)


def test_a_stored_assignment_that_no_director_signed_is_told_and_serving_goes_on(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot(link=False)
    order = stage.core.order(stage.shipped[2], device.identity)
    forged = stage.core.assignment(order, by=roles.new_signing_key())
    device.house.journal.take_assignment(forged, 1, 10**6)
    device.cut_power()
    device.boot(link=False)
    assert committed(device, 1) and device.house.assignment is None
    assert device.codes()[-1] == "refused-untrusted"


def test_a_manifest_changed_in_the_journal_does_not_serve(stage: Stage, ram: Path) -> None:
    """The journal is plain; what makes a release is the owner's signature, checked at every load. That a disk changed
    what lies on it is no fault of the release: it is got anew."""
    device = stage.device(ram / "d").boot(link=False)
    text = codec.encode(device.state).replace(b'"the only one"', b'"another one"')
    device.cut_power()
    db = sqlite3.connect(device.folder / "journal.db")
    with db:
        db.execute("UPDATE deployment SET document = ?", (text,))
    db.close()
    device.boot(link=False)
    assert device.state.phase is Phase.FETCHING and device.answering is None
    assert any("not the signed one" in event.text for event in device.events())
    assert device.house.journal.quarantined(MODEL) == ()
    stage.core.assign(stage.shipped[1], device.identity)
    device.connect()
    device.settle(12, ask=0)
    assert committed(device, 1)


def test_a_proof_may_come_while_the_link_is_down(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    held: list[Prove] = []
    device.prover = held.append  # type: ignore[assignment]  # it takes its time
    stage.core.assign(stage.shipped[2], device.identity)
    device.settle(2)
    device.link.cut()
    device.jobs, device.prover = held, honest_prover
    device.settle(5, ask=0)
    assert committed(device, 2)


# --- what the core is told ---


def test_a_report_is_numbered_on_over_restarts_and_every_session_says_so(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d")
    seen: list[tuple[int, int]] = []
    for _ in range(3):
        device.boot().settle(1)
        retained = stage.core.hub.retained[topics.status(TENANT, DEVICE)]
        status = codec.decode(Status, retained)
        assert (status.state, status.boot) == ("online", device.reported().boot)
        seen.append((device.reported().seq, status.session))
        device.cut_power()
    assert seen == sorted(set(seen)) and len({session for _, session in seen}) == 3


def test_nothing_is_sent_while_the_link_is_down_and_all_of_it_after(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot(link=False)
    before = len(stage.core.hub.passed)
    device.house.events.report(device.now, "lamp-on", "somebody is here")
    device.settle(5, ask=0)
    assert len(stage.core.hub.passed) == before
    device.connect()
    topics_sent = {topic.removeprefix("falaj/1/acme/d/press-1/") for topic, _ in stage.core.hub.passed[before:]}
    assert topics_sent == {"status", "reported", "up/event"}


def test_a_record_is_sent_again_until_it_is_acknowledged(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot().settle(2)
    last = device.house.outbox.pending()[-1][1]
    device.acknowledge(last - 1)

    def sent() -> int:
        return sum(topic.endswith("up/event") for topic, _ in stage.core.hub.passed)

    once = sent()
    device.settle(20)
    assert sent() == once
    device.settle(20)
    assert sent() == once + 1
    device.acknowledge(last)
    device.settle(40)
    assert sent() == once + 1


def test_answers_are_reported_coarsely(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot().settle(2)
    first = device.reported().seq
    device.settle(64, ask=0)
    assert device.reported().models[MODEL].answers == 64
    assert device.reported().seq - first == 7, "with every power of two, not with every answer"


def test_drift_alarms_and_never_rolls_back(stage: Stage, ram: Path) -> None:
    """The release before would see the same inputs."""
    device = stage.device(ram / "d").boot().settle(2)
    device.acknowledge(999)
    found = DriftReport("alarm", 1000, 2e4, ("ax",), device.now)
    device.house.evidence.drift = lambda model: found
    device.carry_out(device.agent.handle(Drifted(MODEL, found), device.now))
    device.settle(5, ask=0)
    (event,) = device.events()
    assert (event.code, event.severity, event.model) == ("drift-alarm", "alarm", MODEL) and "ax" in event.text
    assert device.reported().models[MODEL].drift == found and committed(device, 1)


@pytest.mark.parametrize("seed", range(4))
def test_over_a_line_that_loses_repeats_and_reorders_the_story_ends_the_same(
    stage: Stage, ram: Path, seed: int
) -> None:
    device = stage.device(ram / "d")
    hub = stage.core.hub
    stage.core.assign(stage.shipped[2], device.identity)
    hub.rng, hub.faults = Random(seed), Faults(lose=0.2, repeat=0.2, reorder=0.2)
    try:
        device.boot()
        device.settle(15, ask=0)
    finally:
        hub.faults = Faults()
    assert committed(device, 2)


# --- power cuts ---


@dataclass(frozen=True)
class Story:
    """One assignment, what is asked meanwhile, and who answers in the end."""

    number: int
    ends_with: int | None
    settled: bool = True
    ask: int = 0
    mode: str = "live"
    always_answered: bool = True
    ends_alike: bool = True  # False: only harmless questions are asked after the cut, so it may end either way


STORIES = {
    "first-release": Story(1, 1, settled=False, always_answered=False),
    "over-an-incumbent": Story(2, 2),
    "refused-by-its-proof": Story(3, 1),
    "refused-by-its-trial": Story(4, 1, ask=HARMFUL, always_answered=False),  # NaN is no answer, for that once
    "refused-and-never-asked-again": Story(4, 1, ask=HARMFUL, always_answered=False, ends_alike=False),
    "first-and-refused": Story(3, None, settled=False, always_answered=False),
    "switched-off": Story(1, None, mode="off", always_answered=False),
}


def play(device: Device, story: Story, shipped: Shipped) -> None:
    device.core.assign(shipped, device.identity, mode=story.mode)
    device.boot()
    device.settle(7, ask=story.ask)


@pytest.mark.parametrize("name", STORIES)
def test_after_a_power_cut_at_any_write_the_story_ends_the_same(stage: Stage, ram: Path, name: str) -> None:
    story = STORIES[name]
    shipped = stage.shipped[story.number]
    undisturbed = stage.device(ram / "undisturbed", settled=story.settled)
    play(undisturbed, story, shipped)
    end = outcome(undisturbed)
    told = of_changes(undisturbed)
    undisturbed.cut_power()
    assert end["answering"] == story.ends_with
    for n in count(1):
        fuse = Fuse(n)
        device = stage.device(ram / str(n), settled=story.settled)
        device.journal_kind, device.outbox_kind = fuse.journal(), fuse.outbox()
        device.artifacts_kind = fuse.artifacts()
        try:
            play(device, story, shipped)
        except PowerCut:
            device.cut_power()
            device.boot(link=False)
            assert_sane(device)
            if story.always_answered:
                assert device.answering is not None
            device.connect()
            device.settle(7, ask=story.ask if story.ends_alike else 0)
        assert_sane(device)
        assert not story.ends_alike or outcome(device) == end, f"cut at write {n}"
        assert not story.ends_alike or of_changes(device) == told, f"lost or told twice, cut at write {n}"
        device.cut_power()
        if not fuse.blown:
            break
    assert n > (4 if story.mode == "off" else 10), "the fuse saw the writes"


class AnyLuck(RuleBasedStateMachine):
    """Assignments good and bad, questions, cuts of line and power, in any order."""

    folders: Iterator[Path]
    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.fuse = Fuse()
        self.retry = 0
        self.wanted: int | None = 1
        self.device = self.stage.device(next(self.folders))
        self.device.identity = self.stage.settled.identity
        self.stage.core.assign(self.stage.shipped[1], self.device.identity)
        self.device.journal_kind, self.device.outbox_kind = self.fuse.journal(), self.fuse.outbox()
        self.device.artifacts_kind = self.fuse.artifacts()
        self.device.boot()
        self.marks: dict[str, int] = {}
        self.linked = True

    def teardown(self) -> None:
        """Whatever happened: a good release, wanted anew, gets through."""
        self.fuse.left = None
        self.retry += 1
        self.stage.core.assign(self.stage.shipped[5], self.device.identity, retry=self.retry)
        if not self.linked:
            self.device.connect()
        self.device.settle(20, ask=0)
        assert committed(self.device, 5)
        self.device.cut_power()

    @rule(
        number=st.sampled_from([1, 2, 3, 4, 5]), mode=st.sampled_from(["live", "shadow", "off"]),
        again=st.booleans(), soak=st.sampled_from([1, 3]),
    )  # fmt: skip
    def assign(self, number: int, mode: str, again: bool, soak: int) -> None:
        self.retry += again
        self.wanted = None if mode == "off" else number
        self.stage.core.assign(
            self.stage.shipped[number], self.device.identity,
            mode=mode, retry=self.retry, gates=Gates(soak_answers=soak),
        )  # fmt: skip

    @rule(
        number=st.sampled_from([1, 2, 5]), arms=st.lists(st.sampled_from([1, 2, 3, 4, 5]), max_size=3, unique=True),
        again=st.booleans(), share=st.sampled_from([1000, 3000]),
    )  # fmt: skip
    def split(self, number: int, arms: list[int], again: bool, share: int) -> None:
        self.retry += again
        self.wanted = number
        core, identity, made = self.stage.core, self.device.identity, []
        for place, arm in enumerate(other for other in arms if other != number):
            order = core.order(self.stage.shipped[arm], identity)
            made.append(Arm(order.manifest, arm, order.keys, 3000 * place, share, self.retry))
        core.assign(
            self.stage.shipped[number], identity, mode="split", retry=self.retry, arms=tuple(made), seed="seed",
            gates=Gates(soak_answers=1),
        )  # fmt: skip

    @rule(index=st.sampled_from([0, HARMFUL]))
    def keys_ask(self, index: int) -> None:
        serving = self.device.house.serving
        if serving.incumbent(MODEL) is not None:
            asked = [{"i": np.array([index], np.int64)} for _ in range(12)]
            serving.predict_each(MODEL, asked, keys=[f"k{n}" for n in range(12)])

    @rule(seconds=st.integers(1, 4), ask=st.sampled_from([None, 0, HARMFUL]), fuse=st.none() | st.integers(1, 12))
    def time_passes(self, seconds: int, ask: int | None, fuse: int | None) -> None:
        self.fuse.left = fuse
        try:
            self.device.settle(seconds, ask=ask)
        except PowerCut:
            self.power_cut(linked=True)
        self.fuse.left = None

    @rule(linked=st.booleans())
    def power_cut(self, linked: bool) -> None:
        self.device.cut_power()
        self.device.boot(link=linked)
        self.linked = linked

    @precondition(lambda self: self.linked)
    @rule()
    def line_cut(self) -> None:
        self.device.link.cut()
        self.linked = False

    @precondition(lambda self: not self.linked)
    @rule()
    def line_back(self) -> None:
        self.device.connect()
        self.linked = True

    @invariant()
    def what_answers_is_what_should(self) -> None:
        assert_sane(self.device)

    @invariant()
    def arms_are_proven_and_stand(self) -> None:
        state = self.device.house.deployments.get(MODEL)
        standing = {one.slot.release.number for one in state.lanes if not one.fallen} if state else set()
        assert 3 not in standing
        assert set(self.device.house.serving.arms(MODEL)) <= standing, "nobody else answers"
        assert state is None or state.phase is not Phase.NO_MODEL or not state.lanes

    @invariant()
    def marks_never_fall(self) -> None:
        journal = self.device.house.journal
        marks = journal.high_water() | {"seq": journal.counter("desired_seq"), "sent": journal.counter("reported_seq")}
        assert all(marks[name] >= value for name, value in self.marks.items())
        self.marks = marks


def test_whatever_happens_in_any_order(ram: Path) -> None:
    AnyLuck.stage = new_stage(ram)
    AnyLuck.folders = (ram / f"run-{n}" for n in count())
    AnyLuck.TestCase.settings = settings(
        max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
    )
    AnyLuck.TestCase("runTest").runTest()


def test_two_devices_have_nothing_in_common(stage: Stage, ram: Path) -> None:
    """Keys wrapped to one device open nothing on another, even with the same name and the same bytes."""
    device = stage.device(ram / "d", settled=False)
    order = stage.core.order(stage.shipped[1], stage.settled.identity)
    device.identity = new_identity(stage.core.root)
    stage.core.desire(stage.core.assignment(order))
    device.boot().settle(6, ask=0)
    assert device.state.phase is Phase.NO_MODEL and device.answering is None
    assert "damaged" in device.codes()
