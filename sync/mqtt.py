"""The only paho (with `sync.packets` and `sync.line`): a `sync.link.Link` over MQTT 5. Its threads end here; a walker
sees calls and callbacks.

Traps settled here, once: MQTT 5 and the second callback API are asked for by name (paho's defaults are older);
TCP_NODELAY is set (without it a QoS 1 exchange waits for delayed acknowledgements, 40 times slower); a publish
that the broker refuses is told, because only MQTT 5 tells at all; subscriptions are renewed after a reconnect. Chunks
are heard at QoS 0, and not sent anew by a renewal: whoever lacks one asks again, while a broker that repeats all that a
lost line did not confirm sends more than is lacking, and over a line that is cut often nothing else.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from sync.line import Line
from sync.link import LinkDown, Message, Publish, Receiver, Watcher, pause
from sync.packets import Client, properties
from sync.topics import filter_complaint, is_chunk, topic_complaint

KEEPALIVE = 60  # seconds
IN_FLIGHT = 100  # QoS 1 messages under way at once
AT_ONCE = 64  # filters in one packet
LARGEST = 2 * 1024 * 1024  # bytes of a packet on the uplink; the broker has no larger ones either
FEW = 16  # chunks that came are given up so many at a time: one packet and its answer, not one for each


@dataclass(frozen=True)
class Tls:
    """Client side of TLS 1.3 with certificates on both ends; all three are PEM files."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Raises LinkDown, naming the file, if one cannot be used."""
        file = self.ca
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(file))
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            file = self.certificate
            context.load_cert_chain(str(file), str(self.key))
        except OSError as error:  # ssl.SSLError is one
            raise LinkDown(f"certificate {file}: {error}") from error
        return context


@dataclass(frozen=True)
class Broker:
    """Where and as whom to connect. Either `tls` (uplink) or user and password (local broker)."""

    host: str
    port: int
    client_id: str
    tls: Tls | None = None
    user: str | None = None
    password: str | None = None
    clean_start: bool = False
    session_expiry: int = 86_400  # seconds the broker keeps the session of an absent client


class MqttLink:
    """One session with a broker.

    `will` goes out when the session is lost. With `manual_ack`, a QoS 1 message counts as received only after
    `acknowledge(receipt)`. With `queue_when_down`, publishes wait in memory for the session (a local broker);
    without, they are dropped (the uplink: state is told again after every reconnect). With `retain_as_published`,
    `Message.retained` is also true for a live message that the broker was told to keep. `confirmed` is called from
    the link's thread after each QoS 1 publish that the broker answered; `unconfirmed` says how many are left; `drained`
    is called there after the last of the messages that came together. `chance` gives numbers from 0 to 1: clients that
    were lost together come back one by one. `session` counts the sessions that came up, `limit` is the largest packet
    (bytes) that the broker of this one takes; 0: any.
    """

    def __init__(
        self,
        broker: Broker,
        will: Publish | None = None,
        *,
        manual_ack: bool = False,
        queue_when_down: bool = False,
        retain_as_published: bool = False,
        refused: Callable[[str], None] = lambda text: None,
        confirmed: Callable[[], None] = lambda: None,
        drained: Callable[[], None] = lambda: None,
        chance: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._broker, self._queue, self._refused = broker, queue_when_down, refused
        self._confirmed, self._chance = confirmed, chance
        self._tries, self._as_published = 0, retain_as_published  # tries since the session was last up
        self.session = self.limit = 0
        self._patterns: list[str] = []
        self._left: dict[str, int | None] = {}  # filters given up that a kept session may still have -> packet id
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._sent_lock = threading.Lock()
        self._sent: deque[paho.MQTTMessageInfo] = deque()  # oldest first; those that arrived are let go
        self._asked: dict[int, tuple[str, ...]] = {}  # subscribe packets under way: packet id -> filters
        self._granted: frozenset[str] = frozenset()
        self._receiver: Receiver = lambda message: None
        self._watcher: Watcher = lambda up, reason: None
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=broker.client_id, protocol=paho.MQTTv5, manual_ack=manual_ack
        )
        if broker.tls is not None:
            client.largest = LARGEST
            client.tls_set_context(broker.tls.context())
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_socket_open = _no_delay
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.answered = self._on_answered
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        self._client = client
        self._line = Line(client, self._on_failed, self._pause, drained)

    def start(self, receiver: Receiver, watcher: Watcher) -> None:
        self._receiver = self._client.received = receiver
        self._watcher = watcher
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.SessionExpiryInterval = self._broker.session_expiry
        wishes.MaximumPacketSize = self._client.largest
        at, clean = self._broker, self._broker.clean_start
        self._client.connect_async(at.host, at.port, KEEPALIVE, clean_start=clean, properties=wishes)
        self._line.start()

    def publish(self, message: Publish) -> None:
        """As every link; a topic for which a broker would end the session, again after each reconnect, is refused."""
        if why := topic_complaint(message.topic):
            self._refused(f"a message was not sent, for its topic is none: {why}")
            return
        if not self._queue and not self._up.is_set():
            return
        said = properties(message.expiry, message.correlation)
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, said)
        if message.qos and info.rc == paho.MQTT_ERR_SUCCESS:
            with self._sent_lock:  # held over no call of paho's that calls back: it has locks of its own
                self._forget_arrived()
                self._sent.append(info)

    def subscribe(self, *patterns: str, session: int | None = None) -> None:
        """As every link; retained chunks are sent only if they are asked for while the session is up. Those that were
        asked for in a `session` that has ended are not: who lost it asks again, for what it lacks in the next."""
        for pattern in (bad := [p for p in patterns if filter_complaint(p)]):  # paho raises, or the broker hangs up
            self._refused(f"the filter {pattern[:256]!r} was not asked for: {filter_complaint(pattern)}")
        patterns = tuple(p for p in patterns if p not in bad)
        with self._lock:
            if session not in (None, self.session):
                patterns = tuple(p for p in patterns if not is_chunk(p))
            self._patterns += [p for p in patterns if p not in self._patterns]
            for pattern in patterns:
                self._left.pop(pattern, None)
        if patterns and self._up.is_set():
            self._subscribe(patterns)

    def unsubscribe(self, *patterns: str) -> None:
        patterns = tuple(p for p in patterns if not filter_complaint(p))
        with self._lock:
            self._patterns = [p for p in self._patterns if p not in patterns]
            self._granted -= set(patterns)
            self._left |= dict.fromkeys(patterns)
            due = tuple(p for p, packet in self._left.items() if packet is None)
        if self._up.is_set() and (len(due) >= FEW or not all(map(is_chunk, patterns))):
            self._unsubscribe(due)

    @property
    def listening(self) -> frozenset[str]:
        """The filters the broker has confirmed in this session: what is published from now on arrives."""
        return self._granted

    @property
    def unconfirmed(self) -> int:
        """How many of the messages published with QoS 1 the broker has not confirmed."""
        with self._sent_lock:
            self._forget_arrived()
            return len(self._sent)

    def _forget_arrived(self) -> None:
        while self._sent and self._sent[0].is_published():
            self._sent.popleft()

    def acknowledge(self, receipt: int, qos: int) -> None:
        """Tells the broker that a message was taken in for good (links with `manual_ack` only)."""
        self._client.ack(receipt, qos)

    def wait_until_up(self, timeout: float) -> bool:
        """Whether the session is up, waiting at most `timeout` seconds for it."""
        return self._up.wait(timeout)

    def stop(self) -> None:
        self._line.stop()
        self._up.clear()

    def _subscribe(self, patterns: tuple[str, ...], *, renewed: bool = False) -> None:
        for start in range(0, len(patterns), AT_ONCE):
            some = patterns[start : start + AT_ONCE]
            with self._lock:  # the confirmation may come before subscribe() returns
                _, packet = self._client.subscribe([(p, self._options(p, renewed)) for p in some])
                if packet is not None:
                    self._asked[packet] = some

    def _options(self, pattern: str, renewed: bool) -> SubscribeOptions:
        if not is_chunk(pattern):
            return SubscribeOptions(qos=1, retainAsPublished=self._as_published)
        sent = SubscribeOptions.RETAIN_DO_NOT_SEND if renewed else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        return SubscribeOptions(qos=0, retainAsPublished=self._as_published, retainHandling=sent)

    def _unsubscribe(self, patterns: tuple[str, ...]) -> None:
        for start in range(0, len(patterns), AT_ONCE):
            some = patterns[start : start + AT_ONCE]
            with self._lock:
                _, packet = self._client.unsubscribe(list(some))
                self._left |= dict.fromkeys(some, packet)

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._watcher(False, f"broker refused the session: {reason}")
            return
        self._tries, self.limit = 0, getattr(properties, "MaximumPacketSize", 0)
        with self._lock:
            self.session += 1
            self._up.set()
            patterns, left = tuple(self._patterns), tuple(self._left)
            if not flags.session_present:
                self._left.clear()
        if left and flags.session_present:
            self._unsubscribe(left)
        if patterns:
            self._subscribe(patterns, renewed=True)
        self._watcher(True, "connected")

    def _on_failed(self, why: str) -> None:
        self._down(f"no connection to {self._broker.host}:{self._broker.port}: {why}")

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._down(str(reason))

    def _down(self, why: str) -> None:
        self._up.clear()
        with self._lock:
            self._asked.clear()
            self._granted = frozenset()
        self._watcher(False, why)

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # raised any further it would end paho's thread, and the session for good
            self._refused("the broker sent a topic that is not UTF-8")
            return
        response = getattr(message.properties, "ResponseTopic", None)
        correlation = getattr(message.properties, "CorrelationData", None)
        payload = bytes(message.payload)
        self._receiver(Message(topic, payload, message.qos, message.retain, message.mid, response, correlation))

    def _on_answered(self, reason: ReasonCode) -> None:
        if reason.is_failure:
            self._refused(f"the broker refused a publish: {reason}")
        self._confirmed()

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        with self._lock:
            patterns = self._asked.pop(mid, ())
            granted = [p for p, reason in zip(patterns, reasons, strict=False) if not reason.is_failure]
            self._granted |= set(granted)
        for pattern in set(patterns) - set(granted):
            self._refused(f"the broker refused the subscription {pattern}")

    def _on_unsubscribe(self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        with self._lock:
            self._left = {pattern: packet for pattern, packet in self._left.items() if packet != mid}

    def _pause(self) -> float:
        seconds, self._tries = pause(self._tries, self._chance()), self._tries + 1
        return seconds


def _no_delay(client: Any, data: Any, sock: Any) -> None:
    """paho hands over the plain or the TLS socket here; both take the option."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
