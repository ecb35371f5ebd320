"""A visit: the running agent talks with whoever came with a folder, turn by turn, over its own Unix socket.

The command has the folder and the rights to it, the agent has the state and the keys; so neither needs what is the
other's. In each turn the visitor brings files that the agent asked for and hears what it asks for next; in the last one
it takes along what the agent has to say. The agent's other link, if it has one, goes on beside it.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from appliance.clock import Clock
from appliance.edge.carried_link import CarriedLink
from edge import roots
from edge.agent import House
from edge.http import wire
from edge.http.server import HttpServer
from edge.http.wire import Request, Response
from edge.outbox import MOST
from edge.states import Action, LinkChanged, Listen, Phase, Send, Unlisten
from sync import codec, roles, topics
from sync.errors import Malformed, SyncError
from sync.link import Message
from sync.messages import ALARM, EVENT, DeviceEvent, Record, Status

PATH = "/v1/visit"
TURN_LIMIT = 12 * 1024 * 1024  # bytes of one turn
PATIENCE = 60.0  # seconds for one turn on the walker's thread
FORGOTTEN = 60.0  # seconds without a turn, after which the visitor has gone
QUIET = 1.0  # seconds without a word after which nothing more is wanted
NOTHING: Mapping[str, Callable[[Request], Response]] = {}
_FILE = "file"  # the fact of an event of which the visitor is told in `refused`

log = logging.getLogger("falaj.visit")

Handle = Callable[[Message | LinkChanged], None]  # hands it to the walker and carries out what it wants
OnWalker = Callable[[Callable[[], Any]], "concurrent.futures.Future[Any]"]


class Brought(msgspec.Struct, frozen=True):
    """One file of the folder."""

    name: str
    content: bytes


class Turn(msgspec.Struct, frozen=True):
    """What the visitor says. `begins` opens a visit, in place of one that was left; `ends` closes it."""

    brought: tuple[Brought, ...] = ()
    begins: bool = False
    ends: bool = False


class Reply(msgspec.Struct, frozen=True):
    """What the agent answers: names of files it wants, whether it is done, and at the end what goes along; `state` is
    its `/v1/status`, `refused` what it did not believe (name -> why), `told` what else went wrong in this visit."""

    device: str
    want: tuple[str, ...] = ()
    settled: bool = False
    take: tuple[bytes, ...] = ()
    refused: dict[str, str] = {}
    state: dict[str, Any] = {}
    told: tuple[str, ...] = ()


class Visits:
    """The agent's side of visits. `turn`, `carry` and `expire` belong to the walker's thread, `serve` to any."""

    def __init__(
        self, house: House, handle: Handle, uplink: Callable[[], LinkChanged], now: Clock, ticks: Clock,
        state: Callable[[], dict[str, Any]], on_walker: OnWalker | None = None,
        beside: Mapping[str, Callable[[Request], Response]] = NOTHING,
    ) -> None:  # fmt: skip
        """`uplink` is how the agent's other link stands, `now` what the machine's clock says; `beside` is what else the
        door leads to, by path."""
        self._beside = beside
        self._house, self._handle, self._uplink, self._machine, self._ticks = house, handle, uplink, now, ticks
        self._state, self._on_walker = state, on_walker
        self._link = CarriedLink(house.identity, self._directors)
        self._door: HttpServer | None = None
        self._here = self._told = False
        self._moved = self._turned = 0.0
        self._heard = {ALARM: 0, EVENT: 0}  # the numbers of the last events before this visit
        self._held: tuple[Brought, bytes] | None = None  # a bundle no director of this root signed: a newer may come

    @property
    def open(self) -> bool:
        """Whether somebody is here with a folder."""
        return self._here

    def beside(self, changed: LinkChanged) -> LinkChanged:
        """What the walker is told when the agent's other link changes: who is here is a link of its own."""
        return self._joined(changed) if self.open else changed

    def leaves(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """What the agent's other link is asked for: while somebody is here, no chunk, for which its line would pay."""
        return tuple(p for p in patterns if not topics.is_chunk(p)) if self.open else patterns

    def listen(self, path: Path) -> None:
        """Opens the door; an agent without one goes on, for nothing else needs it."""
        door = HttpServer(self.serve, unix=path)
        try:
            door.start()
        except OSError as error:
            log.error("`falaj edge sync` cannot reach this agent: %s", error)
            return
        self._door = door

    def close(self) -> None:
        """Closes the door."""
        if self._door is not None:
            self._door.stop()

    def serve(self, request: Request) -> Response:
        """One turn over HTTP."""
        if (other := self._beside.get(request.path)) is not None:
            return other(request)
        if request.path != PATH:
            return wire.error(404, f"there is nothing at {request.path} here")
        if request.method != "POST":
            return wire.error(405, "say a turn: POST")
        try:
            turn = codec.decode(Turn, request.body, TURN_LIMIT)
        except Malformed as error:
            return wire.error(400, str(error))
        if self._on_walker is None:
            return wire.error(503, "the agent is not there yet")
        try:
            reply = self._on_walker(lambda: self.turn(turn)).result(PATIENCE)
        except TimeoutError:
            return wire.error(503, "the agent is busy: see its log, and run the command again")
        return Response(200, codec.encode(reply))

    def turn(self, turn: Turn) -> Reply:
        """Takes in what was brought, says what is wanted next."""
        refused: dict[str, str] = {}
        self._turned, before = self._ticks(), self._link.moves
        if turn.begins or not self._here:
            self._begin()
        for one in turn.brought:
            self._take(one, refused)
        if self._held is not None and (turn.ends or self._held[1] != self._house.trust.root):
            (held, _), self._held = self._held, None
            self._take(held, refused, last=turn.ends)
        want = self._link.wanted()
        if self._link.moves != before:
            self._moved = self._ticks()
        settled = self._ticks() - self._moved >= QUIET and not self._house.bench.proving
        if settled and self._tell_lacking():
            settled, self._moved = False, self._ticks()  # so that the word of it still goes along
        told, take = (self._troubles(), self._end()) if turn.ends else ((), ())
        return Reply(str(self._house.identity.device), want, settled, take, refused, self._state(), told)

    def carry(self, action: Action) -> None:
        """What the walker wants done, told to the visitor as well."""
        match action:
            case Send(message):
                self._link.publish(message)
            case Listen(patterns):
                self._link.subscribe(*patterns)
            case Unlisten(patterns):
                self._link.unsubscribe(*patterns)

    def expire(self) -> None:
        """A visitor that said nothing for long has gone."""
        if self._here and self._ticks() - self._turned > FORGOTTEN:
            log.warning("whoever came with a folder has gone without a word; nothing was taken along")
            self._leave()

    def _begin(self) -> None:
        self._here, self._held, self._told = True, None, False
        self._moved = self._ticks()
        with suppress(sqlite3.Error):  # a disk that refuses: the state says so
            self._heard = {kind: self._house.outbox.last(kind) for kind in self._heard}
        self._link.start(self._handle, lambda up, reason: self._handle(self._joined(self._uplink())))

    def _take(self, one: Brought, refused: dict[str, str], *, last: bool = False) -> None:
        house = self._house
        try:
            self._link.bring(one.name, one.content)
        except SyncError as error:
            if one.name.endswith("/down") and not last:
                self._held = one, house.trust.root
                return
            refused[one.name] = str(error)
            text = f"in a folder: {error}"
            house.events.complain(self._now(), f"refused-{error.code}", text, None, "alarm", **{_FILE: one.name})
        house.dirty = house.time.learn(self._link.since, self._machine()) or house.dirty

    def _troubles(self) -> tuple[str, ...]:
        """What whoever came should know, for nobody else sees it before the core does: the folder is too old, a file in
        it is damaged, a release was refused."""
        try:
            waiting = [one for kind, n in self._heard.items() for one in self._house.outbox.after(kind, n)]
            left = self._house.outbox.size() - MOST
        except sqlite3.Error as error:
            return (f"the disk refuses: {error}",)
        records = sorted((codec.decode(Record, one, len(one)) for one in waiting), key=lambda record: record.ts)
        events = [codec.decode(DeviceEvent, bytes(record.body)) for record in records]
        found = tuple(dict.fromkeys(e.text for e in events if e.severity == "alarm" and _FILE not in e.facts))
        text = f"{MOST >> 20} MiB of records go along in one trip: {left / 2**20:.1f} MiB wait for the next"
        return (*found, text) if left > 0 else found

    def _tell_lacking(self) -> bool:
        """Tells once in a visit that a release which is assigned is not whole in the folder, by accident or because
        somebody took a part of it away; whether it was told just now. A root after the newest is always asked for."""
        house = self._house
        fetched = [d.model for d in house.deployments.values() if d.phase is Phase.FETCHING]
        lacks = [name for name in self._link.lacking() if not name.endswith(".root.json")]
        if self._told or not fetched or not lacks:
            return False
        names = ", ".join(sorted(lacks)[:3])
        text = f"{len(lacks)} files of what is assigned are not in the folder ({names}); nothing of it is installed"
        self._told = house.events.report(self._now(), "folder-incomplete", text, fetched[0], "notice", files=len(lacks))
        return self._told

    def _end(self) -> tuple[bytes, ...]:
        house, now = self._house, self._now()
        will = Status("offline", now, house.box.boot, house.journal.counter("session"))
        take = self._link.bundles(now, None if self._uplink().up else codec.encode(will))
        self._leave()
        return tuple(take)

    def _joined(self, changed: LinkChanged) -> LinkChanged:
        """Both links: what is too large for the other one would end its session, as it hears all that is said here."""
        return LinkChanged(True, keeps=True, limit=changed.limit if changed.up else 0)

    def _leave(self) -> None:
        self._here = False
        self._link.stop()
        self._handle(self._uplink())

    def _now(self) -> float:
        return self._house.time.at(self._machine())

    def _directors(self) -> roles.Keys:
        return roots.director_keys(self._house.trust.root)
