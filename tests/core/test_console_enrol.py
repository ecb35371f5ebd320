"""The enrolment listener: two routes, no catalog, and nothing about this machine in its answers."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from core.answers import Answer
from core.console import create_enrolment
from core.orders import Enrol
from tests.core.doors import Steward

CA = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def steward() -> Steward:
    return Steward(Answer(True, {"device": "watch-1", "epoch": 1}))


@pytest.fixture
def client(steward: Steward) -> FlaskClient:
    return create_enrolment(steward.ask, CA).test_client()


def test_the_authority_is_given_to_anybody(client: FlaskClient) -> None:
    response = client.get("/v1/ca")
    assert (response.status_code, response.data) == (200, CA)
    assert response.mimetype == "application/x-pem-file"


def test_an_envelope_goes_to_the_steward_and_its_answer_comes_back(client: FlaskClient, steward: Steward) -> None:
    envelope = '{"payload": "eyJ9", "payloadType": "t", "signatures": []}'
    response = client.post("/v1/enrol", data=envelope)
    assert (response.status_code, response.get_json()) == (200, {"device": "watch-1", "epoch": 1})
    assert steward.orders == [Enrol(actor="enrolment", envelope=envelope, source="127.0.0.1")]


def test_who_waits_for_a_person_is_told_so_by_another_status(client: FlaskClient, steward: Steward) -> None:
    steward.answer = Answer(True, {"waiting": "box-7", "fingerprint": "ab12"})
    response = client.post("/v1/enrol", data="{}")
    assert (response.status_code, response.get_json()) == (202, {"waiting": "box-7", "fingerprint": "ab12"})


@pytest.mark.parametrize(("code", "status"), [("enrolment-refused", 403), ("untrusted", 403), ("malformed", 400)])
def test_a_refusal_keeps_its_code_and_hint(client: FlaskClient, steward: Steward, code: str, status: int) -> None:
    steward.answer = Answer(False, error="the token does not hold", code=code, hint="ask for a new one")
    response = client.post("/v1/enrol", data="{}")
    assert response.status_code == status
    assert response.get_json() == {"error": "the token does not hold", "code": code, "hint": "ask for a new one"}


def test_a_body_up_to_the_limit_passes_and_one_byte_more_does_not(client: FlaskClient, steward: Steward) -> None:
    assert client.post("/v1/enrol", data=b" " * 65_536).status_code == 200
    response = client.post("/v1/enrol", data=b" " * 65_537)
    assert (response.status_code, response.get_json()["code"]) == (413, "too-large")
    assert len(steward.orders) == 1


def test_bytes_that_are_no_text_never_reach_the_steward(client: FlaskClient, steward: Steward) -> None:
    response = client.post("/v1/enrol", data=b"\xff\x00")
    assert (response.status_code, response.get_json()["code"]) == (400, "malformed")
    assert steward.orders == []


def test_without_a_steward_it_says_so_and_names_no_file(client: FlaskClient, steward: Steward) -> None:
    steward.away = FileNotFoundError(2, "no such file", "/run/falaj/steward.sock")
    response = client.post("/v1/enrol", data="{}")
    assert (response.status_code, response.get_json()["code"]) == (503, "steward-away")
    assert "steward.sock" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/status", 404),
        ("POST", "/v1/orders", 404),
        ("GET", "/static/console.css", 404),
        ("GET", "/v1/enrol", 405),
        ("POST", "/v1/ca", 405),
    ],
)
def test_nothing_else_is_served(client: FlaskClient, method: str, path: str, status: int) -> None:
    response = client.open(path, method=method)
    assert response.status_code == status
    assert set(response.get_json()) == {"error", "code", "hint"}
