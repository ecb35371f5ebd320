"""Orders: what is done is committed, what is refused leaves nothing but its reason."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Targets

from appliance.keys import new_device_keys
from core import orders
from core.answers import Answer
from core.fleet.labels import messages
from core.handoffs import RolloutState
from core.project import Project
from core.steward import PersistBroker, desk
from core.steward.staging import stage
from sync import chunks, codec, roles, topics
from sync.manifest import Manifest, Uplink, role_of
from sync.messages import Labels, TrustIndex
from sync.names import DeviceId, ModelName, TrustFile
from tests.core import people
from tests.core.world import MODEL, ONE, TENANT, TWO, World, landed, project, request, serving

OWN_KEY = roles.new_signing_key()
ROOT = Path(__file__).resolve().parents[2]


def facts(world: World) -> tuple[object, ...]:
    """Everything an order could change, events aside."""
    shelf = world.catalog
    return (
        shelf.projects.current(), shelf.projects.jobs(), shelf.datasets.totals(), shelf.releases.candidates(),
        shelf.releases.releases(), shelf.releases.trust(), shelf.fleet.devices(), shelf.fleet.rollouts(active=False),
        shelf.fleet.token(ONE), sorted(f.name for f in (world.folder / "blobs").iterdir()),
    )  # fmt: skip


def refused(world: World, order: orders.AnyOrder, code: str) -> Answer:
    """The order is refused with this code, and nothing has changed or been sent."""
    before, sent = facts(world), len(world.actions)
    answer = world.order(order)
    assert (answer.ok, answer.code) == (False, code), answer
    assert answer.error and answer.result == {}
    assert facts(world) == before and len(world.actions) == sent
    return answer


# --- project and jobs -------------------------------------------------------------------------------------------


def test_every_order_there_is_has_its_desk() -> None:
    assert desk._DESKS.keys() | desk.WALKS.keys() == set(orders.AnyOrder.__args__)


def test_a_project_is_applied_and_starts_no_work(bare: World) -> None:
    assert bare.must(orders.ApplyProject(project=project(), folder="/p"))["version"] == 1
    assert bare.must(orders.ApplyProject(project=project(), folder="/p"))["version"] == 2
    assert bare.catalog.projects.current() == (project(), "/p")
    assert bare.jobs == [] and bare.codes() == ["project-applied"] * 2


def test_a_project_that_does_not_fit_together_is_refused_with_all_its_faults(bare: World) -> None:
    broken = Project(sources=project().sources, views=project().views, models=project().models)
    answer = refused(bare, orders.ApplyProject(project=broken, folder="/p"), "project-invalid")
    assert "sources.watches.contract" in answer.error and "falaj.toml" in answer.hint


@pytest.mark.parametrize("order", [orders.Ingest(source="watches"), orders.Train(model=MODEL)])
def test_without_a_project_there_is_no_work(bare: World, order: orders.AnyOrder) -> None:
    assert "falaj apply" in refused(bare, order, "no-project").hint


def test_what_is_not_declared_cannot_be_run(bare: World) -> None:
    bare.must(orders.ApplyProject(project=project(), folder="/p"))
    assert "watches" in refused(bare, orders.Ingest(source="clocks"), "no-such-source").error
    assert "motion" in refused(bare, orders.Train(model=ModelName("other")), "no-such-model").error
    assert "falaj ingest watches" in refused(bare, orders.Train(model=MODEL), "no-data").hint


def test_rows_and_position_are_committed_with_the_job(bare: World) -> None:
    bare.must(orders.ApplyProject(project=project(), folder="/p"))
    job = bare.must(orders.Ingest(source="watches"))["job"]
    assert [(j.job, j.kind, j.subject, j.folder) for j in bare.jobs] == [(job, "ingest", "watches", "/p")]
    refused(bare, orders.Ingest(source="watches"), "job-running")
    bare.must(orders.JobProgress(job=job, stage="reading", done=0.5))
    bare.must(orders.CommitRows(job=job, landed=landed()))
    found = bare.catalog.projects.job(job)
    assert found is not None and (found.state, found.result["rows"]) == ("done", 10)
    bare.must(orders.Ingest(source="watches"))
    assert bare.jobs[-1].position == landed().position, "the next run begins where this one ended"
    more = replace(landed("another.parquet"), position={"day-2.csv": "d2"}, more=True)
    assert bare.must(orders.CommitRows(job=bare.jobs[-1].job, landed=more))["more"], "a run says what is new alone"
    bare.must(orders.Ingest(source="watches"))
    assert bare.jobs[-1].position == landed().position | more.position


def test_a_jobs_result_is_taken_once(bare: World) -> None:
    bare.must(orders.ApplyProject(project=project(), folder="/p"))
    job = bare.must(orders.Ingest(source="watches"))["job"]
    bare.must(orders.CommitRows(job=job, landed=landed()))
    refused(bare, orders.CommitRows(job=job, landed=landed("another.parquet")), "job-over")
    refused(bare, orders.JobFailed(job=job, error="late"), "job-over")
    refused(bare, orders.CommitRows(job=999, landed=landed()), "job-over")
    candidate = bare.candidate()
    job = bare.job()
    bare.must(orders.CommitCandidate(job=job, candidate=candidate))
    refused(bare, orders.CommitCandidate(job=job, candidate=candidate), "job-over")
    bare.must(orders.JobProgress(job=job, stage="late", done=0.1))
    found = bare.catalog.projects.job(job)
    assert found is not None and (found.state, found.done) == ("done", 1.0)


def test_a_job_that_failed_says_why_and_may_be_started_again(bare: World) -> None:
    bare.must(orders.ApplyProject(project=project(), folder="/p"))
    job = bare.must(orders.Ingest(source="watches"))["job"]
    bare.must(orders.JobFailed(job=job, error="disk full", hint="make room"))
    found = bare.catalog.projects.job(job)
    assert found is not None and (found.state, found.error, found.hint) == ("failed", "disk full", "make room")
    assert bare.must(orders.Ingest(source="watches"))["job"] == job + 1


def test_a_restart_ends_the_jobs_that_were_under_way(bare: World) -> None:
    bare.must(orders.ApplyProject(project=project(), folder="/p"))
    job = bare.must(orders.Ingest(source="watches"))["job"]
    bare.reopen()
    found = bare.catalog.projects.job(job)
    assert found is not None and found.state == "failed" and found.hint == "start it again: falaj ingest watches"
    assert bare.codes().count("job-lost") == 1
    refused(bare, orders.CommitRows(job=job, landed=landed()), "job-over")
    bare.reopen()
    assert bare.codes().count("job-lost") == 1


# --- releases ---------------------------------------------------------------------------------------------------


def test_a_refused_candidate_is_kept_with_its_reasons_and_is_no_release(world: World) -> None:
    result = world.must(orders.CommitCandidate(job=world.job(), candidate=world.candidate(accepted=False)))
    assert result["accepted"] is False
    assert world.catalog.releases.releases() == [] and len(world.catalog.releases.candidates()) == 1
    event = world.catalog.events.newest(1)[0]
    assert (event.code, event.model) == ("candidate-refused", MODEL) and "accuracy" in event.text


def test_what_may_leave_a_device_is_part_of_the_signed_release(world: World) -> None:
    job, candidate = world.job(), world.candidate()
    made = project()
    uplink = Uplink("labelled", "alarm", daily_bytes=5000, region="AE")
    world.must(
        orders.ApplyProject(
            project=replace(made, models={MODEL: replace(made.models[MODEL], uplink=uplink)}), folder="/p"
        )
    )
    number = world.must(orders.CommitCandidate(job=job, candidate=candidate))["number"]
    _, payload = world.catalog.releases.release(MODEL, number) or pytest.fail("no release")
    manifest = codec.decode(Manifest, payload)
    assert manifest.uplink == uplink and manifest.lineage.override == ""


def test_who_overrode_a_gate_stands_in_the_manifest(world: World) -> None:
    candidate = world.candidate(accepted=False)
    key = world.must(orders.CommitCandidate(job=world.job(), candidate=candidate))["candidate"]
    job = world.catalog.projects.jobs(1)[0]
    assert job.result["candidate"] == key, "so that people know what to override"
    with world.catalog.transaction():
        manifest = stage(world.house, candidate, key, world.now, "noor: the ward needs it")
    assert manifest.lineage.override == "noor: the ward needs it"
    row, payload = world.catalog.releases.release(MODEL, manifest.number) or pytest.fail("no release")
    assert row.candidate == key and codec.decode(Manifest, payload) == manifest


def test_an_accepted_candidate_awaits_approval_and_nothing_of_it_is_sent(world: World) -> None:
    sent = len(world.sent)
    assert world.stage() == 1
    row, payload = world.catalog.releases.release(MODEL, 1) or pytest.fail("no release")
    assert (row.state, row.digest) == ("staged", chunks.digest(payload))
    assert len(world.sent) == sent
    keys = world.catalog.releases.keys(MODEL, 1)
    assert sorted(keys) == sorted(f.name for f in (world.folder / "blobs").iterdir())


def test_a_candidate_of_a_model_that_is_no_longer_declared_is_refused(world: World) -> None:
    job, candidate = world.job(), world.candidate()
    empty = Project(sources=project().sources, contracts=project().contracts)
    world.must(orders.ApplyProject(project=empty, folder="/p"))
    refused(world, orders.CommitCandidate(job=job, candidate=candidate), "no-such-model")


def test_a_candidate_whose_artifact_is_damaged_becomes_no_release(world: World) -> None:
    job, candidate = world.job(), world.candidate()
    (world.folder / "artifacts" / candidate.golden).write_bytes(b"FLJ1 and then nothing")
    answer = world.order(orders.CommitCandidate(job=job, candidate=candidate))
    assert (answer.ok, answer.code) == (False, "damaged")
    assert world.catalog.releases.releases() == [] and world.catalog.releases.candidates() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from core import orders
from tests.core.world import World

class Cut:
    def __init__(self, real):
        self.real = real
    def put(self, digest, sealed):
        self.real.put(digest, sealed)
        os.kill(os.getpid(), signal.SIGKILL)

world = World(Path(sys.argv[1])).ready()
world.house.blobs = Cut(world.house.blobs)
world.stage()
"""


def test_a_kill_between_blobs_and_rows_leaves_nothing_that_is_named(tmp_path: Path) -> None:
    """The steward dies when the first of two blob files is written: the file is there, no row names it."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    world = World(tmp_path)
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    assert world.catalog.releases.keys(MODEL, 1) == {} and world.catalog.releases.release(MODEL, 1) is None
    assert world.catalog.releases.candidates() == [] and world.catalog.projects.unfinished() == []
    assert "job-lost" in world.codes()
    assert world.stage() == 1, "the number was not used up: nothing bears it"
    world.catalog.close()


def test_an_approval_publishes_what_points_after_what_is_pointed_at(world: World) -> None:
    number = world.stage()
    start = len(world.sent)
    world.must(world.approval(number))
    sent = [m.topic.removeprefix(f"falaj/1/{TENANT}/") for m in world.sent[start:]]
    assert all(m.retain and m.qos == 1 for m in world.sent[start:])
    assert sent[-2:] == ["trust/timestamp.json", "trust/index"]
    last_blob = max(i for i, topic in enumerate(sent) if topic.startswith("blob/"))
    assert last_blob < sent.index("trust/timestamp.json")
    index = codec.decode(TrustIndex, world.sent[-1].payload)
    told = [t.removeprefix("trust/") for t in sent if t.startswith("trust/")][:-1]
    assert list(index.files) == [t for t in told if not t.endswith(".manifest")], "it must not grow with the releases"
    assert any(isinstance(a, PersistBroker) for a in world.actions)
    assert world.codes()[-1] == "release-approved"
    (_, rollout) = world.catalog.fleet.rollouts()[0]
    assert (rollout.state, rollout.previous) == (RolloutState.APPROVED, None)


def resigned(text: str, by: Signer) -> bytes:
    metadata: Metadata[Targets] = Metadata.from_bytes(text.encode())
    metadata.signatures.clear()
    metadata.sign(by)
    return metadata.to_bytes()


def unsigned(text: str) -> str:
    metadata: Metadata[Targets] = Metadata.from_bytes(text.encode())
    metadata.signatures.clear()
    return metadata.to_bytes().decode()


def test_approvals_that_do_not_hold_are_refused(world: World) -> None:
    number = world.stage()
    good = world.approval(number)
    refused(world, orders.Approve(model=MODEL, number=9, metadata=good.metadata), "no-such-release")
    stranger = roles.signer(roles.new_signing_key())
    forged = {name: resigned(text, stranger).decode() for name, text in good.metadata.items()}
    name = role_of(MODEL)
    for metadata in (
        forged,
        good.metadata | {name: forged[name]},
        {name: good.metadata[name]},
        {name: text for name, text in good.metadata.items() if name == "targets"},
        {name: unsigned(text) for name, text in good.metadata.items()},
        {},
    ):
        refused(world, orders.Approve(model=MODEL, number=number, metadata=metadata), "untrusted")
    refused(world, orders.Approve(model=MODEL, number=number, metadata=good.metadata | {name: "{"}), "malformed")
    assert world.catalog.releases.proposals() == []
    world.must(good)
    refused(world, good, "rollout-under-way")


def test_a_release_on_its_way_is_not_approved_again_and_a_newer_one_supersedes_it(world: World) -> None:
    first = world.stage()
    world.must(world.approval(first))
    refused(world, world.approval(first), "rollout-under-way")
    second = world.stage()
    world.must(world.approval(second))
    states = {r.number: r.state.value for _, r in world.catalog.fleet.rollouts(active=False)}
    assert states[first] == "superseded" and states[second] != "superseded"
    assert [r.number for _, r in world.catalog.fleet.rollouts()] == [second]


def test_a_release_that_was_revoked_or_is_no_longer_declared_is_not_approved(world: World) -> None:
    order = world.approval(world.stage())
    world.must(orders.ApplyProject(project=Project(), folder="/p"))
    refused(world, order, "no-such-model")
    world.must(orders.ApplyProject(project=project(), folder="/p"))
    with world.catalog.transaction():
        world.catalog.releases.set_state(MODEL, 1, "revoked")
    refused(world, order, "release-revoked")


def test_devices_are_not_taken_back_to_a_release_that_was_reversed(world: World) -> None:
    device = world.enrol(ONE)
    _, first = world.release(b"one")
    world.hear(device.report({MODEL: serving(first)}))
    _, second = world.release(b"two")
    world.hear(device.report({MODEL: serving(first, quarantined={second: 0}, reason="slow")}))
    world.tick()
    assert world.catalog.fleet.rollouts()[0][1].state is RolloutState.REVERSED
    world.release(b"three")
    assert world.catalog.fleet.rollouts()[0][1].previous == 1


# --- labels -----------------------------------------------------------------------------------------------------


def test_labels_are_sent_on_in_messages_that_a_device_can_take(world: World) -> None:
    world.enrol(ONE)
    start = len(world.sent)
    labels = {f"{n:032x}": "rest" for n in range(1201)}
    assert world.must(orders.Label(device=ONE, labels=labels)) == {"labels": 1201, "messages": 3}
    sent = world.sent[start:]
    assert {(m.topic, m.qos, m.retain, m.expiry) for m in sent} == {(topics.labels(TENANT, ONE), 1, False, 86_400)}
    parts = [codec.decode(Labels, m.payload).labels for m in sent]
    assert [len(p) for p in parts] == [500, 500, 201]
    assert [item for p in parts for item in p.items()] == list(labels.items())


def test_labels_that_cannot_be_sent_are_refused(world: World) -> None:
    world.enrol(ONE)
    assert "falaj status" in refused(world, orders.Label(device=TWO, labels={"a": "b"}), "no-such-device").hint
    refused(world, orders.Label(device=ONE, labels={}), "no-labels")
    refused(world, orders.Label(device=ONE, labels={"a": "b", "c": "x" * 70_000}), "label-too-long")


@given(st.dictionaries(st.text(max_size=40), st.one_of(st.text(max_size=20), st.just("é" * 9_000)), max_size=40))
def test_every_label_travels_once_and_every_message_fits(labels: dict[str, str]) -> None:
    parts = list(messages(labels))
    assert [item for p in parts for item in p.labels.items()] == list(labels.items())
    assert all(p.labels and codec.decode(Labels, codec.encode(p)) == p for p in parts)


# --- trust and devices ------------------------------------------------------------------------------------------


def test_trust_begins_once_and_is_published(bare: World) -> None:
    root, targets = (part.decode() for part in bare.root_and_targets())
    assert bare.must(orders.TrustInit(root=root, targets=targets))["root"] == chunks.digest(root.encode())
    assert bare.last(topics.trust(TENANT, TrustFile("1.root.json"))) == root.encode()
    assert "falaj trust status" in refused(bare, orders.TrustInit(root=root, targets=targets), "trust-exists").hint


def test_a_root_that_names_other_keys_than_the_cores_is_refused(bare: World) -> None:
    root, targets = bare.root_and_targets()
    stranger = roles.signer(roles.new_signing_key()).public_key
    keys = {name: roles.key_from_dict(k.pop("keyid"), k) for name, k in bare.must(orders.TrustKeys()).items()}

    def init(**other: Key) -> orders.TrustInit:
        given = {**keys, **other}
        made, _ = people.begun(bare.owner, given["snapshot"], given["timestamp"], given["director"], bare.now)
        return orders.TrustInit(root=made.decode(), targets=targets.decode())

    refused(bare, init(director=stranger), "wrong-director")
    refused(bare, init(snapshot=stranger), "untrusted")
    refused(bare, init(timestamp=stranger), "untrusted")
    refused(bare, orders.TrustInit(root=targets.decode(), targets=root.decode()), "untrusted")
    bare.must(init())


def test_without_trust_there_is_no_token(bare: World) -> None:
    assert "falaj trust init" in refused(bare, orders.IssueToken(device=ONE), "no-trust").hint


def test_a_token_admits_one_device_once(world: World) -> None:
    token, keys = world.token(ONE), new_device_keys(ONE)
    assert token.secret not in str(world.catalog.fleet.token(ONE))
    answer = world.must(orders.Enrol(envelope=request(token, keys).decode()))
    assert (answer["device"], answer["epoch"], answer["tenant"]) == (ONE, 1, TENANT)
    assert chunks.digest(answer["root"].encode()) == token.root
    assert token.secret not in str(answer)
    again = world.order(orders.Enrol(envelope=request(token, new_device_keys(ONE)).decode()))
    assert (again.ok, again.code) == (False, "enrolment-refused")
    assert [d.device for d in world.catalog.fleet.devices()] == [ONE]


def test_a_device_that_enrols_again_begins_a_new_epoch(world: World) -> None:
    first, second = world.enrol(ONE), world.enrol(ONE)
    assert (first.epoch, second.epoch) == (1, 2)
    world.hear(first.report())
    assert world.codes()[-1] == "refused-untrusted"
    world.hear(second.report())
    found = world.catalog.fleet.device(ONE)
    assert found is not None and found.report is not None and found.report.epoch == 2


def test_every_reason_to_refuse_an_enrolment_gives_the_same_answer(world: World) -> None:
    keys = new_device_keys(ONE)
    token = world.token(ONE)
    answers = set()

    def ask(**lies: Any) -> None:
        answer = world.order(orders.Enrol(envelope=request(token, keys, **lies).decode()))
        assert not answer.ok
        answers.add((answer.code, answer.error, answer.hint))

    ask(device=TWO)  # no token for it
    ask(secret="x" * 43)
    ask(tenant="other")
    ask(csr="nothing")
    ask(sealing_key="AA==")
    ask(signer=roles.new_signing_key())
    world.now += 3601
    ask()  # too late
    assert len(answers) == 1
    assert world.codes().count("enrolment-refused") == 6
    assert world.codes().count("enrolment-flood") == 1  # the sixth of one source in an hour; the next hour begins anew
    assert world.catalog.fleet.devices() == []


def test_a_token_bears_five_mistakes_of_who_knows_it(world: World) -> None:
    token, keys = world.token(ONE), new_device_keys(ONE)
    for _ in range(7):
        world.order(orders.Enrol(envelope=request(token, keys, sealing_key="AA==").decode()))
    row = world.catalog.fleet.token(ONE)
    assert row is not None and row.attempts == 5
    assert not world.order(orders.Enrol(envelope=request(token, keys).decode())).ok
    world.enrol(ONE)  # a new token begins anew


def test_no_number_of_wrong_guesses_locks_the_owner_out(world: World) -> None:
    token, keys = world.token(ONE), new_device_keys(ONE)
    for _ in range(20):
        world.order(orders.Enrol(envelope=request(token, keys, secret="guess").decode(), source="192.0.2.1"))
    row = world.catalog.fleet.token(ONE)
    assert row is not None and row.attempts == 0
    assert world.order(orders.Enrol(envelope=request(token, keys).decode(), source="192.0.2.1")).ok


def test_a_body_that_is_no_envelope_is_malformed(world: World) -> None:
    for envelope in ("", "{}", "[]", '{"payload":"","payloadType":"","signatures":[]}'):
        refused(world, orders.Enrol(envelope=envelope), "malformed")


def test_a_rollout_over_thousands_of_devices_has_room(world: World) -> None:
    """Its document outgrows what may travel in one message."""
    world.release()
    (key, rollout) = world.catalog.fleet.rollouts()[0]
    many = tuple(DeviceId(f"{'w' * 55}-{i}") for i in range(2000))
    with world.catalog.transaction():
        world.catalog.fleet.put_rollout(key, replace(rollout, assigned=many))
    assert world.catalog.fleet.rollouts()[0][1].assigned == many


def test_who_is_refused_at_the_door_is_noted_apart_from_what_the_core_does(world: World) -> None:
    """Anybody on the network can knock: their events have room of their own."""
    envelope = roles.sign({"tenant": TENANT, "device": ONE, "secret": "", "csr": "", "sealing_key": ""}, "x", OWN_KEY)
    world.order(orders.Enrol(actor="enrolment", envelope=envelope.decode()))
    event = world.catalog.events.newest(1)[0]
    assert (event.code, event.source) == ("enrolment-refused", "enrolment")
