"""The core releases a model by itself where its owner allowed it: trained, signed, proved and serving on a device, no
person in between. Once the owner ends that, the device goes back, and the next candidate waits for a person.

All is real but the wire and the clock: training, TUF, sealing, ONNX Runtime, SQLite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.core import automatic, owner
from appliance.core.project_file import read_project
from appliance.demo.recordings import CHANNELS, write_csv
from core.orders import ApplyProject, Ingest, Train
from tests.journey.made_up import recordings
from tests.journey.memory import Box, World
from tests.journey.tale import MODEL, PROJECT

NAME = "watch-1"
MADE = recordings((1, 2, 3))
ROUNDS = 12


@pytest.fixture
def world(ram: Path) -> World:
    """One device; an owner; rows landed. Whoever is new answers for 10 windows, then it is committed."""
    made = World(ram)
    owner.init(made, ram / "owner", "test", made.now)  # type: ignore[arg-type] - the API's two verbs
    made.join(NAME)
    write_csv(MADE, ram / "recordings")
    text = PROJECT.read_text().replace("epochs = 60", "epochs = 12")
    text = text.replace('evidence = "labels"', 'evidence = "guardrails"')
    text = text.replace("soak_answers = 40", "soak_answers = 10").replace(
        "min_accuracy = 0.90", "min_accuracy = 0.90, min_rows = 10"
    )
    (ram / "falaj.toml").write_text(text)
    made.order(ApplyProject(project=read_project(ram / "falaj.toml"), folder=str(ram)))
    made.order(Ingest(source="watches"))
    return made


def train(world: World) -> dict[str, Any]:
    job = world.order(Train(model=MODEL))["job"]
    result: dict[str, Any] = world.get(f"/v1/jobs/{job}")["result"]
    assert result["accepted"], result
    return result


def until_served(world: World, number: int) -> None:
    """The device wears the watch until the release has arrived for good, and its rollout is over."""
    box: Box = world.boxes[NAME]
    for _ in range(ROUNDS):
        world.settle(4)
        if box.serves() == number and box.phase() == "steady":
            newest = world.get("/v1/rollouts")["rollouts"][0]
            if (newest["number"], newest["state"]) == (number, "complete"):
                return
        ts = box.clock(world.now)
        for index, row in enumerate(MADE[0].samples[:600]):
            box.feel(round(ts + 0.02 * index, 3), dict(zip(CHANNELS, map(float, row), strict=True)))
        world.now += 15
    raise AssertionError(f"release {number} does not serve: {box.phase()}, {world.get('/v1/rollouts')['rollouts'][0]}")


def test_allowed_the_next_release_serves_without_a_person_and_ended_it_waits_for_one(world: World) -> None:
    keys, verbs = world.home / "owner", (world, world.home / "owner", MODEL)
    train(world)
    owner.approve(world, keys, MODEL, 1, "test", world.now)  # type: ignore[arg-type]
    until_served(world, 1)
    automatic.allow(*verbs, "test", world.now)  # type: ignore[arg-type]

    assert train(world)["automatic"] is True
    until_served(world, 2)
    assert world.get("/v1/status")["trust"]["automatic"][MODEL]["releases"] == [2]
    assert world.boxes[NAME].agent.house.journal.record(MODEL, 2).auto, "and it knows that no person signed it"

    assert automatic.end(*verbs, "test", world.now).releases == (f"{MODEL}@2",)  # type: ignore[arg-type]
    world.settle(8)
    assert world.boxes[NAME].serves() == 1, "what only the core signed is left, as what was revoked"
    assert "automatic" not in train(world)
    world.settle(8)
    states = {row["number"]: row["state"] for row in world.get("/v1/releases")["releases"]}
    assert states == {1: "approved", 2: "revoked", 3: "staged"} and world.boxes[NAME].serves() == 1
