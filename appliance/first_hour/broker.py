"""The MQTT half of `falaj edge try`: a broker of its own on loopback, and the agent's bindings and requests on it.

Where nobody said how far apart readings come, the first few tell: they wait, the windows are cut for that rhythm, and
then they are read again. What does not fit is told on the error topic, as on every device, and once to the person.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from appliance import clock
from appliance.broker import Broker, NoBroker, local_config, write_passwords
from appliance.edge.local_session import let_go
from appliance.first_hour.overheard import look
from appliance.first_hour.planning import DEVICE, Tryout
from appliance.first_hour.rhythm import FEW, Rhythm
from appliance.pump import Pump
from appliance.screen import visible
from edge.bindings import Bindings, Requests
from edge.bindings.stream import Taken
from edge.buffers import Buffers
from edge.serving import Serving
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import DEFAULT_TENANT, ModelName

log = logging.getLogger("falaj.try")

USERS = ("falaj", "app")  # as on an agent's own broker
PATIENCE = 10.0  # seconds until the broker must have taken the subscriptions
APART = 1.5  # times as far apart as the windows are cut for: then most of them would have holes
_WAITING = 1000  # messages that wait until the rhythm is known
_TOLD = 100  # topics and faults of which something is told, each once

Say = Callable[[str], None]


class TryoutBroker:
    """Everything that a binding needs, in a private folder. `say` gets lines for the person, on the link's thread."""

    def __init__(self, tryout: Tryout, serving: Serving, folder: Path, port: int, pump: Pump, say: Say) -> None:
        self.tryout, self.password = tryout, folder / "broker" / "app.password"
        self._say, self._pump, self._told = say, pump, set[str]()
        self._broker = Broker(folder / "broker", "127.0.0.1", port, "--mqtt-port", outlive=False)
        self._port = port
        self._buffers = Buffers(folder / "buffers.db", DEFAULT_TENANT, os.urandom(32), report=self._report)
        self._rhythm, self._waiting = Rhythm(), list[tuple[str, bytes]]()
        self._topic, self._taken = "", False  # of the message that is read just now
        self._link: MqttLink | None = None
        self.bindings = Bindings(
            DEFAULT_TENANT, DEVICE, serving, self._buffers, self._publish, clock.now, self._observe,
            settled=lambda: self._link is None or not self._link.unconfirmed,
        )  # fmt: skip
        self.bindings.bind(tryout.manifest)
        self._requests = Requests(DEVICE, serving, self._publish, clock.now, heard=self.bindings.subscriptions)

    def start(self) -> None:
        """Listens once it returns; raises PortTaken or NoBroker."""
        folder = self._broker.folder
        write_passwords(folder, USERS)
        self._broker.start(local_config(folder, self._port))
        password = (folder / "falaj.password").read_text()
        wanted = {*self.bindings.subscriptions(), *self._requests.subscriptions()}
        at = At("127.0.0.1", self._port, f"falaj-{DEVICE}", user="falaj", password=password)
        self._link = link = MqttLink(
            at, manual_ack=True, queue_when_down=True, refused=log.warning,
            confirmed=self._confirmed,
        )  # fmt: skip
        link.subscribe(*wanted)
        link.start(self._received, lambda up, reason: log.info("local broker: %s", reason))
        end = clock.ticks() + PATIENCE
        while not wanted <= link.listening:
            if clock.ticks() > end:
                raise NoBroker("the broker that was just started does not answer: is the machine out of memory?")
            link.wait_until_up(0.05)

    def stop(self) -> None:
        """Ends the session and the broker."""
        if self._link is not None:
            self._link.stop()
        self._broker.stop()
        self._buffers.close()

    # --- the link's thread ---

    def _received(self, message: Message) -> None:
        def ack() -> None:
            if message.qos and self._link is not None:
                self._link.acknowledge(message.receipt, message.qos)

        def follow() -> None:
            if message.qos:
                self.bindings.follow(ack)

        try:
            self._take_in(message, ack, follow)
        except Exception as error:  # noqa: BLE001 - the process border: told; further up it would end paho's thread
            text = let_go(error)
            log.warning("%s: %s", message.topic, text)
            self._once(text, f"{message.topic}: {text}; the session goes on, and the makers should see this line")
            follow()

    def _take_in(self, message: Message, ack: Callable[[], None], follow: Callable[[], None]) -> None:
        if message.retained:  # an old reading or question: as on every device it says nothing of now
            follow()
        elif self._requests.hears(message.topic):
            self._requests.handle(message, follow)
        else:
            self._read(message, ack)

    def _read(self, message: Message, ack: Callable[[], None]) -> None:
        self._topic, self._taken, self._payload = message.topic, False, message.payload
        self.bindings.handle(message.topic, message.payload, message.qos, ack)
        window = self.tryout.manifest.window
        if not self._taken or window is None or window.size == 1:
            return
        if not self.tryout.learns:
            self._compare(window.period)
            return
        if len(self._waiting) < _WAITING:
            self._waiting.append((message.topic, message.payload))
        period = self._rhythm.period(message.topic, min(FEW, window.size))
        if period is not None:
            self._learned(period)

    def _learned(self, period: float) -> None:
        self.tryout = self.tryout.cut_every(period)
        self.bindings.bind(self.tryout.manifest)
        waiting, self._waiting = self._waiting, []
        for topic, payload in waiting:  # again: for the rhythm that was guessed they may have come too close
            self.bindings.handle(topic, payload, 0, lambda: None)
        self._speak(f"readings come every {period:.3g} s: the windows are cut for that (--rate says otherwise)")

    def _compare(self, wanted: float) -> None:
        period = self._rhythm.period(self._topic)
        if period is not None and not wanted / APART < period < wanted * APART:
            text = f"readings come every {period:.3g} s, the windows are cut for {wanted:.3g} s"
            self._tell_once(self._topic, f"{text}: start again with --rate {1 / period:.3g}")

    def _confirmed(self) -> None:
        if self.bindings.waits:
            self._pump.submit(self.bindings.settle)

    def _observe(self, model: ModelName, ts: float, rows: Taken) -> None:
        self._taken = True
        self._rhythm.see(self._topic, ts, len(rows))

    def _publish(self, message: Publish) -> None:
        if self._link is not None:
            self._link.publish(message)
        if message.topic.endswith("/error"):
            document = json.loads(message.payload)
            self._tell_once(self._topic, f"{document.get('text') or document.get('error')}{self._hint()}")

    def _hint(self) -> str:
        """What to type if the reading only has other names for its numbers."""
        window, seen = self.tryout.manifest.window, look(self._payload, clock.now())
        binding = self.tryout.manifest.bindings[0]
        clock_path = binding.fields.get(binding.time_field, binding.time_field)
        fields = [path for path in (*seen.fields, *[seen.time] * bool(seen.fields)) if path not in ("", clock_path)]
        if window is None or not fields or set(window.channels) <= set(fields):
            return ""
        if len(fields) == len(window.channels):
            return f": start again with --channels {','.join(fields)}, if that is the order of the model's"
        return f": its numbers are {', '.join(fields)}; name the {len(window.channels)} of the model with --channels"

    def _tell_once(self, topic: str, text: str) -> None:
        self._once(topic, f"{topic}: {text}")

    def _once(self, about: str, text: str) -> None:
        if about not in self._told and len(self._told) < _TOLD:
            self._told.add(about)
            self._speak(visible(text))

    def _speak(self, text: str) -> None:
        try:
            self._say(text)
        except OSError as error:  # the person has closed what was printed to; the model goes on all the same
            log.info("nobody reads %r: %s", text, error)

    def _report(self, code: str, text: str) -> None:
        log.warning("%s: %s", code, text)
