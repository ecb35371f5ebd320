"""One-off questions of the core: believed as orders are, by the director's signature and a number that rises; answered
once, not too often, in records of the outbox. Nothing else in the agent waits for them.
"""

from __future__ import annotations

import base64

from edge.agent import trusting
from edge.agent.house import House
from sync import roles
from sync.chunks import split
from sync.commands import ANSWER, COMMAND_TYPE, PART, PARTS, PAUSE, AnswerPart, Command
from sync.errors import Malformed, Untrusted
from sync.topics import Address

AHEAD = 86_400.0  # seconds by which that time may be ahead of a clock that is right


def take(house: House, _: Address, payload: bytes, now: float) -> None:
    """Signature, addressee, order, expiry; then its number is journalled, and it is answered. A cut between the two
    costs the answer: it is asked again by whoever still wants to know."""
    command = roles.verify(payload, COMMAND_TYPE, Command, trusting.directors(house))
    identity = house.identity
    if not command.seq:
        raise Malformed("a command counts from 1")
    if (command.tenant, command.device) != (identity.tenant, identity.device):
        raise Untrusted(f"a command for {command.tenant}/{command.device}")
    heard = house.journal.counter("command_seq")
    if command.seq == heard:
        return  # the broker says it again
    if command.epoch != identity.epoch or command.seq < heard:
        raise Untrusted(f"command {command.seq} of epoch {command.epoch} is older than {heard}: a replay")
    if now > command.expires:
        raise Untrusted(f"command {command.seq} has expired")
    house.journal.set_counter("command_seq", command.seq)
    if command.ts * 1000 <= _unknown_until(house, now):
        _refuse(house, command, "this device has lost its memory of what it was asked before then: ask again", now)
        return
    if 0 <= now - house.core.answered < PAUSE:
        _refuse(house, command, f"a command is answered every {PAUSE:.0f} seconds", now)
        return
    house.core.answered = now
    _answer(house, command, now)


def _unknown_until(house: House, now: float) -> int:
    """Milliseconds since 1970 up to which nobody knows what was asked. The damaged journal may bear the time of a clock
    that was ahead: then they are up to now, once the clock is right."""
    mark = house.journal.counter("command_time")
    if mark <= (now + AHEAD) * 1000 or house.time.unset or house.clock_is_off(now):
        return mark
    house.journal.set_counter("command_time", int(now * 1000))
    return int(now * 1000)


def _answer(house: House, command: Command, now: float) -> None:
    answer = house.outside.answer(command.ask, command.seq, now)
    if isinstance(answer, str):
        _refuse(house, command, answer, now)
        return
    parts = list(split(answer.file, PART))
    if len(parts) > PARTS:
        _refuse(house, command, f"the answer has {len(answer.file)} bytes, {PARTS * PART} can be sent", now)
        return
    for number, part in enumerate(parts):
        content = base64.b64encode(part).decode()
        house.outbox.add(ANSWER, AnswerPart(command.seq, number, len(parts), content), now)
    house.events.report(now, "command-answered", answer.text, seq=command.seq, bytes=len(answer.file))


def _refuse(house: House, command: Command, why: str, now: float) -> None:
    house.events.report(now, "command-refused", f"not answered: {why}", severity="notice", seq=command.seq)
