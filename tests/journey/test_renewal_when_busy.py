"""A real agent gets its next certificate while more waits for it at the broker than it takes in at once."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from appliance.edge.state import EdgeFolder, identity, keep
from appliance.keys import DeviceKeys, box_public, new_box_key, new_device_keys
from appliance.processes import spawn, stop
from core.fleet import enrolment
from sync import codec, records, roles, topics
from sync.enrolment import EnrolAnswer
from sync.messages import ASSIGNMENT_TYPE, EVENT, Ack, Assignment, DeviceEvent, Record
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.attacks.ground import Ground, Session, open_ground
from tests.core import people
from tests.core.world import ONE, TENANT
from tests.waiting import eventually

pytestmark = pytest.mark.broker
WAITING = 400  # messages; the agent's queue has room for 64
REPORTS = new_box_key()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = open_ground(tmp_path / "core")
    yield made
    made.close_sessions()
    made.broker.stop()


class Papers:
    """What the core knows of the device and signs for it."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.keys, self.director = ground, new_device_keys(ONE), roles.new_signing_key()
        owner, snapshot, timestamp = (roles.signer(roles.new_signing_key()) for _ in range(3))
        director = roles.signer(self.director).public_key
        self.root, _ = people.begun(owner, snapshot.public_key, timestamp.public_key, director, ground.now)

    def certificate(self, days: int) -> bytes:
        public = bytes.fromhex(roles.signer(self.keys.signing).public_key.keyval["public"])
        return enrolment.certify(self.ground.authority, TENANT, ONE, public, self.ground.now, timedelta(days=days))

    def enrolled(self, root: Path) -> EdgeFolder:
        folder, keys = EdgeFolder(root), self.keys
        ca = self.ground.authority.certificate.decode()
        reports = base64.b64encode(box_public(REPORTS)).decode()
        answer = EnrolAnswer(TENANT, ONE, 1, self.certificate(30).decode(), ca, self.root.decode(), "127.0.0.1",
                             self.ground.broker.port, reports)  # fmt: skip
        keep(folder, DeviceKeys(keys.signing, keys.sealing, keys.sealing_public, keys.csr), answer)
        http, local = free_ports(2)
        (root / "edge.toml").write_text(f"http_port = {http}\n\n[local_broker]\nport = {local}\n")
        return folder

    def assignment(self, certificate: bytes) -> bytes:
        order = Assignment(
            tenant=TENANT, device=ONE, epoch=1, seq=1, ts=self.ground.now, expires=self.ground.now + 86_400.0,
            models={}, certificate=certificate.decode(), authorities=(self.ground.authority.certificate.decode(),),
        )  # fmt: skip
        return roles.sign(order, ASSIGNMENT_TYPE, self.director)


def absent(ground: Ground, folder: EdgeFolder) -> None:
    """A session of the device that the broker keeps, and nobody in it."""
    at = At("127.0.0.1", ground.broker.port, ONE, folder.tls(), session_expiry=600)
    link = MqttLink(at)
    found = Session(link)
    link.start(found.heard.append, lambda up, reason: None)
    found.listen(*topics.device_subscriptions(TENANT, ONE))
    link.stop()


def told(core: Session) -> list[str]:
    """The codes of the events that the device told, oldest first; one that it said again counts once, by its number."""
    found: dict[int, str] = {}
    for message in core.heard:
        if message.topic == topics.up(TENANT, ONE, EVENT):
            record = records.unseal(codec.decode(Record, message.payload), TENANT, ONE, EVENT, REPORTS)
            found[record.n] = codec.decode(DeviceEvent, bytes(record.body)).code
    return list(found.values())


def test_a_certificate_is_renewed_in_the_middle_of_all_that_waited(ground: Ground, tmp_path: Path) -> None:
    papers = Papers(ground)
    folder = papers.enrolled(tmp_path / "edge")
    absent(ground, folder)
    core, following = ground.core(), papers.certificate(365)
    core.listen(f"{topics.tenant_root(TENANT)}/d/#")
    for n in range(WAITING):
        if n == WAITING // 4:
            core.say(topics.desired(TENANT, ONE), papers.assignment(following), retain=True)
        core.say(topics.ack(TENANT, ONE, EVENT), codec.encode(Ack(1, 0)))
    eventually(lambda: not core.link.unconfirmed, "all of it at the broker")
    log = folder.root / "agent.log"
    agent = spawn([sys.executable, "-P", "-m", "appliance.cli", "edge", "run", "--dir", str(folder.root)], log)
    try:
        eventually(lambda: (folder.identity / "device.pem").read_bytes() == following, "the next certificate")
        eventually(lambda: ground.log.count(f"as {ONE} ") == 3, "the session with it")
        eventually(lambda: "certificate-installed" in told(core), "a word of it in that session")
        assert told(core).count("certificate-installed") == 1
        core.say(topics.ack(TENANT, ONE, EVENT), codec.encode(Ack(1, 10)))
        assert agent.poll() is None, log.read_text()
        assert ground.log.count(f"as {ONE} ") == 3, "one session after the other, and no two that end each other"
    finally:
        stop(agent)
    assert identity(folder).ends > ground.now + 300 * 86_400
    assert b"PRIVATE" not in log.read_bytes()
