"""What each phase does with good releases, bad ones, obstacles and changes of mind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edge import proving, slots
from edge.agent import resuming
from edge.agent.ports import Outside
from edge.proving import judge
from edge.states import Deployment, Failure, FailureClass, Phase, Proof, Prove, Proved
from sync import golden, topics
from sync.bindings import Binding
from sync.chunks import digest
from sync.manifest import Profile
from sync.messages import Gates
from sync.names import ModelName, TenantId
from tests.edge.device import Device, committed, honest_prover, new_device
from tests.edge.guardrails import quarantined
from tests.edge.world import GATES, MODEL, TENANT, Core, Shipped, new_identity, table_of

OTHER = ModelName("other")
NAN = float("nan")
LONG = Gates(soak_answers=10_000)
BEYOND = 99  # an index that no table has


@pytest.fixture
def empty(core: Core, ram: Path) -> Device:
    """Switched on, and without a model."""
    return new_device(core, ram).boot()


def committed_number(device: Device) -> int | None:
    return device.state.serving.release.number if device.state.serving else None


def previous(device: Device) -> list[int]:
    return [slot.release.number for slot in device.state.previous]


def restart(device: Device) -> Device:
    device.cut_power()
    return device.boot()


# --- refused before it served ---


def test_golden_vectors_that_differ_leave_no_model_and_a_verdict(core: Core, empty: Device) -> None:
    shipped = core.ship(1, golden_table=(1.0, 1.75, 0.0))
    core.assign(shipped, empty.identity)
    empty.settle(6, ask=0)
    assert empty.state.phase is Phase.NO_MODEL and empty.answering is None
    assert quarantined(empty) == {shipped.digest}
    assert empty.codes() == ["release-offered", "golden-mismatch", "returned"]
    alarm = empty.events()[1]
    assert (alarm.severity, alarm.facts["manifest"], alarm.facts["worst"]) == ("alarm", shipped.digest, 0.25)
    report = empty.reported().models[MODEL]
    assert (report.phase, report.serving, report.quarantined) == ("no_model", None, {shipped.digest: 0})
    assert "golden outputs differ" in report.reason


def test_a_refused_release_is_not_tried_again_until_its_retry_generation_rises(core: Core, device: Device) -> None:
    verdict = Failure(FailureClass.VERDICT, "prove-crashed", "it fell over")
    device.prover = lambda job: verdict
    second = core.ship(2)
    core.assign(second, device.identity)
    device.settle(4, ask=0)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    device.prover = honest_prover
    core.assign(second, device.identity)
    restart(device).settle(6, ask=0)
    assert committed(device, 1)
    core.assign(second, device.identity, retry=1)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_a_model_beyond_its_profile_is_refused(core: Core, device: Device) -> None:
    profile = Profile(p99_ms=5.0, rss_mb=64)
    for number, proof in ((2, Proof(True, 0.0, 6.0, 1.0, cpu_ms=5.5)), (3, Proof(True, 0.0, 1.0, 65.0))):
        device.prover = lambda job, proof=proof: proof  # type: ignore[misc]
        core.assign(core.ship(number, profile=profile), device.identity)
        device.settle(4)
        assert committed(device, 1)
        assert device.codes()[-2:] == ["profile-exceeded", "returned"]
        assert judge(proof, profile) is not None


@pytest.mark.parametrize(
    "bad", [Binding("wat+ch/{entity}", "x"), Binding("w/{entity}", "said/+"), Binding("w/{entity}", "")]
)
def test_a_release_that_cannot_be_bound_is_refused_before_a_chunk_is_fetched(
    core: Core, device: Device, bad: Binding
) -> None:
    second = core.ship(2, bindings=(bad,))
    core.assign(second, device.identity)
    device.settle(4)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert device.codes()[-2:] == ["bad-binding", "returned"]


def test_a_release_that_this_processor_cannot_run_is_refused(core: Core, device: Device) -> None:
    second = core.ship(2, needs=("quantum",))
    core.assign(second, device.identity)
    device.settle(4)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert device.codes()[-2:] == ["no-variant", "returned"]


def test_a_release_of_another_tenant_is_never_taken_in(core: Core, device: Device) -> None:
    core.assign(core.ship(2, tenant=TenantId("rival")), device.identity)
    device.settle(4)
    assert device.state.phase is Phase.FETCHING and device.answering == 1
    assert device.codes()[-1] == "refused-untrusted"


@pytest.mark.parametrize("spoil", ["lacking", "for-another-device", "no-base64"])
def test_keys_that_do_not_open_are_a_verdict_that_better_keys_lift(core: Core, device: Device, spoil: str) -> None:
    second = core.ship(2)
    keys = core.order(second, new_identity(core.root)).keys
    bad = {"lacking": {}, "for-another-device": keys, "no-base64": dict.fromkeys(keys, "!")}[spoil]
    core.assign(second, device.identity, keys=bad)
    device.settle(4)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert device.codes()[-2:] == ["damaged", "returned"]
    core.assign(second, device.identity, retry=1)
    device.settle(8, ask=0)
    assert committed(device, 2)


def _vectors(**inputs: golden.Tensor) -> bytes:
    outputs = golden.Expected(golden.pack({"y": np.zeros(1, np.float32)}), 1e-4)
    return golden.encode(golden.Golden(inputs, {"fp32": outputs}))


@pytest.mark.parametrize(
    ("blobs", "code"),
    [
        ({"vectors": b"no golden vectors"}, "golden-unreadable"),
        ({"vectors": b"\x82\xa6inputs\x81\xa1\xff\x93\xa1f\x90\xc4\x00\xa8expected\x80"}, "golden-unreadable"),
        ({"vectors": _vectors(i=golden.Tensor("f4,,", (1,), b"1234"))}, "golden-unreadable"),
        ({"vectors": _vectors(i=golden.Tensor("int64", (2**64 - 1,), b""))}, "golden-unreadable"),
        ({"vectors": _vectors()}, "schema-mismatch"),
        ({"graph": b"no graph"}, "prove-crashed"),
    ],
    ids=["bytes", "no-utf-8", "dtype", "shape", "no-inputs", "graph"],
)
def test_a_signed_blob_that_is_not_what_it_should_be_is_a_verdict(
    core: Core, device: Device, blobs: dict[str, bytes], code: str
) -> None:
    device.prover = lambda job: proving.prove(job.request, 60.0)
    second = core.ship(2, **blobs)
    core.assign(second, device.identity)
    device.settle(6, ask=0)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert device.codes()[-2:] == [code, "returned"]


def test_a_newer_floor_is_heard_at_rest(core: Core, device: Device) -> None:
    second = core.ship(2)
    device.commit(second)
    core.assign(second, device.identity, floor=2)
    device.settle(2)
    assert committed(device, 2) and previous(device) == [1]
    device.found = frozenset({device.state.serving.release.artifact}) if device.state.serving else frozenset()
    for _ in range(GATES.crashes):
        restart(device)
    assert device.answering is None, "what lies below the floor was revoked"
    assert device.state.phase is Phase.NO_MODEL


def test_a_floor_on_what_was_refused_is_heard_too(core: Core, device: Device) -> None:
    verdict = Failure(FailureClass.VERDICT, "prove-crashed", "it fell over")
    device.prover = lambda job: verdict
    third = core.ship(3)
    core.assign(third, device.identity)
    device.settle(4)
    core.assign(third, device.identity, floor=2)
    device.settle(2)
    assert committed(device, 1), "what serves goes on"
    assert device.state.order is not None and device.state.order.floor == 2


# --- bindings ---


def bound(device: Device) -> int | None:
    manifest = slots.bound(device.state)
    return manifest.number if manifest is not None else None


def test_what_hears_goes_on_without_a_model_over_a_restart_and_ends_with_off(core: Core, empty: Device) -> None:
    first = core.ship(1)
    core.assign(first, empty.identity, gates=LONG)
    empty.settle(4)
    empty.ask(BEYOND)
    empty.settle(2)
    assert (empty.state.phase, bound(empty)) == (Phase.NO_MODEL, 1)
    told: list[int | None] = []
    empty.cut_power()
    empty.boot(link=False)
    assert bound(empty) == 1
    empty.house.outside = Outside(bindings_changed=lambda: told.append(bound(empty)))
    resuming.resume(empty.house, MODEL, empty.now)
    assert told == [1], "a start binds what has no model"
    empty.connect()
    core.assign(first, empty.identity, mode="off")
    empty.settle(2)
    assert told[-1] is None and restart(empty).settle(1) and bound(empty) is None


def test_what_hears_a_first_release_that_an_older_agent_took_up_hears_it_after_the_upgrade(
    core: Core, empty: Device
) -> None:
    """Its journal noted no bindings before something served."""
    empty.prover = lambda job: None
    core.assign(core.ship(1), empty.identity)
    empty.settle(3)
    assert empty.state.phase is Phase.PROVING
    empty.house.write(replace(empty.state, bound=None))
    told: list[int | None] = []
    empty.cut_power()
    empty.boot(link=False)
    empty.house.outside = Outside(bindings_changed=lambda: told.append(bound(empty)))
    resuming.resume(empty.house, MODEL, empty.now)
    assert told == [1]


def test_off_ends_what_hears_a_model_that_serves(core: Core, device: Device) -> None:
    told: list[int | None] = []
    device.house.outside = Outside(bindings_changed=lambda: told.append(bound(device)))
    assert bound(device) == 1
    core.assign(core.ship(2), device.identity, mode="off")
    device.settle(3)
    assert device.state.phase is Phase.NO_MODEL and told[-1] is None
    assert MODEL not in device.house.serving.models(), "whoever asks is not told to wait"


def test_what_hears_is_of_the_release_that_serves(core: Core, device: Device) -> None:
    core.assign(core.ship(2), device.identity, gates=LONG)
    device.settle(3)
    assert (device.state.phase, bound(device)) == (Phase.PROBATION, 2)
    device.ask(BEYOND)
    device.settle(1)
    assert committed(device, 1) and bound(device) == 1


def test_a_release_below_the_floor_is_not_taken_up(core: Core, device: Device) -> None:
    core.assign(core.ship(2), device.identity, floor=3)
    device.settle(4)
    assert committed(device, 1) and device.codes() == ["below-floor"]


# --- obstacles on this host ---


def test_an_obstacle_is_no_verdict_however_often_it_comes(core: Core, device: Device) -> None:
    obstacle = Failure(FailureClass.ENVIRONMENT, "prove-no-child", "no memory for a child")
    tries: list[Prove] = []

    def short_of_memory(job: Prove) -> Proof | Failure:
        tries.append(job)
        return obstacle if len(tries) <= 5 else honest_prover(job)

    device.prover = short_of_memory
    core.assign(core.ship(2), device.identity)
    device.settle(200, ask=0)
    assert committed(device, 2) and len(tries) == 6
    assert device.codes().count("prove-no-child") == 1 and quarantined(device) == set()


def test_a_proof_that_never_came_is_asked_for_again_after_a_restart(core: Core, device: Device) -> None:
    device.prover = lambda job: None
    core.assign(core.ship(2), device.identity)
    device.settle(4)
    assert device.state.phase is Phase.PROVING and device.answering == 1
    device.prover = honest_prover
    restart(device).settle(6, ask=0)
    assert committed(device, 2)


def test_a_proof_that_nobody_waits_for_any_more_is_over_when_it_ends(core: Core, device: Device) -> None:
    late: list[Prove] = []
    device.prover = lambda job: late.append(job)  # type: ignore[func-returns-value]
    core.assign(core.ship(2), device.identity)
    device.settle(3)
    core.assign(core.ship(1), device.identity)
    device.settle(3)
    assert committed(device, 1) and device.house.bench.proving, "the child is at it still"
    device.carry_out(device.agent.handle(Proved(MODEL, late[0].artifact, Proof(True, 0.0, 1.0, 1.0)), device.now))
    assert device.house.bench.proving == {} and committed(device, 1)


def test_a_busy_host_is_asked_again_and_quarantines_nothing(core: Core, device: Device) -> None:
    busy = [True]
    device.prover = lambda job: replace(honest_prover(job), p99_ms=900.0 if busy else 1.0)  # type: ignore[type-var]
    core.assign(core.ship(2), device.identity)
    device.settle(30, ask=0)
    assert device.state.phase is Phase.STAGED and committed_number(device) == 1
    assert device.codes().count("host-busy") == 1 and quarantined(device) == set()
    busy.clear()
    device.settle(60, ask=0)
    assert committed(device, 2)


def test_the_late_proof_of_another_release_proves_nothing(core: Core, device: Device) -> None:
    device.prover = lambda job: None
    core.assign(core.ship(2), device.identity)
    device.settle(3)
    late = Proved(MODEL, digest(b"another"), Proof(True, 0.0, 1.0, 1.0))
    device.carry_out(device.agent.handle(late, device.now))
    device.carry_out(device.agent.handle(Proved(OTHER, late.artifact, late.outcome), device.now))
    assert device.state.phase is Phase.PROVING


def test_what_rotted_on_disk_heals_without_a_person(core: Core, device: Device) -> None:
    for blob in device.house.artifacts.folder.iterdir():
        sealed = blob.read_bytes()
        blob.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    device.cut_power()
    device.boot(link=False)
    assert device.answering is None, "a changed model must not answer"
    device.connect()
    device.settle(8, ask=0)
    assert committed(device, 1) and quarantined(device) == set()
    assert {"load-failed", "blob-rotten"} <= set(device.codes())


def test_while_a_rotten_release_is_fetched_anew_the_previous_answers(core: Core, device: Device) -> None:
    second = core.ship(2)
    core.assign(second, device.identity)
    device.settle(8, ask=0)
    for sealed in second.sealed:
        (device.house.artifacts.folder / sealed).write_bytes(b"rot")
    device.cut_power()
    device.boot(link=False)
    assert device.answering == 1
    device.connect()
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_a_rotten_incumbent_with_a_candidate_under_way_leaves_its_place_to_the_one_before(
    core: Core, device: Device
) -> None:
    second, third = core.ship(2), core.ship(3)
    core.assign(second, device.identity)
    device.settle(8, ask=0)
    device.prover = lambda job: None
    core.assign(third, device.identity)
    device.settle(3)
    assert device.state.phase is Phase.PROVING
    for sealed in second.sealed:
        (device.house.artifacts.folder / sealed).write_bytes(b"rot")
    restart(device)
    assert device.answering == 1 and device.state.serving is not None
    device.prover = honest_prover
    restart(device).settle(6, ask=0)
    assert committed(device, 3) and previous(device) == [1]


# --- on trial ---


def test_a_second_release_takes_over_and_the_first_stays_pinned(core: Core, device: Device) -> None:
    core.assign(core.ship(2), device.identity)
    answered = []
    for _ in range(8):
        device.settle(1, ask=0)
        answered.append(device.answering)
    assert None not in answered, "there is always an answer"
    assert committed(device, 2) and previous(device) == [1]


def test_two_committed_releases_stay_on_disk_and_no_third(core: Core, device: Device) -> None:
    shipped = [core.ship(number) for number in (2, 3, 4)]
    for one in shipped:
        core.assign(one, device.identity)
        device.settle(8, ask=0)
        assert committed(device, one.number)
    assert previous(device) == [3, 2]
    assert set(device.house.artifacts.have()) == {d for one in shipped for d in one.sealed}


@pytest.mark.parametrize(
    ("table", "question", "reason"),
    [
        ((2.0, 2.5, 2.25), BEYOND, "failed answers"),
        ((2.0, 2.5, NAN), 2, "not finite"),
    ],
    ids=["errors", "not-finite"],
)
def test_a_breach_on_trial_brings_the_previous_back_at_once(
    core: Core, device: Device, table: tuple[float, ...], question: int, reason: str
) -> None:
    second = core.ship(2, table)
    core.assign(second, device.identity, gates=LONG)
    device.settle(3)
    assert device.state.phase is Phase.PROBATION and device.answering == 2
    warm = device.house.bench.warm[MODEL]
    device.link.cut()  # going back needs nobody
    device.ask(question)
    device.settle(1)
    assert device.house.serving.incumbent(MODEL) is warm
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert reason in device.state.reason
    assert device.codes()[-2:] == ["guardrail", "returned"]
    device.connect()
    device.settle(4, ask=0)
    assert committed(device, 1), "the assignment still names it, the verdict stands"


def test_a_breach_of_the_first_release_ever_leaves_a_declared_nobody(core: Core, empty: Device) -> None:
    core.assign(core.ship(1), empty.identity, gates=LONG)
    empty.settle(4)
    empty.ask(BEYOND)
    empty.settle(2)
    assert empty.state.phase is Phase.NO_MODEL and empty.answering is None
    assert empty.house.serving.models() == {MODEL: None}, "askers are told to wait"


def test_a_bad_golden_at_the_load_in_this_process_is_a_verdict_too(core: Core, device: Device) -> None:
    second = core.ship(2, golden_table=(7.0, 7.0, 7.0))
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)  # the child was deceived
    core.assign(second, device.identity)
    device.settle(5, ask=0)
    assert committed(device, 1) and quarantined(device) == {second.digest}
    assert device.codes()[-2:] == ["golden-mismatch", "returned"]


def test_the_measured_p99_is_reported_with_the_release(core: Core, device: Device) -> None:
    device.prover = lambda job: replace(honest_prover(job), p99_ms=2.5)  # type: ignore[type-var]
    core.assign(core.ship(2), device.identity)
    device.settle(8, ask=0)
    validated = device.reported().models[MODEL].validated
    assert validated is not None and validated.p99_ms == 2.5


@pytest.mark.parametrize("phase", [Phase.STAGED, Phase.SHADOW, Phase.PROBATION])
def test_a_release_that_takes_the_agent_down_again_and_again_is_given_up(
    core: Core, device: Device, phase: Phase
) -> None:
    second = core.ship(2)
    core.assign(second, device.identity, gates=LONG)
    if phase is not Phase.PROBATION:
        device.prover = lambda job: None
    device.settle(3)
    held = replace(device.state, phase=phase)
    starts = 0
    while not quarantined(device) and starts < 5:
        device.house.journal.write(replace(held, starts=starts))
        restart(device)
        starts += 1
    device.settle(2)
    assert starts == GATES.crashes and committed(device, 1)
    assert device.codes()[-2:] == ["crash-loop", "returned"]


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
    core: Core, device: Device, phase: Phase, stall: Callable[[Core, Device, Shipped], None], mind: str
) -> None:
    one = Shipped(1, _manifest_of(core, device.state), {}, {})
    second, third = core.ship(2), core.ship(3)
    stall(core, device, second)
    core.assign(second, device.identity, gates=LONG)
    device.settle(3, ask=0)
    assert device.state.phase is phase
    device.prover = honest_prover
    if mind == "another":
        core.assign(third, device.identity)
    elif mind == "off":
        core.assign(second, device.identity, mode="off")
    else:
        core.assign(one, device.identity)
    device.settle(10, ask=0)
    assert quarantined(device) == set(), "it did nothing wrong"
    if mind == "off":
        assert device.state.phase is Phase.NO_MODEL and device.answering is None
    else:
        assert committed(device, 3 if mind == "another" else 1)


def _manifest_of(core: Core, state: Deployment) -> bytes:
    assert state.serving is not None
    return core.files[f"{state.serving.release.manifest}.manifest"]


def test_mode_off_takes_the_model_away_without_a_detour_and_live_brings_it_again(core: Core, device: Device) -> None:
    second = core.ship(2)
    core.assign(second, device.identity)
    device.settle(8, ask=0)
    device.acknowledge(99)
    core.assign(second, device.identity, mode="off")
    device.settle(2, ask=0)
    assert device.state.phase is Phase.NO_MODEL and device.answering is None
    assert device.codes() == ["returned"], "release 1 did not answer in between"
    assert restart(device).settle(2).answering is None
    core.assign(second, device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_a_newer_assignment_may_lead_back_to_an_older_release(core: Core, device: Device) -> None:
    one = Shipped(1, _manifest_of(core, device.state), {}, {})
    keys = device.state.serving.keys if device.state.serving else {}
    core.assign(core.ship(2), device.identity)
    device.settle(8, ask=0)
    core.assign(one, device.identity, keys=keys)
    device.settle(8, ask=0)
    assert committed(device, 1)


def two_models(core: Core, device: Device) -> None:
    """Both are assigned at once; one of them is proved, for as long as it takes."""
    device.prover = lambda job: None
    models = {
        name: core.order(core.ship(1, table, model=name), device.identity)
        for name, table in ((MODEL, table_of(1)), (OTHER, table_of(5)))
    }
    core.desire(core.assignment(models=models))
    device.settle(6)


def test_one_model_at_a_time_is_proved_and_tried(core: Core, empty: Device) -> None:
    two_models(core, empty)
    other = empty.house.deployments[OTHER]
    assert (empty.state.phase, other.phase) == (Phase.PROVING, Phase.STAGED), "fetching waits for nobody"
    waits = [event for event in empty.events() if event.code == "waits-its-turn"]
    assert [(event.model, event.facts["holder"]) for event in waits] == [(OTHER, MODEL)], "told once"
    assert other.reason == waits[0].text
    empty.prover = honest_prover
    restart(empty).settle(7, ask=0)
    assert committed(empty, 1)
    assert empty.house.deployments[OTHER].phase is Phase.PROBATION


def test_the_starts_while_a_model_waits_its_turn_are_no_crash_loop(core: Core, empty: Device) -> None:
    two_models(core, empty)
    for _ in range(2):
        restart(empty).settle(1)
        other = empty.house.deployments[OTHER]
        assert (other.phase, other.starts) == (Phase.STAGED, 0)


def test_a_fetch_that_does_not_end_holds_up_no_other_model(core: Core, device: Device) -> None:
    stuck, other = core.ship(2), core.ship(1, table_of(5), model=OTHER)
    core.hub.retained = {t: p for t, p in core.hub.retained.items() if not any(s in t for s in stuck.sealed)}
    core.assign(stuck, device.identity)
    device.settle(2)
    models = {MODEL: core.order(stuck, device.identity), OTHER: core.order(other, device.identity)}
    core.desire(core.assignment(models=models))
    device.settle(6)
    assert device.state.phase is Phase.FETCHING and device.answering == 1
    assert device.house.deployments[OTHER].phase is Phase.PROBATION


def test_a_release_left_behind_stops_no_others_fetch(core: Core, device: Device) -> None:
    stuck, other = core.ship(2), core.ship(1, table_of(5), model=OTHER)
    missing = {*stuck.sealed, *other.sealed}
    core.hub.retained = {t: p for t, p in core.hub.retained.items() if not any(s in t for s in missing)}
    models = {MODEL: core.order(stuck, device.identity), OTHER: core.order(other, device.identity)}
    core.desire(core.assignment(models=models))
    device.settle(3)
    assert set(device.house.downloads) == missing
    under_way = [device.house.downloads[sealed] for sealed in other.sealed]
    core.desire(core.assignment(models={**models, MODEL: core.order(stuck, device.identity, mode="off")}))
    device.settle(2)
    assert list(device.house.downloads.values()) == under_way, "not begun again either"


def test_power_cuts_while_a_release_is_fetched_are_no_crash_loop(core: Core, device: Device) -> None:
    second = core.ship(2)
    held_back = {t: p for t, p in core.hub.retained.items() if any(s in t for s in second.sealed)}
    core.hub.retained = {t: p for t, p in core.hub.retained.items() if t not in held_back}
    core.assign(second, device.identity)
    device.settle(3)
    for _ in range(5):
        restart(device).settle(1)
    assert device.state.phase is Phase.FETCHING
    for topic, payload in held_back.items():
        core.retain(topic, payload)
    device.settle(20, ask=0)
    assert committed(device, 2) and quarantined(device) == set()


def test_a_release_that_takes_the_agent_down_while_it_is_opened_is_given_up(core: Core, device: Device) -> None:
    """All of it is here, and each start ends while its bytes are opened."""
    second = core.ship(2)
    device.prover = lambda job: None
    core.assign(second, device.identity)
    device.settle(4)
    assert device.state.phase is Phase.PROVING
    opening = replace(device.state, phase=Phase.FETCHING, starts=GATES.crashes - 1)
    device.house.journal.write(opening)
    restart(device).settle(2)
    assert quarantined(device) == {second.digest} and committed(device, 1)
    assert device.codes()[-2:] == ["crash-loop", "returned"]


def test_a_model_that_the_assignment_no_longer_names_goes_on(core: Core, device: Device) -> None:
    core.desire(core.assignment(models={}))
    device.settle(3)
    assert committed(device, 1) and restart(device).answering == 1
