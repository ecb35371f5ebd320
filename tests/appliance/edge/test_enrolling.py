"""A device joins a real core, and refuses everything that is not quite the core its token names."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import stat
from pathlib import Path

import msgspec
import pytest

from appliance import clock
from appliance.demo.fleet import free_ports
from appliance.edge.enrolling import EnrolFailed, enrol, read_token
from appliance.edge.state import EdgeFolder, NotEnrolled, identity
from appliance.keys import KeyUnsafe
from core.orders import IssueToken
from sync import codec, topics
from sync.chunks import digest
from sync.enrolment import Token
from sync.mqtt import Broker, MqttLink
from sync.names import DeviceId, Digest
from tests.appliance.running import RunningCore
from tests.hosting import hosting
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def token(core: RunningCore, device: str, minutes: int = 60) -> Token:
    return read_token(core.api.order(IssueToken(actor="test", device=DeviceId(device), minutes=minutes))["token"])


def nothing_kept(folder: EdgeFolder) -> bool:
    return not folder.root.exists() and not folder.enrolled()


def codes(core: RunningCore) -> list[str]:
    """Newest first, without what the supervisor hears of the broker now and then: the core serves other tests too."""
    found = [event["code"] for event in core.api.get("/v1/events?limit=20")["events"]]
    return [code for code in found if code != "handshake-refused"]


def test_a_device_joins_and_its_certificate_opens_the_uplink(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    given = token(core, "joins")
    answer = enrol(folder, given, clock.now())
    own = identity(folder)
    assert (own.tenant, own.device, own.epoch) == ("default", "joins", 1)
    assert digest(own.root) == given.root
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.identity.iterdir()} == {0o600}
    assert codes(core)[0] == "device-enrolled"
    assert "joins" in [d["device"] for d in core.api.get("/v1/devices")["devices"]]
    link = MqttLink(Broker(answer.uplink_host, answer.uplink_port, own.device, tls=folder.tls()))
    wanted = topics.device_subscriptions(own.tenant, own.device)
    link.subscribe(*wanted)
    link.start(lambda message: None, lambda up, reason: None)
    eventually(lambda: len(link.listening) == len(wanted), "the session with the core's broker")
    sock = link._client.socket()
    assert sock is not None
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    link.stop()


def test_no_secret_leaves_the_device(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    enrol(folder, token(core, "private"), clock.now())
    found = core.api.get("/v1/devices")["devices"]
    (row,) = (d for d in found if d["device"] == "private")
    told = msgspec.json.encode(row)
    for name in ("device.key", "sealing.key"):
        assert base64.b64encode((folder.identity / name).read_bytes()) not in told


def test_a_token_works_once(core: RunningCore, tmp_path: Path) -> None:
    given = token(core, "once")
    enrol(EdgeFolder(tmp_path / "first"), given, clock.now())
    second = EdgeFolder(tmp_path / "second")
    with pytest.raises(EnrolFailed) as refused:
        enrol(second, given, clock.now())
    assert str(refused.value) == (
        "the core refused: the token does not hold\n  ask for a new one: `falaj device token NAME`"
    )
    assert nothing_kept(second)
    assert codes(core)[0] == "enrolment-refused"


def test_an_enrolled_folder_is_not_enrolled_again(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    enrol(folder, token(core, "again"), clock.now())
    with pytest.raises(EnrolFailed, match="is enrolled already as again: use another --dir"):
        enrol(folder, token(core, "again-2"), clock.now())
    assert identity(folder).device == "again"


def test_a_new_token_for_the_same_name_raises_the_epoch(core: RunningCore, tmp_path: Path) -> None:
    enrol(EdgeFolder(tmp_path / "old"), token(core, "replaced"), clock.now())
    enrol(EdgeFolder(tmp_path / "new"), token(core, "replaced"), clock.now())
    assert identity(EdgeFolder(tmp_path / "new")).epoch == 2


def test_an_expired_token_is_refused_by_the_device_and_by_the_core(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    given = token(core, "late", minutes=0)
    with pytest.raises(EnrolFailed, match="the token for late has expired: ask for a new one with `falaj device token"):
        enrol(folder, given, clock.now())
    with pytest.raises(EnrolFailed, match="the core refused: the token does not hold"):
        enrol(folder, given, now=0.0)  # a device whose clock was never set
    assert nothing_kept(folder)


def test_a_wrong_secret_is_refused_with_the_same_words(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    guessed = msgspec.structs.replace(token(core, "guessed"), secret="A" * 43)
    with pytest.raises(EnrolFailed, match="the core refused: the token does not hold"):
        enrol(folder, guessed, clock.now())
    assert nothing_kept(folder)


def test_another_ca_than_the_tokens_is_not_believed(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    given = token(core, "fooled")
    with pytest.raises(EnrolFailed, match="shows another CA than the token names: this is not your core"):
        enrol(folder, msgspec.structs.replace(given, ca=Digest("0" * 64)), clock.now())
    assert nothing_kept(folder)
    enrol(folder, given, clock.now())  # the secret was never sent, so the token still holds


def test_another_root_than_the_tokens_is_not_believed(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    given = msgspec.structs.replace(token(core, "rootless"), root=Digest("0" * 64))
    with pytest.raises(EnrolFailed, match="root of trust in the answer is not the one the token names: nothing was"):
        enrol(folder, given, clock.now())
    assert nothing_kept(folder)


def test_nobody_at_the_address_is_one_message(core: RunningCore, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    given = msgspec.structs.replace(token(core, "lost"), url=f"https://127.0.0.1:{port}")
    with pytest.raises(EnrolFailed, match=r"no core at https://127.0.0.1:\d+ .*is `falaj core run` running and reach"):
        enrol(EdgeFolder(tmp_path / "edge"), given, clock.now())
    with pytest.raises(EnrolFailed, match=r"the token's address 'https://127\.0\.0\.1:x' cannot be used"):
        enrol(EdgeFolder(tmp_path / "edge"), msgspec.structs.replace(given, url="https://127.0.0.1:x"), clock.now())
    assert nothing_kept(EdgeFolder(tmp_path / "edge"))


def test_something_else_at_the_address_is_one_message(core: RunningCore, tmp_path: Path) -> None:
    def babble(visitor: socket.socket) -> None:
        visitor.recv(4096)
        visitor.sendall(b"220 mail.example ESMTP\r\n")

    with hosting(babble) as port:
        given = msgspec.structs.replace(token(core, "mail"), url=f"https://127.0.0.1:{port}")
        with pytest.raises(EnrolFailed, match="no core at"):
            enrol(EdgeFolder(tmp_path / "edge"), given, clock.now())
    assert nothing_kept(EdgeFolder(tmp_path / "edge"))


@pytest.mark.parametrize("text", ["", "hello", "e30", "=====", "a b c", base64.b64encode(b'{"url": 1}').decode()])
def test_what_is_no_token_is_one_message(text: str) -> None:
    with pytest.raises(EnrolFailed, match="this is no enrolment token: paste it whole, as `falaj device token` print"):
        read_token(text)


def test_a_token_survives_being_pasted(core: RunningCore) -> None:
    text = core.api.order(IssueToken(actor="test", device=DeviceId("pasted")))["token"]
    assert read_token(f"  {text}\n") == read_token(text)


def test_the_listener_serves_nothing_but_enrolment(core: RunningCore) -> None:
    context = ssl.create_default_context(cafile=str(core.folder.pki / "ca.pem"))
    port = core.machines.ports["enrol"]
    for method, path, status in (("GET", "/v1/status", 404), ("GET", "/v1/enrol", 405), ("POST", "/v1/orders", 404)):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
        connection.request(method, path, b"" if method == "POST" else None)
        response = connection.getresponse()
        document = msgspec.json.decode(response.read())
        connection.close()
        assert response.status == status
        assert set(document) == {"error", "code", "hint"}


def test_a_folder_that_never_enrolled_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match=f"is not enrolled: run `falaj edge enrol TOKEN --dir {tmp_path}` first"):
        identity(EdgeFolder(tmp_path))


def test_a_devices_key_that_others_may_read_is_not_used(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    enrol(folder, token(core, "careless"), clock.now())
    (folder.identity / "sealing.key").chmod(0o644)
    with pytest.raises(KeyUnsafe, match="chmod 600"):
        identity(folder)


def test_half_an_enrolment_is_none(core: RunningCore, tmp_path: Path) -> None:
    folder = EdgeFolder(tmp_path / "edge")
    enrol(folder, token(core, "cut"), clock.now())
    (folder.identity / "enrolment.json").unlink()  # the file that is written last
    assert not folder.enrolled()
    enrol(folder, token(core, "cut"), clock.now())
    assert codec.decode(dict, (folder.identity / "enrolment.json").read_bytes())["epoch"] == 2
