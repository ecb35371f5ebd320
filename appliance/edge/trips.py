"""The device's side of a trip: what the folder has goes to the agent as it asks, what the agent says goes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.edge.visits import Brought, Reply, Turn
from appliance.errors import Trouble
from appliance.stick import Stick
from sync.carried import PARTS
from sync.names import DeviceId

BATCH = 2 * 1024 * 1024  # bytes of one turn, about
PAUSE = 0.1  # seconds between two turns in which nothing is asked for

Say = Callable[[str], None]
Converse = Callable[[Turn], Reply]  # one turn with the agent
Pause = Callable[[float], None]


class NotSettled(Trouble):
    """The agent did not come to an end."""


@dataclass
class Visited:
    """What one run did. `lacking` names what the agent asked for and the folder has not."""

    device: DeviceId
    brought: int = 0
    bytes: int = 0
    taken: int = 0  # bundles written
    lacking: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()  # what else went wrong on the device meanwhile
    state: dict[str, Any] = field(default_factory=dict)


def visit(
    stick: Stick, device: DeviceId, converse: Converse, say: Say, pause: Pause, patience: float = 900.0
) -> Visited:
    """One visit, to its end; raises StickFailed, or NotSettled if the agent is still busy after `patience` seconds."""
    done, waited = Visited(device), 0.0
    reply = converse(Turn(_read(stick, [f"d/{device}/down"], done), begins=True))
    while True:
        done.refused |= reply.refused
        if reply.settled:
            break
        say(f"{done.brought} files, {done.bytes >> 10} KiB brought")
        if reply.want:
            reply = _bring(stick, list(reply.want), done, converse)
            continue
        if waited > patience:
            raise NotSettled(f"the agent is still busy after {patience:.0f} s: run the command again; its log says why")
        waited += PAUSE
        pause(PAUSE)
        reply = converse(Turn())
    reply = converse(Turn(ends=True))
    done.refused |= reply.refused
    done.state, done.told = reply.state, reply.told
    _take(stick, device, reply.take, done)
    done.refused |= stick.refused
    return done


def _bring(stick: Stick, names: list[str], done: Visited, converse: Converse) -> Reply:
    """What is wanted, in turns of a bearable size; what is asked for meanwhile comes after it."""
    want: list[str] = []
    refused: dict[str, str] = {}
    while True:
        batch: list[Brought] = []
        while names and sum(len(one.content) for one in batch) < BATCH:
            batch += _read(stick, [names.pop(0)], done)
        reply = converse(Turn(tuple(batch)))
        want += reply.want
        refused |= reply.refused
        if not names:
            return Reply(reply.device, tuple(dict.fromkeys(want)), reply.settled, reply.take, refused, reply.state)


def _read(stick: Stick, names: list[str], done: Visited) -> tuple[Brought, ...]:
    found = []
    for name in names:
        content = stick.read(name)
        if content is None:
            if name not in done.lacking:
                done.lacking.append(name)
            continue
        if name in done.lacking:
            done.lacking.remove(name)
        done.brought += 1
        done.bytes += len(content)
        found.append(Brought(name, content))
    return tuple(found)


def _take(stick: Stick, device: DeviceId, bundles: tuple[bytes, ...], done: Visited) -> None:
    """Written whole, then what is left of a longer one before goes."""
    for part, bundle in enumerate(bundles[:PARTS]):
        stick.write(f"d/{device}/up/{part}", bundle)
    done.taken = min(len(bundles), PARTS)
    for name in stick.names(f"d/{device}/up"):
        if int(name.rsplit("/", 1)[1]) >= done.taken:
            stick.remove(name)
