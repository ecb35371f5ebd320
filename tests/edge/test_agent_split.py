"""Several releases that answer at once on one device: they join, answer by key, fall out alone, win, and end."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, cycle
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as replace_

from core.release import metadata, signing
from edge import runtime
from edge.states import Failure, FailureClass, Phase, Proof, Prove
from sync import codec, roles, topics
from sync.manifest import Manifest
from sync.messages import Arm, Gates, ModelOrder, Prediction
from sync.names import Digest, ModelName
from sync.reports import ArmReport, SplitReport
from tests.edge.device import Device, committed, honest_prover, new_device
from tests.edge.paced import QUICK, SLOW, Paced
from tests.edge.power import Fuse, PowerCut
from tests.edge.world import CLASSES, DEVICE, MODEL, TENANT, Core

GOOD, BAD = (0, 1, 2), (1, 1, 2)  # the class said for each index
NAN, HARMFUL = float("nan"), 2
GATES = Gates(soak_answers=3)
A, B, C = (Digest(letter * 64) for letter in "abc")
KEYS = [f"machine-{n}" for n in range(60)]


class Field:
    """A core with releases 1, 2, 5 (fit), 3 (wrong at index 0) and 4 (NaN at `HARMFUL`); devices that committed 1."""

    def __init__(self, folder: Path) -> None:
        self.core, self.folder = Core(), folder
        self.shipped = {n: self.core.ship(n, says=BAD if n == 3 else GOOD) for n in (1, 2, 3, 5)}
        self.shipped[4] = self.core.ship(4, (4.0, 4.5, NAN), says=GOOD)

    def device(self, name: str = "d") -> Device:
        self.core.hub.retained.pop(topics.desired(TENANT, DEVICE), None)
        device = new_device(self.core, self.folder / name).boot()
        self.core.assign(self.shipped[1], device.identity, gates=GATES)
        device.settle(7, ask=0)
        assert committed(device, 1)
        return device

    def order(self, device: Device, arms: dict[int, tuple[int, int]], seed: str = "seed", **changes: object) -> None:
        """Release 1 and these arms: number -> (first place, share)."""
        made = []
        for number, (first, share) in arms.items():
            order = self.core.order(self.shipped[number], device.identity)
            made.append(Arm(order.manifest, number, order.keys, first, share, int(str(changes.get("retry", 0)))))
        fields = {"mode": "split", "gates": GATES, "arms": tuple(made), "seed": seed} | changes
        self.core.assign(self.shipped[1], device.identity, **fields)


@pytest.fixture
def field(ram: Path) -> Field:
    return Field(ram)


@pytest.fixture
def device(field: Field) -> Device:
    return field.device()


def feel(device: Device, key: str, index: int = 0, truth: int | None = None) -> int | None:
    """One window of an entity, answered, remembered and labelled as the local side does it; who answered."""
    window = np.full((1, 1, 1), index, np.float32)
    (answer,) = device.house.serving.predict_each(MODEL, [{"window": window}], keys=[key])
    device.felt += 1
    if isinstance(answer, runtime.ModelError):
        return None
    said = CLASSES[int(np.argmax(answer.outputs["probabilities"]))]
    prediction = Prediction(
        f"{key}-{device.felt}", MODEL, device.felt, "ok", said, entity=key, release=answer.release.number
    )
    device.house.evidence.outcomes.see(prediction)
    if truth is not None:
        device.house.evidence.outcomes.learn(prediction, device.now, good=said == CLASSES[truth])
    return answer.release.number


def answering(device: Device, keys: list[str] = KEYS, index: int = 0) -> dict[str, int | None]:
    return {key: feel(device, key, index) for key in keys}


def split(device: Device) -> SplitReport:
    found = device.reported().models[MODEL].split
    assert found is not None
    return found


def arm(device: Device, number: int) -> ArmReport:
    return next(one for one in split(device).arms if one.number == number)


def begun(field: Field, device: Device, arms: dict[int, tuple[int, int]] | None = None, **changes: object) -> None:
    field.order(device, {2: (0, 5000)} if arms is None else arms, **changes)
    device.settle(12)
    assert device.state.phase is Phase.LIVE_SPLIT


# --- they answer side by side ---


def test_both_releases_answer_by_key_and_are_reported(field: Field, device: Device) -> None:
    begun(field, device)
    first = answering(device)
    assert set(first.values()) == {1, 2} and 15 <= list(first.values()).count(2) <= 45
    assert answering(device) == first, "sticky"
    assert device.answering == 1, "without a key the incumbent answers"
    device.settle(2)
    told = split(device)
    assert [(one.number, one.share) for one in told.arms] == [(1, 5000), (2, 5000)]
    assert sum(one.keys for one in told.arms) == len(KEYS)
    assert arm(device, 2).keys == list(first.values()).count(2)
    assert {"arm-joined", "split-begun"} <= set(device.codes())
    assert device.reported().models[MODEL].phase == "live_split"


def test_the_split_is_the_same_after_a_restart_without_any_network(field: Field, device: Device) -> None:
    begun(field, device)
    before = answering(device)
    device.house.evidence.outcomes.checkpoint()
    device.cut_power()
    device.boot(link=False)
    assert device.state.phase is Phase.LIVE_SPLIT and answering(device) == before
    told = device.house.evidence.outcomes.found(MODEL)[0]
    assert sum(found.keys for found in told.values()) == len(KEYS), "and each of them was counted once"
    device.settle(3)
    assert answering(device) == before


def test_labels_are_counted_for_whoever_answered(field: Field, device: Device) -> None:
    begun(field, device, {3: (0, 5000)})
    who = {key: feel(device, key, 0, truth=0) for key in KEYS}
    device.settle(2)
    bad, good = arm(device, 3), arm(device, 1)
    assert bad.losses == (0, list(who.values()).count(3)) and bad.right == 0
    assert good.losses == (list(who.values()).count(1), 0) and good.labels == good.right
    assert device.state.phase is Phase.LIVE_SPLIT, "whose answers are worse is the core's word"


def test_several_arms_begin_together_and_none_before_all_are_there(field: Field, device: Device) -> None:
    seen: set[frozenset[int | None]] = set()

    def looks_on(job: Prove) -> Proof | Failure:
        seen.add(frozenset(answering(device).values()))
        return honest_prover(job)

    device.prover = looks_on
    field.order(device, {2: (0, 2000), 5: (5000, 2000)})
    for _ in range(12):
        device.settle(1)
        seen.add(frozenset(answering(device).values()))
    assert seen == {frozenset({1}), frozenset({1, 2, 5})}
    assert [(one.number, one.share) for one in split(device).arms] == [(1, 6000), (2, 2000), (5, 2000)]


def test_an_incumbent_that_is_not_there_yet_comes_first(field: Field) -> None:
    device = new_device(field.core, field.folder / "bare").boot()
    field.core.hub.retained.pop(topics.desired(TENANT, DEVICE), None)
    field.order(device, {2: (0, 5000)})
    device.settle(14, ask=0)
    assert device.state.phase is Phase.LIVE_SPLIT and set(answering(device).values()) == {1, 2}


def test_a_split_around_another_incumbent_is_another_split(field: Field, device: Device) -> None:
    begun(field, device)
    arm_of_first = field.core.order(field.shipped[1], device.identity)
    arms = (Arm(arm_of_first.manifest, 1, arm_of_first.keys, 0, 3000),)
    field.core.assign(field.shipped[5], device.identity, mode="split", gates=GATES, arms=arms, seed="other")
    device.settle(16, ask=0)
    assert device.state.phase is Phase.LIVE_SPLIT and set(answering(device).values()) == {1, 5}


def test_growing_an_arm_moves_nobody_who_is_in_one(field: Field, device: Device) -> None:
    begun(field, device, {2: (0, 2000), 5: (5000, 2000)})
    before = answering(device)
    field.order(device, {2: (0, 4500), 5: (5000, 2000)})
    device.settle(2)
    after = answering(device)
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved and {(before[key], after[key]) for key in moved} == {(1, 2)}


def test_an_arm_that_has_no_places_yet_leaves_the_books_as_they_are(field: Field, device: Device) -> None:
    """It has joined, and waits for another one, or for its order to be taken back."""
    begun(field, device, {2: (0, 2000)})
    answering(device)
    device.settle(2)
    before = split(device).split, sum(one.keys for one in split(device).arms)
    bad = codec.decode(Manifest, field.shipped[3].manifest).variants[0].blob.plain
    device.prover = lambda job: None if job.artifact == bad else honest_prover(job)  # it is still at it
    field.order(device, {2: (0, 2000), 5: (5000, 2000), 3: (7000, 2000)})
    device.settle(12)
    assert [(lane.slot.release.number, lane.share) for lane in device.state.lanes] == [(2, 2000), (5, 0)]
    field.order(device, {2: (0, 2000)})
    device.settle(3)
    assert device.state.phase is Phase.LIVE_SPLIT
    assert (split(device).split, sum(one.keys for one in split(device).arms)) == before


def test_all_places_to_one_arm_is_blue_and_green(field: Field, device: Device) -> None:
    """Both are loaded, one answers all, and the way back needs no load."""
    begun(field, device, {2: (0, 10_000)})
    assert set(answering(device).values()) == {2}
    blue = device.house.serving.incumbent(MODEL)
    device.core.assign(field.shipped[1], device.identity, gates=GATES)
    device.settle(1)
    assert set(answering(device).values()) == {1} and device.house.serving.incumbent(MODEL) is blue
    assert committed(device, 1)


# --- a bad arm ---


def test_a_bad_arm_falls_out_alone_at_once_and_offline(field: Field, device: Device) -> None:
    begun(field, device, {4: (0, 3000), 2: (5000, 3000)})
    before = answering(device)
    device.link.cut()
    hit = next(key for key, who in before.items() if who == 4)
    assert feel(device, hit, HARMFUL) == 1, "the question that shows it is answered by the incumbent"
    device.settle(1)
    after = answering(device)
    assert {key: who for key, who in before.items() if who != 4} == {
        key: who for key, who in after.items() if before[key] != 4
    }, "nobody else moves"
    assert {after[key] for key in KEYS if before[key] == 4} == {1}
    assert device.state.phase is Phase.LIVE_SPLIT
    device.connect()
    device.settle(2)
    assert arm(device, 4).fallen and not arm(device, 2).fallen
    assert device.reported().models[MODEL].quarantined == {field.shipped[4].digest: 0}
    (card,) = device.cards()
    assert (card.criterion, card.new.number, card.old and card.old.number) == ("guardrail", 4, 1)
    assert device.codes().count("arm-fell") == 1


def test_an_arm_that_fell_stays_out_over_a_restart(field: Field, device: Device) -> None:
    begun(field, device, {4: (0, 3000), 2: (5000, 3000)})
    hit = next(key for key, who in answering(device).items() if who == 4)
    feel(device, hit, HARMFUL)
    device.settle(1)
    after = answering(device)
    device.cut_power()
    device.boot(link=False)
    assert answering(device) == after and 4 not in after.values()


def test_without_any_arm_left_the_incumbent_is_steady(field: Field, device: Device) -> None:
    begun(field, device, {4: (0, 3000)})
    hit = next(key for key, who in answering(device).items() if who == 4)
    feel(device, hit, HARMFUL)
    device.settle(3)
    assert committed(device, 1) and set(answering(device).values()) == {1}
    device.settle(5)
    assert committed(device, 1), "not again in the same generation"
    field.order(device, {4: (0, 3000)}, retry=1)
    device.settle(8)
    assert device.state.phase is Phase.LIVE_SPLIT and 4 in answering(device).values()


@pytest.mark.parametrize(("host", "falls"), [(QUICK, True), (SLOW, False)])
def test_a_slow_arm_falls_unless_the_host_is_slow(field: Field, device: Device, host: float, *, falls: bool) -> None:
    begun(field, device)
    serving = device.house.serving
    arms, live = serving.arms(MODEL), serving.incumbent(MODEL)
    routes = serving.routes(MODEL)
    assert routes is not None and live is not None
    slow = replace(arms[2], session=Paced(arms[2].session, device, cycle([SLOW])))
    serving.put(MODEL, replace(live, session=Paced(live.session, device, cycle([host]))))
    serving.split(MODEL, routes, {2: slow})
    answering(device)
    device.settle(15)
    assert (device.state.phase is Phase.STEADY) is falls
    if falls:
        assert device.cards()[0].criterion == "too-slow"


def test_an_arm_that_fails_its_proof_never_answers_and_the_rest_begins(field: Field, device: Device) -> None:
    bad = codec.decode(Manifest, field.shipped[5].manifest).variants[0].blob.plain

    def prover(job: Prove) -> Proof | Failure:
        refused = Failure(FailureClass.VERDICT, "prove-crashed", "it ended")
        return refused if job.artifact == bad else honest_prover(job)

    device.prover = prover
    begun(field, device, {5: (0, 2000), 2: (5000, 2000)})
    assert set(answering(device).values()) == {1, 2}
    assert set(device.reported().models[MODEL].quarantined) == {field.shipped[5].digest}


# --- the end of a split ---


def test_the_winner_answers_all_and_is_committed(field: Field, device: Device) -> None:
    begun(field, device)
    arm_session = device.house.serving.arms(MODEL)[2]
    device.core.assign(field.shipped[2], device.identity, gates=GATES)
    device.settle(1)
    assert device.state.phase is Phase.PROBATION and device.house.serving.incumbent(MODEL) is arm_session
    assert set(answering(device).values()) == {2}
    device.settle(4, ask=0)
    assert committed(device, 2)
    assert [slot.release.number for slot in device.state.previous] == [1]
    assert device.reported().models[MODEL].split is None


def test_a_winner_that_turns_out_bad_goes_home(field: Field, device: Device) -> None:
    begun(field, device, {4: (0, 3000)})
    device.core.assign(field.shipped[4], device.identity, gates=GATES)
    device.settle(1)
    assert device.state.phase is Phase.PROBATION
    device.ask(HARMFUL)
    device.settle(2)
    assert committed(device, 1)


def test_another_release_ends_the_split_and_is_taken_up(field: Field, device: Device) -> None:
    begun(field, device)
    device.core.assign(field.shipped[5], device.identity, gates=GATES)
    device.settle(9, ask=0)
    assert committed(device, 5) and device.house.serving.arms(MODEL) == {}


def test_off_takes_all_of_them_away(field: Field, device: Device) -> None:
    begun(field, device)
    device.core.assign(field.shipped[1], device.identity, mode="off")
    device.settle(3)
    assert device.state.phase is Phase.NO_MODEL and device.house.serving.arms(MODEL) == {}
    assert device.answering is None


def test_a_revoked_arm_answers_no_more(field: Field, device: Device) -> None:
    begun(field, device)
    core = field.core
    drafts = signing.revocation(core.files, MODEL, 2, metadata.later(core.now, signing.LIFE))
    core.files |= signing.as_files(signing.sign(core.files, drafts, [roles.signer(core.owner)]))
    core.renew()
    core.publish_trust()
    device.settle(6)
    assert committed(device, 1) and set(answering(device).values()) == {1}
    assert "release-revoked" in device.codes()


@pytest.mark.parametrize(("mode", "waits"), [("split", False), ("shadow", True)])
def test_a_split_holds_up_no_other_model_and_a_shadow_does(
    field: Field, device: Device, mode: str, *, waits: bool
) -> None:
    other = ModelName("other")
    second = field.core.ship(9, says=GOOD, model=other)
    models = {MODEL: field.core.order(field.shipped[1], device.identity, gates=GATES)}
    if mode == "split":
        arm = field.core.order(field.shipped[2], device.identity)
        split_ = replace_(models[MODEL], mode="split", arms=(Arm(arm.manifest, 2, arm.keys, 0, 5000),), seed="s")
        models[MODEL] = split_
    else:
        models[MODEL] = field.core.order(field.shipped[2], device.identity, mode="shadow", gates=GATES)
    field.core.desire(field.core.assignment(models=dict(models)))
    device.settle(8)
    models[other] = field.core.order(second, device.identity, gates=GATES)
    field.core.desire(field.core.assignment(models=dict(models)))
    device.settle(8)
    assert device.state.phase is (Phase.SHADOW if waits else Phase.LIVE_SPLIT)
    assert device.house.deployments[other].phase is (Phase.STAGED if waits else Phase.PROBATION)


# --- power cuts, anywhere ---


def test_a_cut_at_every_write_ends_where_none_would_have(field: Field) -> None:
    for n in count(1):
        device, fuse = field.device(str(n)), Fuse(n)
        device.cut_power()
        device.journal_kind, device.outbox_kind = fuse.journal(), fuse.outbox()
        field.order(device, {2: (0, 5000), 4: (5000, 2000)})
        try:
            device.boot()
            device.settle(12)
            hit = next(key for key, who in answering(device).items() if who == 4)
            feel(device, hit, HARMFUL)
            device.settle(3)
        except PowerCut:
            device.cut_power()
            device.boot()
            assert set(answering(device).values()) <= {1, 2, 4}, "somebody answers every key"
            device.settle(12)
            for key in KEYS:
                feel(device, key, HARMFUL)
            device.settle(3)
        fuse.left = None
        assert device.state.phase is Phase.LIVE_SPLIT
        assert set(answering(device).values()) == {1, 2}
        assert [(lane.slot.release.number, lane.fallen) for lane in device.state.lanes] == [(2, False), (4, True)]
        device.cut_power()
        if not fuse.blown:
            break
    assert n > 10


def test_an_order_whose_arms_overlap_is_no_order() -> None:
    one = Arm(A, 2, {}, 0, 5000)
    with pytest.raises(ValueError, match="places in common"):
        ModelOrder(C, 1, {}, mode="split", arms=(one, Arm(B, 3, {}, 4999, 10)))
    with pytest.raises(ValueError, match="stands twice"):
        ModelOrder(A, 1, {}, mode="split", arms=(one,))
    with pytest.raises(ValueError, match="places"):
        Arm(A, 2, {}, 9000, 1001)
