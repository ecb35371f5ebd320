"""The journey on a real Mosquitto with real processes, and what kill -9 of an agent does to it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from appliance.core.state import CoreFolder, catalog_key, open_keys, samples_key
from appliance.demo.fleet import Device
from appliance.edge.enrolling import enrol, read_token
from core.catalog import open_catalog
from core.orders import Ingest, IssueToken
from core.release.registry import ArtifactStore
from sync import codec
from sync import golden as vectors
from sync.link import Message, Publish
from sync.messages import SAMPLE, Record, SampleBatch
from sync.mqtt import Broker, MqttLink
from sync.names import DEFAULT_TENANT, DeviceId
from sync.samples import unseal
from sync.topics import blob, local_replies, local_requests, up
from tests.appliance.running import falaj
from tests.journey import canaries
from tests.journey.real import MARK, MODEL, Stage, Watch, kill, kill_proving, phase, play
from tests.outside import commands, served
from tests.waiting import eventually

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with play(tmp_path_factory.mktemp("real")) as played:
        yield played


def test_act_one_did_what_it_says(stage: Stage) -> None:
    """Every step checks itself; here only that all of them ran and ended well."""
    assert [s.result for s in stage.act.story.steps] == ["ok"] * 10


def test_the_steward_had_its_broker_write_the_release_down(stage: Stage) -> None:
    """SIGUSR1 after a release: the broker runs on, and its own interval is of five minutes. Whatever of the release is
    retained stands in its store, each topic and each chunk whole."""
    store = CoreFolder(stage.machines.core_folder, DEFAULT_TENANT).broker / "store" / "mosquitto.db"
    areas = ("/blob/", "/trust/", ".manifest")
    retained = {topic: payload for topic, payload in stage.tap.heard if any(area in topic for area in areas)}
    kept = {topic.encode(): payload for topic, payload in retained.items() if payload}
    assert sum(b"/blob/" in topic for topic in kept) >= 2 and sum(b".manifest" in topic for topic in kept) >= 1

    def written() -> bool:
        found = store.read_bytes() if store.exists() else b""
        return all(topic in found and payload in found for topic, payload in kept.items())

    eventually(written, "the broker's store to have the release")


def in_the_clear(stage: Stage) -> tuple[CoreFolder, bytes, bytes]:
    """The core's folder, and what is sealed everywhere but here: the first candidate's model and golden vectors."""
    place = CoreFolder(stage.machines.core_folder, DEFAULT_TENANT)
    keys = open_keys(place)
    candidate = open_catalog(place.catalog, catalog_key(keys), read_only=True).releases.candidate(1)
    assert candidate is not None
    store = ArtifactStore(place.artifacts, DEFAULT_TENANT, keys.object_key("artifact"))
    return place, store.get(candidate.artifacts[0].plain), store.get(candidate.golden)


def test_the_uplink_carries_nothing_readable(stage: Stage) -> None:
    """Attack 1's canaries: a marker in the graph, a golden reading as float32 bytes and as JSON text."""
    place, model, golden = in_the_clear(stage)
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


def test_no_file_or_log_of_core_or_edge_holds_a_canary(stage: Stage) -> None:
    """Must show 7: a marker in the model and a reading that came from a file, over MQTT and over HTTP, and that went up
    in a sample because somebody labelled the answer. The owner's own files are the positive control, and for the uplink
    what the sample says to whoever has the tenant's key."""
    machines, device = stage.machines, stage.device("watch-1")
    recordings, wanted = machines.home / "recordings", canaries.needles(MARK)
    canaries.plant(recordings)
    machines.api.order(Ingest(source="watches"))
    eventually(
        lambda: all(j["state"] == "done" for j in machines.api.get("/v1/jobs")["jobs"]), "the canary to land", 60
    )
    at = Broker("127.0.0.1", device.mqtt_port, "canary", user="app", password=device.app_password())
    link, answers = MqttLink(at, queue_when_down=True), list[bytes]()
    link.subscribe("watch/canary/exercise", "watch/canary/exercise/error")
    link.start(lambda m: answers.append(m.payload), lambda up, why: None)
    eventually(lambda: bool(link.listening), "the local broker", 10)
    begun = time.time() + 3600
    row = dict.fromkeys(("ax", "ay", "az", "wx", "wy", "wz"), canaries.READING)
    for i in range(canaries.ROWS):
        link.publish(Publish("watch/canary/imu", json.dumps({"ts": begun + 0.02 * i, **row}).encode()))
    eventually(lambda: bool(answers), "an answer to the canary", 30)
    assert b'"ok"' in answers[0], answers[0]
    link.stop()
    by_mqtt = json.loads(answers[0])
    by_http = [ask_raw(device, 1, canaries.READING), ask_json(device, canaries.READING)]
    labels = [{"id": one, "label": by_mqtt["classes"][0]} for one in (by_mqtt["id"], *by_http)]
    assert post(device, "/v1/labels", {"labels": labels}) == {"kept": 3, "unknown": [], "refused": []}
    eventually(lambda: canary_went_up(stage, device), "a sample with the canary on the uplink", 60)
    brokers = [machines.core_folder, *(d.folder.root for d in machines.devices)]
    store = CoreFolder(machines.core_folder, DEFAULT_TENANT).broker / "store" / "mosquitto.db"
    before = store.stat().st_mtime_ns
    for pid_file in (p for root in brokers for p in root.rglob("mosquitto.pid")):
        os.kill(int(pid_file.read_text()), signal.SIGUSR1)  # each writes what it would write at its end
    eventually(lambda: store.stat().st_mtime_ns > before, "the store, written anew", 30)
    roots = [machines.core_folder, machines.home / "core.log", *(d.folder.root for d in machines.devices)]
    eventually(lambda: b"canary" in b"".join(p.read_bytes() for p in recordings.glob("*.csv")), "the control", 1)
    assert sum(path.is_file() for root in roots for path in (root, *root.rglob("*"))) > 60
    assert canaries.found(roots, wanted) == []
    owners = canaries.found([recordings, machines.home / "project.toml"], wanted)
    assert {name for _, name in owners} == {"marker", "text"}, "the same search finds them where they must be"
    assert not [name for name, needle in wanted.items() for _, heard in stage.tap.heard if needle in heard]
    control = machines.home / "control"
    control.write_bytes(b"-".join(wanted.values()))
    assert len(canaries.found([control], wanted)) == len(wanted)


def test_what_a_device_said_is_made_again_and_its_support_bundle_holds_no_reading(stage: Stage, tmp_path: Path) -> None:
    """After the canary was answered on watch-1: as a person at the box and one at the core do it."""
    machines, device = stage.machines, stage.device("watch-1")
    core, box = ("--dir", str(machines.core_folder)), ("--dir", str(device.folder.root))
    newest = json.loads(get(device, "/v1/predictions"))["predictions"][-1]["prediction"]
    at = datetime.fromtimestamp(newest["ts"], UTC).isoformat()
    saved, archive = tmp_path / "said.sealed", tmp_path / "support.tar.gz"
    told = falaj("edge", "predictions", "--at", at, "--window", "2s", "--save", str(saved), *box)
    assert told.returncode == 0 and newest["id"] in told.stdout and "falaj replay said.sealed" in told.stdout, told
    again = falaj("replay", str(saved), "--json", *core)
    found = json.loads(again.stdout)["predictions"]
    assert again.returncode == 0 and {one["outcome"] for one in found} == {"equal"}, again
    assert newest["id"] in {one["prediction"] for one in found}
    batch, rows = ask_raw(device, 3), tmp_path / "rows.sealed"
    now = datetime.now(UTC).isoformat()
    eventually(lambda: f"{batch}-2" in str(get(device, "/v1/predictions")), "the rows to be remembered", 30)
    assert falaj("edge", "predictions", "--at", now, "--window", "60s", "--save", str(rows), *box).returncode == 0
    again = falaj("replay", str(rows), "--json", *core)
    made = {one["prediction"]: one["outcome"] for one in json.loads(again.stdout)["predictions"]}
    assert {made.get(f"{batch}-{row}") for row in range(3)} == {"equal"}, again
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 4
    saved.write_bytes(content)
    bent = falaj("replay", str(saved), *core)
    assert bent.returncode == 1 and "refused-" in bent.stderr and "nothing of it is believed" in bent.stderr, bent
    bundle = falaj("device", "bundle", device.name, "--wait", "--out", str(archive), *core)
    assert bundle.returncode == 0, bundle
    _, *suggested = shlex.split(bundle.stderr.split("`")[1])
    assert suggested[:2] == ["device", "answer"], bundle.stderr
    later = falaj(*suggested, "--save", str(tmp_path / "later.tar.gz"))
    assert later.returncode == 0 and (tmp_path / "later.tar.gz").read_bytes() == archive.read_bytes(), later
    with tarfile.open(archive) as packed:
        inside = {entry.name: packed.extractfile(entry).read() for entry in packed}  # type: ignore[union-attr]
    assert b"release-committed" in inside["falaj-support/events.json"] and len(inside) == 7
    needles = canaries.needles(MARK).items()
    assert [(name, what) for name, text in inside.items() for what, needle in needles if needle in text] == []


def get(device: Device, path: str) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", device.http_port, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def canary_went_up(stage: Stage, device: Device) -> bool:
    """Whether the canary is in a sample of this device, for whoever has the tenant's key and listens to the uplink."""
    place = CoreFolder(stage.machines.core_folder, DEFAULT_TENANT)
    key, name = samples_key(place, open_keys(place)), DeviceId(device.name)
    topic = up(DEFAULT_TENANT, name, SAMPLE)
    records = [codec.decode(Record, payload) for heard, payload in list(stage.tap.heard) if heard == topic]
    batches = [codec.decode(SampleBatch, bytes(record.body)) for record in records]
    opened = [unseal(base64.b64decode(batch.sealed), DEFAULT_TENANT, name, key) for batch in batches]
    windows = [np.frombuffer(sample.window, "<f4") for batch in opened for sample in batch.samples]
    return any(np.all(window == np.float32(canaries.READING)) for window in windows)


def ask_json(device: Device, reading: float) -> str:
    """The id of an answer to one window of this reading, asked as text."""
    tensor = {"name": "window", "datatype": "FP32", "shape": [1, 100, 6], "data": [reading] * 600}
    with closing(http.client.HTTPConnection("127.0.0.1", device.http_port, timeout=30)) as connection:
        connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps({"inputs": [tensor]}))
        answer = json.loads(connection.getresponse().read())
    return str(answer["parameters"]["prediction"])


def ask_raw(device: Device, rows: int, reading: float | None = None) -> str:
    """The id of an answer to so many windows, of this reading or of noise, asked together as the numbers lie in
    memory."""
    window = np.random.default_rng(7).normal(size=(rows, 600)) if reading is None else np.full((rows, 600), reading)
    numbers = window.astype("<f4").tobytes()
    with closing(http.client.HTTPConnection("127.0.0.1", device.http_port, timeout=30)) as connection:
        head = {"Inference-Header-Content-Length": "0"}
        connection.request("POST", f"/v2/models/{MODEL}/infer", numbers, head)
        response = connection.getresponse()
        length, body = int(response.headers["Inference-Header-Content-Length"]), response.read()
    return str(json.loads(body[:length])["parameters"]["prediction"])


def test_a_program_asks_the_agent_over_mqtt_and_labels_what_it_was_told(stage: Stage) -> None:
    device, told = stage.device("watch-1"), list[Message]()
    place = f"{local_replies(DeviceId(device.name))}/program"
    link = MqttLink(Broker("127.0.0.1", device.mqtt_port, "program", user="app", password=device.app_password()))
    link.subscribe(place)
    link.start(told.append, lambda up, why: None)
    eventually(lambda: bool(link.listening), "the local broker", 10)
    for model in (MODEL, "nobody"):
        question = {"id": model, "reply_to": place, "data": [0.1] * 600}
        link.publish(Publish(f"{local_requests(DeviceId(device.name))}/{model}", json.dumps(question).encode()))
    eventually(lambda: len(told) == 2, "both answers", 10)
    link.stop()
    said, none = (json.loads(message.payload) for message in told)
    assert (said["id"], none["id"], none["quality"]) == (MODEL, "nobody", "no_model")
    prediction = said["prediction"]
    assert prediction["quality"] == "ok" and prediction["release"] == 1
    kept = post(device, "/v1/labels", {"labels": [{"id": prediction["id"], "label": prediction["classes"][0]}]})
    assert kept == {"kept": 1, "unknown": [], "refused": []}


@pytest.fixture(scope="module")
def reader(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the README stands: the demo's folder has the name that the commands give it."""
    if missing := [one for one in ("curl", "mosquitto_pub", "mosquitto_sub") if shutil.which(one) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; apt-get install curl mosquitto-clients")
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".falaj-demo").symlink_to(stage.machines.home)
    return folder


def test_the_readmes_curl_commands_meet_the_agent(reader: Path) -> None:
    (block,) = commands.curls("README.md")
    answer, metadata = commands.run(block, reader)
    assert (answer["model_name"], answer["parameters"]["release"]) == (MODEL, 1)
    assert sum(answer["outputs"][0]["data"]) == pytest.approx(1, abs=1e-5)
    assert metadata["inputs"][0]["shape"] == [-1, 100, 6]


@pytest.mark.parametrize("version", ["as written", "mqttv311"])
def test_the_readmes_mosquitto_commands_meet_the_agent(reader: Path, version: str) -> None:
    (block,) = commands.blocks("README.md", "mosquitto_pub")
    who = "me"
    if version != "as written":
        who, block = version, re.sub(r"(mosquitto_[ps]ub) ", rf"\1 -V {version} ", block)
        block = block.replace("watch/me/", f"watch/{who}/")
    topic, document = commands.first_told(block, reader)
    prediction = json.loads(document)
    assert topic == f"watch/{who}/exercise"
    assert (prediction["quality"], prediction["release"]) == ("ok", 1) and prediction["value"] in prediction["classes"]


@pytest.mark.parametrize("binary", [True, False])
def test_the_protocols_outside_client_meets_the_agent(stage: Stage, binary: bool) -> None:
    """`tritonclient[http]` asks a whole agent what curl asked it: the same numbers come back either way."""
    triton = served.client("tritonclient.http")
    with closing(triton.InferenceServerClient(f"127.0.0.1:{stage.device('watch-1').http_port}")) as client:
        assert client.is_server_ready() and client.is_model_ready(MODEL, "1")
        window = triton.InferInput("window", [2, 100, 6], "FP32")
        window.set_data_from_numpy(np.full((2, 100, 6), 0.1, np.float32), binary_data=binary)
        (name,) = (one["name"] for one in client.get_model_metadata(MODEL)["outputs"])
        asked = [triton.InferRequestedOutput(name, binary_data=binary)]
        answer = client.infer(MODEL, [window], outputs=asked, request_id="a-1")
        assert answer.get_response()["id"] == "a-1" and answer.get_response()["model_version"] == "1"
        first, second = answer.as_numpy(name)
    np.testing.assert_array_equal(first, second)
    assert first.sum() == pytest.approx(1, abs=1e-5)


def post(device: Device, path: str, document: dict[str, object]) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", device.http_port, timeout=30)
    connection.request("POST", path, json.dumps(document))
    answer: object = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _overheard(stage: Stage, reading: dict[str, float]) -> list[bytes]:
    """What an application on the device's own broker hears of a reading."""
    device, heard = stage.device("watch-1"), []
    broker = Broker("127.0.0.1", device.mqtt_port, "eavesdropper", user="app", password=device.app_password())
    link = MqttLink(broker)
    link.subscribe("watch/#")

    def hear(message: Message) -> None:
        heard.append(message.payload)

    link.start(hear, lambda up, why: None)
    eventually(lambda: bool(link.listening), "the local broker", 10)
    link.publish(Publish("watch/golden/imu", json.dumps(reading).encode()))
    eventually(lambda: bool(heard), "the reading to be heard", 10)
    link.stop()
    return heard


def test_killed_while_serving_it_loses_no_window(stage: Stage) -> None:
    device = stage.device("watch-2")
    watch = Watch(device, MODEL, stage.of(2))
    watch.connect()
    replay = threading.Thread(target=watch.replay, args=(time.time() + 3600, 4.0), daemon=True)
    replay.start()
    eventually(lambda: watch.count.answered() >= 3, "the first answers", 30)
    kill(device)
    eventually(lambda: watch.count.http_errors != [], "an HTTP error while it is down", 30)
    device.start()
    eventually(
        lambda: (device.status() or {}).get("models", {}).get(MODEL, {}).get("validated") is not None, "ready", 30
    )
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
    eventually(lambda: phase(device) == "steady", "the agent to serve again", 30)

    def told() -> set[str]:
        events = stage.machines.api.get("/v1/events?limit=200")["events"]
        return {e["code"] for e in events if e["source"] == "watch-1"}

    eventually(lambda: {"buffers-damaged", "predictions-not-kept"} <= told(), "the core to hear of both files", 30)


def test_killed_in_mid_download_and_in_mid_proving_it_comes_to_the_same_end(stage: Stage, tmp_path: Path) -> None:
    """A third device joins; the broker has lost the golden vectors' chunk; the core publishes it again when asked."""
    device = stage.machines.add_device("watch-3")
    token = stage.machines.api.order(IssueToken(device=DeviceId("watch-3")))["token"]
    enrol(device.folder, read_token(token), time.time())
    manifest = stage.machines.api.get(f"/v1/releases/{MODEL}/1")["manifest"]
    stage.tap.take_away(blob(DEFAULT_TENANT, manifest["golden"]["sealed"], 0))
    device.start()
    eventually(lambda: phase(device) == "fetching", "the download to begin", 30)
    sealed = {v["blob"]["sealed"] for v in manifest["variants"]}
    eventually(lambda: any((device.folder.artifacts / s).exists() for s in sealed), "the model's blob to be whole", 30)
    kill(device)
    assert not (device.folder.artifacts / manifest["golden"]["sealed"]).exists()
    device.start()
    assert kill_proving(device, 60) == "proving", "the core published the missing chunk, and the proof began"
    device.start()
    eventually(lambda: phase(device) == "probation", "the proof to be repeated", 60)
    watch = Watch(device, MODEL, stage.of(3))
    watch.connect()
    watch.replay(time.time(), 8.0)
    watch.replay(time.time() + 7200, 8.0)
    watch.settle(10)
    watch.close()
    eventually(lambda: phase(device) == "steady", "the commit", 30)
    assert not watch.count.lost() and not watch.count.twice() and not watch.count.http_errors
    codes = {e["code"] for e in stage.machines.api.get("/v1/events?limit=200")["events"] if e["source"] == "watch-3"}
    assert {"download-stalled", "release-proved", "release-committed"} <= codes


def test_every_file_and_socket_is_closed_to_other_accounts(stage: Stage) -> None:
    """Attack 29: whatever core, agents and brokers have made by now, an unprivileged account may not even list it."""
    folders = (stage.machines.core_folder, *(device.folder.root for device in stage.machines.devices))
    made = [path for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    theirs = {str(path): oct(path.stat().st_mode & 0o777) for path in made if path.stat().st_mode & 0o077}
    for folder in folders:  # what people write is theirs to close; it holds no secret
        theirs.pop(str(folder / "core.toml"), None)
        theirs.pop(str(folder / "edge.toml"), None)
    assert theirs == {} and sum(path.is_socket() for path in made) >= 2 and len(made) > 60


def test_an_image_of_any_disk_has_no_model_reading_or_key_but_those_that_are_named(stage: Stage) -> None:
    """Attack 26: every file of core and agents as it lies there. What is readable without a key is a list, not a leak:
    the keys themselves (docs/security.md says what that means without a TPM)."""
    _, model, golden = in_the_clear(stage)
    reading = vectors.unpack(vectors.decode(golden).inputs)["window"][0, :2].astype("<f4").tobytes()
    assert MARK.encode() in model and reading in golden, "the search finds them where they are"
    folders = (stage.machines.core_folder, *(device.folder.root for device in stage.machines.devices))
    files = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    for needle in (MARK.encode(), model[:256], reading):
        assert [str(path) for path, content in files.items() if needle in content] == []
    plain = {path.name for path, content in files.items() if b"PRIVATE KEY" in content}
    assert plain == {"device.key", "broker.key", "enrol.key", "core.key"}
