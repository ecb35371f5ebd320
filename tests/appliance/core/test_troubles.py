"""What is in the way of the core's parts: tried again, and the steward told of it, whoever of the two began anew."""

from __future__ import annotations

import pytest

from appliance.core.orders_socket import StewardAway
from appliance.core.troubles import AGAIN, DENIALS, Troubles


class Desk:
    """Parts that fail by their texts, and a steward that may be away."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bad: dict[str, str] = {}
        self.tried: list[str] = []
        self.away = False
        self.heard: list[dict[str, str]] = []
        self.troubles = Troubles(lambda part, text: f"{part} ({text})", self._hear, lambda: self.now)

    def _hear(self, failing: dict[str, str]) -> None:
        if self.away:
            raise StewardAway("nobody is there")
        self.heard.append(failing)

    def _work(self, part: str) -> None:
        self.tried.append(part)
        if part in self.bad:
            raise OSError(self.bad[part])

    def round(self, seconds: float = 0.5) -> None:
        self.now += seconds
        for part in ("certificates", "broker"):
            self.troubles.attempt(part, lambda part=part: self._work(part))  # type: ignore[misc]
        self.troubles.tell()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_at_the_start_the_steward_hears_that_nothing_fails_and_then_nothing(desk: Desk) -> None:
    for _ in range(3):
        desk.round()
    assert desk.heard == [{}], "it may believe what is long over"


def test_what_is_in_the_way_keeps_no_other_part_and_is_tried_again_and_told_once(desk: Desk) -> None:
    desk.bad["certificates"] = "no key"
    for _ in range(9):
        desk.round()
    assert desk.tried.count("certificates") == 1 and desk.tried.count("broker") == 9
    desk.round(AGAIN)
    assert desk.tried.count("certificates") == 2
    assert desk.heard == [{"certificates": "certificates (no key)"}]
    desk.bad["certificates"] = "no disk"
    desk.round(AGAIN)
    desk.bad.clear()
    desk.round(AGAIN)
    assert desk.heard[1:] == [{"certificates": "certificates (no disk)"}, {}]


def test_a_word_that_nobody_heard_is_said_again_and_is_no_trouble_of_a_part(desk: Desk) -> None:
    desk.away, desk.bad["broker"] = True, "no memory"
    for _ in range(3):
        desk.round(AGAIN)
    desk.away = False
    desk.round(AGAIN)
    assert desk.heard == [{"broker": "broker (no memory)"}]


def test_a_part_that_does_not_stay_up_stands_beside_the_others_until_it_does(desk: Desk) -> None:
    desk.bad["broker"] = "no memory"
    desk.troubles.ends("console", "it ended 5 times")
    desk.round()
    desk.troubles.ends("console", "")
    desk.troubles.ends("console", "")
    desk.round()
    broker = {"broker": "broker (no memory)"}
    assert desk.heard == [broker | {"console": "console (it ended 5 times)"}, broker]


def test_that_nobody_hears_what_was_denied_is_no_part_that_fails(desk: Desk) -> None:
    desk.away, desk.bad[DENIALS] = True, "nobody is there"
    desk.troubles.attempt(DENIALS, lambda: desk._work(DENIALS))
    desk.round()
    desk.away = False
    desk.round(AGAIN)
    assert desk.heard == [{}]
