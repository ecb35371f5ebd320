"""A session with a broker that only listens, for a while."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace

from appliance import clock
from appliance.errors import Trouble
from appliance.first_hour.suggesting import Overheard
from sync.link import Message
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink

PATIENCE = 5.0  # seconds until the broker must have let us in


class NoAnswer(Trouble):
    """No broker lets us listen; the message says which and what to do."""


def overhear(at: At, filters: tuple[str, ...], seconds: float, ended: threading.Event) -> Overheard:
    """What comes on these topics within so many seconds, or until `ended`. Raises NoAnswer.

    The session is new and leaves nothing with the broker, whatever `at` says of it.
    """
    heard, said, told = Overheard(), ["nobody answers"], threading.Event()

    def receive(message: Message) -> None:
        heard.hear(message.topic, message.payload, message.retained, clock.now())

    def watch(up: bool, reason: str) -> None:
        said.append(reason)
        told.set()

    own = replace(at, client_id=f"falaj-listen-{secrets.token_hex(4)}", clean_start=True, session_expiry=0)
    link = MqttLink(own, refused=lambda text: said.append(text))
    link.subscribe(*filters)
    link.start(receive, watch)
    try:
        told.wait(PATIENCE)
        if not link.wait_until_up(0):
            raise NoAnswer(_refusal(at, said))
        began = clock.ticks()
        ended.wait(seconds)
        heard.seconds = clock.ticks() - began
    finally:
        link.stop()
    return heard


def _refusal(at: At, said: list[str]) -> str:
    """The most telling of what the link said: after a refusal it only says that the session ended."""
    place = f"{at.host}:{at.port}"
    refused = next((text for text in said if "refused the session" in text), "")
    if refused:
        return f"{place}: {refused}; give --user and --password-file"
    told = said[-1] if place in said[-1] else f"{place}: {said[-1]}"
    return f"{told}; start a broker (`falaj edge run` does), or give --host and --port"
