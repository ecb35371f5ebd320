"""Attack 33: an enrolment token is played again, stolen, guessed; through the listener, as from the network."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask.testing import FlaskClient

from appliance.keys import new_device_keys
from sync import roles
from sync.enrolment import Token
from tests.core.world import ONE, TWO, World, request


@pytest.fixture
def world(lone_world: World) -> World:
    return lone_world


def ask(client: FlaskClient, token: Token, signer: bytes | None = None, **lies: Any) -> tuple[int, dict[str, Any]]:
    """What a newcomer with fresh keys is told."""
    response = client.post("/v1/enrol", data=request(token, new_device_keys(ONE), signer, **lies))
    answer: dict[str, Any] = response.get_json()
    return response.status_code, answer


def test_33_a_token_admits_once(world: World, client: FlaskClient) -> None:
    token = world.token(ONE)
    assert ask(client, token)[0] == 200
    before = world.catalog.fleet.devices()
    for _ in range(3):
        status, answer = ask(client, token)
        assert (status, answer["code"]) == (403, "enrolment-refused") and "certificate" not in answer
    assert world.catalog.fleet.devices() == before
    assert world.codes().count("enrolment-refused") == 3


def test_33_a_captured_request_is_of_no_use_to_who_captured_it(world: World, client: FlaskClient) -> None:
    """The certificate is for the key that signed the request; the same bytes again are refused like any other."""
    token, keys = world.token(ONE), new_device_keys(ONE)
    envelope = request(token, keys)
    assert client.post("/v1/enrol", data=envelope).status_code == 200
    assert client.post("/v1/enrol", data=envelope).status_code == 403
    stolen = world.token(TWO)
    thief = base64.b64encode(new_device_keys(TWO).sealing_public).decode()
    assert ask(client, stolen, signer=roles.new_signing_key(), sealing_key=thief)[0] == 403
    assert [d.device for d in world.catalog.fleet.devices()] == [ONE]


def test_33_an_old_token_admits_nobody(world: World, client: FlaskClient) -> None:
    token = world.token(ONE, minutes=1)
    world.now += 61
    assert ask(client, token)[0] == 403
    assert world.catalog.fleet.devices() == [] and world.codes().count("enrolment-refused") == 1


def test_33_a_token_is_for_its_device_and_tenant(world: World, client: FlaskClient) -> None:
    token = world.token(ONE)
    world.token(TWO)
    assert ask(client, token, device=TWO)[0] == 403
    assert world.codes().count("enrolment-refused") == 1
    assert ask(client, token, tenant="other")[0] == 403
    assert world.codes().count("enrolment-refused") == 2, "one for each"
    assert world.catalog.fleet.devices() == []
    assert ask(client, token)[0] == 200, "whose it is, is let in"


def test_33_guessing_teaches_nothing_and_burns_nothing(world: World, client: FlaskClient) -> None:
    """A secret has 256 random bits: what would end with the fifth guess is not the guessing but the honest device."""
    token = world.token(ONE)
    answers = {str(ask(client, token, secret=f"guess {i}")) for i in range(50)}
    answers.add(str(ask(client, token, device="never-heard-of")))
    assert len(answers) == 1 and "enrolment-refused" in answers.pop()
    assert world.catalog.fleet.devices() == []
    assert ask(client, token)[0] == 200, "from the address that the guesses came from"


def test_33_a_flood_of_guesses_is_told_once_an_hour(world: World, client: FlaskClient) -> None:
    token = world.token(ONE)
    for i in range(50):
        ask(client, token, secret=f"guess {i}")
    assert [c for c in world.codes() if c.startswith("enrolment")] == ["enrolment-refused"] * 5 + ["enrolment-flood"]


def test_33_bad_requests_of_who_knows_the_secret_burn_it(world: World, client: FlaskClient) -> None:
    token = world.token(ONE)
    answers = {str(ask(client, token, sealing_key="AA==")) for _ in range(5)}
    answers.add(str(ask(client, token)))
    assert len(answers) == 1
    row = world.catalog.fleet.token(ONE)
    assert row is not None and row.attempts == 5 and world.catalog.fleet.devices() == []


def test_33_a_new_token_replaces_the_old(world: World, client: FlaskClient) -> None:
    old, new = world.token(ONE), world.token(ONE)
    assert ask(client, old)[0] == 403
    assert ask(client, new)[0] == 200


def test_33_a_secret_is_256_random_bits_and_is_not_kept(world: World) -> None:
    token = world.token(ONE)
    assert len(base64.urlsafe_b64decode(token.secret + "=")) == 32
    assert token.secret != world.token(ONE).secret
    row = world.catalog.fleet.token(ONE)
    assert row is not None and token.secret not in str(row)
    assert not any(token.secret in e.text or token.secret in str(e.facts) for e in world.catalog.events.newest())


def test_33_no_private_key_ever_leaves_the_device(world: World) -> None:
    token, keys = world.token(ONE), new_device_keys(ONE)
    envelope = roles.peek(request(token, keys))
    assert b"PRIVATE" not in envelope
    assert base64.b64encode(keys.sealing) not in envelope and keys.sealing not in envelope
