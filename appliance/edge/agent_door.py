"""The way to a running agent, for whoever comes with a folder: its Unix socket; who may open the file may use it.

Where no agent runs, one is started for as long as the visit takes: there is one way in, and it is the agent's.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from appliance import clock
from appliance.api import UnixConnection
from appliance.edge import answering
from appliance.edge.answering import Asked
from appliance.edge.state import EdgeFolder
from appliance.edge.trips import Converse
from appliance.edge.visits import PATH, TURN_LIMIT, Reply, Turn
from appliance.errors import Trouble
from appliance.processes import last_words, spawn, stop
from edge.http import wire
from sync import codec

STARTS = 60.0  # seconds an agent may take to open its door


@contextmanager
def agent_of(own: EdgeFolder) -> Iterator[Converse]:
    """One turn with the agent of this folder; with one that is started for this visit if none runs. Raises Trouble."""

    def converse(turn: Turn) -> Reply:
        return _say(own, turn)

    if runs(own):
        yield converse
        return
    log = own.root / "sync.log"
    argv = [sys.executable, "-P", "-m", "appliance.cli", "edge", "run", "--dir", str(own.root)]
    child = spawn(argv, log)
    try:
        _wait(own, child, log)
        yield converse
    finally:
        stop(child)


def ask(own: EdgeFolder, asked: Asked) -> bytes:
    """What the running agent answers (`appliance.edge.answering`); raises Trouble."""
    return _post(own, answering.PATH, codec.encode(asked))


def runs(own: EdgeFolder) -> bool:
    """Whether an agent's door is open here."""
    connection = UnixConnection(own.door)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _wait(own: EdgeFolder, child: subprocess.Popen[bytes], log: Path) -> None:
    end = clock.ticks() + STARTS
    while not runs(own):
        if child.poll() is not None:
            raise Trouble(f"no agent runs here, and none could be started: {last_words(log)}")
        if clock.ticks() > end:
            raise Trouble(f"no agent runs here, and the one that was started opens no door: see {log}")
        time.sleep(0.05)


def _say(own: EdgeFolder, turn: Turn) -> Reply:
    return codec.decode(Reply, _post(own, PATH, codec.encode(turn)), 64 * TURN_LIMIT)


def _post(own: EdgeFolder, path: str, body: bytes) -> bytes:
    connection = UnixConnection(own.door)
    try:
        connection.request("POST", path, body, {"Content-Type": wire.JSON})
        response = connection.getresponse()
        content = response.read()
    except (OSError, HTTPException) as error:
        raise Trouble(f"the agent ended in the middle of it ({error}): run the command again") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Trouble(f"the agent said no: {content.decode(errors='replace')[:500]}")
    return bytes(content)
