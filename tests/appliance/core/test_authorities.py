"""Two certificate authorities on disk, and on a real broker: each step is one file, and what is dead opens nothing."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance import clock
from appliance.core.authorities import AuthorityFolder, certificates
from appliance.core.state import CoreFolder, authority_folder, open_keys, prepare
from appliance.errors import Trouble
from appliance.keys import new_device_keys
from appliance.settings import CoreSettings
from core.fleet import enrolment, renewal
from core.fleet.enrolment import Pair
from core.orders import Authority
from core.steward import devices
from sync import roles
from sync.durable import write_private
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DEFAULT_TENANT
from tests.appliance.in_process import CoreInProcess
from tests.core.world import ONE, START, TWO
from tests.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> CoreFolder:
    made = CoreFolder(tmp_path / "core", DEFAULT_TENANT)
    made.root.mkdir()
    prepare(made, CoreSettings(), open_keys(made), START)
    return made


@pytest.fixture
def authorities(folder: CoreFolder) -> AuthorityFolder:
    return authority_folder(folder, open_keys(folder))


def another() -> Pair:
    return enrolment.create_authority(DEFAULT_TENANT, START)


def test_one_follows_the_other_again_and_again(authorities: AuthorityFolder) -> None:
    for _ in range(3):
        (first, none), second = authorities.held(), another()
        assert none is None
        authorities.bring(second)
        assert authorities.held() == (first, second)
        assert certificates(authorities.pki) == (first.certificate, second.certificate)
        authorities.settle()
        assert authorities.held() == (second, None)
        assert len(list(authorities.secrets.glob("ca*"))) == 1, "the key of the one before is gone"


def test_a_cut_leaves_the_one_of_before_or_the_next_one(authorities: AuthorityFolder) -> None:
    first, _ = authorities.held()
    second, third = another(), another()
    authorities.tenant_keys.keep_secret(authorities.secrets / "ca.next", second.key)  # cut before its certificate
    assert authorities.held() == (first, None)
    authorities.bring(third)
    assert authorities.held() == (first, third)
    write_private(authorities.pki / "ca.pem", third.certificate)  # cut before the other files were tidied away
    assert authorities.held() == (third, None)
    authorities.bring(second)
    assert authorities.held() == (third, second)


@pytest.mark.parametrize("cut", ["the certificate", "the key"])
def test_a_start_destroys_what_a_cut_left_of_the_one_before(
    folder: CoreFolder, authorities: AuthorityFolder, cut: str
) -> None:
    """It was replaced because somebody may have it: its key must not lie about until the next rotation."""
    second = another()
    authorities.bring(second)
    write_private(authorities.pki / "ca.pem", second.certificate)
    if cut == "the key":
        (authorities.pki / "ca.next.pem").unlink()
    assert len(list(authorities.secrets.glob("ca*"))) == 2
    prepare(folder, CoreSettings(), open_keys(folder), START)
    assert authorities.held() == (second, None)
    assert len(list(authorities.secrets.glob("ca*"))) == 1 and not (authorities.pki / "ca.next.pem").exists()
    prepare(folder, CoreSettings(), open_keys(folder), START)
    third = another()
    authorities.bring(third)
    prepare(folder, CoreSettings(), open_keys(folder), START)
    assert authorities.held() == (second, third), "one that shall follow stays"


def test_an_authority_without_its_key_is_not_made_anew(folder: CoreFolder) -> None:
    """A new one under the old name would cut off every device."""
    (folder.home / "keys" / "ca").unlink()
    with pytest.raises(Trouble, match="backup"):
        prepare(folder, CoreSettings(), open_keys(folder), START)


def test_a_start_shows_the_authority_that_is_in_force(folder: CoreFolder, authorities: AuthorityFolder) -> None:
    """The core was killed right after the next one was put in force."""
    authorities.bring(another())
    prepare(folder, CoreSettings(), open_keys(folder), START)
    assert folder.trusted.read_bytes() == b"".join(certificates(folder.pki))
    authorities.settle()
    prepare(folder, CoreSettings(), open_keys(folder), START)
    (now, _) = certificates(folder.pki)
    assert folder.trusted.read_bytes() == now
    for name in ("broker", "enrol", "core"):
        assert renewal.issued_by((folder.pki / f"{name}.pem").read_bytes(), now)


LONG = 60.0  # seconds until a session that does not come back is given up: its tries become rare


# --- with a real broker -----------------------------------------------------------------------------------------


class Core(CoreInProcess):
    """The supervisor looks when it is asked to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.links: list[MqttLink] = []
        self.live(lambda: self.steward.link.wait_until_up(0), "the steward's first session")

    def order(self, step: str) -> None:
        answer = self.steward._serve(Authority(step=step))  # type: ignore[arg-type]
        assert answer.ok, answer
        self.live(lambda: self.folder.trusted.read_bytes() == b"".join(certificates(self.folder.pki)), step)
        self.live(lambda: self.steward.link.wait_until_up(0) and self.node.broker.alive(), "the steward's session")

    def live(self, done: Callable[[], bool], what: str) -> None:
        """Supervisor and steward look after what is theirs, as they do in their processes, until `done`."""
        end = time.monotonic() + LONG
        while not done():
            assert time.monotonic() < end, f"waited for {what}"
            self.node._look_after()
            self.steward.pump.submit(self.steward._tick).result()
            time.sleep(0.05)

    def client(self, authority: Pair, believing: bytes, name: str = ONE) -> Tls:
        """A device's files: a certificate by this authority, believing others (PEM)."""
        keys = new_device_keys(name)
        public = bytes.fromhex(roles.signer(keys.signing).public_key.keyval["public"])
        pem = enrolment.certify(authority, DEFAULT_TENANT, name, public, clock.now(), enrolment.LEAF_LIFE)  # type: ignore[arg-type]
        return self._write(pem, keys.signing, believing)

    def as_core(self, authority: Pair, believing: bytes) -> Tls:
        pair = enrolment.issue_core(authority, clock.now())
        return self._write(pair.certificate, pair.key, believing)

    def _write(self, certificate: bytes, key: bytes, believing: bytes) -> Tls:
        place = self.folder.root / f"client-{len(list(self.folder.root.glob('client-*')))}"
        for file, content in (("ca", believing), ("cert", certificate), ("key", key)):
            write_private(place / file, content)
        return Tls(place / "ca", place / "cert", place / "key")

    def session(self, tls: Tls, name: str = ONE) -> MqttLink:
        """A session that stays, and comes back after a cut."""
        link = MqttLink(At("127.0.0.1", self.uplink, name, tls))
        self.links.append(link)
        link.start(lambda message: None, lambda up, reason: None)
        self.live(lambda: link.wait_until_up(0), f"a session of {name}")
        return link

    def lets_in(self, tls: Tls) -> bool:
        """Whether a handshake ends well on both sides: in TLS 1.3 the broker's no comes after it, as the first word."""
        with socket.create_connection(("127.0.0.1", self.uplink), 10) as plain:
            try:
                with tls.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                    secure.sendall(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x")
                    return secure.recv(4)[:1] == b"\x20"
            except (ssl.SSLError, ConnectionError):
                return False

    def end(self) -> None:
        for link in self.links:
            link.stop()
        super().end()


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    made = Core(tmp_path / "core")
    yield made
    made.end()


@pytest.mark.broker
def test_the_broker_takes_both_side_by_side_and_then_the_next_alone(core: Core) -> None:
    """And what the stolen one of before still makes opens nothing: not as a device, not as the core."""
    house = core.steward.steward.house
    old = house.authority
    of_before = core.client(old, old.certificate)
    session = core.session(of_before)
    core.order("begin")
    new = house.successor
    assert new is not None
    both = old.certificate + new.certificate
    core.live(lambda: session.wait_until_up(0), "the session of an old device, which outlasts the broker's new start")
    changed = core.client(new, both, TWO)
    assert core.lets_in(of_before) and core.lets_in(changed)
    assert not core.lets_in(core.client(new, new.certificate)), "the servers still show those of the one before"
    session.stop()
    renewed = core.session(changed, TWO)

    core.order("finish")
    core.live(lambda: renewed.wait_until_up(0), "a device that believes both, and comes back by itself")
    assert core.lets_in(core.client(new, new.certificate))
    assert not core.lets_in(of_before), "it does not believe the broker"
    for thief in (core.client(old, both), core.as_core(old, both)):
        assert not core.lets_in(thief), "nor does the broker believe it"
    assert core.lets_in(core.as_core(new, both)), "which it would, by the one in force"


@pytest.mark.broker
def test_a_revoked_certificate_of_either_opens_nothing(core: Core) -> None:
    house = core.steward.steward.house
    core.order("begin")
    assert house.successor is not None
    both = "".join(house.trusted).encode()
    files = [core.client(pair, both, name) for pair, name in ((house.authority, ONE), (house.successor, TWO))]
    assert all(core.lets_in(tls) for tls in files)

    def revoke() -> None:
        with house.catalog.transaction():
            for tls, name in zip(files, (ONE, TWO), strict=True):
                life = renewal.life(tls.certificate.read_bytes())
                house.catalog.identities.add_certificate(life.serial, name, 1, life.ends)
                house.catalog.identities.revoke(name, "lost", clock.now())
        devices.access(house, clock.now())
        core.steward._carry_out(house.actions)
        house.actions = []

    core.steward.pump.submit(revoke).result()
    for tls in files:
        eventually(lambda tls=tls: not core.lets_in(tls), "the broker to have read its lists")  # type: ignore[misc]
