"""Fault 15: lines that are dead and do not say so: half open, a black hole, one for large packets alone, an address
that changed, a name that does not resolve, a portal that answers everything itself. The agent serves on, tries again
ever less often and by chance, and recovers by itself."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.states import Phase
from sync.link import LONGEST, pause
from sync.mqtt import KEEPALIVE, MqttLink
from tests.faults.field import Field, hurried
from tests.faults.proxy import CLEAR, Weather
from tests.hosting import hosting
from tests.waiting import eventually

# paho leaves a socket whose handshake fails to the garbage collector, which closes it.
LEFT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MOST = 8  # connections that a device tries in its first minute


@given(seed=st.integers())
def test_15_a_device_tries_no_more_than_so_often_in_a_minute(seed: int) -> None:
    chance = random.Random(seed)
    at = [0.0]
    for tries in range(60):
        at.append(at[-1] + pause(tries, chance.random()))
    for begin in at:
        assert sum(begin <= t < begin + 60.0 for t in at) <= MOST
    assert sum(at[-1] - 600.0 < t <= at[-1] for t in at) <= 600.0 / (LONGEST / 2) + 1, "twice a minute in the end"


def test_15_a_fleet_that_was_lost_together_comes_back_one_by_one() -> None:
    """1,000 devices, after the fourth try in vain: no tenth of a second has more than a few."""
    chance = random.Random(7)
    back = [sum(pause(tries, chance.random()) for tries in range(5)) for _ in range(1000)]
    fullest = max(sum(begin <= t < begin + 0.1 for t in back) for begin in back)
    assert fullest <= 40 and max(back) - min(back) > 8.0


@pytest.mark.slow
@pytest.mark.broker
def test_15_a_name_that_does_not_resolve_is_tried_again_and_stops_at_once(field: Field) -> None:
    link = MqttLink(replace(field.device_at, host="no-such-host.invalid"), chance=lambda: 0.0)
    said: list[str] = []
    link.start(lambda message: None, lambda up, reason: said.append(reason))
    eventually(lambda: len(said) >= 2, "two tries")
    link.stop()
    assert all(reason.startswith("no connection to no-such-host.invalid") for reason in said)


@contextmanager
def portal() -> Iterator[tuple[int, list[bytes]]]:
    """Answers whatever is said with a page to log in at, as hotels do; what was said to it."""
    said: list[bytes] = []

    def redirect(line: socket.socket) -> None:
        said.append(line.recv(65_536))
        line.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n")

    with hosting(redirect) as port:
        yield port, said


@LEFT
@pytest.mark.broker
def test_15_a_portal_is_told_nothing_and_no_session_begins(field: Field) -> None:
    with portal() as (port, said):
        link = MqttLink(replace(field.device_at, port=port), chance=lambda: 0.0)
        changes: list[bool] = []
        link.start(lambda message: None, lambda up, reason: changes.append(up))
        eventually(lambda: len(changes) >= 2, "two tries")
        link.stop()
    assert not any(changes) and len(said) <= len(changes) + 1
    assert all(word[:1] == b"\x16" for word in said), "a TLS handshake, and not a word of MQTT"


@LEFT
@pytest.mark.slow
@pytest.mark.broker
def test_15_a_black_hole_is_left_and_the_line_behind_it_found(field: Field) -> None:
    with field.over() as (line, device):
        device.until(lambda: device.sessions == 1, "a session")
        line.freeze()
        line.cut()
        tried = line.traffic.connections
        device.until(lambda: line.traffic.connections >= tried + 2, "two tries into the hole")
        line.thaw()
        device.until(lambda: device.sessions == 2, "the next session")
        assert line.traffic.connections <= tried + MOST


@pytest.mark.slow
@pytest.mark.broker
def test_15_a_line_that_is_half_open_is_found_out_by_its_silence(field: Field) -> None:
    """Nobody is told: the keepalive's ping has no answer, and the records of meanwhile arrive in the next session."""
    shipped = field.core.ship_large(1, 300_000)
    with field.over() as (line, device):
        field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        line.freeze()
        assert device.house.events.report(device.now, "beat", "said into the dark")
        device.until(lambda: not device.house.line.up, "the loss to be found", ask=0, patience=3.0 * KEEPALIVE)
        assert device.answering == 1
        line.cut()
        line.thaw()
        device.until(lambda: device.sessions == 2, "the next session", ask=0)
        assert "beat" in device.codes()


@pytest.mark.broker
def test_15_a_line_that_loses_what_is_large_brings_what_is_small_and_the_rest_when_it_is_mended(field: Field) -> None:
    """A router on the way takes smaller packets than it did, and its word on that is filtered."""
    first, second = field.core.ship_large(1, 30_000), field.core.ship_large(2, 300_000)
    with field.over() as (line, device):
        device.clock = hurried(10.0)
        field.core.assign(first, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        line.weather = Weather(largest=9000)
        came = sum(device.came.values())
        field.core.assign(second, device.identity)
        device.until(lambda: "download-stalled" in device.codes(), "the silence to be told", ask=0)
        assert device.answering == 1 and device.state.phase is Phase.FETCHING and device.sessions == 1
        assert sum(device.came.values()) - came <= 1, "its golden vectors are small"
        line.weather = CLEAR
        device.until(lambda: device.has(2), "the other release", ask=0)


@pytest.mark.slow
@pytest.mark.broker
def test_15_a_device_whose_address_changed_takes_its_own_session_over(field: Field) -> None:
    """The broker still holds the old connection for a living one."""
    shipped = field.core.ship_large(1, 300_000)
    with field.over() as (line, device):
        device.until(lambda: device.sessions == 1, "a session")
        line.move()
        field.core.assign(shipped, device.identity)
        assert device.house.events.report(device.now, "beat", "said into the dark")
        device.until(lambda: device.has(1), "the release in the next session", ask=0, patience=4.0 * KEEPALIVE)
        assert device.sessions == 2 and line.traffic.connections <= 1 + MOST and "beat" in device.codes()
