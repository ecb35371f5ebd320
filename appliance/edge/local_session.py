"""The agent's session with the device's own broker: readings and questions come in, predictions and answers go out, and
its status says whether the agent is there."""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.settings import LocalBroker
from edge.batching import MOST
from edge.bindings import Bindings, Requests
from sync import topics
from sync.link import Message, Publish
from sync.mqtt import Broker, MqttLink
from sync.names import DeviceId

log = logging.getLogger("falaj.edge")

Question = tuple[Message, Callable[[], None]]  # and how it is acknowledged

TOGETHER = 256 * 1024  # bytes of questions that wait for one another: as values they take many times that
KEPT = 7 * 86_400  # seconds that the broker keeps what is for an agent that is away


class LocalSession:
    """Readings count as received when they are checkpointed; predictions wait for the broker in memory. `confirmed` is
    called from the session's own thread whenever the broker has answered a publication, `report` is told, once each,
    what a message broke on."""

    def __init__(
        self,
        at: LocalBroker,
        password: str | None,
        device: DeviceId,
        confirmed: Callable[[], None],
        report: Callable[[str, str], None],
    ) -> None:
        self._report = report
        self._reported: set[str] = set()
        self._status, self._described = topics.local_status(device), ""
        self._waiting: list[Question] = []  # questions that came together, until the last has come ...
        self._bytes = 0  # ... and how many of payload they are
        self._requests: Requests | None = None
        user = at.user if password else None
        self._link = MqttLink(
            Broker(at.host, at.port, f"falaj-{device}", user=user, password=password, session_expiry=KEPT),
            self._says("offline"),
            manual_ack=True,
            queue_when_down=True,
            refused=lambda text: log.warning("local broker: %s", text),
            confirmed=confirmed,
            drained=self._answer,
        )

    def publish(self, message: Publish) -> None:
        self._link.publish(message)

    @property
    def settled(self) -> bool:
        """Whether the broker has confirmed all that was published."""
        return not self._link.unconfirmed

    @property
    def listening(self) -> list[str]:
        """The filters of bindings and requests that the broker has confirmed, sorted."""
        return sorted(self._link.listening - {self._described})

    def start(self, bindings: Bindings, requests: Requests) -> None:
        """Connects; from now on what comes is taken in, on the session's own thread."""
        self._requests = requests

        def received(message: Message) -> None:
            due = threading.Lock()  # whoever takes it acknowledges: this thread, or the one that checkpoints

            def ack() -> None:
                if message.qos and due.acquire(blocking=False):
                    self._link.acknowledge(message.receipt, message.qos)

            def follow() -> None:
                if message.qos:
                    bindings.follow(ack)

            if requests.hears(message.topic) and not message.retained:
                waits = requests.stacks(message.topic)
                if not waits or self._bytes + len(message.payload) > TOGETHER:
                    self._answer()
                self._waiting.append((message, follow))
                self._bytes += len(message.payload)
                if not waits or len(self._waiting) >= MOST:
                    self._answer()
                return
            self._answer()  # they came before it, and the broker wants to hear of them in turn
            try:
                take_in(message, ack, follow)
            except Exception as error:  # noqa: BLE001 - the process border: reported; further up it would end paho's thread
                self._failed(error)
                follow()

        def take_in(message: Message, ack: Callable[[], None], follow: Callable[[], None]) -> None:
            if bindings.discovery.hears(message.topic):
                bindings.discovery.heard(message.topic, message.payload)
                follow()
            elif message.retained:  # an old reading or question, stored by the broker: it says nothing of now
                follow()
            else:
                bindings.handle(message.topic, message.payload, message.qos, ack)

        def changed(up: bool, reason: str) -> None:
            log.info("local broker: %s", reason)
            if up:
                self.publish(self._says("online"))
                bindings.discovery.renew()

        self._link.start(received, changed)

    def listen(self, bindings: Bindings, requests: Requests) -> None:
        """Hears what bindings and requests want heard now, and nothing else."""
        self._described = bindings.discovery.subscription()
        bindings.all_bound()
        wanted = (*requests.subscriptions(), *bindings.subscriptions(), self._described)
        self._link.unsubscribe(*(self._link.listening - set(wanted)))
        self._link.subscribe(*wanted)

    def stop(self) -> None:
        """Says that the agent goes, and ends the session."""
        self.publish(self._says("offline"))
        self._link.stop()

    def _answer(self) -> None:
        """Answers the questions that wait; nothing that goes wrong with one of them costs another its answer."""
        if self._waiting:
            questions, self._waiting, self._bytes = self._waiting, [], 0
            self._handle(questions)

    def _handle(self, questions: Sequence[Question]) -> None:
        assert self._requests is not None  # a question came, so the session has begun
        left = deque(questions)
        try:
            self._requests.handle_all([(message, lambda: left.popleft()[1]()) for message, _ in questions])
        except Exception as error:  # noqa: BLE001 - the process border: reported; further up it would end paho's thread
            if len(questions) > 1:
                for one in left:
                    self._handle([one])
                return
            self._failed(error)
            for _, follow in left:
                follow()

    def _failed(self, error: Exception) -> None:
        text = let_go(error)
        if text not in self._reported:
            self._reported.add(text)
            self._report("message-failed", text)

    def _says(self, status: str) -> Publish:
        return Publish(self._status, status.encode(), retain=True)


def let_go(error: Exception) -> str:
    """Where the agent's code broke on a message, not the error's own words: they may quote a payload."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"a message was let go: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
