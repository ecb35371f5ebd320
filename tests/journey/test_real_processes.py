"""The journey on a real Mosquitto with real processes, and what kill -9 of an agent does to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.core_state import CoreFolder, catalog_key, open_keys
from appliance.enrolling import enrol, read_token
from core.catalog import open_catalog
from core.orders import IssueToken
from core.release.registry import ArtifactStore
from sync import golden as vectors
from sync.link import Message
from sync.mqtt import Broker, MqttLink
from sync.names import DEFAULT_TENANT, DeviceId
from sync.topics import blob
from tests.journey.real import MARK, MODEL, Stage, Watch, kill, phase, play, until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    played = play(tmp_path_factory.mktemp("real"))
    yield played
    played.tap.link.stop()
    played.machines.stop()


def test_act_one_did_what_it_says(stage: Stage) -> None:
    """Every step checks itself; here only that all of them ran and ended well."""
    assert [s.result for s in stage.act.story.steps] == ["ok"] * 10


def test_the_uplink_carries_nothing_readable(stage: Stage) -> None:
    """Attack 1's canaries: a marker in the graph, a golden reading as float32 bytes and as JSON text."""
    place = CoreFolder(stage.machines.core_folder, DEFAULT_TENANT)
    keys = open_keys(place)
    candidate = open_catalog(place.catalog, catalog_key(keys), read_only=True).releases.candidate(1)
    assert candidate is not None
    store = ArtifactStore(place.artifacts, DEFAULT_TENANT, keys.object_key("artifact"))
    model, golden = store.get(candidate.artifacts[0].plain), store.get(candidate.golden)
    row = vectors.unpack(vectors.decode(golden).inputs)["window"][0, 0]
    raw, text = row.astype("<f4").tobytes(), f'"ax": {round(float(row[0]), 4)}'.encode()
    stage.machines.api.get("/v1/status")
    needles = (MARK.encode(), raw, text)
    heard = [payload for _, payload in stage.tap.heard]
    store_file = next((place.broker / "store").iterdir()).read_bytes()
    assert len(heard) > 30 and len(store_file) > 50_000  # the release was there when the broker last wrote
    for needle in needles:
        assert not any(needle in payload for payload in heard), needle
        assert needle not in store_file
    # The same search finds them where they must be: in the plaintext artifacts, and on the local broker.
    assert MARK.encode() in model and raw in golden
    local = _overheard(stage, {"ts": 1.0, "ax": round(float(row[0]), 4)})
    assert any(text in payload for payload in local)


def _overheard(stage: Stage, reading: dict[str, float]) -> list[bytes]:
    """What an application on the device's own broker hears of a reading."""
    import json

    from sync.link import Publish

    device, heard = stage.device("watch-1"), []
    broker = Broker("127.0.0.1", device.mqtt_port, "eavesdropper", user="app", password=device.app_password())
    link = MqttLink(broker)
    link.subscribe("watch/#")

    def hear(message: Message) -> None:
        heard.append(message.payload)

    link.start(hear, lambda up, why: None)
    until(lambda: bool(link.listening), 10, "the local broker")
    link.publish(Publish("watch/golden/imu", json.dumps(reading).encode()))
    until(lambda: bool(heard), 10, "the reading to be heard")
    link.stop()
    return heard


def test_killed_while_serving_it_loses_no_window(stage: Stage) -> None:
    device = stage.device("watch-2")
    watch = Watch(device, MODEL, stage.of(2))
    watch.connect()
    replay = threading.Thread(target=watch.replay, args=(time.time() + 3600, 4.0), daemon=True)
    replay.start()
    until(lambda: watch.count.answered() >= 3, 30, "the first answers")
    kill(device)
    until(lambda: watch.count.http_errors != [], 30, "an HTTP error while it is down")
    device.start()
    until(lambda: (device.status() or {}).get("models", {}).get(MODEL, {}).get("validated") is not None, 30, "ready")
    came_back = len(watch.count.http_errors)
    replay.join()
    watch.settle(15)
    watch.close()
    count = watch.count
    assert not count.lost() and not count.twice()
    assert {p.quality for got in count.mqtt.values() for p in got} <= {"ok", "warming"}
    assert 0 < len(count.http_errors) <= came_back + 1  # one request may have been under way
    assert phase(device) == "steady"
    print(f"windows {len(count.expected)}, HTTP errors between kill and ready {len(count.http_errors)}")


def test_spoilt_files_beside_the_journal_never_keep_an_agent_from_serving(stage: Stage) -> None:
    device = stage.device("watch-1")
    kill(device)
    for name in ("buffers.db", "predictions.db"):
        for suffix in ("-wal", "-shm"):
            (device.folder.root / f"{name}{suffix}").unlink(missing_ok=True)
        (device.folder.root / name).write_bytes(b"this is no database" * 300)
    device.start()
    until(lambda: phase(device) == "steady", 30, "the agent to serve again")

    def told() -> set[str]:
        events = stage.machines.api.get("/v1/events?limit=200")["events"]
        return {e["code"] for e in events if e["source"] == "watch-1"}

    until(lambda: {"buffers-damaged", "predictions-not-kept"} <= told(), 30, "the core to hear of both files")


def test_killed_in_mid_download_and_in_mid_proving_it_comes_to_the_same_end(stage: Stage, tmp_path: Path) -> None:
    """A third device joins; the broker has lost the golden vectors' chunk; the core publishes it again when asked."""
    device = stage.machines.add_device("watch-3")
    token = stage.machines.api.order(IssueToken(device=DeviceId("watch-3")))["token"]
    enrol(device.folder, read_token(token), time.time())
    manifest = stage.machines.api.get(f"/v1/releases/{MODEL}/1")["manifest"]
    stage.tap.take_away(blob(DEFAULT_TENANT, manifest["golden"]["sealed"], 0))
    device.start()
    until(lambda: phase(device) == "fetching", 30, "the download to begin")
    sealed = {v["blob"]["sealed"] for v in manifest["variants"]}
    until(lambda: any((device.folder.artifacts / s).exists() for s in sealed), 30, "the model's blob to be whole")
    kill(device)
    assert not (device.folder.artifacts / manifest["golden"]["sealed"]).exists()
    device.start()
    until(lambda: phase(device) == "proving", 60, "the core to publish the missing chunk, and the proof to begin")
    kill(device)
    device.start()
    until(lambda: phase(device) == "probation", 60, "the proof to be repeated")
    watch = Watch(device, MODEL, stage.of(3))
    watch.connect()
    watch.replay(time.time(), 8.0)
    watch.replay(time.time() + 7200, 8.0)
    watch.settle(10)
    watch.close()
    until(lambda: phase(device) == "steady", 30, "the commit")
    assert not watch.count.lost() and not watch.count.twice() and not watch.count.http_errors
    codes = {e["code"] for e in stage.machines.api.get("/v1/events?limit=200")["events"] if e["source"] == "watch-3"}
    assert {"download-stalled", "release-proved", "release-committed"} <= codes
