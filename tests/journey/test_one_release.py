"""The journey, in memory: rows become a release, the release serves on every device, canary first.

Everything is real but the wire and the clock: catalog, lake, training, TUF, sealing, ONNX Runtime, SQLite.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from appliance.cli import metrics
from appliance.core import owner
from appliance.core.opening import Opening
from appliance.core.project_file import read_project
from appliance.demo.recordings import CHANNELS, write_csv
from core.orders import ApplyProject, Ingest, Question, Train
from core.release.replay import Outcome
from edge.agent.reporting import RESEND
from edge.performance import EVERY
from sync import answers
from sync import golden as vectors
from sync.answers import Predictions
from sync.commands import AskPredictions
from sync.link import Publish
from sync.loopback import Faults
from sync.names import DEFAULT_TENANT, DeviceId
from sync.topics import desired
from tests.journey.made_up import recordings, windows
from tests.journey.memory import Box, World
from tests.journey.tale import MODEL, PROJECT

SUBJECTS = (1, 2, 3)
MARK = "falaj-journey-marker-7f3a"


def project_file(home: Path) -> Path:
    """The demo's project with a marker planted in the graph's metadata and a quicker training."""
    text = PROJECT.read_text().replace("epochs = 60", "epochs = 25")
    text = text.replace('when = "alarm",', 'when = "alarm", asked = true,')
    path = home / "falaj.toml"
    path.write_text(text.replace('view = "imu"', f'view = "imu"\nmetadata = {{ note = "{MARK}" }}', 1))
    return path


def replay(world: World, box: Box, subject: int) -> int:
    """Sends what training never saw of one subject; returns how many windows were complete."""
    ts, own = box.clock(world.now), [r for r in recordings(SUBJECTS) if r.subject == subject]
    for recording in own:
        for row in recording.samples[recording.split :]:
            box.feel(round(ts, 3), dict(zip(CHANNELS, map(float, row), strict=True)))
            ts += 0.02
        ts += 60
        world.settle(1)
    box.last_ts = ts
    return windows(tuple(own))


@pytest.fixture(scope="module")
def world_with_a_staged_release(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Trust made, three devices joined, rows landed, a candidate accepted; nothing approved yet."""
    home = tmp_path_factory.mktemp("journey")
    world = World(home)
    owner.init(world, home / "owner", "test", world.now)  # type: ignore[arg-type] - the API's two verbs
    for subject in SUBJECTS:
        world.join(f"watch-{subject}")
    write_csv(recordings(SUBJECTS), home / "recordings")
    project = read_project(project_file(home))
    world.order(ApplyProject(project=project, folder=str(home)))
    world.order(Ingest(source="watches"))
    world.order(Train(model=MODEL))
    job = world.get("/v1/jobs")["jobs"][0]
    assert job["state"] == "done" and job["result"]["accepted"], job
    return world


@pytest.fixture(scope="module")
def world_where_all_serve(world_with_a_staged_release: World) -> World:
    """Approved and rolled out over a line that loses, repeats and reorders: canary first, then the rest."""
    world = world_with_a_staged_release
    world.hub.faults = Faults(lose=0.1, repeat=0.1, reorder=0.1)
    owner.approve(world, world.home / "owner", MODEL, 1, "test", world.now)  # type: ignore[arg-type]
    world.settle()
    canary = world.boxes["watch-1"]
    assert canary.phase() == "probation"
    assert {b.phase() for b in world.boxes.values() if b is not canary} <= {"unknown", "no_model"}
    world.sent = {"watch-1": 0}  # type: ignore[attr-defined]
    for _ in range(4):  # the soak asks for 40 answers
        world.sent["watch-1"] += replay(world, canary, 1)  # type: ignore[attr-defined]
    world.settle()
    assert canary.phase() == "steady"
    world.settle(12)
    for subject in SUBJECTS[1:]:
        box = world.boxes[f"watch-{subject}"]
        assert box.phase() == "probation"
        world.sent[box.name] = sum(replay(world, box, subject) for _ in range(4))  # type: ignore[attr-defined]
    world.settle(12)
    return world


def test_every_device_committed_and_every_window_was_answered(world_where_all_serve: World) -> None:
    world = world_where_all_serve
    assert [r["state"] for r in world.get("/v1/rollouts")["rollouts"]] == ["complete"]
    for box in world.boxes.values():
        assert box.phase() == "steady" and not box.errors
        assert len(box.answers) == world.sent[box.name]  # type: ignore[attr-defined]
        assert {a.quality for a in box.answers} == {"ok"} and {a.release for a in box.answers} == {1}


def test_the_core_knows_what_each_device_validated(world_where_all_serve: World) -> None:
    for device in world_where_all_serve.get("/v1/devices")["devices"]:
        model = device["report"]["models"][MODEL]
        assert model["validated"]["artifact"] == model["serving"]["artifact"]
        assert model["phase"] == "steady" and model["errors"] == 0


def test_the_core_knows_how_the_release_does(world_where_all_serve: World) -> None:
    """An hour later it has counted what the devices have, each answer once, over a line that loses and repeats."""
    world = world_where_all_serve
    world.now += EVERY
    for _ in range(12):
        world.settle(2)
        world.now += RESEND
    found = world.get("/v1/performance")
    assert {row["device"] for row in found["devices"]} == world.boxes.keys()
    for row in found["devices"]:
        box = world.boxes[row["device"]]
        told = [answer for answer in box.answers if answer.value is not None]
        total, labelled = row["total"], row["labels"]
        assert (total["answers"], total["errors"], total["seen"]) == (len(told), 0, len(told))
        assert total["estimated"] == pytest.approx(np.mean([max(one.probabilities) for one in told]), abs=1e-6)
        assert 0 < total["p50_ms"] <= total["p99_ms"] and labelled == 0
    (fleet,) = found["fleet"]
    assert (fleet["model"], fleet["number"], fleet["devices"]) == (MODEL, 1, len(world.boxes))
    assert fleet["total"]["answers"] == sum(row["total"]["answers"] for row in found["devices"])
    records = [payload for topic, payload in world.hub.passed if topic.endswith("/up/metrics")]
    assert records and max(map(len, records)) < 4096
    world.settle(4)
    assert world.get("/v1/performance?device=watch-1&model=exercise")["intervals"], "and the hours of a device"
    assert metrics.fleet_lines(found["fleet"]) and metrics.device_lines(found)


def test_nothing_readable_was_on_the_wire(world_where_all_serve: World) -> None:
    """The marker in the graph and a golden reading, as float32 bytes and as JSON text, with a positive control."""
    world = world_where_all_serve
    candidate = world.steward.house.catalog.releases.candidate(1)
    assert candidate is not None
    store = world.steward.house.artifacts
    model, golden = store.get(candidate.artifacts[0].plain), store.get(candidate.golden)
    reading = vectors.unpack(vectors.decode(golden).inputs)["window"][0, 0]
    raw, text = reading.astype("<f4").tobytes(), f"{float(reading[0]):.6f}".encode()
    assert MARK.encode() in model and raw in golden  # the same search finds them where they must be
    box = world.boxes["watch-2"]
    heard: list[bytes] = []
    payload = msgspec.json.encode({"ts": 1.0, "ax": round(float(reading[0]), 6)})
    heard.append(payload)
    assert text.rstrip(b"0") in payload
    everything = [p for _, p in world.hub.passed] + list(world.hub.retained.values())
    assert len(everything) > 50
    for needle in (MARK.encode(), raw, text, struct.pack("<f", float(reading[0])) + raw[4:8]):
        assert not any(needle in p for p in everything), needle
    sealed = [p.read_bytes() for p in box.folder.artifacts.iterdir()]
    assert sealed and not any(MARK.encode() in s or raw in s for s in sealed)


def test_why_a_device_said_what_it_said(world_where_all_serve: World) -> None:
    """The core asks by a signed command; the answer is opened by a person, made again, and every number is the same."""
    world, box = world_where_all_serve, world_where_all_serve.boxes["watch-2"]
    middle = box.answers[-3]
    ask = AskPredictions(middle.ts - 1.0, middle.ts + 1.0, MODEL, inputs=True)
    seq = world.order(Question(device=DeviceId(box.name), ask=ask))["seq"]
    world.settle(12)
    found = world.get(f"/v1/questions/{seq}")
    assert found["question"]["answered"] is not None, found
    opening = Opening(world.core, world)  # type: ignore[arg-type] - the API's two verbs
    told = opening.read(base64.b64decode(found["answer_base64"]), Predictions)
    answers.check(told, box.name, seq, ask)
    by_id = {one.id: one for one in box.answers}
    assert told.predictions and not told.withheld and middle.id in {one.prediction.id for one in told.predictions}
    for one in told.predictions:
        assert replace(one.prediction, quality="ok") == by_id[one.prediction.id]
    again = opening.replay(told)
    assert {one.outcome for one in again} == {Outcome.EQUAL} and len(again) == len(told.predictions)
    assert {one["code"] for one in world.get("/v1/events")["events"]} >= {"device-asked", "device-answered"}
    reading = told.predictions[0].window[:24]
    assert not any(reading in p for _, p in world.hub.passed), "the wire never carries it in the clear"


def test_an_unsigned_assignment_changes_nothing(world_where_all_serve: World) -> None:
    world, box = world_where_all_serve, world_where_all_serve.boxes["watch-3"]
    before = box.agent.house.deployments
    world.link.publish(Publish(desired(DEFAULT_TENANT, box.agent.house.identity.device), b'{"models":{}}', retain=True))
    world.settle(4)
    assert box.agent.house.deployments == before and box.phase() == "steady"
    codes = [e["code"] for e in world.get("/v1/events")["events"] if e["source"] == "watch-3"]
    assert "refused-malformed" in codes


def test_a_killed_device_comes_back_with_a_verified_model(world_where_all_serve: World) -> None:
    world, box = world_where_all_serve, world_where_all_serve.boxes["watch-2"]
    answered = len(box.answers)
    box.kill()
    box.start(world.now)
    assert box.phase() == "steady" and box.serving.incumbent(MODEL) is not None
    sent = replay(world, box, 2)
    assert len(box.answers) - answered == sent
    validated = box.agent.house.deployments[MODEL].validated
    assert validated is not None and validated.ts == pytest.approx(world.now, abs=60)


def test_the_core_may_be_off(world_where_all_serve: World) -> None:
    """Serving and a restart need neither core nor line."""
    world, box = world_where_all_serve, world_where_all_serve.boxes["watch-1"]
    world.link.cut()
    box.kill()
    box.start(world.now)
    answered = len(box.answers)
    assert replay(world, box, 1) == len(box.answers) - answered
