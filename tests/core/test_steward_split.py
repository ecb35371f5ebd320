"""An A/B at the steward: what devices are told, what a decision leaves, what people read, what outlives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from appliance.cli.verdicts import rollout_lines
from core import orders
from core.handoffs import RolloutState as State
from core.project import Project
from core.rollout.arms import name_of
from sync import codec, roles
from sync.bindings import Binding
from sync.features import TensorSpec, Unit
from sync.manifest import Lookup, LookupColumn
from sync.messages import ASSIGNMENT_TYPE, Assignment, ModelOrder
from sync.names import Digest, LookupName
from sync.reports import ArmReport, ModelReport, Release, SplitReport
from sync.splits import Stake, identity, seed_of
from tests.core.desk import Desk
from tests.core.pairs import Fleet, begun, paired
from tests.core.world import DAY, MODEL, ONE, START, TWO, WINDOW, World, serving

THREE = Digest("3" * 64)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = begun(World(tmp_path))
    settings = paired(kind="ab", share=0.25, evidence="guardrails", margin=0.02, days=7.0)
    made.world.must(orders.ApplyProject(project=settings, folder=str(made.world.folder)))
    yield made
    made.world.catalog.close()


def splitting(fleet: Fleet, new: tuple[int, Digest], old: tuple[int, int], arm: tuple[int, int]) -> ModelReport:
    """What a device says: keys of both releases whose outcome was good, bad."""
    name = name_of(fleet.rollout(), ONE)
    assert name is not None
    arms = (
        ArmReport(*fleet.old, 0, 7500, keys=sum(old), losses=old),
        ArmReport(*new, 0, 2500, keys=sum(arm), losses=arm),
    )
    return ModelReport("live_split", START, Release(*fleet.old, THREE), split=SplitReport(name, 1, arms))


def test_the_canary_is_told_of_both_releases_and_the_others_of_nothing_new(fleet: Fleet) -> None:
    before = fleet.told(TWO)
    new = fleet.world.release(b"new")
    order = fleet.told()
    assert (fleet.rollout().state, order.mode) == (State.SPLIT, "split")
    assert (order.number, order.manifest) == fleet.old
    (arm,) = order.arms
    assert (arm.number, arm.manifest, arm.first, arm.share) == (*new, 0, 2500)
    assert arm.keys and not arm.keys.keys() & order.keys.keys() and len(order.seed) == 32
    assert fleet.told(TWO) == before


def test_each_device_draws_a_lot_of_its_own(fleet: Fleet) -> None:
    both = paired((ONE, TWO), kind="ab", evidence="guardrails")
    fleet.world.must(orders.ApplyProject(project=both, folder=str(fleet.world.folder)))
    fleet.world.release(b"new")
    plan, seeds = fleet.rollout().split, {device: fleet.told(device).seed for device in (ONE, TWO)}
    assert plan is not None and seeds == {device: seed_of(plan.seed, device) for device in (ONE, TWO)}
    for device in (ONE, TWO):
        order = fleet.told(device)
        stakes = tuple(Stake(arm.manifest, arm.retry, arm.first, arm.share) for arm in order.arms)
        about = identity(order.seed, order.gates.per_key, order.manifest, stakes)
        assert about == name_of(fleet.rollout(), device), "what the device will say is what the core looks for"
    assert len({plan.seed, *seeds.values()}) == 3 and {len(seed) for seed in seeds.values()} == {32}


UNLIKE: dict[str, dict[str, object]] = {
    "inputs": {"inputs": (TensorSpec("window", "FP32", (-1, 4, 3)),)},
    "outputs": {"outputs": (TensorSpec("probabilities", "FP32", (-1, 4)),)},
    "classes": {"classes": ("walk", "rest", "run")},
    "window": {"window": replace(WINDOW, step=1)},
    "lookups": {"lookups": (Lookup(LookupName("site"), (LookupColumn("load"),), 60.0),)},
}


@pytest.mark.parametrize("part", UNLIKE)
def test_a_release_that_cannot_answer_beside_the_one_before_is_refused(fleet: Fleet, part: str) -> None:
    """Questions are put, and answers told, as the incumbent has them."""
    if part == "classes":  # else they are refused for that alone
        fleet.world.must(orders.ApplyProject(project=changed(major=2), folder=str(fleet.world.folder)))
    made = replace(fleet.world.candidate(b"new"), **UNLIKE[part])
    number = int(fleet.world.must(orders.CommitCandidate(job=fleet.world.job(), candidate=made))["number"])
    _refused(fleet, number, part)


@pytest.mark.parametrize(
    "other", [{"topic": "b/{entity}"}, {"time_field": "t"}, {"fields": {"x": "acc.x"}}, {"units": {"x": Unit(2.0)}}]
)
def test_a_release_that_reads_sensors_otherwise_is_refused_as_an_arm(fleet: Fleet, other: dict[str, object]) -> None:
    bound, folder = Binding("a/{entity}", "said/{entity}"), str(fleet.world.folder)
    fleet.world.must(orders.ApplyProject(project=changed("canary", bindings=(bound,)), folder=folder))
    number, manifest = fleet.world.release(b"bound")
    for _ in range(2):
        for device in (fleet.one, fleet.two):
            fleet.world.hear(device.report({MODEL: serving(manifest, number)}))
    unlike = replace(bound, **other)
    fleet.world.must(orders.ApplyProject(project=changed(bindings=(unlike,)), folder=folder))
    _refused(fleet, fleet.world.stage(b"new"), "bindings")
    moved = replace(bound, output="elsewhere/{entity}")
    fleet.world.must(orders.ApplyProject(project=changed(bindings=(moved,)), folder=folder))
    fleet.world.release(b"newer")
    assert fleet.rollout().state is State.SPLIT, "where answers are told may change"


def test_what_is_refused_as_an_arm_may_come_the_other_way(fleet: Fleet) -> None:
    made = replace(fleet.world.candidate(b"new"), window=replace(WINDOW, step=1))
    number = int(fleet.world.must(orders.CommitCandidate(job=fleet.world.job(), candidate=made))["number"])
    fleet.world.must(orders.ApplyProject(project=changed("canary"), folder=str(fleet.world.folder)))
    fleet.world.must(fleet.world.approval(number))
    fleet.world.must(orders.ApplyProject(project=changed(), folder=str(fleet.world.folder)))
    fleet.world.must(orders.Force(model=MODEL, number=number, reason="no split is needed"))
    assert fleet.rollout().split is None


def changed(kind: str = "ab", **model: object) -> Project:
    """The project with this kind of rollout, and these parts of its model."""
    plain = paired(kind=kind)
    return replace(plain, models={MODEL: replace(plain.models[MODEL], **model)})


def _refused(fleet: Fleet, number: int, part: str) -> None:
    answer = fleet.world.order(fleet.world.approval(number))
    assert (answer.ok, answer.code) == (False, "split-unlike"), answer
    assert part in answer.error and "kind" in answer.hint


def test_better_takes_it_to_everybody(fleet: Fleet) -> None:
    new = fleet.world.release(b"new")
    fleet.world.hear(fleet.one.report({MODEL: splitting(fleet, new, (500, 400), (290, 10))}))
    assert fleet.rollout().state is State.CANARY and "does better than release 1" in fleet.rollout().reason
    live = fleet.told()
    assert (live.mode, live.manifest, live.arms, live.seed) == ("live", new[1], (), "")
    for device in (fleet.one, fleet.two):
        fleet.world.hear(device.report({MODEL: serving(new[1], new[0])}))
    assert fleet.rollout().state is State.COMPLETE


def test_worse_takes_it_back(fleet: Fleet) -> None:
    new = fleet.world.release(b"new")
    fleet.world.hear(fleet.one.report({MODEL: splitting(fleet, new, (890, 10), (150, 150))}))
    assert fleet.rollout().state is State.REVERSING
    back = fleet.told()
    assert (back.mode, (back.number, back.manifest), back.arms) == ("live", fleet.old, ())
    fleet.world.hear(fleet.one.report({MODEL: serving(fleet.old[1], fleet.old[0])}))
    assert fleet.rollout().state is State.REVERSED


def test_it_is_paused_after_its_days_and_tried_anew_by_a_person(fleet: Fleet) -> None:
    number, _ = fleet.world.release(b"new")
    fleet.world.tick(8 * DAY)
    assert fleet.rollout().state is State.PAUSED and "decided nothing in 7 days" in fleet.rollout().reason
    assert fleet.told().mode == "live" and fleet.told().number == fleet.old[0], "the box is free for other models"
    assert fleet.event("rollout-paused").severity == "alarm"
    fleet.world.must(fleet.world.approval(number))
    fleet.world.tick()
    assert (fleet.rollout().state, fleet.rollout().retry) == (State.SPLIT, 1)
    assert fleet.told().arms[0].retry == 1


def test_a_restart_of_the_core_changes_nothing(fleet: Fleet) -> None:
    fleet.world.release(b"new")
    before = fleet.told()
    fleet.world.reopen()
    fleet.world.tick(4 * DAY)  # the assignment is signed anew
    after = fleet.told()
    assert (after.arms[0].manifest, after.seed, after.mode) == (before.arms[0].manifest, before.seed, "split")


def test_a_split_that_an_older_version_began_keeps_its_lots_and_its_counts(fleet: Fleet) -> None:
    """It worked a device's seed out in another way, and kept it nowhere but in what it told the device."""
    new = fleet.world.release(b"new")
    told = told_by_an_older_version(fleet, "0123456789abcdef" * 2)
    stakes = tuple(Stake(arm.manifest, arm.retry, arm.first, arm.share) for arm in told.arms)
    name = identity(told.seed, told.gates.per_key, told.manifest, stakes)
    fleet.world.reopen()
    fleet.world.tick(4 * DAY)
    assert fleet.told().seed == told.seed, "signed anew, and no key changes its release"
    said = splitting(fleet, new, (890, 10), (150, 150))
    assert said.split is not None and said.split.split == name == name_of(fleet.rollout(), ONE)
    fleet.world.hear(fleet.one.report({MODEL: said}))
    assert fleet.rollout().state is State.REVERSING and fleet.rollout().compared[ONE].arms[1].keys == 300


def told_by_an_older_version(fleet: Fleet, seed: str) -> ModelOrder:
    """The catalog as such a version leaves it: the device was told of the split by this seed."""
    catalog, (key, rollout) = fleet.world.catalog, fleet.world.catalog.fleet.rollouts()[0]
    old, (wanted,) = catalog.fleet.assignment(ONE), catalog.fleet.wanted(ONE)
    assert rollout.split is not None and wanted.split is not None and old is not None
    with catalog.transaction():
        catalog.fleet.put_rollout(key, replace(rollout, split=replace(rollout.split, seeds={})))
        catalog.fleet.want(ONE, replace(wanted, split=replace(wanted.split, seeds={})))
        assignment = codec.decode(Assignment, roles.peek(old[3]))
        order = replace(assignment.models[MODEL], seed=seed)
        told = replace(assignment, models={MODEL: order}, seq=old[1] + 1)
        envelope = roles.sign(told, ASSIGNMENT_TYPE, fleet.world.house.keys.director)
        catalog.fleet.put_assignment(ONE, old[0], old[1] + 1, old[2], envelope)
    return order


def test_a_revoked_arm_is_taken_out_of_every_order(fleet: Fleet) -> None:
    number, _ = fleet.world.release(b"new")
    fleet.world.must(fleet.world.revocation(number))
    assert fleet.told().mode == "live" and fleet.told().arms == () and fleet.rollout().state is State.REVERSED


def test_people_read_rates_interval_and_thresholds(fleet: Fleet) -> None:
    new = fleet.world.release(b"new")
    fleet.world.hear(fleet.one.report({MODEL: splitting(fleet, new, (270, 30), (90, 10))}))
    row = Desk(fleet.world).get("/v1/rollouts")["rollouts"][0]
    assert row["comparison"]["decision"] == "hold" and row["comparison"]["keys"] == [300, 100]
    assert not {"seed", "seeds"} & row["split"].keys()
    text = "\n".join(rollout_lines(row))
    assert "A/B with 25 % of entities and keys" in text and "undecided" in text
    assert "bad in 10.0% of 100 keys, the incumbent in 10.0% of 300: the difference lies between" in text
    assert "better" in text and "decides at 3.00" in text and "paused 7 days after" in text
