"""The JSON API: every route over a real encrypted catalog, orders of people through, all others refused."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from core import orders
from core.answers import Answer
from core.catalog import Catalog, open_catalog
from core.console import create_api
from core.console.trust_state import trust_state
from core.handoffs import Candidate, Landed, Rejection, Rollout, RolloutState, Score, Scorecard, Verdict
from core.orders import Order
from core.project import Project
from core.release import publish, signing
from sync import chunks, codec, roles
from sync.commands import AskPredictions, AskSupport
from sync.errors import Malformed
from sync.manifest import Lineage, Manifest, Profile, Variant
from sync.messages import Gates, Reported
from sync.names import DeviceId, LookupName, SiteId, TenantId
from sync.reports import ModelReport, Release, Validated
from tests.core import people
from tests.core.console_world import KEY, MODEL, NOW, WINDOW
from tests.core.doors import Steward
from tests.core.newcomers import boxes

PLAIN = chunks.digest(b"plain")


def manifest(number: int = 1) -> Manifest:
    blob = chunks.describe(b"sealed", PLAIN)
    lineage = Lineage("snap", "view", "cnn1d", 7, {"accuracy": 0.97}, "int8 is not faster")
    return Manifest(
        TenantId("default"), MODEL, number, NOW, (Variant("fp32", (), blob),), blob, (), (), ("rest", "walk"),
        WINDOW, (), Profile(), lineage,
    )  # fmt: skip


def candidate() -> Candidate:
    card = Scorecard(266, (Score("fp32", 0.97, 1.0, 110.0, 182.0, 41_300),), "fp32", "int8 is not faster", 1e-7)
    return Candidate(
        MODEL, "snap", "view", PLAIN, "cnn1d", 7, ("rest", "walk"), WINDOW, (), (), (), PLAIN, card,
        (Verdict("G2", "pass", "accuracy 0.97"),), True,
    )  # fmt: skip


def trust_files() -> dict[str, bytes]:
    owner, *online = (roles.signer(roles.new_signing_key()) for _ in range(4))
    root, targets = people.begun(owner, *(signer.public_key for signer in online), NOW)
    files = {"1.root.json": root, "1.targets.json": targets}
    return files | publish.renew(files, publish.OnlineSigners(online[0], online[1]), NOW)


def fill(catalog: Catalog) -> None:
    """One of everything."""
    job = catalog.projects.new_job("train", MODEL, "cli", NOW)
    catalog.projects.progress(job, "quantize", 0.5)
    key = catalog.releases.add_candidate(candidate(), job, NOW)
    payload = codec.encode(manifest())
    catalog.releases.stage(manifest(), payload, chunks.digest(payload), key, NOW)
    catalog.releases.put_trust(trust_files())
    device = DeviceId("watch-1")
    catalog.fleet.put_device(device, 1, b"certificate", b"s" * 32, b"k" * 32, NOW)
    release = Release(1, chunks.digest(payload), PLAIN)
    model = ModelReport("steady", NOW, release, validated=Validated(PLAIN, NOW, 2.0))
    report = Reported(TenantId("default"), device, 1, 1, NOW, "boot", 1, {MODEL: model})
    catalog.fleet.put_report(report, b"{}", NOW)
    older = Rollout(MODEL, 1, PLAIN, (device,), Gates(), RolloutState.REVERSED)
    catalog.fleet.add_rollout(older)
    catalog.fleet.add_rollout(Rollout(MODEL, 2, PLAIN, (device,), Gates(), RolloutState.CANARY))
    rejection = Rejection("s07.csv", 12, "range", "ax = 9000, at most 160")
    catalog.datasets.land(Landed("watches", (), (rejection,), {"s07.csv": PLAIN}, 0), job)
    for place in range(3):
        catalog.events.add(NOW + place, "core", "release-staged", f"event {place}")


def get(client: FlaskClient, path: str, status: int = 200) -> dict[str, object]:
    response = client.get(path)
    assert (response.status_code, response.mimetype) == (status, "application/json"), response.text
    return response.get_json()


def test_an_empty_core_answers_every_list(client: FlaskClient) -> None:
    for name in ("devices", "releases", "candidates", "jobs", "rollouts", "events"):
        assert get(client, f"/v1/{name}") == {name: []}
    assert get(client, "/v1/quarantine") == {"sources": {}, "rejections": []}
    assert get(client, "/v1/trust") == {"files": {}, "waiting": []}
    assert get(client, "/v1/status")["trust"] == {
        "initialised": False, "profile": None, "badge": "not set up",
        "root": None, "targets": None, "timestamp": None, "director": None, "models": {}, "automatic": {},
        "waiting": [],
    }  # fmt: skip


def test_status_counts_and_tells_the_honest_state_of_trust(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    status = get(client, "/v1/status")
    assert status["tenant"] == "default"
    assert set(status["versions"]) == {"falaj", "protocol", "schema"}
    assert status["counts"] == {
        "devices": 1, "online": 0, "validated": 1, "releases": 1, "rollouts": 1, "jobs": 1, "quarantine": 1,
    }  # fmt: skip
    trust = status["trust"]
    assert (trust["profile"], trust["badge"]) == ("single-owner", "keys on this machine")
    assert (trust["root"]["version"], trust["root"]["expires"]) == (1, NOW + signing.LIFE.total_seconds())
    assert (trust["root"]["threshold"], len(trust["root"]["holders"])) == (1, 1)
    assert trust["timestamp"]["version"] == 1


def test_status_has_what_of_the_core_itself_fails(client: FlaskClient, catalog: Catalog) -> None:
    assert get(client, "/v1/status")["failing"] == []
    catalog.failing.put({"certificates": "no key"}, NOW)
    assert get(client, "/v1/status")["failing"] == [{"part": "certificates", "since": NOW, "text": "no key"}]


def test_what_needs_a_person_is_what_the_page_opens_with(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    catalog.failing.put({"certificates": "no key"}, NOW)
    found = get(client, "/v1/concerns")["concerns"]
    assert found[0] == {
        "level": "alarm", "subject": "the core, certificates", "text": "began to fail just now: no key", "next": "",
        "why": None,
    }  # fmt: skip
    assert [one["level"] for one in found] == sorted(one["level"] for one in found), "alarms first"


def test_devices_say_what_they_report_and_what_is_wanted(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    (device,) = get(client, "/v1/devices")["devices"]
    assert device["device"] == "watch-1"
    assert device["report"]["models"]["activity"]["validated"]["p99_ms"] == 2.0
    assert device["wanted"] == []


def test_a_release_comes_with_its_manifest_to_the_byte(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    found = get(client, "/v1/releases/activity/1")
    payload = base64.b64decode(found["manifest_base64"])
    assert payload == codec.encode(manifest())
    assert found["manifest"] == json.loads(payload)
    assert found["release"]["digest"] == chunks.digest(payload)
    assert found["scorecard"]["scores"][0]["accuracy"] == 0.97
    assert found["verdicts"][0]["gate"] == "G2"


def test_what_is_not_there_is_said_in_json(client: FlaskClient) -> None:
    beyond = "9" * 5000  # what no column holds, and no int() reads
    unknown = [f"/v1/{room}/{number}" for room in ("releases/activity", "jobs", "questions") for number in (9, beyond)]
    for path in ("/v1/performance?device=watch-9", *unknown, f"/v1/jobs/{2**63}", "/v1/nothing", "/"):
        refusal = get(client, path, 404)
        assert refusal["code"] == "not-found"
        assert refusal["error"]
        assert refusal["hint"]
    assert get(client, "/v1/releases/No_Name/1", 400)["code"] == "malformed"
    assert client.delete("/v1/jobs").get_json()["code"] == "method-not-allowed"


def test_rollouts_tell_the_active_from_the_past(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    rollouts = get(client, "/v1/rollouts")["rollouts"]
    assert [(r["number"], r["state"], r["active"]) for r in rollouts] == [
        (2, "canary", True),
        (1, "reversed", False),
    ]


def test_jobs_candidates_quarantine_and_trust_are_read(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    (job,) = get(client, "/v1/jobs")["jobs"]
    assert (job["stage"], job["done"], job["finished"]) == ("quantize", 0.5, None)
    assert get(client, f"/v1/jobs/{job['id']}") == job
    assert get(client, "/v1/candidates")["candidates"][0]["accepted"] is True
    assert get(client, "/v1/quarantine")["rejections"][0]["reason"] == "range"
    assert get(client, "/v1/quarantine?source=other")["rejections"] == []
    files = {name: base64.b64decode(text) for name, text in get(client, "/v1/trust")["files"].items()}
    assert files == catalog.releases.trust()


def test_events_are_newest_first_and_limited(client: FlaskClient, catalog: Catalog) -> None:
    fill(catalog)
    assert [e["text"] for e in get(client, "/v1/events?limit=2")["events"]] == ["event 2", "event 1"]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1001", "9" * 5000, "٣"])
def test_a_wrong_limit_names_itself(client: FlaskClient, limit: str) -> None:
    refusal = get(client, f"/v1/events?limit={limit}", 400)
    assert refusal["code"] == "malformed"
    assert str(refusal["error"]).startswith("limit:")


PEOPLE = (
    orders.ApplyProject(project=Project(), folder="/srv/plant"),
    orders.Ingest(actor="amal", source="watches"),
    orders.Train(model=MODEL),
    orders.TrustKeys(),
    orders.TrustInit(root="{}", targets="{}"),
    orders.Approve(model=MODEL, number=1, metadata={}),
    orders.ChangeTrust(metadata={"root": "{}"}),
    orders.RevokeRelease(model=MODEL, number=1, metadata={}, reason="a test"),
    orders.AutoKey(model=MODEL),
    orders.Automatic(model=MODEL, on=True, metadata={}),
    orders.Override(candidate=1, reason="the gate is too strict"),
    orders.Force(actor="amal", model=MODEL, number=2, reason="a test"),
    orders.Reverse(actor="amal", model=MODEL, number=2, reason="a test"),
    orders.SetAside(actor="amal", model=MODEL, number=2, device=DeviceId("watch-1"), reason="a test"),
    orders.Label(device=DeviceId("watch-1"), labels={"p1": "walk"}),
    orders.Question(device=DeviceId("watch-1"), ask=AskPredictions(1.0, 2.0, MODEL, inputs=True)),
    orders.Question(device=DeviceId("watch-1"), ask=AskSupport()),
    orders.IssueToken(device=DeviceId("watch-1")),
    orders.IssueSiteToken(site=SiteId("north"), uses=3),
    orders.ImportBoxes(boxes=boxes(2)),
    orders.Accept(devices=(DeviceId("watch-1"),)),
    orders.Revoke(device=DeviceId("watch-1"), reason="stolen"),
    orders.Replace(device=DeviceId("watch-1")),
    orders.Authority(step="finish", strand=(DeviceId("watch-1"),)),
    orders.EnrolByFolder(envelope="{}"),
    orders.CarryIn(device=DeviceId("watch-1"), bundle="{}"),
    orders.CarryOut(device=DeviceId("watch-1")),
)
OTHERS = (
    orders.Enrol(envelope="{}"),
    orders.JobProgress(job=1, stage="train", done=0.5),
    orders.CommitRows(job=1, landed=Landed("watches", (), (), {}, 0)),
    orders.CommitLookup(job=1, name=LookupName("halls"), content=b""),
    orders.CommitCandidate(job=1, candidate=candidate()),
    orders.JobFailed(job=1, error="no"),
    orders.PartsFailing(parts={"broker": "no"}),
    orders.BrokerDenied(words={DeviceId("watch-1"): ("core/status", 1)}, handshakes={"wrong version number": 1}),
)


def test_people_and_others_are_all_the_orders_there_are() -> None:
    assert {type(order) for order in PEOPLE + OTHERS} == set(orders.AnyOrder.__args__)


@pytest.mark.parametrize("order", PEOPLE, ids=lambda order: type(order).__name__)
def test_orders_of_people_reach_the_steward_unchanged(client: FlaskClient, steward: Steward, order: Order) -> None:
    response = client.post("/v1/orders", data=codec.encode(order))
    assert (response.status_code, response.get_json()["result"]) == (200, {"done": True})
    assert steward.orders == [order]


@pytest.mark.parametrize("order", OTHERS, ids=lambda order: type(order).__name__)
def test_orders_of_workers_and_of_new_devices_are_refused(client: FlaskClient, steward: Steward, order: Order) -> None:
    response = client.post("/v1/orders", data=codec.encode(order))
    assert (response.status_code, response.get_json()["code"]) == (403, "forbidden")
    assert steward.orders == []


def test_a_no_of_the_steward_keeps_its_code_and_hint(client: FlaskClient, steward: Steward) -> None:
    steward.answer = Answer(False, error="no source 'watch'", code="unknown-part", hint="sources are: watches")
    response = client.post("/v1/orders", data=codec.encode(PEOPLE[1]))
    assert response.status_code == 409
    assert response.get_json() == {
        "error": "no source 'watch'",
        "code": "unknown-part",
        "hint": "sources are: watches",
    }


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b'{"source": "a"}', "order"),
        (b'{"order": "Explode"}', "Explode"),
        (b'{"order": "Ingest"}', "source"),
        (b'{"order": "Train", "model": "No Name"}', "model"),
        (b'{"order": "IssueToken", "device": "a", "minutes": "many"}', "minutes"),
        (b'{"order": "IssueToken", "device": "a", "minutes": 99999999999}', "minutes"),
        (b'{"order": "IssueSiteToken", "site": "a", "uses": 9223372036854775808}', "uses"),
        (b'{"order": "Override", "candidate": 99999999999999999999, "reason": "x"}', "candidate"),
        (b'{"order": "Force", "model": "m", "number": 99999999999999999999, "reason": "x"}', "number"),
        (b'{"order": "Reverse", "model": "m", "number": -1, "reason": "x"}', "number"),
        (b"\xff\xfe", "malformed"),
    ],
)
def test_a_malformed_order_is_refused_by_the_name_of_the_part(
    client: FlaskClient, steward: Steward, body: bytes, named: str
) -> None:
    response = client.post("/v1/orders", data=body)
    assert response.status_code == 400
    assert response.get_json()["code"] == "malformed"
    assert named in response.text
    assert steward.orders == []


def test_an_order_that_is_too_long_is_not_read(client: FlaskClient) -> None:
    response = client.post("/v1/orders", data=b" " * (4 * 1024 * 1024 + 1))
    assert (response.status_code, response.get_json()["code"]) == (413, "too-large")


def test_without_a_steward_or_a_catalog_it_says_what_to_start(
    client: FlaskClient, steward: Steward, catalog: Catalog, tmp_path: Path
) -> None:
    steward.away = ConnectionRefusedError("/run/secret/path")
    response = client.post("/v1/orders", data=codec.encode(PEOPLE[1]))
    assert (response.status_code, response.get_json()["code"]) == (503, "steward-away")
    assert "falaj core run" in response.get_json()["hint"]
    absent = create_api(lambda: open_catalog(tmp_path / "no.db", KEY, read_only=True), steward.ask, lambda: NOW)
    assert get(absent.test_client(), "/v1/devices", 503)["code"] == "no-catalog"
    locked = create_api(
        lambda: open_catalog(tmp_path / "catalog.db", bytes(32), read_only=True), steward.ask, lambda: NOW
    )
    assert get(locked.test_client(), "/v1/devices", 503)["code"] == "catalog-locked"


def test_the_profile_follows_the_roots_quorum() -> None:
    root = {
        "signed": {
            "version": 2,
            "expires": "2027-01-15T08:00:00Z",
            "roles": {"root": {"keyids": ["a", "b", "c"], "threshold": 2}, "targets": {"keyids": ["d"]}},
        }
    }
    files = {"1.root.json": b"not read", "2.root.json": json.dumps(root).encode()}
    state = trust_state(files)
    badge = "root needs 2 of 3 keys, a release 1 of 1"
    assert (state.profile, state.badge, state.root.version) == ("organisation", badge, 2)
    assert (state.targets, state.timestamp) == (None, None)
    with pytest.raises(Malformed, match=r"1\.root\.json"):
        trust_state({"1.root.json": b"not metadata"})


def test_a_model_of_any_name_stands_there_once() -> None:
    role = json.dumps({"signed": {"version": 1, "expires": "2027-01-15T08:00:00Z"}}).encode()
    files = dict.fromkeys(("1.root.json", "1.model.model.json", "1.auto.model.json"), role)
    assert [*trust_state(files).models] == ["model"]


def test_the_description_names_every_route_and_no_other(client: FlaskClient, steward: Steward) -> None:
    from core.console import create_enrolment

    def served(app: Flask) -> set[tuple[str, str]]:
        rules = app.url_map.iter_rules()
        return {
            (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
            for rule in rules
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }

    text = (Path(__file__).parents[2] / "docs" / "openapi-core.yaml").read_text()
    described, path = set(), ""
    for line in text.splitlines():
        if found := re.fullmatch(r"  (/v1/\S+):", line):
            path = found[1]
        elif (found := re.fullmatch(r"    (get|post|put|delete|patch):", line)) and path:
            described.add((path, found[1]))
    assert described == served(client.application) | served(create_enrolment(steward.ask, b""))
