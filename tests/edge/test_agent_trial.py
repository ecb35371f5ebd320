"""A release beside the incumbent and in its place: who waits, who decides, what is left after a verdict or a cut."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.agent.reporting import overview
from edge.states import Phase
from sync.evidence import ALPHA_HARM, Decision
from sync.messages import Gates
from sync.reports import TrialReport, WhyCard
from tests.edge.device import Device, committed, new_device
from tests.edge.on_trial import BEYOND, GOOD, LABELS, NAN, TRUTH, Field, live
from tests.edge.power import Fuse, PowerCut
from tests.edge.world import MODEL


@pytest.fixture
def field(ram: Path) -> Field:
    return Field(ram)


@pytest.fixture
def device(field: Field) -> Device:
    return field.device()


def trial(device: Device) -> TrialReport:
    found = device.reported().models[MODEL].trial
    assert found is not None
    return found


def verdicts(device: Device) -> dict[str, int]:
    return dict(device.reported().models[MODEL].quarantined)


# --- in shadow ---


def test_in_shadow_the_incumbent_answers_until_the_core_says_live(field: Field, device: Device) -> None:
    field.order(device, 2)
    device.settle(4)
    assert device.state.phase is Phase.SHADOW
    assert set(live(device, 30)) == {1}, "however good it looks: safe is the core's word"
    assert device.state.phase is Phase.SHADOW and verdicts(device) == {}
    assert trial(device).zero == 15 and trial(device).manifest == field.shipped[2].digest
    assert device.reported().models[MODEL].answers >= 16
    field.order(device, 2, mode="live", gates=replace(LABELS, evidence="guardrails"))
    device.settle(1)
    assert device.state.phase is Phase.PROBATION and device.answering == 2
    device.settle(5, ask=0)
    assert committed(device, 2)
    assert device.reported().models[MODEL].trial is None
    codes = ["release-offered", "release-proved", "shadow-begun", "probation-begun", "release-committed"]
    assert device.codes() == codes


def test_live_without_a_shadow_does_not_wait_there(field: Field, device: Device) -> None:
    field.order(device, 2, mode="live")
    device.settle(4)
    assert device.state.phase is Phase.PROBATION


def test_without_an_incumbent_there_is_nothing_to_wait_for(field: Field) -> None:
    device = new_device(field.core, field.folder / "bare").boot()
    field.order(device, 2)
    device.settle(8, ask=0)
    assert committed(device, 2) and "shadow-begun" not in device.codes()


def test_harm_in_shadow_is_a_verdict_and_the_incumbent_never_stopped(field: Field, device: Device) -> None:
    field.order(device, 3)
    device.settle(4)
    session = device.house.serving.incumbent(MODEL)
    device.link.cut()  # it decides by itself
    answered = live(device, 60)
    assert set(answered) == {1} and device.house.serving.incumbent(MODEL) is session
    assert committed(device, 1) and device.house.evidence.trials.report(MODEL) is None
    (card,) = device.house.journal.why()
    device.connect()
    device.settle(2)
    assert verdicts(device) == {field.shipped[3].digest: 0}
    assert device.codes()[-2:] == ["worse-than-incumbent", "returned"]
    assert device.cards() == [card]
    check(card, "shadow", field)
    field.order(device, 3)
    device.settle(4)
    assert committed(device, 1), "not again in the same generation"


def test_harm_that_the_core_saw_first_is_still_this_devices_verdict(field: Field, device: Device) -> None:
    """Labels come between a look at the pairs and the report of them: the core decides on what was reported."""
    field.order(device, 3)
    device.settle(4)
    while device.house.evidence.trials.decision(MODEL)[0] is not Decision.HARM:
        device.feel(0, TRUTH)
    field.order(device, 1, mode="live")
    device.settle(2)
    assert committed(device, 1) and verdicts(device) == {field.shipped[3].digest: 0}
    (card,) = device.house.journal.why()
    check(card, "shadow", field)


def check(card: WhyCard, phase: str, field: Field) -> None:
    """The card of the bad release 3 against release 1 says all it should."""
    assert (card.model, card.phase, card.criterion) == (MODEL, phase, "worse-than-incumbent")
    assert card.old is not None and (card.new.number, card.old.number) == (3, 1)
    assert card.new.manifest == field.shipped[3].digest and (card.new.accuracy, card.old.accuracy) == (0.0, 1.0)
    assert card.new.answers > 0 and card.new.p99_ms == card.old.p99_ms == 1.0
    assert card.trial is not None and (card.trial.zero, card.trial.minus) == (0, 0) and card.trial.plus > 5
    assert card.log_harm is not None and card.harm_at is not None and card.log_harm >= card.harm_at
    assert round(card.harm_at, 3) == 4.605 and ALPHA_HARM == 0.01
    assert card.log_safe is not None and card.safe_at is not None and card.log_safe < card.safe_at
    blocks, labels = card.trial.plus, card.trial.labels
    assert card.text == (
        f"worse in {blocks} of {blocks} blocks and better in 0: "
        f"right in 0.00 of {labels} labelled windows, the incumbent in 1.00"
    )


def test_under_agreement_a_release_that_differs_is_refused_without_any_label(field: Field, device: Device) -> None:
    field.order(device, 3, gates=replace(LABELS, evidence="agreement"))
    device.settle(4)
    live(device, 60, label=None)
    assert committed(device, 1) and verdicts(device) == {field.shipped[3].digest: 0}
    (card,) = device.house.journal.why()
    assert card.text.startswith("other answers than the incumbent in") and card.new.accuracy is None


def test_labels_that_come_late_decide_as_well(field: Field, device: Device) -> None:
    field.order(device, 3)
    device.settle(4)
    live(device, 60, label=None)
    assert device.state.phase is Phase.SHADOW
    device.settle(1)
    told = device.house.evidence.trials.report(MODEL)
    assert told is not None and (told.waiting, told.plus) == (60, 0)
    for n in range(60):
        device.house.evidence.trials.label(f"w1-{device.felt - n}", TRUTH)
    device.settle(1)
    assert committed(device, 1) and verdicts(device) == {field.shipped[3].digest: 0}


@pytest.mark.parametrize("evidence", ["labels", "guardrails"])
def test_a_candidate_that_gives_no_number_in_shadow_is_refused_at_once(
    field: Field, device: Device, evidence: str
) -> None:
    field.shipped[4] = field.core.ship(4, (4.0, 4.5, NAN), says=GOOD)
    field.order(device, 4, gates=replace(LABELS, evidence=evidence))
    device.settle(4)
    assert live(device, 1, index=2) == [1]
    assert committed(device, 1) and verdicts(device) == {field.shipped[4].digest: 0}
    (card,) = device.house.journal.why()
    assert (card.criterion, card.new.errors) == ("guardrail", 1) and "not finite" in card.text


def test_a_candidate_that_breaks_in_shadow_more_often_than_allowed_is_refused(field: Field, device: Device) -> None:
    field.shipped[4] = field.core.ship(4, (4.0, 4.5), says=(0, 1))  # it knows of two indices only
    field.order(device, 4, gates=replace(LABELS, max_errors=1))
    device.settle(4)
    live(device, 1, index=2)
    assert device.state.phase is Phase.SHADOW
    assert live(device, 1, index=2) == [1]
    assert committed(device, 1) and "failed answers" in device.house.journal.why()[0].text


def test_a_newer_assignment_ends_a_shadow_without_a_verdict(field: Field, device: Device) -> None:
    field.order(device, 3)
    device.settle(4)
    live(device, 4)
    field.order(device, 2, mode="live", gates=Gates(soak_answers=3))
    device.settle(6, ask=0)
    assert committed(device, 2) and verdicts(device) == {} and device.house.journal.why() == []


# --- in probation ---


def test_a_forced_release_is_taken_back_by_the_device_within_its_first_blocks(field: Field, device: Device) -> None:
    field.order(device, 3)
    device.settle(4)
    live(device, 60)
    assert verdicts(device) == {field.shipped[3].digest: 0}
    field.order(device, 3, mode="live", retry=1)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION and device.answering == 3
    warm = device.house.bench.warm[MODEL]
    device.link.cut()
    answered = live(device, 60)
    assert None not in answered and answered[-1] == 1 and answered.count(3) < 40
    assert device.house.serving.incumbent(MODEL) is warm and committed(device, 1)
    check(device.house.journal.why()[0], "probation", field)
    device.connect()
    device.settle(2)
    assert verdicts(device) == {field.shipped[3].digest: 1}, "the generation of the verdict"
    assert [c.phase for c in device.house.journal.why(MODEL)] == ["probation", "shadow"]
    assert [c["phase"] for c in overview(device.house)["why"]] == ["probation", "shadow"]  # type: ignore[attr-defined]


def test_under_labels_a_release_is_committed_when_its_own_pairs_say_safe(field: Field, device: Device) -> None:
    field.order(device, 2, mode="live", gates=replace(LABELS, margin=0.2))
    device.settle(4)
    live(device, 10)
    assert device.state.phase is Phase.PROBATION, "the soak is over, the pairs have not spoken"
    live(device, 80)
    assert committed(device, 2) and device.house.evidence.trials.report(MODEL) is None


def test_the_pairs_of_the_shadow_go_on_in_probation_under_the_same_gates(field: Field, device: Device) -> None:
    field.order(device, 3)
    device.settle(4)
    live(device, 8)
    field.order(device, 3, mode="live")
    device.settle(1)
    assert device.state.phase is Phase.PROBATION and trial(device).plus == 4
    live(device, 4)
    assert trial(device).plus == 6


def test_after_a_restart_in_probation_the_one_before_is_there_to_be_compared_with(field: Field, device: Device) -> None:
    field.order(device, 3, mode="live")
    device.settle(4)
    live(device, 8)
    device.house.evidence.trials.checkpoint()
    device.cut_power()
    device.boot().settle(1)
    assert device.state.phase is Phase.PROBATION and device.answering == 3
    assert trial(device).plus == 4
    live(device, 60)
    assert committed(device, 1) and device.house.journal.why()[0].criterion == "worse-than-incumbent"


def test_where_the_one_before_does_not_load_any_more_the_guardrails_judge(field: Field, device: Device) -> None:
    field.order(device, 2, mode="live", gates=replace(LABELS, soak_answers=20))
    device.settle(4)
    for sealed in field.shipped[1].sealed:
        (device.house.artifacts.folder / sealed).write_bytes(b"rot")
    device.cut_power()
    device.boot().settle(2, ask=0)
    assert device.state.phase is Phase.PROBATION and device.codes().count("no-incumbent") == 1
    device.settle(30, ask=0)
    assert committed(device, 2)


# --- orders and reports ---


@pytest.mark.parametrize("phase", [Phase.PROVING, Phase.SHADOW])
def test_a_change_of_the_same_order_is_kept_and_starts_nothing_anew(field: Field, device: Device, phase: Phase) -> None:
    if phase is Phase.PROVING:
        device.prover = lambda job: None
    field.order(device, 2)
    device.settle(4)
    since = device.state.since
    field.order(device, 2, retry=4, gates=replace(LABELS, margin=0.3))
    device.settle(2)
    order = device.state.order
    assert (device.state.phase, device.state.since) == (phase, since)
    assert order is not None and (order.retry, order.gates.margin) == (4, 0.3)
    device.cut_power()
    assert device.boot(link=False).state.order == order


def test_the_report_is_rewritten_with_blocks_and_not_with_pairs(field: Field, device: Device) -> None:
    field.order(device, 3, gates=replace(LABELS, block=4, margin=0.4))
    device.settle(4)
    live(device, 13)
    first = device.reported().seq
    live(device, 2)
    assert device.reported().seq == first and trial(device).plus == 3
    live(device, 1)
    assert (device.reported().seq, trial(device).plus) == (first + 1, 4)


def test_blocks_alone_rewrite_the_report_at_most_once_a_second(field: Field, device: Device) -> None:
    field.order(device, 2)
    device.settle(4)
    live(device, 2)  # a block: it is told now
    first = device.reported().seq
    for n in range(8):
        device.feel(0, TRUTH)
        device.carry_out(device.agent.tick(device.now + n / 10))
        device.core.hub.run()
    assert device.reported().seq == first, "a number is a write to the disk"
    device.settle(1)
    assert (device.reported().seq, trial(device).pairs) == (first + 1, 10)


def test_books_that_a_cut_left_behind_end_with_the_next_start(field: Field, device: Device) -> None:
    field.order(device, 2)
    device.settle(4)
    live(device, 2)
    books = device.folder / "trials" / MODEL
    left = books.read_bytes()
    field.order(device, 2, mode="live", gates=replace(LABELS, evidence="guardrails"))
    device.settle(6, ask=0)
    assert committed(device, 2) and not books.exists()
    books.write_bytes(left)
    device.cut_power()
    device.boot().settle(1)
    assert committed(device, 2) and not books.exists()


def test_a_release_that_takes_the_agent_down_in_shadow_is_given_up_but_not_for_power_cuts(
    field: Field, device: Device
) -> None:
    field.order(device, 2)
    device.settle(4)
    for _ in range(6):  # it answers in between
        device.cut_power()
        device.boot().settle(1)
        live(device, 3)
    assert device.state.phase is Phase.SHADOW and verdicts(device) == {}
    for _ in range(3):  # it does not
        device.cut_power()
        device.boot().settle(1)
    assert committed(device, 1) and verdicts(device) == {field.shipped[2].digest: 0}
    assert device.house.journal.why()[0].criterion == "crash-loop"


# --- power cuts ---


def shadow_of_a_bad_one(field: Field, device: Device) -> None:
    field.order(device, 3)


def forced_bad_one(field: Field, device: Device) -> None:
    field.order(device, 3, mode="live")


def good_one(field: Field, device: Device) -> None:
    field.order(device, 2)


STORIES: dict[str, tuple[Callable[[Field, Device], None], Phase, bool]] = {
    "bad-in-shadow": (shadow_of_a_bad_one, Phase.STEADY, True),
    "bad-and-forced": (forced_bad_one, Phase.STEADY, True),
    "good-in-shadow": (good_one, Phase.SHADOW, False),
}


@pytest.mark.parametrize("name", STORIES)
def test_after_a_power_cut_at_any_write_a_trial_ends_the_same(field: Field, name: str) -> None:
    begin, ends_in, refused = STORIES[name]
    for n in count(1):
        fuse = Fuse(n)
        device = field.device(str(n), fuse=fuse)
        begin(field, device)
        try:
            device.boot().settle(4)
            answered = live(device, 26)
        except PowerCut:
            device.cut_power()
            device.boot().settle(4)
            answered = live(device, 26)
        assert None not in answered, "somebody always answers"
        assert device.state.phase is ends_in and device.answering == 1, f"cut at write {n}"
        assert bool(verdicts(device)) is refused
        assert len(device.house.journal.why()) == refused
        assert {card.criterion for card in device.cards()} == ({"worse-than-incumbent"} if refused else set())
        device.cut_power()
        if not fuse.blown:
            break
    assert n > 4, "the fuse saw the writes"


def test_a_trial_that_is_cut_again_and_again_counts_every_window_once(field: Field, device: Device) -> None:
    field.order(device, 2)
    device.settle(4)
    for _ in range(6):
        live(device, 5)
        device.cut_power()
        device.boot().settle(1)
    told = device.house.evidence.trials.report(MODEL)
    assert told is not None and 24 <= told.pairs <= 30 and 2 * told.zero <= told.pairs


def test_a_question_that_no_release_can_answer_is_no_pair(field: Field, device: Device) -> None:
    field.order(device, 2, gates=replace(LABELS, max_errors=5))
    device.settle(4)
    assert live(device, 1, index=BEYOND) == [None]
    assert trial(device).pairs == 0
