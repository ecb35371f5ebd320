"""The steward: start, order, handle, tick. Whatever comes in, it ends in one round over all that is open."""

from __future__ import annotations

from core.answers import Answer
from core.catalog.projects import LOST
from core.orders import AnyOrder, CommitRows
from core.steward import automatic, desk, devices, ears, learning, lots, retained, rounds, sweeping, trust
from core.steward.house import Action, House, PersistBroker
from sync import codec, topics
from sync.link import Message
from sync.messages import CoreStatus
from sync.names import Digest


class Steward:
    """One tenant's steward; one thread calls it, and carries out what it returns."""

    def __init__(self, house: House) -> None:
        self.house = house

    def start(self, now: float) -> list[Action]:
        """Jobs that were under way when the core went down are ended, with the reason: they did not commit."""
        house = self.house
        with house.catalog.transaction():
            for job in house.catalog.projects.unfinished():
                house.catalog.projects.finish(
                    job.id,
                    now,
                    {LOST: True},
                    "the core stopped while this job ran",
                    f"start it again: falaj {'train' if job.kind == 'train' else 'ingest'} {job.subject}",
                )
                house.event(now, "job-lost", f"{job.kind} of {job.subject}", severity="notice")
        if missing := trust.settle(house):
            with house.catalog.transaction():
                trust.tell_missing(house, missing, now)
        automatic.signers(house, now)
        lots.keep(house)
        learning.sweep(house)
        devices.access(house, now)
        return self._done()

    def order(self, order: AnyOrder, now: float) -> tuple[Answer, list[Action]]:
        """Does one order; the answer is true when it is given: everything is committed."""
        answer = desk.answer(self.house, order, now)
        if not answer.ok:
            if type(order) not in desk.WALKS:
                self.house.actions.clear()
            return answer, self._done()
        if isinstance(order, CommitRows):
            learning.sweep(self.house)
        self._round(now)
        return answer, self._done()

    def handle(self, message: Message, now: float) -> list[Action]:
        """One message from a device."""
        if models := ears.hear(self.house, message, now):
            rounds.walk(self.house, now, models)
        return self._done()

    def link_changed(self, up: bool, now: float, limit: int = 0) -> list[Action]:
        """The session with the broker came up (everything retained is published again) or went down. `limit`: bytes of
        the largest packet it takes; 0: any."""
        house = self.house
        house.link_up, house.limit = up, limit
        if up:
            status = codec.encode(CoreStatus("online", now))
            house.send(topics.core_status(house.tenant), status, retain=True)
            rounds.restore_broker(house, now)
            house.actions.append(PersistBroker())
        return self._done()

    def unreadable(self, digest: Digest, why: str, now: float) -> list[Action]:
        """A chunk of this blob could not be read when its turn came."""
        retained.damaged(self.house, digest, why, now)
        return self._done()

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        self._round(now)
        return self._done()

    def renew(self, now: float) -> list[Action]:
        """Looks after what expires; to be called a few times an hour."""
        rounds.renew(self.house, now)
        automatic.renew(self.house, now)
        retained.sweep(self.house, now)
        sweeping.sweep(self.house, now)
        return self._done()

    def _round(self, now: float) -> None:
        rounds.walk(self.house, now)
        learning.walk(self.house, now)

    def _done(self) -> list[Action]:
        actions, self.house.actions = self.house.actions, []
        return actions
