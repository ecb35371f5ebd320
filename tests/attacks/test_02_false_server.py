"""Attack 2: a server that is not the tenant's. The device refuses it and has said nothing to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from appliance import certificates
from core.fleet import enrolment
from core.fleet.enrolment import Pair
from edge.states import LinkChanged
from sync import topics
from tests.attacks.field import Field
from tests.attacks.ground import DAY, VICTIM, Ground, certify, start
from tests.core.world import TENANT
from tests.edge.device import committed
from tests.waiting import eventually

pytestmark = pytest.mark.broker
NOW = time.time()
REAL, OTHER = enrolment.create_authority(TENANT, NOW), enrolment.create_authority(TENANT, NOW)

FALSE: dict[str, Callable[[], Pair]] = {
    "another authority of the same name": lambda: enrolment.issue_server(OTHER, ("127.0.0.1",), NOW),
    "another host": lambda: enrolment.issue_server(REAL, ("core.elsewhere",), NOW),
    "expired": lambda: enrolment.issue_server(REAL, ("127.0.0.1",), NOW - 400 * DAY),
    "a device that plays the server": lambda: Pair(*certify(VICTIM, REAL, NOW)),
    "self-signed": lambda: self_signed("127.0.0.1"),
}


def self_signed(host: str) -> Pair:
    """A server's certificate that nobody vouches for but its own key."""
    own = enrolment.create_authority(TENANT, NOW)
    begins, ends = (datetime.fromtimestamp(NOW + days * DAY, UTC) for days in (-1, 1))
    key = load_pem_private_key(own.key, None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(begins).not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return Pair(made.public_bytes(Encoding.PEM), own.key)


@pytest.fixture
def false_ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    made = start(tmp_path, REAL, FALSE[request.param](), NOW)
    yield made
    made.close_sessions()
    made.broker.stop()


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("false_ground", FALSE, indirect=True)
def test_02_a_false_server_is_refused_and_told_nothing(false_ground: Ground) -> None:
    session = false_ground.session(false_ground.device_tls(VICTIM), VICTIM, up=False)
    session.say(topics.status(TENANT, VICTIM), b"a word for the core alone")
    eventually(lambda: bool(session.changes), "the refusal")
    assert session.changes == [False]
    assert "certificate" in session.reasons[0], "whoever looks for the cause is told it is no matter of the line"
    assert "New client connected" not in false_ground.log


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("false_ground", FALSE, indirect=True)
def test_02_what_was_turned_away_is_told_once_on_the_next_link(false_ground: Ground, field: Field) -> None:
    """By what the device's own link says of it, heard as its process hears it: nothing that was accepted changes, it
    serves on, and one alarm says what, how often and since when. A line that is down is no such thing."""
    device = field.device
    session = false_ground.session(false_ground.device_tls(VICTIM), VICTIM, up=False)
    eventually(lambda: bool(session.reasons), "the refusal")
    device.link.cut()
    before, since = (device.state, device.house.journal.assignment()), device.now
    for reason in (session.reasons[0], "no connection to core.test:8883: timed out", session.reasons[0]):
        device.carry_out(device.agent.handle(LinkChanged(False, refused=certificates.unproven(reason)), device.now))
        device.settle(5, ask=0)
    assert device.codes() == [] and device.answering == 2
    for _ in range(2):  # told once, however often the line comes up
        device.connect()
        device.settle(3, ask=0)
        device.link.cut()
    assert device.codes() == ["broker-refused"]
    (told,) = device.events()
    assert told.severity == "alarm" and "CERTIFICATE_VERIFY_FAILED" in told.text
    assert (told.facts["times"], told.facts["since"]) == (2, since)
    assert (device.state, device.house.journal.assignment()) == before and committed(device, 2)


def test_02_the_right_server_is_believed(ground: Ground) -> None:
    assert ground.device(VICTIM).changes == [True]
    eventually(lambda: "New client connected" in ground.log, "the broker's word: what the test above looks for")
