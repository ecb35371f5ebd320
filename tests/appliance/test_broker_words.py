"""What a tenant's broker says is sifted: its log as before, no word of a stranger told as a device's, and a broker that
waits for nobody, whoever reads is stopped, killed or has no disk."""

from __future__ import annotations

import itertools
import os
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.broker import SIFTED, Broker, NoBroker, local_config
from appliance.broker_words import AGAIN, LINE, NAMES, TOPIC, BrokerWords, Denial, Denied, Sieve
from appliance.demo.fleet import free_ports
from sync import topics
from sync.messages import EVENT
from sync.names import DeviceId, Digest, TenantId, TrustFile
from tests.attacks.ground import ATTACKER, Ground, open_ground
from tests.core.world import TENANT
from tests.waiting import eventually

OWN = topics.up(TENANT, ATTACKER, EVENT)
JOINED = b"1700000000: New client connected from 127.0.0.1:5000 as watch-2 (p5, c1, k60, u'watch-2').\n"


def denied(name: str, topic: str, at: int = 1_700_000_000) -> bytes:
    return f"{at}: Denied PUBLISH from {name} (d0, q1, r0, m7, '{topic}', ... (5 bytes))\n".encode()


def asked(name: str, pattern: str) -> bytes:
    return f"1700000000: {name} 1 {pattern}\n".encode()


def ended(reason: str) -> bytes:
    return f"1700000000: OpenSSL Error[0]: error:0A000086:SSL routines::{reason}\n".encode()


# --- the sieve --------------------------------------------------------------------------------------------------


def test_the_lines_of_a_packet_are_not_kept_and_all_others_are() -> None:
    sieve = Sieve(TENANT)
    lines = (
        b"1700000000: Received PUBLISH from watch-2 (d0, q1, r0, m1, 'x', ... (5 bytes))",
        b"1700000000: Sending PUBACK to watch-2 (m1, rc0)",
        b"1700000000: \tfalaj/1/acme/core/status (QoS 1)",
        b"1700000000: No will message specified.",
    )
    assert sieve.take(b"\n".join((*lines, JOINED)), 0.0) == JOINED
    assert not sieve.denied


def test_a_denied_word_is_counted_and_in_the_log_once_a_minute() -> None:
    sieve = Sieve(TENANT)
    first, second = denied("watch-2", "core/status"), denied("watch-2", "elsewhere")
    assert sieve.take(first + second, 0.0) == first
    assert sieve.take(second, AGAIN - 1) == b""
    assert sieve.take(second, AGAIN) == second
    assert sieve.denied.words == {"watch-2": Denial("core/status", 4)}


def test_a_word_that_the_table_allows_was_denied_by_the_steward_itself() -> None:
    sieve = Sieve(TENANT)
    assert sieve.take(denied(ATTACKER, OWN), 0.0) == b""
    assert not sieve.denied
    sieve.take(denied("watch-1", OWN), 0.0)
    assert set(sieve.denied.words) == {"watch-1"}, "it is another's word to write there"


@pytest.mark.parametrize(
    "pattern", ["#", "+/#", "$SYS/#", f"$share/g/{OWN}", topics.desired(TENANT, DeviceId("watch-1")), OWN, "a b/+"]
)
def test_who_asks_to_hear_others_is_counted_and_in_the_log_once_a_minute(pattern: str) -> None:
    """What it says itself it may not hear either."""
    sieve, line = Sieve(TENANT), asked(ATTACKER, pattern)
    assert sieve.take(line + line, 0.0) == line
    assert sieve.take(line, AGAIN - 1) == b""
    assert sieve.denied == Denied(filters={ATTACKER: Denial(pattern, 3)})


def test_what_an_agent_and_the_core_ask_for_is_neither_counted_nor_kept() -> None:
    sieve = Sieve(TENANT)
    own = [
        *topics.device_subscriptions(TENANT, ATTACKER),
        topics.trust(TENANT, TrustFile("timestamp.json")),
        topics.blob(TENANT, Digest("a" * 64), 7),
    ]
    assert sieve.take(b"".join(asked(ATTACKER, one) for one in own), 0.0) == b""
    assert sieve.take(b"".join(asked(topics.CORE_NAME, one) for one in ("#", *own)), 0.0) == b""
    assert not sieve.denied


def test_a_handshake_that_ends_stays_in_the_log_and_is_counted_by_its_reason() -> None:
    sieve = Sieve(TENANT)
    plain = b"1700000000: Client connection from 127.0.0.1 failed: error:0A00010B:SSL routines::wrong version number.\n"
    older = b"1700000000: OpenSSL Error[0]: error:1417C086:SSL routines:tls_process_client_certificate:bad thing\n"
    second = b"1700000000: OpenSSL Error[1]: error:0A000086:SSL routines::certificate verify failed\n"
    looked = ended("unexpected eof while reading")
    lines = plain + older + ended("certificate verify failed") + second + looked + plain
    assert sieve.take(lines, 0.0) == lines
    counted = {"wrong version number": 2, "bad thing": 1, "certificate verify failed": 1}
    assert sieve.denied == Denied(handshakes=counted), "whoever only looks whether there is a listener is none"


def test_a_line_that_lost_its_end_still_names_who_spoke() -> None:
    sieve = Sieve(TENANT)
    sieve.take(denied("watch-2", "t" * 1000)[:999] + b"\n", 0.0)
    assert sieve.denied.words == {"watch-2": Denial("t" * TOPIC, 1)}


@pytest.mark.parametrize(
    "line",
    [
        b"1700000000: Received PUBLISH from watch-2 (d0, q1, r0, m1, '" + denied("watch-1", "x").rstrip(b"\n"),
        b" " + denied("watch-1", "x").rstrip(b"\n"),
        denied("Watch_1", "x").rstrip(b"\n"),
        denied("watch-1 (d0", "x").rstrip(b"\n"),
    ],
)
def test_who_spoke_is_read_from_the_beginning_of_a_line_alone(line: bytes) -> None:
    sieve = Sieve(TENANT)
    sieve.take(line + b"\n", 0.0)
    assert not sieve.denied


def test_a_line_without_end_is_held_to_its_beginning() -> None:
    sieve = Sieve(TENANT)
    for _ in range(50):
        assert sieve.take(b"x" * LINE, 0.0) == b""
    forged = denied("watch-1", "t" * (LINE - len(denied("watch-1", "")) + 1))
    assert len(forged) == LINE + 1
    assert sieve.take(forged[:-1], 0.0) == b""
    assert sieve.take(b"\n", 0.0) == b"x" * LINE + b"\n", "its end never passes for a line"
    assert not sieve.denied


def test_names_without_end_take_a_bounded_room_and_none_is_crowded_out_for_good() -> None:
    sieve = Sieve(TENANT)
    flood = b"".join(denied(f"d-{i}", "x") for i in range(1000))
    assert sieve.take(flood, 0.0).count(b"\n") == len(sieve.denied.words) == NAMES
    sieve.take(b"".join(asked(f"d-{i}", "#") + ended("a" * (i + 1)) for i in range(100)), 0.0)
    assert len(sieve.denied.filters) == len(sieve.denied.handshakes) == NAMES
    sieve.denied = Denied()
    assert sieve.take(denied("late", "x"), AGAIN) == denied("late", "x")
    assert sieve.denied.words == {"late": Denial("x", 1)}


WORDS = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"\n", b"1: ", b"1: Denied PUBLISH from ", b"a (d0, q0, r0, m0, '", b"', ... (1 bytes))"]),
    st.builds(denied, st.sampled_from(["watch-1", "watch-2", "-", "A"]), st.text(max_size=30)),
    st.builds(asked, st.sampled_from(["watch-1", "core@falaj", "-", "A"]), st.text(max_size=30)),
    st.builds(ended, st.sampled_from(["wrong version number", "no cipher"]) | st.text(max_size=20)),
)


@given(st.lists(WORDS, max_size=30), st.lists(st.integers(0, 2000), max_size=5))
def test_any_bytes_in_any_pieces_say_the_same_and_only_of_names(parts: list[bytes], places: list[int]) -> None:
    words = b"".join(parts) + b"\n"
    whole, pieces = Sieve(TENANT), Sieve(TENANT)
    kept = whole.take(words, 0.0)
    cuts = sorted({0, len(words), *(place % len(words) for place in places)})
    assert b"".join(pieces.take(words[a:b], 0.0) for a, b in itertools.pairwise(cuts)) == kept
    assert pieces.denied == whole.denied
    assert set(kept.split(b"\n")) <= set(words.split(b"\n"))
    told = {line.split(b" ")[4] for line in words.split(b"\n") if b": Denied PUBLISH from " in line}
    assert {name.encode() for name in whole.denied.words} <= told
    begun = {line.split(b" ")[1] for line in words.split(b"\n") if line.count(b" ") > 2}
    assert {name.encode() for name in whole.denied.filters} <= begun


# --- who reads --------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path) -> Iterator[tuple[BrokerWords, int]]:
    """What is read, and the end that a broker holds."""
    made = BrokerWords(tmp_path / "x.fifo", tmp_path / "x.log", TENANT)
    made.create()
    end = os.open(made.path, os.O_RDWR | os.O_NONBLOCK)
    yield made, end
    made.end()
    os.close(end)


def heard(words: BrokerWords) -> dict[DeviceId, Denial]:
    found = Denied()
    words.hand_over(found.add)
    return found.words


def test_the_fifo_is_its_accounts_alone_and_leaves_with_the_broker(words: tuple[BrokerWords, int]) -> None:
    made, _ = words
    mode = made.path.stat().st_mode
    assert stat.S_ISFIFO(mode) and stat.S_IMODE(mode) == 0o600
    made.close()
    assert made.path.is_fifo(), "the broker goes on"
    made.end()
    assert not made.path.exists()


def test_who_begins_anew_reads_on_where_the_one_before_stopped(words: tuple[BrokerWords, int], tmp_path: Path) -> None:
    made, end = words
    os.write(end, JOINED + denied("watch-2", "while nobody read"))
    after = BrokerWords(made.path, tmp_path / "x.log", TENANT)
    after.listen()
    after.close()
    assert heard(after) == {"watch-2": Denial("while nobody read", 1)}
    assert (tmp_path / "x.log").read_bytes() == JOINED + denied("watch-2", "while nobody read")
    assert heard(after) == {}, "told once"


def test_what_the_steward_did_not_hear_is_kept_for_the_next_time(words: tuple[BrokerWords, int]) -> None:
    made, end = words
    os.write(end, denied("watch-2", "first"))
    made.listen()
    made.close()

    def refuse(found: Denied) -> None:
        os.write(end, denied("watch-2", "meanwhile") + asked("watch-2", "#") + ended("no cipher"))
        made.listen()
        made.close()
        raise OSError("no steward")

    with pytest.raises(OSError, match="no steward"):
        made.hand_over(refuse)
    after = Denied()
    made.hand_over(after.add)
    words, filters = {ATTACKER: Denial("first", 2)}, {ATTACKER: Denial("#", 1)}
    assert after == Denied(words, filters, {"no cipher": 1})


def test_a_full_disk_loses_lines_and_no_denial(
    words: tuple[BrokerWords, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, end = words
    (tmp_path / "x.log").write_bytes(b"o" * 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for topic in ("one", "two"):
            os.write(end, JOINED + denied("watch-2", topic))
            made.listen()
            made.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert heard(made) == {"watch-2": Denial("one", 2)}
    assert caplog.text.count("lacks what the broker says") == 1
    os.write(end, JOINED)
    made.listen()
    made.close()
    assert (tmp_path / "x.log").read_bytes().endswith(b"o" + JOINED)


# --- a real broker ----------------------------------------------------------------------------------------------


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = open_ground(tmp_path / "ground")
    yield made
    made.close_sessions()
    made.broker.stop()


@pytest.mark.broker
def test_a_broker_whose_reader_is_gone_serves_on_and_the_next_core_takes_it_over(ground: Ground) -> None:
    """More than its FIFO holds; nobody reads, as after a kill -9 of the core."""
    assert ground.broker._words is not None
    core, device = ground.core(), ground.device(ATTACKER)
    core.listen(OWN)
    ground.broker._words.close()
    pid, config = ground.broker.pid, (ground.broker.folder / "mosquitto.conf").read_text()
    device.say("before/it/was/full")
    for i in range(8000):
        if i % 400 == 0:
            eventually(lambda i=i: len(core.heard) >= i - 400, "the broker to serve on")  # type: ignore[misc]
        device.say(OWN, b"x" * 10)
    eventually(lambda: len(core.heard) == 8000, "each word")
    after = Broker(ground.broker.folder, "127.0.0.1", ground.broker.port, "x", tenant=TENANT)
    after.start(config.removesuffix(SIFTED))
    try:
        assert after.pid == pid

        def is_told(topic: str) -> bool:
            told = Denied()
            after.denials(told.add)
            return told.words.get(ATTACKER, Denial("", 0)).topic == topic

        eventually(lambda: is_told("before/it/was/full"), "what waited")
        device.say("after/it")
        eventually(lambda: is_told("after/it"), "what came since")
        assert "Received PUBLISH" not in ground.log and "Sending" not in ground.log
    finally:
        after.stop()
    assert not (after.folder / "mosquitto.fifo").exists()


@pytest.mark.broker
def test_a_broker_of_before_is_started_anew_once_and_one_without_a_sieve_says_no_more(tmp_path: Path) -> None:
    (port,), others = free_ports(1), set(threading.enumerate())
    config = f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type notice\n"
    before = Broker(tmp_path, "127.0.0.1", port, "x")
    before.start(config)
    first = before.pid
    assert "debug" not in (tmp_path / "mosquitto.conf").read_text() and not (tmp_path / "mosquitto.fifo").exists()
    after = Broker(tmp_path, "127.0.0.1", port, "x", tenant=TenantId("acme"))
    after.start(config)
    try:
        second = after.pid
        assert second not in (None, first) and (tmp_path / "mosquitto.conf").read_text() == config + SIFTED
        after.start(config)
        assert after.pid == second
        (tmp_path / "mosquitto.fifo").unlink()
        third = Broker(tmp_path, "127.0.0.1", port, "x", tenant=TenantId("acme"))
        third.start(config)
        assert third.pid not in (None, second), "nobody could read it any more"
        third.stop()
    finally:
        after.stop()
        before.stop()
    left = set(threading.enumerate()) - others
    assert not [thread.name for thread in left if thread.name == "broker-words"]


@pytest.mark.broker
def test_a_sifted_broker_that_does_not_start_says_why(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    broker = Broker(tmp_path, "127.0.0.1", port, "x", tenant=TENANT)
    with pytest.raises(NoBroker, match=r"(?s)does not start:\n.*nonsense"):
        broker.start(f"listener {port} 127.0.0.1\nnonsense true\n")
    assert not broker.alive()


def test_an_agents_own_broker_is_not_sifted(tmp_path: Path) -> None:
    assert "debug" not in local_config(tmp_path, 1883)
