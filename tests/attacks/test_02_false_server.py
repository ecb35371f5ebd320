"""Attack 2: a server that is not the tenant's. The device refuses it and has said nothing to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.fleet import enrolment
from core.fleet.enrolment import Pair
from sync import topics
from tests.attacks.ground import DAY, VICTIM, Ground, certify, start
from tests.core.world import TENANT
from tests.waiting import eventually

pytestmark = pytest.mark.broker
NOW = time.time()
REAL, OTHER = enrolment.create_authority(TENANT, NOW), enrolment.create_authority(TENANT, NOW)

FALSE: dict[str, Callable[[], Pair]] = {
    "another authority of the same name": lambda: enrolment.issue_server(OTHER, ("127.0.0.1",), NOW),
    "another host": lambda: enrolment.issue_server(REAL, ("core.elsewhere",), NOW),
    "expired": lambda: enrolment.issue_server(REAL, ("127.0.0.1",), NOW - 400 * DAY),
    "a device that plays the server": lambda: Pair(*certify(VICTIM, REAL, NOW)),
}


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


def test_02_the_right_server_is_believed(ground: Ground) -> None:
    assert ground.device(VICTIM).changes == [True]
    eventually(lambda: "New client connected" in ground.log, "the broker's word: what the test above looks for")
