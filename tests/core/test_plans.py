"""Plans: what the project asks for, what it falls back to, and how many pairs it needs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.project import Rollout as Settings
from core.rollout import power
from core.rollout.controller import decide
from core.rollout.plans import fallback, generation, plan
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName

NEW = Digest("a" * 64)
MODEL = ModelName("motion")
DEVICES = tuple(DeviceId(f"d{i}") for i in range(3))
NOW = 1000.0


def rollout(state: State = State.APPROVED, **more: object) -> Rollout:
    return replace(Rollout(MODEL, 2, NEW, DEVICES[:1], Gates(), state, NOW, 1), **more)


def test_a_plan_fixes_its_gates() -> None:
    wish = Settings(canary=DEVICES[:1], evidence="guardrails", soak_answers=7, max_errors=2)
    gates = Gates("guardrails", soak_answers=7, max_errors=2)
    made = plan(MODEL, 3, NEW, wish, 2, NOW)
    assert made == Rollout(MODEL, 3, NEW, DEVICES[:1], gates, State.APPROVED, NOW, 2, days=30.0)
    wish = Settings(canary=DEVICES[:1], evidence="labels", margin=0.05, block=30)
    made = plan(MODEL, 3, NEW, wish, 2, NOW, retry=2, forced="me: now")
    assert (made.gates, made.retry, made.forced) == (Gates("labels", margin=0.05, block=30), 2, "me: now")


def test_a_first_release_is_judged_by_guardrails_and_says_so() -> None:
    made = plan(MODEL, 1, NEW, Settings(canary=DEVICES[:1], evidence="labels", block=30), None, NOW)
    assert made.gates == Gates("guardrails", block=30) and "no release to compare it with" in made.reason
    begun = decide(made, {DEVICES[0]: None}, NOW)
    assert begun.rollout.state is State.CANARY and "judged by guardrails" in begun.rollout.reason


def test_a_block_is_ten_bursts_of_the_incumbent_unless_the_project_states_one_and_then_it_says_so() -> None:
    open_to = Settings(canary=DEVICES[:1], evidence="labels")
    sizes = [plan(MODEL, 3, NEW, open_to, 2, NOW, burst=burst).gates.block for burst in (1.0, 5.0, 7.25)]
    assert sizes == [50, 50, 73]
    stated = Settings(canary=DEVICES[:1], evidence="labels", block=60)
    made = plan(MODEL, 3, NEW, stated, 2, NOW, burst=7.25)
    assert made.gates.block == 60 and "errors of release 2 came 7.2 in a row" in made.reason and "73" in made.reason
    assert plan(MODEL, 3, NEW, stated, 2, NOW, burst=6.0).reason == ""
    blind = Settings(canary=DEVICES[:1], evidence="guardrails", block=60)
    assert plan(MODEL, 3, NEW, blind, 2, NOW, burst=7.25).reason == "", "no blocks are counted"


def test_the_generation_of_a_release_is_the_highest_it_ever_had() -> None:
    past = [rollout(State.REVERSED, retry=3), rollout(State.REVERSED, retry=4), rollout(number=1)]
    assert [generation(number, past) for number in (2, 1, 7)] == [4, 0, -1]


@pytest.mark.parametrize("evidence", ["labels", "agreement"])
@pytest.mark.parametrize("margin", [0.0, -0.1, 0.41, 1e-13])
def test_a_plan_that_can_never_decide_is_refused(evidence: str, margin: float) -> None:
    gates = Gates(evidence, margin=margin)  # type: ignore[arg-type]
    found = power.refuse(gates)
    assert found is not None and found.offers == ("guardrails",) and "margin" in found.text
    with pytest.raises(ValueError, match="margin"):
        power.needs(gates)
    assert power.refuse(replace(gates, evidence="guardrails")) is None


def test_what_a_plan_needs_is_counted_in_blocks_and_windows() -> None:
    assert power.needs(Gates()) is None
    found = power.needs(Gates("labels", margin=0.1, block=50))
    assert found is not None
    assert (found.blocks, found.windows) == (68, 3400)
    assert (found.disputed_blocks, found.disputed_windows) == (161, 8050)
    assert "68 blocks of 50 input windows" in found.text and "8,050 windows" in found.text
    tight = power.needs(Gates("agreement", margin=0.001))
    assert tight is not None and tight.disputed_blocks is None and "allow a larger margin" in tight.text
    assert power.refuse(Gates("labels", block=0)) is not None


def test_devices_go_back_to_the_newest_release_that_was_not_reversed() -> None:
    assert fallback(1, [1], []) is None
    assert fallback(3, [1, 2, 3, 4], []) == 2
    bad = [replace(rollout(state), number=number) for number, state in ((2, State.REVERSED), (3, State.REVERSING))]
    assert fallback(4, [1, 2, 3, 4], bad) == 1
    assert fallback(4, [2, 3, 4], bad) is None
    again = [rollout(State.COMPLETE, number=3), *bad]
    assert fallback(4, [1, 2, 3, 4], again) == 3, "rolled out again, it held: the newest rollout counts"


def test_devices_rather_go_back_to_a_release_that_went_beyond_its_canary() -> None:
    shadowed = rollout(State.SUPERSEDED, number=2, assigned=DEVICES[:1])
    done = rollout(State.COMPLETE, number=1)
    assert fallback(3, [1, 2, 3], [shadowed, done]) == 1
    assert fallback(3, [1, 2, 3], [replace(shadowed, assigned=DEVICES), done]) == 2
    assert fallback(3, [2, 3], [shadowed]) == 2, "rather that than none"
