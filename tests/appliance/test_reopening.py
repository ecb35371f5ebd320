"""A session is opened anew while its messages fill the pump, and while somebody asks for it again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from appliance.pump import BACKLOG, Pump
from appliance.reopening import Reopening
from tests.waiting import PATIENCE, eventually


class Link:
    """A session whose thread hands over more than the pump has room for, and which ends once that is done."""

    def __init__(self, pump: Pump, heard: Callable[[], None]) -> None:
        self._pump, self._heard = pump, heard
        self._thread = threading.Thread(target=self._flood, daemon=True)
        self.running = True
        self._thread.start()

    def _flood(self) -> None:
        for _ in range(BACKLOG * 2):
            self._pump.post(self._heard)

    def stop(self) -> None:
        self._thread.join(PATIENCE)
        self.running = self._thread.is_alive()


class Node:
    """Whoever holds the session of now."""

    def __init__(self) -> None:
        self.pump = Pump("node", lambda: None, 60.0)
        self.pump.start()
        self.heard = 0
        self.links: list[Link] = []
        self.reopening = Reopening(self.pump, lambda: self.links[-1].stop(), self.open)

    def open(self) -> None:
        self.links.append(Link(self.pump, self.hear))

    def hear(self) -> None:
        self.heard += 1


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.pump.stop()


def test_a_session_that_is_full_of_messages_is_opened_anew(node: Node) -> None:
    """Ended on the pump's own thread it would have waited for ever."""
    gate = threading.Event()
    node.pump.submit(gate.wait)
    node.open()
    node.pump.submit(node.reopening.ask)
    gate.set()
    eventually(lambda: len(node.links) == 2, "the next session")
    eventually(lambda: node.heard == BACKLOG * 4, "what both had to say")
    assert not node.links[0].running


def test_who_asks_twice_gets_one_session_after_the_other(node: Node) -> None:
    node.open()
    for _ in range(4):
        node.reopening.ask()
    eventually(lambda: len(node.links) == 5, "all of them")
    assert [link.running for link in node.links[:-1]] == [False] * 4, "each was ended before the next began"
    eventually(lambda: node.heard == BACKLOG * 10, "nothing is lost of any")
