"""What each phase does with good releases, bad ones, obstacles and changes of mind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.proving import judge
from edge.states import Deployment, Failure, FailureClass, Phase, Proof, Prove, Proved
from sync import topics
from sync.chunks import digest
from sync.manifest import Profile
from sync.messages import Gates
from sync.names import ModelName, TenantId
from tests.edge.device import Device, committed, honest_prover, new_device
from tests.edge.world import GATES, MODEL, TENANT, Core, Shipped, new_identity, table_of

OTHER = ModelName("other")
NAN = float("nan")
LONG = Gates(soak_answers=10_000)
BEYOND = 99  # an index that no table has


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def device(core: Core, ram: Path) -> Device:
    return new_device(core, ram).boot()


@pytest.fixture
def served(core: Core, device: Device) -> Device:
    """Release 1 is committed."""
    core.assign(core.ship(1), device.identity)
    device.settle(7, ask=0)
    assert committed(device, 1)
    device.acknowledge(99)
    return device


def quarantined(device: Device) -> set[str]:
    return {q.manifest for q in device.house.journal.quarantined(MODEL)}


def previous(device: Device) -> list[int]:
    return [slot.release.number for slot in device.state.previous]


def restart(device: Device) -> Device:
    device.cut_power()
    return device.boot()


# --- refused before it served ---


def test_golden_vectors_that_differ_leave_no_model_and_a_verdict(core: Core, device: Device) -> None:
    shipped = core.ship(1, golden_table=(1.0, 1.75, 0.0))
    core.assign(shipped, device.identity)
    device.settle(6, ask=0)
    assert device.state.phase is Phase.NO_MODEL and device.answering is None
    assert quarantined(device) == {shipped.digest}
    assert device.codes() == ["release-offered", "golden-mismatch", "returned"]
    alarm = device.events()[1]
    assert (alarm.severity, alarm.facts["manifest"], alarm.facts["worst"]) == ("alarm", shipped.digest, 0.25)
    report = device.reported().models[MODEL]
    assert (report.phase, report.serving, report.quarantined) == ("no_model", None, {shipped.digest: 0})
    assert "golden outputs differ" in report.reason


def test_a_refused_release_is_not_tried_again_until_its_retry_generation_rises(core: Core, served: Device) -> None:
    verdict = Failure(FailureClass.VERDICT, "prove-crashed", "it fell over")
    served.prover = lambda job: verdict
    second = core.ship(2)
    core.assign(second, served.identity)
    served.settle(4, ask=0)
    assert committed(served, 1) and quarantined(served) == {second.digest}
    served.prover = honest_prover
    core.assign(second, served.identity)
    restart(served).settle(6, ask=0)
    assert committed(served, 1)
    core.assign(second, served.identity, retry=1)
    served.settle(8, ask=0)
    assert committed(served, 2)


def test_a_model_beyond_its_profile_is_refused(core: Core, served: Device) -> None:
    profile = Profile(p99_ms=5.0, rss_mb=64)
    for number, proof in ((2, Proof(True, 0.0, 6.0, 1.0)), (3, Proof(True, 0.0, 1.0, 65.0))):
        served.prover = lambda job, proof=proof: proof  # type: ignore[misc]
        core.assign(core.ship(number, profile=profile), served.identity)
        served.settle(4)
        assert committed(served, 1)
        assert served.codes()[-2:] == ["profile-exceeded", "returned"]
        assert judge(proof, profile) is not None


def test_a_release_that_this_processor_cannot_run_is_refused(core: Core, served: Device) -> None:
    second = core.ship(2, needs=("quantum",))
    core.assign(second, served.identity)
    served.settle(4)
    assert committed(served, 1) and quarantined(served) == {second.digest}
    assert served.codes()[-2:] == ["no-variant", "returned"]


def test_a_release_of_another_tenant_is_never_taken_in(core: Core, served: Device) -> None:
    core.assign(core.ship(2, tenant=TenantId("rival")), served.identity)
    served.settle(4)
    assert served.state.phase is Phase.FETCHING and served.answering == 1
    assert served.codes()[-1] == "refused-untrusted"


@pytest.mark.parametrize("spoil", ["lacking", "for-another-device", "no-base64"])
def test_keys_that_do_not_open_are_a_verdict_that_better_keys_lift(core: Core, served: Device, spoil: str) -> None:
    second = core.ship(2)
    keys = core.order(second, new_identity(core.root)).keys
    bad = {"lacking": {}, "for-another-device": keys, "no-base64": dict.fromkeys(keys, "!")}[spoil]
    core.assign(second, served.identity, keys=bad)
    served.settle(4)
    assert committed(served, 1) and quarantined(served) == {second.digest}
    assert served.codes()[-2:] == ["damaged", "returned"]
    core.assign(second, served.identity, retry=1)
    served.settle(8, ask=0)
    assert committed(served, 2)


def test_a_release_below_the_floor_is_not_taken_up(core: Core, served: Device) -> None:
    core.assign(core.ship(2), served.identity, floor=3)
    served.settle(4)
    assert committed(served, 1) and served.codes() == []


# --- obstacles on this host ---


def test_an_obstacle_is_no_verdict_however_often_it_comes(core: Core, served: Device) -> None:
    obstacle = Failure(FailureClass.ENVIRONMENT, "prove-no-child", "no memory for a child")
    tries: list[Prove] = []

    def short_of_memory(job: Prove) -> Proof | Failure:
        tries.append(job)
        return obstacle if len(tries) <= 5 else honest_prover(job)

    served.prover = short_of_memory
    core.assign(core.ship(2), served.identity)
    served.settle(50, ask=0)
    assert committed(served, 2) and len(tries) == 6
    assert served.codes().count("prove-no-child") == 5 and quarantined(served) == set()


def test_a_proof_that_never_came_is_asked_for_again_after_a_restart(core: Core, served: Device) -> None:
    served.prover = lambda job: None
    core.assign(core.ship(2), served.identity)
    served.settle(4)
    assert served.state.phase is Phase.PROVING and served.answering == 1
    served.prover = honest_prover
    restart(served).settle(6, ask=0)
    assert committed(served, 2)


def test_the_late_proof_of_another_release_proves_nothing(core: Core, served: Device) -> None:
    served.prover = lambda job: None
    core.assign(core.ship(2), served.identity)
    served.settle(3)
    late = Proved(MODEL, digest(b"another"), Proof(True, 0.0, 1.0, 1.0))
    served.carry_out(served.agent.handle(late, served.now))
    served.carry_out(served.agent.handle(Proved(OTHER, late.artifact, late.outcome), served.now))
    assert served.state.phase is Phase.PROVING


def test_what_rotted_on_disk_heals_without_a_person(core: Core, served: Device) -> None:
    for blob in served.house.artifacts.folder.iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    served.cut_power()
    served.boot(link=False)
    assert served.answering is None, "a changed model must not answer"
    served.connect()
    served.settle(8, ask=0)
    assert committed(served, 1) and quarantined(served) == set()
    assert {"load-failed", "blob-rotten"} <= set(served.codes())


def test_while_a_rotten_release_is_fetched_anew_the_previous_answers(core: Core, served: Device) -> None:
    second = core.ship(2)
    core.assign(second, served.identity)
    served.settle(8, ask=0)
    for sealed in second.sealed:
        (served.house.artifacts.folder / sealed).write_bytes(b"rot")
    served.cut_power()
    served.boot(link=False)
    assert served.answering == 1
    served.connect()
    served.settle(8, ask=0)
    assert committed(served, 2)


def test_a_rotten_incumbent_with_a_candidate_under_way_leaves_its_place_to_the_one_before(
    core: Core, served: Device
) -> None:
    second, third = core.ship(2), core.ship(3)
    core.assign(second, served.identity)
    served.settle(8, ask=0)
    served.prover = lambda job: None
    core.assign(third, served.identity)
    served.settle(3)
    assert served.state.phase is Phase.PROVING
    for sealed in second.sealed:
        (served.house.artifacts.folder / sealed).write_bytes(b"rot")
    restart(served)
    assert served.answering == 1 and served.state.serving is not None
    served.prover = honest_prover
    restart(served).settle(6, ask=0)
    assert committed(served, 3) and previous(served) == [1]


# --- on trial ---


def test_a_second_release_takes_over_and_the_first_stays_pinned(core: Core, served: Device) -> None:
    core.assign(core.ship(2), served.identity)
    answered = []
    for _ in range(8):
        served.settle(1, ask=0)
        answered.append(served.answering)
    assert None not in answered, "there is always an answer"
    assert committed(served, 2) and previous(served) == [1]


def test_two_committed_releases_stay_on_disk_and_no_third(core: Core, served: Device) -> None:
    shipped = [core.ship(number) for number in (2, 3, 4)]
    for one in shipped:
        core.assign(one, served.identity)
        served.settle(8, ask=0)
        assert committed(served, one.number)
    assert previous(served) == [3, 2]
    assert set(served.house.artifacts.have()) == {d for one in shipped for d in one.sealed}


@pytest.mark.parametrize(
    ("table", "question", "reason"),
    [
        ((2.0, 2.5, 2.25), BEYOND, "failed answers"),
        ((2.0, 2.5, NAN), 2, "not finite"),
    ],
    ids=["errors", "not-finite"],
)
def test_a_breach_on_trial_brings_the_previous_back_at_once(
    core: Core, served: Device, table: tuple[float, ...], question: int, reason: str
) -> None:
    second = core.ship(2, table)
    core.assign(second, served.identity, gates=LONG)
    served.settle(3)
    assert served.state.phase is Phase.PROBATION and served.answering == 2
    warm = served.house.warm[MODEL]
    served.link.cut()  # going back needs nobody
    served.ask(question)
    served.settle(1)
    assert served.house.serving.incumbent(MODEL) is warm
    assert committed(served, 1) and quarantined(served) == {second.digest}
    assert reason in served.state.reason
    assert served.codes()[-2:] == ["guardrail", "returned"]
    served.connect()
    served.settle(4, ask=0)
    assert committed(served, 1), "the assignment still names it, the verdict stands"


def test_a_breach_of_the_first_release_ever_leaves_a_declared_nobody(core: Core, device: Device) -> None:
    core.assign(core.ship(1), device.identity, gates=LONG)
    device.settle(4)
    device.ask(BEYOND)
    device.settle(2)
    assert device.state.phase is Phase.NO_MODEL and device.answering is None
    assert device.house.serving.models() == {MODEL: None}, "askers are told to wait"


def test_a_bad_golden_at_the_load_in_this_process_is_a_verdict_too(core: Core, served: Device) -> None:
    second = core.ship(2, golden_table=(7.0, 7.0, 7.0))
    served.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)  # the child was deceived
    core.assign(second, served.identity)
    served.settle(5, ask=0)
    assert committed(served, 1) and quarantined(served) == {second.digest}
    assert served.codes()[-2:] == ["golden-mismatch", "returned"]


def test_the_measured_p99_is_reported_with_the_release(core: Core, served: Device) -> None:
    served.prover = lambda job: replace(honest_prover(job), p99_ms=2.5)  # type: ignore[type-var]
    core.assign(core.ship(2), served.identity)
    served.settle(8, ask=0)
    validated = served.reported().models[MODEL].validated
    assert validated is not None and validated.p99_ms == 2.5


@pytest.mark.parametrize("phase", [Phase.STAGED, Phase.SHADOW, Phase.PROBATION])
def test_a_release_that_takes_the_agent_down_again_and_again_is_given_up(
    core: Core, served: Device, phase: Phase
) -> None:
    second = core.ship(2)
    core.assign(second, served.identity, gates=LONG)
    if phase is not Phase.PROBATION:
        served.prover = lambda job: None
    served.settle(3)
    held = replace(served.state, phase=phase)
    starts = 0
    while not quarantined(served) and starts < 5:
        served.house.journal.write(replace(held, starts=starts))
        restart(served)
        starts += 1
    served.settle(2)
    assert starts == GATES.crashes and committed(served, 1)
    assert served.codes()[-2:] == ["crash-loop", "returned"]


# --- a change of mind ---


def stall_fetching(core: Core, device: Device, shipped: Shipped) -> None:
    for sealed in shipped.sealed:
        core.hub.retained.pop(topics.blob(TENANT, sealed, 0))


def stall_proving(core: Core, device: Device, shipped: Shipped) -> None:
    device.prover = lambda job: None


def stall_trial(core: Core, device: Device, shipped: Shipped) -> None:
    """Its gates ask for more answers than come."""


STALLS: list[tuple[Phase, Callable[[Core, Device, Shipped], None]]] = [
    (Phase.FETCHING, stall_fetching), (Phase.PROVING, stall_proving), (Phase.PROBATION, stall_trial),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "stall"), STALLS, ids=[p.value for p, _ in STALLS])
@pytest.mark.parametrize("mind", ["another", "off", "back"])
def test_a_newer_assignment_wins_over_what_is_under_way(
    core: Core, served: Device, phase: Phase, stall: Callable[[Core, Device, Shipped], None], mind: str
) -> None:
    one = Shipped(1, _manifest_of(core, served.state), {}, {})
    second, third = core.ship(2), core.ship(3)
    stall(core, served, second)
    core.assign(second, served.identity, gates=LONG)
    served.settle(3, ask=0)
    assert served.state.phase is phase
    served.prover = honest_prover
    if mind == "another":
        core.assign(third, served.identity)
    elif mind == "off":
        core.assign(second, served.identity, mode="off")
    else:
        core.assign(one, served.identity)
    served.settle(10, ask=0)
    assert quarantined(served) == set(), "it did nothing wrong"
    if mind == "off":
        assert served.state.phase is Phase.NO_MODEL and served.answering is None
    else:
        assert committed(served, 3 if mind == "another" else 1)


def _manifest_of(core: Core, state: Deployment) -> bytes:
    assert state.serving is not None
    return core.files[f"{state.serving.release.manifest}.manifest"]


def test_mode_off_takes_the_model_away_without_a_detour_and_live_brings_it_again(core: Core, served: Device) -> None:
    second = core.ship(2)
    core.assign(second, served.identity)
    served.settle(8, ask=0)
    served.acknowledge(99)
    core.assign(second, served.identity, mode="off")
    served.settle(2, ask=0)
    assert served.state.phase is Phase.NO_MODEL and served.answering is None
    assert served.codes() == ["returned"], "release 1 did not answer in between"
    assert restart(served).settle(2).answering is None
    core.assign(second, served.identity)
    served.settle(8, ask=0)
    assert committed(served, 2)


def test_a_newer_assignment_may_lead_back_to_an_older_release(core: Core, served: Device) -> None:
    one = Shipped(1, _manifest_of(core, served.state), {}, {})
    keys = served.state.serving.keys if served.state.serving else {}
    core.assign(core.ship(2), served.identity)
    served.settle(8, ask=0)
    core.assign(one, served.identity, keys=keys)
    served.settle(8, ask=0)
    assert committed(served, 1)


def test_one_model_at_a_time_is_under_way(core: Core, device: Device) -> None:
    mine, other = core.ship(1), core.ship(1, table_of(5), model=OTHER)
    device.prover = lambda job: None
    models = {MODEL: core.order(mine, device.identity), OTHER: core.order(other, device.identity)}
    core.desire(core.assignment(models=models))
    device.settle(4)
    assert device.state.phase is Phase.PROVING
    assert device.house.deployments[OTHER].phase is Phase.NO_MODEL
    device.prover = honest_prover
    restart(device).settle(7, ask=0)
    assert committed(device, 1)
    assert device.house.deployments[OTHER].phase is Phase.PROBATION


def test_a_model_that_the_assignment_no_longer_names_goes_on(core: Core, served: Device) -> None:
    core.desire(core.assignment(models={}))
    served.settle(3)
    assert committed(served, 1) and restart(served).answering == 1
