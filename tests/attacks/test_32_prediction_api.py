"""Attack 32: the prediction API is reached from the network, or its token guessed. It is on loopback or a Unix socket;
anything else takes TLS and a token by construction, and whoever guesses is turned away."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.api import UnixConnection
from appliance.demo.fleet import free_ports
from appliance.edge.doors import TOKEN, Doors
from appliance.keys import KeyUnsafe
from appliance.settings import BadSettings, EdgeSettings, Network, convert
from core.fleet import enrolment
from edge.http.doorkeeper import KNOWN, WRONG, Doorkeeper
from edge.http.server import HttpServer
from edge.http.wire import Request, Response
from sync.durable import write_private
from tests.core.world import TENANT

NOW = time.time()  # TLS libraries read the machine's clock
AUTHORITY = enrolment.create_authority(TENANT, NOW)
Told = list[tuple[str, str]]


def echo(request: Request) -> Response:
    return Response(200, json.dumps({"path": request.path}).encode())


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def doors(tmp_path: Path, told: Told) -> Iterator[Doors]:
    """An agent's servers, open to other machines as its settings say."""
    pair = enrolment.issue_server(AUTHORITY, ("127.0.0.1",), NOW)
    write_private(tmp_path / "http.pem", pair.certificate)
    write_private(tmp_path / "http.key", pair.key)
    ports = free_ports(2)
    network = Network(listen="0.0.0.0", port=ports[1], certificate="http.pem", key="http.key")
    settings = EdgeSettings(http_port=ports[0], network=network)
    made = Doors(settings, tmp_path, echo, None, lambda code, text: told.append((code, text)))
    made.check()
    made.start()
    yield made
    made.stop()


def stranger(doors: Doors, version: ssl.TLSVersion | None = None) -> http.client.HTTPSConnection:
    assert doors.network is not None
    context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    if version is not None:
        context.maximum_version = version
    return http.client.HTTPSConnection("127.0.0.1", doors.network.port, timeout=20, context=context)


def ask(peer: http.client.HTTPConnection, token: str = "", *, keep: bool = False) -> int:
    """The status of one answer; `keep`: the connection stays open."""
    try:
        peer.request("GET", "/v2", headers={"Authorization": f"Bearer {token}"} if token else {})
        response = peer.getresponse()
        response.read()
        return response.status
    finally:
        if not keep:
            peer.close()


def test_32_by_default_nothing_but_loopback_is_bound(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    made = Doors(EdgeSettings(http_port=port), tmp_path, echo, None, lambda code, text: None)
    made.start()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    made.stop()
    assert listening == {"0100007F"} and made.network is None


def test_32_a_page_that_had_its_name_point_here_is_turned_away(doors: Doors) -> None:
    peer = http.client.HTTPConnection("127.0.0.1", doors.local.port, timeout=20)
    peer.request("GET", "/v2", headers={"Host": "evil.example"})
    assert peer.getresponse().status == 421
    peer.close()


@pytest.mark.parametrize("lacking", ["certificate", "key", "listen"])
def test_32_there_is_no_way_to_say_network_without_tls(lacking: str) -> None:
    fields = {"listen": "0.0.0.0", "certificate": "c.pem", "key": "k.pem"}
    del fields[lacking]
    with pytest.raises(BadSettings, match=lacking):
        convert(EdgeSettings, {"network": fields}, "edge.toml")
    with pytest.raises(ValueError, match="takes TLS and a token"):
        HttpServer(echo, host="0.0.0.0")


def test_32_from_the_network_the_token_is_asked_for_and_made_private(doors: Doors, tmp_path: Path) -> None:
    token = (tmp_path / TOKEN).read_text()
    assert (tmp_path / TOKEN).stat().st_mode & 0o777 == 0o600 and len(token) >= 43
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase()):
        assert ask(stranger(doors), wrong) == 401, wrong
    peer = stranger(doors)
    assert [ask(peer, token, keep=True), ask(peer, token, keep=True)] == [200, 200]
    assert ask(peer, "x") == 401, "each request is asked, though the connection was let in: it may be a proxy's"
    assert ask(http.client.HTTPConnection("127.0.0.1", doors.local.port, timeout=20)) == 200, "loopback as ever"


def test_32_no_body_is_read_of_who_may_not_speak(doors: Doors) -> None:
    peer = stranger(doors)
    peer.putrequest("POST", "/v2")
    peer.putheader("Content-Length", str(10 * 1024 * 1024))
    peer.endheaders()
    assert peer.getresponse().status == 401, "before the first byte of it"
    peer.close()


def test_32_plain_http_and_older_tls_get_no_word(doors: Doors) -> None:
    assert doors.network is not None
    with socket.create_connection(("127.0.0.1", doors.network.port), 20) as plain:
        plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(64).startswith(b"HTTP")
    with pytest.raises(ssl.SSLError):
        ask(stranger(doors, ssl.TLSVersion.TLSv1_2))


def test_32_guessing_ends_and_serving_goes_on(doors: Doors, told: Told, tmp_path: Path) -> None:
    token = (tmp_path / TOKEN).read_text()
    known = stranger(doors)
    assert ask(known, token, keep=True) == 200
    seen = [ask(stranger(doors), f"guess-{n}") for n in range(3 * WRONG)]
    assert seen == [401] * WRONG + [429] * 2 * WRONG
    assert ask(stranger(doors), token) == 200, "whoever knows it is let in, whoever guesses beside it"
    assert ask(known, token) == 200 and ask(stranger(doors), "guess") == 429
    assert ask(http.client.HTTPConnection("127.0.0.1", doors.local.port, timeout=20)) == 200
    assert [code for code, _ in told] == ["http-guessed"] and "127.0.0.1" in told[0][1]


def test_32_the_minute_passes_and_each_address_has_its_own() -> None:
    flooded: list[str] = []
    door = Doorkeeper("t" * 40, flooded.append)
    for _ in range(WRONG):
        assert door.refuse("10.0.0.1", "Bearer x", 0.0)
    assert [status(door, one, 1.0) for one in ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2")] == [429, 429, 401]
    assert status(door, "10.0.0.1", 61.0) == 401
    assert flooded == ["10.0.0.1"]


def test_32_a_host_that_changes_its_ipv6_address_for_each_guess_is_one() -> None:
    flooded: list[str] = []
    door = Doorkeeper("t" * 40, flooded.append)
    for n in range(WRONG):
        assert status(door, f"2001:db8:0:1::{n:x}", 0.0) == 401
    assert status(door, "2001:db8:0:1:ffff::1", 0.0) == 429 and status(door, "2001:db8:0:2::1", 0.0) == 401
    assert flooded == ["2001:db8:0:1::/64"]


def test_32_addresses_that_cost_nothing_fill_no_memory() -> None:
    door = Doorkeeper("t" * 40, lambda who: None)
    for n in range(5 * KNOWN):
        door.refuse(f"address {n}", "Bearer x", 0.0)
    assert len(door._wrong) <= KNOWN + 1
    assert door.refuse("a newcomer", f"Bearer {'t' * 40}", 0.0) is None, "nor lock out who knows the token"
    assert door.refuse("address 1", f"bearer {'t' * 40}", 0.0) is None


def status(door: Doorkeeper, source: str, now: float) -> int:
    """What a wrong guess is answered."""
    refusal = door.refuse(source, "Bearer x", now)
    assert refusal is not None
    return refusal[0]


def test_32_a_short_or_readable_token_stops_the_start(tmp_path: Path, doors: Doors) -> None:
    settings = doors._settings
    write_private(tmp_path / TOKEN, b"swordfish")
    with pytest.raises(BadSettings, match="can be guessed"):
        Doors(settings, tmp_path, echo, None, lambda code, text: None)
    (tmp_path / TOKEN).unlink()
    Doors(settings, tmp_path, echo, None, lambda code, text: None)
    (tmp_path / "http.key").chmod(0o644)
    with pytest.raises(KeyUnsafe):
        Doors(settings, tmp_path, echo, None, lambda code, text: None)


def test_32_on_a_unix_socket_nothing_is_bound_and_others_are_kept_out(tmp_path: Path) -> None:
    settings = EdgeSettings(http_socket="http.sock")
    made = Doors(settings, tmp_path, echo, None, lambda code, text: None)
    made.check()
    made.start()
    assert ask(UnixConnection(tmp_path / "http.sock")) == 200
    assert (tmp_path / "http.sock").stat().st_mode & 0o777 == 0o600
    made.stop()
    assert not (tmp_path / "http.sock").exists()
