"""Attack 22: one enrolled device lies, under its own good signature, to move the whole fleet: a verdict against a good
release, counters that decide a trial, drift that is none, samples in heaps. Where others take part, nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from core import orders
from core.features import field
from core.fleet import retraining
from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.project import Project, Retraining
from sync.manifest import Uplink
from sync.messages import ModelOrder
from sync.names import DeviceId, Digest
from sync.reports import ANY, DriftReport, ModelReport
from tests.core.pairs import desired, paired, shadowing
from tests.core.world import MODEL, START, Device, World, serving

WATCHES = tuple(DeviceId(f"watch-{n}") for n in range(1, 6))
LIAR = WATCHES[2]


class Fleet:
    """Five watches that committed release 1; the first three are canary devices, the third lies."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder).ready()
        self.apply(paired(WATCHES[:3]))
        self.devices = {name: self.world.enrol(name) for name in WATCHES}
        self.old = self.world.release(b"old")
        for _ in range(2):
            self.all_say(serving(self.old[1], self.old[0]))
        assert self.rollout().state is State.COMPLETE
        self.new = self.world.release(b"new")

    def apply(self, project: Project) -> None:
        self.world.must(orders.ApplyProject(project=project, folder=str(self.world.folder)))

    def say(self, name: DeviceId, report: ModelReport) -> None:
        self.world.hear(self.devices[name].report({MODEL: report}, seen=desired(self.world, name).seq))

    def all_say(self, report: ModelReport, *names: DeviceId) -> None:
        for name in names or WATCHES:
            self.say(name, report)

    def rollout(self) -> Rollout:
        return self.world.catalog.fleet.rollouts()[0][1]

    def told(self) -> dict[DeviceId, ModelOrder]:
        return {name: desired(self.world, name).models[MODEL] for name in WATCHES}

    def in_shadow(self, **counts: int) -> ModelReport:
        return shadowing(self.new, self.old, **counts)

    def serves(self) -> ModelReport:
        return serving(self.new[1], self.new[0])

    def against(self) -> ModelReport:
        return serving(self.old[1], self.old[0], quarantined={self.new[1]: 0}, reason="trust me")

    def ramp(self) -> None:
        """The canary devices find it no worse, serve and commit it."""
        self.all_say(self.in_shadow(zero=60), *WATCHES[:3])
        assert self.rollout().state is State.CANARY
        self.all_say(self.serves(), *WATCHES[:3])
        assert self.rollout().state is State.RAMP


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.world.catalog.close()


def unmoved(fleet: Fleet, lie: ModelReport, times: int = 3) -> None:
    """What every device is told stays as it was, however often the liar says it."""
    state, told = fleet.rollout().state, fleet.told()
    for _ in range(times):
        fleet.say(LIAR, lie)
        fleet.world.tick(1.0)
    assert (fleet.rollout().state, fleet.told()) == (state, told)


@pytest.mark.parametrize("stage", ["shadow", "ramp"])
def test_22_one_verdict_takes_nobody_back_and_a_person_is_told_once(fleet: Fleet, stage: str) -> None:
    if stage == "ramp":
        fleet.ramp()
    unmoved(fleet, fleet.against())
    fleet.say(LIAR, fleet.serves())  # taking it back and giving it again is no new alarm
    unmoved(fleet, fleet.against())
    (alarm,) = [e for e in fleet.world.catalog.events.newest() if e.code == "rollout-held"]
    assert alarm.severity == "alarm" and "trust me" in alarm.text and fleet.rollout().held == (LIAR,)


def test_22_a_verdict_against_any_release_takes_nobody_back_and_a_person_is_told_once(fleet: Fleet) -> None:
    fleet.ramp()
    lie = serving(fleet.old[1], fleet.old[0], quarantined={ANY: 0})
    unmoved(fleet, lie)
    fleet.say(LIAR, fleet.against())
    unmoved(fleet, lie)
    told = [e.text for e in fleet.world.catalog.events.newest() if e.code == "rollout-held"]
    assert sum("cannot read one of its own verdicts" in text for text in told) == 1
    fleet.world.must(orders.SetAside(actor="salma", model=MODEL, number=fleet.new[0], device=LIAR, reason="its disk"))
    fleet.all_say(fleet.serves(), *(w for w in WATCHES if w != LIAR))
    assert fleet.rollout().state is State.COMPLETE


def test_22_the_rollout_goes_on_once_a_person_has_set_the_liar_aside(fleet: Fleet) -> None:
    fleet.ramp()
    unmoved(fleet, fleet.against())
    order = orders.SetAside(actor="salma", model=MODEL, number=fleet.new[0], device=LIAR, reason="its board is broken")
    fleet.world.must(order)
    assert fleet.rollout().aside == (LIAR,) and "verdict-set-aside" in fleet.world.codes()
    fleet.all_say(fleet.serves(), *(w for w in WATCHES if w != LIAR))
    assert fleet.rollout().state is State.COMPLETE


def test_22_or_takes_it_back_if_the_verdict_was_right(fleet: Fleet) -> None:
    fleet.ramp()
    unmoved(fleet, fleet.against())
    fleet.world.must(orders.Reverse(actor="salma", model=MODEL, number=fleet.new[0], reason="it smells of burning"))
    assert fleet.rollout().state is State.REVERSING and "by salma" in fleet.rollout().reason
    assert {order.number for order in fleet.told().values()} == {fleet.old[0]}


def test_22_two_honest_verdicts_still_take_it_back_by_themselves(fleet: Fleet) -> None:
    fleet.ramp()
    fleet.all_say(fleet.against(), WATCHES[3], WATCHES[4])
    assert fleet.rollout().state is State.REVERSING
    assert {order.number for order in fleet.told().values()} == {fleet.old[0]}


@pytest.mark.parametrize(
    "lie", [{"plus": 1 << 40}, {"zero": 1 << 40}, {"minus": 1 << 40}], ids=["harm", "equal", "better"]
)
def test_22_counters_of_one_decide_no_trial(fleet: Fleet, lie: dict[str, int]) -> None:
    fleet.all_say(fleet.in_shadow(zero=5), *WATCHES[:2])
    unmoved(fleet, fleet.in_shadow(**lie))
    assert fleet.rollout().state is State.SHADOW


def test_22_nor_do_they_turn_a_bad_release_into_a_good_one(fleet: Fleet) -> None:
    """The others see harm. The liar can delay the word; it cannot have the release served."""
    fleet.all_say(fleet.in_shadow(plus=20), *WATCHES[:2])
    unmoved(fleet, fleet.in_shadow(minus=1 << 40))
    assert fleet.rollout().state is not State.CANARY


def test_22_drift_of_one_starts_no_training(fleet: Fleet) -> None:
    plain = paired(WATCHES[:3])
    model = replace(plain.models[MODEL], retraining=Retraining(devices=1, samples=1), uplink=Uplink(policy="labelled"))
    learned = retraining.facts(fleet.world.catalog, replace(plain, models={MODEL: model}), MODEL, START)
    assert learned.fleet == len(WATCHES) and model.retraining is not None
    drift = DriftReport("alarm", 500, 1e6, ("x", "y"), START - 60)
    unmoved(fleet, serving(fleet.old[1], fleet.old[0], drift=drift))
    after = retraining.facts(fleet.world.catalog, replace(plain, models={MODEL: model}), MODEL, START)
    assert [one.device for one in after.drifted] == [LIAR]
    hop = retraining.decide(model.retraining, retraining.Facts(**{**vars(after), "labelled": 10_000, "rows": True}))
    assert hop.kind == "none" and "1 of 2 devices drifted" in hop.reason
    fleet.say(WATCHES[0], serving(fleet.old[1], fleet.old[0], drift=drift))
    both = retraining.facts(fleet.world.catalog, replace(plain, models={MODEL: model}), MODEL, START)
    hop = retraining.decide(model.retraining, retraining.Facts(**{**vars(both), "labelled": 10_000, "rows": True}))
    assert hop.kind == "train", "two of five are enough; what is trained still waits for its owner's signature"


def seen(counts: dict[DeviceId, int]) -> field.Seen:
    stream = np.array([f"{name}/e" for name in counts for _ in range(counts[name])])
    n = len(stream)
    return field.Seen(np.zeros((n, 4, 2), np.float32), np.full(n, "rest"), stream, np.arange(n, dtype=np.float64))


def test_22_samples_of_one_outweigh_the_others_nowhere() -> None:
    honest = dict.fromkeys(WATCHES[:2], 40)
    kept, surplus = field.capped(seen({**honest, LIAR: 100_000}))
    assert field.by_device(kept) == {**honest, LIAR: 80} and field.by_device(surplus) == {LIAR: 99_920}
    assert np.diff(kept.end[80:]).min() > 1000, "spread over all it sent, not the first or the last of it"


def test_22_two_devices_are_too_few_to_outvote_one_and_go_by_what_there_is() -> None:
    counts = {WATCHES[0]: 5, LIAR: 1000}
    kept, surplus = field.capped(seen(counts))
    assert field.by_device(kept) == counts and not len(surplus.end)


def test_22_a_trial_of_one_device_works_as_before(tmp_path: Path) -> None:
    """An honest small fleet has nobody to ask: its one canary device decides."""
    world = World(tmp_path).ready()
    world.must(orders.ApplyProject(project=paired((WATCHES[0],)), folder=str(tmp_path)))
    device: Device = world.enrol(WATCHES[0])
    old = world.release(b"old")
    for _ in range(2):
        world.hear(device.report({MODEL: serving(old[1], old[0])}))
    new: tuple[int, Digest] = world.release(b"new")
    world.hear(device.report({MODEL: shadowing(new, old, zero=68)}))
    assert world.catalog.fleet.rollouts()[0][1].state is State.CANARY
    world.hear(device.report({MODEL: serving(old[1], old[0], quarantined={new[1]: 0})}))
    assert world.catalog.fleet.rollouts()[0][1].state is State.REVERSING
    world.catalog.close()
