"""Whether prediction answers, asked of the releases that serve: real graphs, one of which stops to answer, and a host
that is only slow."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from appliance import clock
from appliance.edge.guard import Guard, crash_folder
from appliance.edge.probing import PAUSE, SHARE, STANDING, Probe
from appliance.edge.state import EdgeFolder
from edge.deadlines import Deadlines
from edge.runtime import NoMemory, Session, load
from edge.serving import Loaded, Serving
from sync.names import ModelName
from tests.edge import bad_graphs
from tests.edge.device import new_device
from tests.edge.guardrails import BAD, swept
from tests.edge.test_slots import slot
from tests.edge.world import Core
from tests.waiting import eventually

ENDLESS, QUICK = ModelName("endless"), ModelName("quick")
ARTIFACT = slot(1).release.artifact
WORKED = count(0, 60).__next__  # seconds: the processor did nothing else


def after_a_pause() -> Callable[[], float]:
    """A clock of which every look is after the longest of pauses."""
    return count(0, 10**6).__next__


class Clock:
    """Stands until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def serve(serving: Serving, model: ModelName, graph: bytes, deadlines: Deadlines) -> Loaded:
    """A release that answers its sample; what it is asked there may be changed, as a graph may that has a state."""
    loaded = Loaded(load(graph, deadlines=deadlines), slot(1), sample={"i": np.array([0], np.int64)})
    serving.put(model, loaded)
    return loaded


def breaks(loaded: Loaded, index: int = BAD) -> None:
    assert loaded.sample is not None
    loaded.sample["i"][0] = index


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    found = Deadlines(clock.ticks)
    with swept(found):
        yield found


def test_without_a_model_there_is_nobody_to_ask(deadlines: Deadlines) -> None:
    serving = Serving()
    serving.take_away(QUICK)
    probe = Probe(serving, deadlines)
    probe.ask()
    assert probe.answers()


def test_a_release_that_hangs_is_silent_until_it_answers_or_is_gone(deadlines: Deadlines) -> None:
    """A run that was stopped for being late says nothing where the processor had hardly worked: a slow host."""
    serving, busy = Serving(), [True]
    loaded = serve(serving, ENDLESS, bad_graphs.ENDLESS, deadlines)
    probe = Probe(serving, deadlines, after_a_pause(), lambda: 0.0 if busy else WORKED())
    probe.ask()
    assert probe.answers()
    breaks(loaded)
    probe.ask()
    assert probe.answers()
    busy.clear()
    serve(serving, QUICK, bad_graphs.spins(1, 1, 1), deadlines)
    for _ in range(2):  # the other one in its turn
        probe.ask()
    assert not probe.answers()
    busy.append(True)
    probe.ask()
    assert not probe.answers(), "that is no answer either, and nobody else speaks for it"
    breaks(loaded, 0)
    probe.ask()
    assert probe.answers()
    health = serving.health(ENDLESS)
    assert (health.answers, health.errors) == (0, 0), "nothing was counted"


def test_a_silent_release_that_is_taken_off_silences_nobody(deadlines: Deadlines) -> None:
    serving = Serving()
    loaded = serve(serving, ENDLESS, bad_graphs.ENDLESS, deadlines)
    probe = Probe(serving, deadlines, after_a_pause(), WORKED)
    probe.ask()
    breaks(loaded)
    probe.ask()
    assert not probe.answers()
    serving.take_away(ENDLESS)
    probe.ask()
    assert probe.answers()


def test_a_sample_that_a_release_never_answered_says_nothing(deadlines: Deadlines) -> None:
    serving = Serving()
    breaks(serve(serving, ENDLESS, bad_graphs.ENDLESS, deadlines))
    probe = Probe(serving, deadlines, clock.ticks, WORKED)
    probe.ask()
    assert probe.answers()


def test_each_is_asked_in_turn_and_it_takes_little_of_the_processor(deadlines: Deadlines) -> None:
    """Each look at this clock is a tenth of a second: so much does an answer take."""
    serving, ticks = Serving(), Clock()
    asked: list[str] = []

    class Seen(dict[str, np.ndarray]):
        """A sample that tells that it is asked, and how long that took."""

        def get(self, name: str, default: object = None) -> np.ndarray:  # type: ignore[override]
            asked.append(self.of)
            ticks.now += 0.1
            return super().__getitem__(name)

        of = ""

    for model in (ENDLESS, QUICK):
        loaded = serve(serving, model, bad_graphs.spins(1, 1, 1), deadlines)
        sample = Seen(loaded.sample or {})
        sample.of = model
        serving.put(model, Loaded(loaded.session, loaded.slot, sample=sample))
    probe = Probe(serving, deadlines, ticks, ticks)
    began = ticks.now
    while ticks.now < began + 1000:
        probe.ask()
        ticks.now += PAUSE
    assert asked[:4] == [ENDLESS, QUICK, ENDLESS, QUICK]
    assert 0.1 * len(asked) <= (ticks.now - began) / SHARE + 0.1


@pytest.mark.parametrize("silent", [False, True])
def test_who_is_taken_off_stays_in_memory_for_no_probe(deadlines: Deadlines, silent: bool) -> None:
    """It is taken off, it may be, because what it holds is what lacks for it to be loaded anew."""
    serving = Serving()
    loaded = serve(serving, ENDLESS, bad_graphs.ENDLESS, deadlines)
    probe = Probe(serving, deadlines, after_a_pause(), WORKED)
    probe.ask()
    if silent:
        breaks(loaded)
        probe.ask()
    assert probe.answers() is not silent
    held = weakref.ref(loaded.session)
    del loaded
    serving.take_away(ENDLESS)
    gc.collect()
    assert held() is None


class Short(Session):
    """A session that answers once, and then cannot get the memory for it."""

    def __init__(self, real: Session, failure: Callable[[], Exception]) -> None:
        self.__dict__.update(real.__dict__)
        self.failure, self.asked = failure, 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked += 1
        if self.asked > 1:
            raise self.failure()
        return super().run(inputs)


@pytest.mark.parametrize("failure", [lambda: NoMemory("free some"), MemoryError])
def test_a_host_without_memory_is_no_silence(deadlines: Deadlines, failure: Callable[[], Exception]) -> None:
    serving = Serving()
    loaded = serve(serving, QUICK, bad_graphs.spins(1, 1, 1), deadlines)
    session = Short(loaded.session, failure)
    serving.put(QUICK, Loaded(session, loaded.slot, sample=loaded.sample))
    probe = Probe(serving, deadlines, after_a_pause(), WORKED)
    for _ in range(3):
        probe.ask()
    assert session.asked == 3 and probe.answers()


def test_what_is_stopped_for_being_late_is_followed_by_a_pause_as_well(deadlines: Deadlines) -> None:
    """On a starved host each question may be; only who is silent is asked again at once."""
    serving, ticks, worked = Serving(), Clock(), Clock()
    breaks(serve(serving, ENDLESS, bad_graphs.ENDLESS, deadlines))
    asked: list[float] = []

    def works() -> float:
        """An eighth of a second of the processor between two looks: too little to be held against it."""
        asked.append(ticks.now)
        worked.now += 0.125
        return worked.now

    probe = Probe(serving, deadlines, ticks, works)
    for _ in range(12):
        probe.ask()
        ticks.now += PAUSE
    assert set(asked) == {0.0, 50.0}, "0.25 s between the first look and the last, times 200"


def test_a_question_that_never_comes_back_is_no_answer(deadlines: Deadlines) -> None:
    """It waits for a lock, say: there is no run that could be late."""
    serving, ticks = Serving(), Clock()
    loaded = serve(serving, QUICK, bad_graphs.spins(1, 1, 1), deadlines)
    seen: list[bool] = []

    class Waits(dict[str, np.ndarray]):
        def get(self, name: str, default: object = None) -> np.ndarray:  # type: ignore[override]
            for _ in range(2):
                seen.append(probe.answers())
                ticks.now += STANDING
            seen.append(probe.answers())
            return super().__getitem__(name)

    serving.put(QUICK, Loaded(loaded.session, loaded.slot, sample=Waits(loaded.sample or {})))
    probe = Probe(serving, deadlines, ticks)
    probe.ask()
    assert seen == [True, False, False] and probe.answers(), "it came back after all"


def test_the_service_manager_hears_nothing_of_a_silent_release_and_its_end_is_held_against_it(
    tmp_path: Path, manager: socket.socket
) -> None:
    guard = Guard(EdgeFolder(tmp_path / "edge"), tmp_path)
    house = new_device(Core(), tmp_path / "device").boot().house
    loaded = serve(house.serving, ENDLESS, bad_graphs.ENDLESS, guard.deadlines)
    guard.watch(house, 100, lambda within_s: True)
    guard._probe = Probe(house.serving, guard.deadlines, after_a_pause(), WORKED)
    guard._pump.start()
    assert manager.recv(64) == b"WATCHDOG=1"
    guard._ask()
    breaks(loaded)
    guard._ask()
    manager.setblocking(False)
    eventually(lambda: _dry(manager), "what was under way")
    for _ in range(5):
        guard._fed = clock.ticks() - 2.0  # seconds: it is due
        guard._sweep()
    assert _dry(manager)
    # The service manager ends it: a fault on a thread that asked nobody.
    guard._pump.stop()
    said = "Fatal Python error: Aborted\n\nCurrent thread 0x0000000000000001 (most recent call first):"
    (crash_folder(tmp_path / "edge", tmp_path) / "died").write_text(said)
    assert Guard(EdgeFolder(tmp_path / "edge"), tmp_path).blamed == {ARTIFACT}


def _dry(manager: socket.socket) -> bool:
    try:
        manager.recv(64)
    except BlockingIOError:
        return True
    return False
