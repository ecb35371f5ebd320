"""Act two with real processes, and kill -9 of agents and of the whole core at its tenderest moments: every window that
was sent is answered, once, and every rollout comes to the end it would have come to.

The exact instants between two writes are covered by power cuts (tests/edge/test_agent_trial.py); here the kernel kills.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.demo.counting import Count
from appliance.demo.people import Wearer
from appliance.demo.stage import Stage, replaced
from core.orders import Force, Override, Train
from tests.journey.made_up import recordings
from tests.journey.real import MODEL, PROJECT, act_one, kill, kill_core, kill_reverting, left_in, model, phase
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.broker]

SUBJECTS = (1, 2, 3)
EVERYTHING = recordings(SUBJECTS, 2400) + recordings(SUBJECTS, 2400, seed=4, side="left")
REST, AFTER, LAST = 13_000, 24_000, 3_000  # samples of each watch: before the move, after it, at the very end
FAST, STEADY, SLOW = 20.0, 4.0, 2.0  # batches a second and watch; pairs decide after some 140 of their windows
GOOD_CANARY, BAD_CANARY = "watch-1", "watch-3"  # one that has moved, and one that has not
PATIENCE = 60.0
GIVEN_UP = ("reverting", "steady")  # the second where the machine was so busy that the kill came one write too late


def quicker(text: str) -> str:
    """The demo's project with a shorter baseline and training: these movements are easier than people's."""
    text = replaced(text, r"^drift = .*$", "drift = { window = 50, baseline = 240, alarm = 10000.0 }")
    return text.replace("epochs = 60", "epochs = 25").replace("samples = 1200", "samples = 100")


class Tale:
    """What happens, and when whom is killed."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.machines, self.api = stage, stage.machines, stage.machines.api
        self.kills: list[str] = []

    # --- who is killed ---

    def kill_agent(self, name: str, at: str) -> None:
        """Dead in this very phase, as its own journal says, and started again."""
        kill(self.person(name).device)
        assert left_in(self.person(name).device) == at
        self.agent_again(name, f"{name} in {at}")

    def agent_again(self, name: str, killed: str) -> None:
        """Started after it was killed: it answers with a verified model. Its watch has gone on all the while."""
        wearer, before = self.person(name), len(self.person(name).count.expected)
        wearer.device.start()
        eventually(
            lambda: bool(model(wearer.device).get("validated")), f"{name} to answer with a verified model", PATIENCE
        )
        meanwhile = len(wearer.count.expected) - before
        assert meanwhile > 0
        self.kills.append(f"{killed}; {meanwhile} windows came meanwhile")

    def kill_core(self, at: str) -> set[str]:
        """All of it dead, and started again; the devices have gone on all the while."""
        before = self.answered()
        killed = kill_core(self.machines)
        assert {"run", "steward", "console", "enrolment"} <= killed
        self.machines.run_core()
        meanwhile = self.answered() - before
        assert meanwhile > 0
        self.kills.append(f"core in {at}; {meanwhile} windows were answered meanwhile")
        return killed

    # --- what the people do ---

    def all_send(self, samples: int) -> dict[str, Count]:
        """Everybody, so many samples; every window was answered once."""
        for wearer in self.stage.people:
            wearer.begin(FAST, samples=samples)
        return {wearer.name: wearer.finish() for wearer in self.stage.people}

    def stream(self, canary: str = "", rate: float = STEADY) -> None:
        """Everybody goes on until `still`; what the canary's windows were is told as it goes."""
        for wearer in self.stage.people:
            here = wearer.name == canary
            wearer.begin(rate if here else SLOW, labels=here)

    def still(self) -> None:
        """Every complete window of the phase was answered, under one id."""
        for wearer in self.stage.people:
            wearer.end()

    # --- what can be seen ---

    def person(self, name: str) -> Wearer:
        return self.stage.person(name)

    def wait_phase(self, name: str, wanted: str, pairs: int = 0) -> dict[str, Any]:
        """The device's word on its model, the moment it is in this phase with so many pairs."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.clear()
            seen.update(model(self.person(name).device))
            return seen.get("phase") == wanted and (not pairs or (seen["trial"] or {}).get("pairs", 0) >= pairs)

        eventually(there, f"{name} in {wanted}", PATIENCE)
        return seen

    def wait_rollout(self, number: int, state: str) -> dict[str, Any]:
        return self.stage.await_rollout(number, (state,), PATIENCE)

    def serve(self, number: int) -> None:
        """All devices stand still, and serve this release."""
        devices = [w.device for w in self.stage.people]
        eventually(lambda: {phase(d) for d in devices} == {"steady"}, "all devices to stand still", PATIENCE)
        assert {w.name: model(w.device)["serving"]["number"] for w in self.stage.people} == {
            w.name: number for w in self.stage.people
        }

    def answered(self) -> int:
        """Windows answered in this phase."""
        return sum(w.count.answered() for w in self.stage.people)

    def training(self) -> list[dict[str, Any]]:
        """Jobs that are training now."""
        jobs = self.api.get("/v1/jobs")["jobs"]
        return [j for j in jobs if j["kind"] == "train" and j["finished"] is None and j["stage"] == "training"]

    def events(self, code: str) -> int:
        return sum(e["code"] == code for e in self.api.get("/v1/events?limit=500")["events"])

    def card(self, number: int, in_phase: str) -> dict[str, Any]:
        """The why card of the bad release's canary, as it came to the core: one, whatever was killed."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            cards = self.api.get(f"/v1/why?model={MODEL}")["whys"]
            found[:] = [c for c in cards if (c["device"], c["new"]["number"]) == (BAD_CANARY, number)]
            found[:] = [c for c in found if c["phase"] == in_phase]
            return bool(found)

        eventually(there, f"the why card of {BAD_CANARY}", PATIENCE)
        (card,) = found
        return card


@pytest.fixture
def tale(tmp_path: Path) -> Iterator[Tale]:
    with (
        act_one(tmp_path, EVERYTHING, quicker(PROJECT.read_text())) as act,
        Stage(act.machines, act.story, act.cast) as stage,
    ):
        yield Tale(stage)


def test_killed_at_every_tender_moment_act_two_comes_to_its_end(tale: Tale) -> None:
    began = time.monotonic()
    drifted(tale)
    number = learned(tale)
    rolled_out(tale, number)
    bad = overridden(tale)
    refused_in_shadow(tale, bad, number)
    sent_home(tale, bad, number)
    recovered(tale, number)
    total = sum(w.windows for w in tale.stage.people)
    print(f"\n{total} windows sent, each answered under one id; {len(tale.kills)} times kill -9:")
    print(*(f"  {killed}" for killed in tale.kills), f"{time.monotonic() - began:.0f} s", sep="\n")
    assert len(tale.kills) == 8


def drifted(tale: Tale) -> None:
    """Two watches move, exactly their devices alarm, and labels come for what they have seen."""
    tale.all_send(REST)
    for wearer in tale.stage.moved:
        wearer.wear("left", "first")
    counts = tale.all_send(AFTER)
    seen = {w.name: tale.stage.drift(w) for w in tale.stage.people}
    assert {name for name, drift in seen.items() if drift["status"] == "alarm"} == {w.name for w in tale.stage.moved}, (
        seen
    )
    for wearer in tale.stage.people:
        wearer.tell_labels(counts[wearer.name])


def learned(tale: Tale) -> int:
    """The core is killed while the training it started itself runs; it starts it again."""
    tale.stream()
    eventually(lambda: tale.training() != [], "the core to train by itself", PATIENCE)
    (job,) = tale.training()
    assert tale.events("retraining-started") == 1
    killed = tale.kill_core("its own training")
    assert "job" in killed
    assert tale.events("job-lost") == 1 and tale.api.get(f"/v1/jobs/{job['id']}")["state"] == "failed"
    eventually(lambda: tale.events("release-staged") == 2, "the core to train again by itself", PATIENCE)
    tale.still()
    assert tale.events("retraining-started") == 2
    return 2


def rolled_out(tale: Tale, number: int) -> None:
    """Killed in shadow, in probation and in the ramp, the release is everywhere in the end."""
    for wearer in tale.stage.moved:
        wearer.wear("left", "last")
    tale.stage.approve(number)
    tale.stream(GOOD_CANARY)
    before = tale.wait_phase(GOOD_CANARY, "shadow", pairs=30)
    tale.kill_agent(GOOD_CANARY, "shadow")
    after = tale.wait_phase(GOOD_CANARY, "shadow", pairs=1)
    assert after["serving"]["number"] == 1 and after["trial"]["manifest"] == before["trial"]["manifest"]
    assert after["trial"]["pairs"] > before["trial"]["pairs"] - 25, "the pairs go on where they were"
    assert tale.stage.rollout()["state"] == "shadow"
    tale.kill_core("shadow")
    tale.wait_phase(GOOD_CANARY, "probation")
    tale.kill_agent(GOOD_CANARY, "probation")
    assert model(tale.person(GOOD_CANARY).device)["serving"]["number"] == number
    found = tale.wait_rollout(number, "ramp")
    assert found["decided"][GOOD_CANARY]["minus"] > 0, "the pairs decided"
    tale.kill_core("ramp")
    tale.wait_rollout(number, "complete")
    tale.still()
    tale.serve(number)


def overridden(tale: Tale) -> int:
    """A candidate of left wrists only, refused by the gate, let through by hand."""

    def narrowed(text: str) -> str:
        text = replaced(text, r'^samples = "add"$', 'samples = "only"')
        return replaced(text, r"^canary = .*$", f'canary = ["{BAD_CANARY}"]')

    tale.stage.apply(narrowed)
    job = tale.api.order(Train(actor="test", model=MODEL))["job"]
    found = tale.api.wait_for_job(job, lambda stage, done: None)
    assert not found["accepted"], "the gate let a model of left wrists pass"
    return int(tale.api.order(Override(actor="test", candidate=found["candidate"], reason="a test"))["number"])


def refused_in_shadow(tale: Tale, number: int, good: int) -> None:
    """Killed as it refuses the bad release: the verdict stands, and the one that answered answers."""
    canary = tale.person(BAD_CANARY).device
    tale.stage.approve(number)
    tale.stream(BAD_CANARY, 2 * STEADY)
    tale.wait_phase(BAD_CANARY, "shadow")
    manifest = model(canary)["candidate"]["manifest"]
    left = kill_reverting(canary, manifest, 0, PATIENCE)
    assert left in GIVEN_UP
    tale.agent_again(BAD_CANARY, f"{BAD_CANARY} with its verdict in shadow, {left}")
    tale.wait_rollout(number, "reversed")
    tale.still()
    tale.serve(good)
    assert tale.card(number, "shadow")["criterion"] == "worse-than-incumbent"
    assert model(canary)["quarantined"] == {manifest: 0}


def sent_home(tale: Tale, number: int, good: int) -> None:
    """Forced to serve, killed in probation with pairs, and killed again as it goes back: it comes home."""
    canary = tale.person(BAD_CANARY).device
    (manifest,) = model(canary)["quarantined"]
    tale.api.order(Force(actor="test", model=MODEL, number=number, reason="a test"))
    tale.stream(BAD_CANARY)
    before = tale.wait_phase(BAD_CANARY, "probation", pairs=30)
    assert before["serving"]["number"] == number
    tale.kill_agent(BAD_CANARY, "probation")
    after = tale.wait_phase(BAD_CANARY, "probation", pairs=1)
    assert after["trial"]["pairs"] > before["trial"]["pairs"] - 25, "the pairs go on where they were"
    left = kill_reverting(canary, manifest, 1, PATIENCE)
    assert left in GIVEN_UP
    tale.agent_again(BAD_CANARY, f"{BAD_CANARY} on its way home, {left}")
    tale.wait_rollout(number, "reversed")
    served = tale.person(BAD_CANARY).count.of_release(number)
    tale.still()
    tale.serve(good)
    card = tale.card(number, "probation")
    assert (card["criterion"], card["old"]["number"]) == ("worse-than-incumbent", good)
    assert card["log_harm"] >= card["harm_at"] and card["new"]["accuracy"] < 0.5 < card["old"]["accuracy"]
    assert model(canary)["quarantined"] == {manifest: 1}
    assert served and sum(served) / len(served) < 0.5


def recovered(tale: Tale, number: int) -> None:
    """Everybody is served by the good release, and it is right on either wrist."""
    for name, count in tale.all_send(LAST).items():
        answers = count.of_release(number)
        assert len(answers) == len(count.expected) and sum(answers) / len(answers) >= 0.9, name
