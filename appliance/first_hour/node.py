"""The process of `falaj edge try`: the agent's own rooms around one model that nobody has signed, for as long as a
person looks. No walker, no journal, no uplink; what it writes lies in a folder that goes with it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from appliance import clock
from appliance.edge.state import EdgeFolder
from appliance.errors import Trouble
from appliance.first_hour.broker import TryoutBroker
from appliance.first_hour.measuring import Unmeasured, Wish, measure, read_model
from appliance.first_hour.planning import NUMBER, Tryout, Wishes, plan
from appliance.processes import check_port_free
from appliance.pump import Pump
from edge import runtime
from edge.deadlines import Deadlines
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.serving import Loaded, Serving

TICK = 0.1  # seconds: how soon an answer that is late is stopped

Say = Callable[[str], None]


class Enrolled(Trouble):
    """A box that belongs to a core runs signed releases alone."""


def refuse_enrolled(*folders: Path) -> None:
    """Raises Enrolled if one of these is the folder of a device that has joined a core, or may be."""
    for folder in folders:
        try:
            joined = EdgeFolder(folder).enrolled() or EdgeFolder(folder).asking.exists()
        except PermissionError:
            joined = True
        if joined:
            raise Enrolled(
                f"this box belongs to a core ({folder}) and runs signed releases alone: try models on another machine, "
                "or have `falaj train` make a release of this one"
            )


def look_at(file: Path, wishes: Wishes) -> Tryout:
    """How a file is tried, once a child has shown that it runs at all; raises Unmeasured or Untried."""
    model = read_model(file)
    try:
        measured = measure(Wish(model, seconds=0.2))
    except Unmeasured as error:
        raise Unmeasured(f"{file}: {error}") from error
    return plan(file.stem, model, measured, wishes)


class TryoutNode:
    """One model on HTTP and, if it has a binding, on a broker of its own."""

    def __init__(self, tryout: Tryout, folder: Path, port: int, mqtt_port: int, say: Say) -> None:
        self.tryout = tryout
        metrics = Metrics()
        self._deadlines = Deadlines(clock.ticks)
        self._serving = Serving(observe=metrics.observe)
        self._pump = Pump("try", self._tick, TICK)
        self.local: TryoutBroker | None = None
        version = importlib.metadata.version("falaj")
        if tryout.manifest.bindings:
            self.local = TryoutBroker(tryout, self._serving, folder, mqtt_port, self._pump, say)
            pages = Pages(self._serving, metrics, self._status, version, predict=self.local.bindings.predict)
        else:
            pages = Pages(self._serving, metrics, self._status, version)
        self.http = HttpServer(pages.handle, together=pages.handle_all, port=port)

    def start(self) -> None:
        """Serves once it returns. Raises PortTaken, NoBroker or Unloadable."""
        self._pump.start()
        check_port_free("127.0.0.1", self.http.port, "--port")
        manifest = self.tryout.manifest
        session = runtime.load(self.tryout.model, deadlines=self._deadlines, profile=manifest.profile)
        self._serving.put(manifest.model, Loaded(session, self.tryout.slot))
        self.http.start()
        if self.local is not None:
            self.local.start()

    def stop(self) -> None:
        """Ends all of it, also what did not begin."""
        if self.local is not None:
            self.local.stop()
        self.http.stop()
        self._pump.stop()

    def _tick(self) -> None:
        self._deadlines.sweep()
        if self.local is not None:
            self.local.bindings.settle(everything=True)

    def _status(self) -> Mapping[str, object]:
        return {"tryout": True, "models": {self.tryout.manifest.model: {"release": NUMBER, "signed": False}}}


@contextmanager
def running(tryout: Tryout, port: int, mqtt_port: int, say: Say) -> Iterator[TryoutNode]:
    """The node while the block runs, in a folder that goes with it."""
    with TemporaryDirectory(prefix="falaj-try-") as folder:
        node = TryoutNode(tryout, Path(folder), port, mqtt_port, say)
        try:
            node.start()
            yield node
        finally:
            node.stop()
