"""Rollouts that pairs decide, at the steward: what devices are told, what a decision leaves, what outlives a kill."""

from __future__ import annotations

from pathlib import Path

from core import orders
from core.console.facts import gather
from core.console.pages import compose
from core.handoffs import RolloutState as State
from core.rollout.judge import judge
from sync import roles
from sync.evidence import Decision
from sync.messages import REPORTED_TYPE, Reported
from tests.core.pairs import Fleet, begun, desired, paired, shadowing
from tests.core.world import DAY, MODEL, ONE, THREE, TWO, World, serving


def test_a_first_release_is_judged_by_guardrails(fleet: Fleet) -> None:
    first = fleet.rollout()
    assert (first.state, first.gates.evidence, first.previous) == (State.COMPLETE, "guardrails", None)
    assert "judged by guardrails" in fleet.event("rollout-canary").text


def test_a_release_serves_when_the_pairs_say_it_does_no_worse(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    before = desired(world, TWO)
    new = world.release(b"new")
    order = fleet.told()
    assert (fleet.rollout().state, order.mode, order.manifest, order.retry) == (State.SHADOW, "shadow", new[1], 0)
    assert (order.gates.evidence, order.gates.margin, order.gates.block) == ("labels", 0.1, 10)
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=30)}))
    assert (fleet.rollout().state, fleet.told()) == (State.SHADOW, order), "the pairs have not decided"
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=61, minus=12)}))
    live = fleet.told()
    assert (fleet.rollout().state, live.mode, live.manifest, live.retry) == (State.CANARY, "live", new[1], 0)
    assert live.gates.evidence == "guardrails"
    assert desired(world, TWO) == before, "the others wait for the canary"
    world.hear(fleet.one.report({MODEL: serving(new[1], new[0])}))
    assert (fleet.told(TWO).manifest, fleet.told(TWO).mode, fleet.told(TWO).gates) == (new[1], "live", live.gates)
    world.hear(fleet.two.report({MODEL: serving(new[1], new[0])}))
    assert fleet.rollout().state is State.COMPLETE
    assert fleet.rollout().decided[ONE].minus == 12, "what decided stays with it"


def test_pooled_harm_takes_the_canary_back(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"bad")
    world.hear(fleet.one.report({MODEL: shadowing(new, old, plus=15)}))
    assert fleet.rollout().state is State.REVERSING
    back = fleet.told()
    assert (back.manifest, back.number, back.mode) == (old[1], old[0], "live")
    assert back.gates.evidence == "guardrails", "nothing is compared with a release that is being taken back"
    assert fleet.event("rollout-reversing").severity == "alarm"
    world.hear(fleet.one.report({MODEL: serving(old[1], old[0])}))
    assert fleet.rollout().state is State.REVERSED


def test_a_devices_own_verdict_in_shadow_reverses_at_once(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"bad")
    world.hear(fleet.one.report({MODEL: serving(old[1], old[0], quarantined={new[1]: 0}, reason="worse in 14 of 15")}))
    assert fleet.rollout().state is State.REVERSING and "worse in 14 of 15" in fleet.rollout().reason
    assert len(world.catalog.decisions.of(world.catalog.fleet.rollouts()[0][0])) == 1, "its signed word is kept"
    world.tick()
    assert fleet.rollout().state is State.REVERSED


def test_what_is_kept_of_a_decision_lets_anyone_work_it_out_again(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"bad")
    world.hear(fleet.one.report({MODEL: shadowing(new, old, plus=25, zero=1, minus=1)}))
    key, rollout = world.catalog.fleet.rollouts()[0]
    (heard,) = world.catalog.decisions.of(key)
    signing = [roles.public_key_from_raw(row.signing_key) for row in world.catalog.fleet.devices() if row.device == ONE]
    report = roles.verify(heard.envelope, REPORTED_TYPE, Reported, signing)
    again = judge(rollout, {heard.device: report.models[MODEL]})
    assert again.decision is Decision.HARM and again.text in rollout.reason
    facts = fleet.event("rollout-reversing").facts
    assert (facts["plus"], facts["zero"], facts["minus"], facts["margin"]) == (25, 1, 1, 0.1)
    assert (facts["log_harm"], facts["harm_at"]) == (again.log_harm, again.harm_at)
    assert (facts["log_safe"], facts["safe_at"]) == (again.log_safe, again.safe_at)
    assert facts["devices"] == {ONE: {"plus": 25, "zero": 1, "minus": 1, "epoch": 1, "seq": report.seq}}


def test_a_kill_in_the_shadow_forgets_nothing(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"new")
    world.reopen()
    assert (fleet.rollout().state, fleet.told().mode) == (State.SHADOW, "shadow")
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=80)}))
    world.reopen()
    world.tick()
    assert (fleet.rollout().state, fleet.told().mode) == (State.CANARY, "live")


def test_a_renewed_assignment_says_the_same_again(fleet: Fleet) -> None:
    fleet.world.release(b"new")
    order = fleet.told()
    fleet.world.tick(4 * DAY)
    again = fleet.told()
    assert (again.mode, again.gates, again.retry) == (order.mode, order.gates, order.retry)


def test_a_release_that_is_approved_again_goes_out_in_a_higher_generation(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"bad")
    said = serving(old[1], old[0], quarantined={new[1]: 0})
    world.hear(fleet.one.report({MODEL: said}))
    world.tick()
    world.must(world.approval(new[0]))
    assert (fleet.rollout().state, fleet.told().retry) == (State.SHADOW, 1)
    world.hear(fleet.one.report({MODEL: said}))
    assert fleet.rollout().state is State.SHADOW, "that verdict was of the generation before"
    world.hear(fleet.one.report({MODEL: shadowing(new, old, 0, zero=80)}))
    assert fleet.rollout().state is State.SHADOW, "and so are these pairs"
    world.hear(fleet.one.report({MODEL: shadowing(new, old, 1, zero=80)}))
    assert fleet.rollout().state is State.CANARY


def test_devices_go_back_in_the_generation_the_release_before_was_rolled_out_with(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    world.must(world.approval(old[0]))
    new = world.release(b"bad")
    world.hear(fleet.one.report({MODEL: shadowing(new, old, plus=15)}))
    assert (fleet.told().manifest, fleet.told().retry) == (old[1], 1)


def test_a_reversal_that_is_superseded_stays_a_reversal(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    bad = world.release(b"bad")
    world.hear(fleet.one.report({MODEL: shadowing(bad, old, plus=15)}))
    world.release(b"third")
    states = {r.number: r.state for _, r in world.catalog.fleet.rollouts(active=False)}
    assert (states[bad[0]], fleet.rollout().previous) == (State.REVERSED, old[0])
    world.release(b"fourth")
    assert fleet.rollout().previous == old[0], "neither the reversed one nor one that never left the shadow"


def test_an_approval_says_what_its_pairs_need(fleet: Fleet) -> None:
    world = fleet.world
    needs = world.must(world.approval(world.stage(b"new")))["needs"]
    assert (needs["blocks"], needs["windows"]) == (68, 680) and "68 blocks" in needs["text"]


def test_a_plan_that_can_never_decide_is_not_approved(fleet: Fleet) -> None:
    world = fleet.world
    world.must(orders.ApplyProject(project=paired(margin=0.0), folder=str(world.folder)))
    number, sent = world.stage(b"new"), len(world.sent)
    answer = world.order(world.approval(number))
    assert (answer.ok, answer.code) == (False, "never-decides") and "guardrails" in answer.hint
    found = world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "staged" and len(world.sent) == sent


def test_assignments_of_an_older_core_are_signed_anew_with_the_tenants_key(fleet: Fleet) -> None:
    world = fleet.world
    assert desired(world, ONE).tenant_key == world.house.tenant_key != ""
    world.house.tenant_key = ""
    world.tick(4 * DAY)
    older = desired(world, ONE)
    assert older.tenant_key == ""
    world.reopen()
    world.tick()
    newer = desired(world, ONE)
    assert (newer.tenant_key, newer.seq, newer.models.keys()) == (
        world.house.tenant_key,
        older.seq + 1,
        older.models.keys(),
    )
    assert world.tick() == [], "once"


def test_a_shadow_that_is_superseded_ends_at_once_on_every_device(tmp_path: Path) -> None:
    fleet = begun(World(tmp_path))
    world, old = fleet.world, fleet.old
    world.release(b"second")
    assert fleet.told(ONE).mode == "shadow"
    world.must(orders.ApplyProject(project=paired((TWO,)), folder=str(world.folder)))
    third = world.release(b"third")
    assert (fleet.told(ONE).manifest, fleet.told(ONE).mode) == (old[1], "live"), "nobody would weigh its pairs"
    assert (fleet.told(TWO).manifest, fleet.told(TWO).mode) == (third[1], "shadow")
    world.catalog.close()


def test_who_enrols_while_a_rollout_is_open_serves_what_the_others_serve(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    new = world.release(b"new")
    late = world.enrol(THREE)
    assert (fleet.told(THREE).manifest, fleet.told(THREE).mode) == (old[1], "live")
    seq = desired(world, THREE).seq
    world.hear(late.report({MODEL: serving(old[1], old[0])}))
    world.tick()
    assert desired(world, THREE).seq == seq, "once"
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=80)}))
    world.hear(fleet.one.report({MODEL: serving(new[1], new[0])}))
    assert fleet.told(THREE).manifest == new[1], "and it is part of the ramp"


def test_a_device_that_enrols_again_in_shadow_is_told_the_same_for_its_new_keys(fleet: Fleet) -> None:
    world = fleet.world
    world.release(b"new")
    before = fleet.told()
    world.enrol(ONE)
    again = desired(world, ONE)
    assert (again.epoch, again.models[MODEL].mode, again.models[MODEL].manifest) == (2, "shadow", before.manifest)


def test_what_a_device_said_before_it_was_told_is_no_commitment(fleet: Fleet) -> None:
    world, old = fleet.world, fleet.old
    third = world.enrol(THREE)
    world.hear(third.report({MODEL: serving(old[1], old[0])}))
    new = world.release(b"new")
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=80)}))
    world.hear(fleet.one.report({MODEL: serving(new[1], new[0])}, seen=desired(world, ONE).seq))
    assert fleet.rollout().state is State.RAMP
    world.hear(fleet.two.report({MODEL: serving(old[1], old[0], quarantined={new[1]: 0})}))
    world.hear(third.report({MODEL: serving(old[1], old[0], quarantined={new[1]: 0})}))
    assert fleet.rollout().state is State.REVERSING, "and the canary has not yet heard of it"
    heard = desired(world, ONE).seq
    world.must(orders.Force(actor="owner", model=MODEL, number=new[0], reason="again"))
    world.tick()
    said = {MODEL: serving(new[1], new[0])}
    world.hear(fleet.one.report(said, seen=heard))
    assert (fleet.rollout().state, fleet.rollout().retry) == (State.CANARY, 1), "that was the rollout before"
    world.hear(fleet.one.report(said, seen=desired(world, ONE).seq))
    assert fleet.rollout().state is State.RAMP


def test_a_device_that_left_the_fleet_holds_nobody_up(tmp_path: Path) -> None:
    fleet = begun(World(tmp_path), canary=(ONE, TWO))
    world, old = fleet.world, fleet.old
    new = world.release(b"new")
    world.catalog._db.execute("UPDATE device SET state = 'revoked' WHERE device = ?", (TWO,))
    world.hear(fleet.one.report({MODEL: shadowing(new, old, zero=80)}))
    told = len(world.sent)
    world.hear(fleet.one.report({MODEL: serving(new[1], new[0])}))
    world.tick()
    assert fleet.rollout().state is State.COMPLETE
    assert not any(m.topic.endswith(f"{TWO}/desired") for m in world.sent[told:])
    world.catalog.close()


def test_a_shadow_whose_incumbent_is_revoked_waits_for_a_person_and_its_page_says_so(fleet: Fleet) -> None:
    world = fleet.world
    number, _ = world.release(b"new")
    assert (fleet.rollout().state, fleet.told().mode) == (State.SHADOW, "shadow")
    world.must(world.revocation(fleet.old[0]))
    assert fleet.rollout().state is State.PAUSED and "its incumbent was revoked: a test" in fleet.rollout().reason
    assert (fleet.told().number, fleet.told().mode) == (number, "off"), "there is none to go back to"
    (card,) = compose(gather(world.catalog, world.now), world.now).rollouts
    assert [(stage.name, stage.place) for stage in card.stages][-1] == ("paused", "here")
