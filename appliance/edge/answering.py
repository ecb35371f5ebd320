"""What this device answers when somebody asks what it said and how it is: the core, by a signed command, or a person
beside it, over the agent's own Unix socket.

The line may carry inputs only as the release's owner signed it. Whoever may open the socket has the right to the
agent's folder, ring and keys included; what they save is sealed to the tenant all the same, for it will be carried.
"""

from __future__ import annotations

import base64
import binascii
import concurrent.futures
import platform
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from appliance.clock import Clock
from edge.agent import House
from edge.budget import DAY, Budget
from edge.disclosing import MOST, ROOM, Disclosed, Open, disclose, withhold
from edge.http import wire
from edge.http.wire import Request, Response
from edge.predictions import CAPACITY, Predictions
from edge.ring import Found
from edge.states import Answered, Counter
from sync import answers, codec
from sync.commands import Ask, AskPredictions, AskSupport
from sync.errors import Malformed
from sync.messages import DeviceEvent
from sync.names import ModelName
from sync.remembered import Remembered, cpu_class

PATH = "/v1/ask"
REPLACED = "the program was replaced under the running agent: restart it"
PATIENCE = 60.0  # seconds for an answer on the walker's thread
SAVED = 8 * 1024 * 1024  # bytes of predictions that a person may save at once

OnWalker = Callable[[Callable[[], Any]], "concurrent.futures.Future[Any]"]


class Asked(msgspec.Struct, frozen=True):
    """What a person beside the box wants to know; `sealed`: as a file for the tenant, with inputs if asked for."""

    ask: Ask
    sealed: bool = False


class Unsealable(Exception):
    """There is no key of the tenant that anything could be sealed to."""


class Answering:
    """The answers of one device. `answer` belongs to the walker's thread, `serve` to any."""

    def __init__(
        self, house: House, predictions: Predictions, budget: Budget, folder: Path, now: Clock,
        status: Callable[[], Mapping[str, object]], settings: object = None,
        log: Callable[[], Sequence[str]] = tuple, on_walker: OnWalker | None = None,
    ) -> None:  # fmt: skip
        """`now` is what the machine's clock says, `status` the document of /v1/status, `log` the newest log lines."""
        self._house, self._predictions, self._budget = house, predictions, budget
        self._folder, self._now, self._status, self._settings, self._log = folder, now, status, settings, log
        self._on_walker = on_walker
        self._cpu = cpu_class(platform.machine(), house.box.cpu_flags)

    def answer(self, ask: Ask, seq: int, now: float) -> Answered | str:
        """What goes to the core, which asked by command `seq`, or why nothing does."""
        try:
            if isinstance(ask, AskSupport):
                return Answered(self._seal(self._support(now, seq)), "the core asked for a support bundle")
            told = self._over_the_line(ask, seq, now)
            sealed = self._seal(told)
        except Unsealable as error:
            return str(error)
        except (sqlite3.Error, OSError) as error:  # of this question alone: what else the disk does is seen elsewhere
            return f"the disk refuses: {error}"
        except ImportError as error:  # of what is loaded when somebody asks
            return f"{REPLACED}: {error}"
        inputs = sum(one.has_inputs for one in told.predictions)
        return Answered(sealed, f"the core asked what was predicted: {len(told.predictions)}, {inputs} with inputs")

    def serve(self, request: Request) -> Response:
        """An answer over HTTP: a document, or a file."""
        if request.method != "POST":
            return wire.error(405, "say what you want to know: POST")
        try:
            asked = codec.decode(Asked, request.body)
        except Malformed as error:
            return wire.error(400, str(error))
        if self._on_walker is None:
            return wire.error(503, "the agent is not there yet")
        try:
            response: Response = self._on_walker(lambda: self._told(asked)).result(PATIENCE)
        except TimeoutError:
            return wire.error(503, "the agent is busy: see its log, and run the command again")
        return response

    def _told(self, asked: Asked) -> Response:
        """On the walker's thread, where what escapes ends the agent."""
        try:
            return self._beside(asked)
        except (sqlite3.Error, OSError) as error:
            return wire.error(503, f"the disk refuses: {error}; check it")
        except ImportError as error:
            return wire.error(503, f"{REPLACED}: {error}")

    def _beside(self, asked: Asked) -> Response:
        now = self._house.time.at(self._now())
        if isinstance(asked.ask, AskSupport):
            return Response(200, self._support(now).archive, wire.BINARY)
        found, more = self._found(asked.ask, CAPACITY)
        all_of = {model: Open(_releases(found, model), SAVED) for model in {one.prediction.model for one in found}}
        told = disclose(found, all_of if asked.sealed and asked.ask.inputs else {}, SAVED)
        document = self._document(asked.ask, told, now, more=more or told.more)
        if not asked.sealed:
            return Response(200, codec.encode(document))
        try:
            return Response(200, self._seal(document), wire.BINARY)
        except Unsealable as error:
            return wire.error(409, str(error))

    def _over_the_line(self, ask: AskPredictions, seq: int, now: float) -> answers.Predictions:
        """Bytes of inputs are taken from the day's budget before they are given out, as those of samples are."""
        (found, more), day = self._found(ask, MOST), int(now // DAY)
        let_out = self._let_out(day) if ask.inputs else {}
        told = disclose(found, let_out, ROOM)
        refused = {model for model, size in told.spent.items() if not self._budget.spend(model, day, size)}
        told = withhold(told, refused) if refused else told
        return self._document(ask, told, now, more=more or told.more, seq=seq)

    def _let_out(self, day: int) -> Mapping[ModelName, Open]:
        """Of the releases that are here, those whose owner lets inputs out that are asked for."""
        found = {}
        for model, deployment in self._house.deployments.items():
            lanes = (lane.slot for lane in deployment.lanes)
            slots = (deployment.serving, deployment.candidate, *lanes, *deployment.previous)
            manifests = [slot.manifest for slot in slots if slot is not None and slot.manifest.uplink.asked]
            if manifests:
                left = min(manifest.uplink.daily_bytes for manifest in manifests) - self._budget.spent(model, day)
                found[model] = Open(frozenset(manifest.number for manifest in manifests), left)
        return found

    def _found(self, ask: AskPredictions, most: int) -> Found:
        return self._predictions.between(ask.since, ask.until, ask.model, most)

    def _document(
        self, ask: AskPredictions, told: Disclosed, now: float, *, more: bool, seq: int = 0
    ) -> answers.Predictions:
        own, (oldest, newest) = self._house.identity, self._predictions.span()
        withheld = told.withheld if ask.inputs else ()
        return answers.Predictions(
            own.tenant, own.device, now, self._house.box.agent_version, self._cpu, ask.since, ask.until, oldest, newest,
            told.predictions, more, withheld, seq,
        )  # fmt: skip

    def _support(self, now: float, seq: int = 0) -> answers.Support:
        from appliance.edge import (
            support,  # with the packers that it needs, loaded when somebody asks: a MiB of a small box
        )

        house, own = self._house, self._house.identity
        documents = {
            "host": support.host(self._folder, self._cpu),
            "files": support.files(self._folder),
            "settings": codec.builtins(self._settings),
            "status": dict(self._status()),
            "journal": _journal(house),
            "events": [_event(ts, event) for ts, event in house.events.recent],
        }
        return answers.Support(own.tenant, own.device, now, support.bundle(documents, self._log(), now), seq)

    def _seal(self, document: answers.Predictions | answers.Support) -> bytes:
        house = self._house
        given = house.assignment.tenant_key if house.assignment else ""
        try:
            key = base64.b64decode(given, validate=True)
            return answers.seal(document, house.identity.signing_key, key, secrets.token_bytes(32))
        except (binascii.Error, ValueError) as error:
            raise Unsealable("no assignment has brought the tenant's key yet: there is nothing to seal to") from error


def _releases(found: Sequence[Remembered], model: ModelName) -> frozenset[int]:
    return frozenset(one.prediction.release or 0 for one in found if one.prediction.model == model)


def _event(ts: float, event: DeviceEvent) -> dict[str, Any]:
    return {"ts": ts, **codec.builtins(event)}


def _journal(house: House) -> dict[str, Any]:
    """What the journal says in numbers and words; its documents hold wrapped keys, and stay where they are."""
    journal = house.journal
    return {
        "counters": {name: journal.counter(name) for name in get_args(Counter)},
        "high_water": journal.high_water(),
        "outbox": {"waiting": house.outbox.waiting(), "dropped": house.outbox.dropped()},
        "deployments": {
            model: {
                "phase": one.phase, "since": one.since, "reason": one.reason,
                "serving": one.serving and one.serving.release.number,
                "candidate": one.candidate and one.candidate.release.number,
                "previous": [slot.release.number for slot in one.previous],
                "quarantined": [found.reason for found in journal.quarantined(model)],
            }
            for model, one in house.deployments.items()
        },
    }  # fmt: skip
