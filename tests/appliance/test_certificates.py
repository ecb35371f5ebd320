"""Certificates are read and compared: only the next one of this very device takes the place of the one before."""

from __future__ import annotations

import shutil
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance import certificates, clock
from appliance.certificates import Certificate, WrongCertificate, check_successor, ends_of
from appliance.core.state import CoreFolder, authority_folder, open_keys, prepare, renew_servers
from appliance.edge.state import EdgeFolder, identity, install, keep
from appliance.keys import DeviceKeys, new_device_keys
from appliance.pump import BACKLOG
from appliance.settings import CoreSettings
from core.fleet import enrolment, renewal
from sync import roles, topics
from sync.durable import write_private
from sync.enrolment import EnrolAnswer
from sync.link import Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DEFAULT_TENANT, DeviceId
from tests.appliance.in_process import CoreInProcess
from tests.attacks.ground import open_ground
from tests.core.world import AUTHORITY, DAY, ONE, START, TENANT, TWO
from tests.waiting import eventually

KEYS = new_device_keys(ONE)
YEAR = timedelta(days=365)


def certify(
    device: DeviceId = ONE, keys: DeviceKeys = KEYS, now: float = START, authority: enrolment.Pair = AUTHORITY
) -> bytes:
    public = bytes.fromhex(roles.signer(keys.signing).public_key.keyval["public"])
    return enrolment.certify(authority, TENANT, device, public, now, YEAR)


def enrolled(root: Path, certificate: bytes) -> EdgeFolder:
    folder = EdgeFolder(root)
    ca = AUTHORITY.certificate.decode()
    keep(folder, KEYS, EnrolAnswer(TENANT, ONE, 1, certificate.decode(), ca, "{}", "core.test", 8883))
    return folder


def test_what_a_certificate_says() -> None:
    told = certificates.read(certify())
    assert told == Certificate(ONE, START - DAY, START + 365 * DAY)
    with pytest.raises(ValueError, match="PEM"):
        certificates.read(b"nothing")


def test_only_the_next_one_of_this_device_is_taken() -> None:
    before = certificates.read(certify())
    ca = AUTHORITY.certificate
    later = START + 200 * DAY
    assert check_successor(certify(now=later), before, KEYS.signing, ca).ends == later + 365 * DAY
    other = enrolment.create_authority(TENANT, START)
    refused = {
        "authority": certify(now=later, authority=other),
        "another key": certify(keys=new_device_keys(ONE), now=later),
        "watch-2": certify(device=TWO, now=later),
        "longer": certify(now=START - DAY),
        "not by this": b"-----BEGIN CERTIFICATE-----\n",
    }
    for words, pem in refused.items():
        with pytest.raises(WrongCertificate, match=words):
            check_successor(pem, before, KEYS.signing, ca)


def test_one_file_takes_the_place_of_one(tmp_path: Path) -> None:
    folder = enrolled(tmp_path, certify())
    own, later = identity(folder), certify(now=START + 200 * DAY)
    newer = install(folder, own, later.decode())
    assert newer == identity(folder) and newer.signing_key == own.signing_key
    with pytest.raises(WrongCertificate):
        install(folder, newer, certify().decode())
    assert identity(folder) == newer
    assert stat.S_IMODE((folder.identity / "device.pem").stat().st_mode) == 0o600


def test_a_new_identity_is_whole_or_the_old_one_holds(tmp_path: Path) -> None:
    """Cut between any two of its steps."""
    folder = enrolled(tmp_path, certify())
    old = identity(folder)
    write_private(folder.coming / "device.key", b"half")  # cut while it was written
    assert identity(folder) == old
    enrolled(tmp_path / "other", certify(now=START + DAY)).identity.rename(tmp_path / "whole")
    shutil.rmtree(folder.coming)
    (tmp_path / "whole").rename(folder.coming)
    assert identity(folder) == old, "as long as the old one is there"
    folder.identity.rename(tmp_path / "identity.old")  # cut between the two renames
    assert folder.enrolled() and identity(folder).begins == old.begins + DAY
    assert not folder.coming.exists()


def test_files_that_are_none_are_passed_over(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.pem", tmp_path / "b.pem"
    good.write_bytes(certify())
    bad.write_bytes(b"x")
    assert ends_of([good, bad, tmp_path / "c.pem"]) == ((str(good), START + 365 * DAY),)


# --- the core's own ---------------------------------------------------------------------------------------------


@pytest.fixture
def core(tmp_path: Path) -> CoreFolder:
    folder = CoreFolder(tmp_path / "core", DEFAULT_TENANT)
    folder.root.mkdir()
    prepare(folder, CoreSettings(), open_keys(folder), START)
    return folder


def files(core: CoreFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in core.pki.iterdir()}


def test_the_cores_own_are_renewed_when_a_third_is_left_and_its_authority_is_not(core: CoreFolder) -> None:
    before, authority = files(core), authority_folder(core, open_keys(core)).held()[0]
    assert renew_servers(core, CoreSettings(), authority, START + 200 * DAY) == ()
    assert files(core) == before
    assert renew_servers(core, CoreSettings(), authority, START + 300 * DAY) == ("broker", "enrol", "core")
    after = files(core)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"broker.pem", "enrol.pem", "core.pem"}, "the keys stay: a cut leaves a pair that fits"
    assert all(renewal.life(after[name]).ends == START + 665 * DAY for name in changed)
    assert after["broker.pem"].endswith(after["ca.pem"])
    assert renewal.life(after["ca.pem"]).ends >= START + 3650 * DAY


def test_a_start_renews_what_ended_while_it_was_off(core: CoreFolder) -> None:
    prepare(core, CoreSettings(), open_keys(core), START + 400 * DAY)
    assert renewal.life((core.pki / "core.pem").read_bytes()).ends == START + 765 * DAY


def test_another_address_gets_another_certificate(core: CoreFolder) -> None:
    settings = CoreSettings(host="core.example")
    authority = authority_folder(core, open_keys(core)).held()[0]
    assert renew_servers(core, settings, authority, START) == ("broker", "enrol")
    assert renewal.hosts((core.pki / "broker.pem").read_bytes())[0] == "core.example"
    spelt = CoreSettings(host="2001:DB8:0::1")
    assert renew_servers(core, spelt, authority, START) == ("broker", "enrol")
    assert renew_servers(core, spelt, authority, START) == (), "however it is spelt"


@pytest.mark.broker
def test_the_broker_takes_a_new_certificate_and_drops_nobody(tmp_path: Path) -> None:
    ground = open_ground(tmp_path)
    try:
        session, own = ground.device(ONE), ground.device_tls(TWO)
        session.listen(topics.desired(TENANT, ONE))

        def shown() -> bytes | None:
            context = ssl.create_default_context(cadata=ground.authority.certificate.decode())
            context.load_cert_chain(own.certificate, own.key)
            with (
                socket.create_connection(("127.0.0.1", ground.broker.port)) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                return secure.getpeercert(binary_form=True)

        before = shown()
        key = (tmp_path / "server.key").read_bytes()
        renewed = enrolment.issue_server(ground.authority, ("127.0.0.1",), ground.now, key)
        write_private(tmp_path / "server.pem", renewed.certificate)
        ground.broker.reload()
        eventually(lambda: shown() != before, "the new certificate")
        ground.core().say(topics.desired(TENANT, ONE), b"still there")
        eventually(lambda: bool(session.heard), "a word in the session of before")
        assert session.changes == [True]
    finally:
        ground.close_sessions()
        ground.broker.stop()


class StewardAtWork(CoreInProcess):
    """Its broker tells how often it came."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        eventually(lambda: self.sessions() == 1 and self.steward.link.wait_until_up(0), "the first session")

    def sessions(self) -> int:
        return (self.folder.broker / "mosquitto.log").read_text().count("as core@falaj")

    def renewed(self) -> bytes:
        """The core's next certificate, as the supervisor leaves it."""
        key = (self.folder.pki / "core.key").read_bytes()
        pair = enrolment.issue_core(authority_folder(self.folder, self.keys).held()[0], clock.now(), key)
        write_private(self.folder.pki / "core.pem", pair.certificate)
        return pair.certificate


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[StewardAtWork]:
    made = StewardAtWork(tmp_path)
    yield made
    made.end()


@pytest.mark.broker
def test_the_steward_opens_its_session_anew_with_its_next_certificate(at_work: StewardAtWork) -> None:
    steward = at_work.steward
    steward.pump.submit(steward._renew).result()
    assert at_work.sessions() == 1, "nothing to do"
    certificate = at_work.renewed()
    steward.pump.submit(steward._renew).result()
    eventually(lambda: at_work.sessions() == 2 and steward.link.wait_until_up(0), "the second session")
    at_work.node._renew()  # the supervisor looks, and finds nothing that ends soon
    assert (at_work.folder.pki / "core.pem").read_bytes() == certificate


@pytest.mark.broker
def test_the_steward_does_so_while_more_comes_in_than_it_has_room_for(at_work: StewardAtWork) -> None:
    """As when all devices of a fleet come back after the broker was started anew with the next authority."""
    steward, certificate = at_work.steward, enrolment.certify(
        authority_folder(at_work.folder, at_work.keys).held()[0], DEFAULT_TENANT, ONE,
        bytes.fromhex(roles.signer(KEYS.signing).public_key.keyval["public"]), clock.now(), YEAR,
    )  # fmt: skip
    own = at_work.folder.root / "device"
    for name, content in (("pem", certificate), ("key", KEYS.signing)):
        write_private(own / name, content)
    device = MqttLink(At("127.0.0.1", at_work.uplink, ONE, Tls(at_work.folder.trusted, own / "pem", own / "key")))
    gate = threading.Event()
    try:
        device.start(lambda message: None, lambda up, reason: None)
        assert device.wait_until_up(20)
        steward.pump.submit(gate.wait)
        for _ in range(3 * BACKLOG):
            device.publish(Publish(topics.status(DEFAULT_TENANT, ONE), b"{}", qos=1))
        eventually(lambda: steward.pump._queue.qsize() >= BACKLOG, "a pump that is full")
        at_work.renewed()
        followed = steward.pump.submit(steward._renew)
        gate.set()
        followed.result(60)
        eventually(lambda: at_work.sessions() == 2 and steward.link.wait_until_up(0), "the second session")
    finally:
        gate.set()
        device.stop()
