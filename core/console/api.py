"""The JSON API of the core, on a Unix socket: who may open the socket's file is who may use it.

Reads open the catalog read-only for one request. Orders of people go to the steward; orders that only workers or
the enrolment listener give are refused here. docs/openapi-core.yaml is the description for clients.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version

import msgspec
from flask import Flask, Response, request
from werkzeug.routing import IntegerConverter, ValidationError

from core import orders
from core.catalog import Catalog
from core.catalog.schema import VERSION as SCHEMA
from core.console import evidence
from core.console.concerns import concerns
from core.console.facts import active, counts, failing, gather
from core.console.replies import Ask, Refusal, document, json_errors, put_order
from core.console.trust_state import trust_state
from core.fleet import performance
from core.fleet.reports import reports_of
from core.fleet.retraining import hops
from core.handoffs import Rollout
from sync import codec
from sync.enrolment import fingerprint
from sync.errors import Malformed
from sync.messages import PROTOCOL
from sync.names import DEFAULT_TENANT, BadName, DeviceId, ModelName, TenantId

OpenCatalog = Callable[[], Catalog]

BODY_LIMIT = 4 * 1024 * 1024  # bytes of one order; a project file or a model role's metadata fits many times
MOST = 1000  # entries of one list
DAY = 86_400.0  # seconds of intervals that are shown
_EVERY = 1_000_000

_PEOPLE = {kind.__name__: kind for kind in orders.AnyOrder.__args__ if issubclass(kind, orders.Wish)}
_OTHERS = {kind.__name__ for kind in orders.AnyOrder.__args__} - _PEOPLE.keys()


class _Number(IntegerConverter):
    """A number that the catalog can hold: nothing is there under any other."""

    def to_python(self, value: str) -> int:
        number = int(super().to_python(value))
        if number >= 2**63:
            raise ValidationError
        return number


def create_api(
    catalog: OpenCatalog,
    ask: Ask,
    now: Callable[[], float],
    *,
    tenant: TenantId = DEFAULT_TENANT,
    steward: Callable[[], bool] = lambda: True,
) -> Flask:
    """The API of one tenant. `catalog` opens its catalog read-only; `ask` hands an order to the steward; `now` gives
    seconds since 1970 (UTC); `steward` says whether it is there.

    Errors are {error, code, hint}: 400 malformed, 403 not an order of people, 404, 409 the steward said no,
    413, 503 the catalog or the steward is not there.
    """
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.url_map.converters["int"] = _Number
    json_errors(app)
    app.register_error_handler(Malformed, _malformed)
    app.register_error_handler(BadName, _malformed)

    def status(shelves: Catalog) -> object:
        return _status(shelves, tenant, steward())

    def needed(shelves: Catalog) -> object:
        moment = now()
        return {"concerns": concerns(gather(shelves, moment, steward=steward()), moment)}

    def retraining(shelves: Catalog) -> object:
        return {"retraining": hops(shelves, now())}

    own = {"/v1/status": status, "/v1/concerns": needed, "/v1/retraining": retraining}
    reads: dict[str, Callable[..., object]] = {**own, **_READS}
    for rule, read in reads.items():
        app.add_url_rule(rule, rule, _reading(catalog, read))
    app.add_url_rule("/v1/orders", "orders", lambda: _order(ask), methods=["POST"])
    return app


def _reading(catalog: OpenCatalog, read: Callable[..., object]) -> Callable[..., Response]:
    def view(**parts: str | int) -> Response:
        with closing(catalog()) as shelves:
            return document(read(shelves, **parts))

    return view


def _order(ask: Ask) -> Response:
    body = request.get_data()
    kind = codec.decode(_Tagged, body, BODY_LIMIT).order
    if kind in _OTHERS:
        raise Refusal(
            403,
            f"{kind} is no order of people",
            "forbidden",
            "workers and the enrolment listener hand it to the steward themselves",
        )
    if kind not in _PEOPLE:
        raise Refusal(400, f"order: there is no {kind!r}", "malformed", f"orders are {', '.join(_PEOPLE)}")
    answer = put_order(ask, codec.decode(_PEOPLE[kind], body, BODY_LIMIT))
    if not answer.ok:
        raise Refusal(409, answer.error, answer.code, answer.hint)
    return document(answer)


class _Tagged(msgspec.Struct, frozen=True):
    """The tag alone, so that an order is refused by its name before its fields are read."""

    order: str


def _malformed(error: Malformed | BadName) -> Response:
    return document({"error": str(error), "code": "malformed", "hint": "correct the part that is named"}, 400)


# --- what is read -----------------------------------------------------------------------------------------------


def _status(shelves: Catalog, tenant: TenantId, steward: bool) -> object:
    return {
        "tenant": tenant,
        "versions": {"falaj": version("falaj"), "protocol": PROTOCOL, "schema": SCHEMA},
        "counts": counts(shelves),
        "failing": failing(shelves, steward),
        "sources": shelves.datasets.totals(),
        "trust": trust_state(shelves.releases.trust(), shelves.releases.proposals()),
        "skew": performance.made_again(shelves.skew.all(), active(shelves)),
    }


def _devices(shelves: Catalog) -> object:
    devices = shelves.fleet.devices()
    wanted = {row.device: [one.shown() for one in shelves.fleet.wanted(row.device)] for row in devices}
    return {"devices": [{**codec.builtins(row), "wanted": wanted[row.device]} for row in devices]}


def _newcomers(shelves: Catalog) -> object:
    waiting = [
        {"device": row.device, "serial": row.serial, "site": row.site, "since": row.since,
         "fingerprint": fingerprint(row.signing_key)}
        for row in shelves.identities.all_waiting()
    ]  # fmt: skip
    return {"waiting": waiting, "boxes": shelves.identities.boxes()}


def _releases(shelves: Catalog) -> object:
    return {"releases": shelves.releases.releases(_limit(50))}


def _release(shelves: Catalog, model: str, number: int) -> object:
    found = shelves.releases.release(ModelName(model), number)
    if found is None:
        raise Refusal(404, f"there is no release {model} {number}", "not-found", "/v1/releases lists them")
    row, payload = found
    candidate = shelves.releases.candidate(row.candidate)
    return {
        "release": row,
        "manifest": msgspec.json.decode(payload),
        "manifest_base64": base64.b64encode(payload).decode(),
        "scorecard": candidate.scorecard if candidate else None,
        "verdicts": candidate.verdicts if candidate else (),
    }


def _candidates(shelves: Catalog) -> object:
    rows = shelves.releases.candidates(_limit(20))
    return {"candidates": [{"id": key, "ts": ts, **codec.builtins(found)} for key, ts, found in rows]}


def _jobs(shelves: Catalog) -> object:
    return {"jobs": shelves.projects.jobs(_limit(50))}


def _job(shelves: Catalog, number: int) -> object:
    job = shelves.projects.job(number)
    if job is None:
        raise Refusal(404, f"there is no job {number}", "not-found", "/v1/jobs lists them")
    return job


def _rollouts(shelves: Catalog) -> object:
    active = {key for key, _ in shelves.fleet.rollouts(limit=MOST)}
    rows = shelves.fleet.rollouts(active=False, limit=_limit(50))  # "not only the active ones"
    devices = shelves.fleet.devices()

    def judged(key: int, rollout: Rollout) -> dict[str, object]:
        live = devices if key in active else ()  # of a past one only what it was decided on is known
        reports = reports_of(rollout.model, live)
        told = {name: value for name, value in codec.builtins(rollout).items() if name != "compared"}
        if rollout.split is not None:
            told["split"] = {"share": rollout.split.share, "incumbent": rollout.split.incumbent}
        keys = evidence.comparison_document(rollout, reports)
        return {**told, "evidence": evidence.document(rollout, reports), "comparison": keys}

    return {"rollouts": [{"id": key, "active": key in active, **judged(key, found)} for key, found in rows]}


def _why(shelves: Catalog) -> object:
    rows = shelves.fleet.whys(request.args.get("model"), _limit(20))
    return {"whys": [{"id": key, "device": device, **codec.builtins(card)} for key, device, card in rows]}


def _project(shelves: Catalog) -> object:
    current = shelves.projects.current()
    return {"project": current[0] if current else None, "folder": current[1] if current else ""}


def _events(shelves: Catalog) -> object:
    return {"events": shelves.events.newest(_limit(50))}


def _quarantine(shelves: Catalog) -> object:
    return {
        "sources": shelves.datasets.totals(),
        "rejections": shelves.datasets.rejections(request.args.get("source"), _limit(100)),
    }


def _performance(shelves: Catalog) -> object:
    """Of one device with its intervals of a day, or of all; made-up releases are in no sum."""
    name, said = request.args.get("device"), request.args.get("model")
    device, model = DeviceId(name) if name else None, ModelName(said) if said else None
    devices = {row.device: row for row in shelves.fleet.devices()}
    if device is not None and device not in devices:
        raise Refusal(404, f"there is no device {device}", "not-found", "`falaj device list` has those there are")
    rows = shelves.performance.all(device, model)
    known = {(row.model, row.number) for row in shelves.releases.releases(_EVERY)}
    fleet = active(shelves)
    counted = [row for row in rows if row.device in fleet and (row.newest.model, row.newest.number) in known]
    newest = max((row.received for row in rows), default=0.0)
    hours = shelves.performance.hours(device, model, newest - DAY) if device is not None else []
    told = {(row.newest.model, row.newest.number) for row in rows}
    calibrated = {key for key in told if shelves.releases.is_calibrated(*key)}
    return {
        "devices": [performance.on_device(row, devices, calibrated) for row in rows],
        "fleet": performance.in_fleet(counted, calibrated),
        "skew": shelves.skew.all(device, model),
        "made_again": performance.made_again(shelves.skew.all(None, model), fleet),
        "intervals": list(map(performance.in_interval, hours)),
    }


def _question(shelves: Catalog, seq: int) -> object:
    found = shelves.questions.get(seq)
    if found is None:
        raise Refusal(404, f"there is no question {seq}", "not-found", "the newest 100 are kept: ask again")
    sealed = shelves.questions.answer(seq) if found.answered is not None else b""
    return {"question": found, "answer_base64": base64.b64encode(sealed).decode()}


def _trust(shelves: Catalog) -> object:
    files = {name: base64.b64encode(data).decode() for name, data in shelves.releases.trust().items()}
    return {"files": files, "waiting": shelves.releases.proposals()}


def _limit(default: int) -> int:
    """The `limit` of the query, 1 to MOST."""
    text = request.args.get("limit", str(default))
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= MOST:
        raise Refusal(400, f"limit: {text!r} is no number from 1 to {MOST}", "malformed", "leave it out or correct it")
    return int(text)


_READS: dict[str, Callable[..., object]] = {
    "/v1/project": _project,
    "/v1/devices": _devices,
    "/v1/newcomers": _newcomers,
    "/v1/releases": _releases,
    "/v1/releases/<model>/<int:number>": _release,
    "/v1/candidates": _candidates,
    "/v1/jobs": _jobs,
    "/v1/jobs/<int:number>": _job,
    "/v1/rollouts": _rollouts,
    "/v1/why": _why,
    "/v1/events": _events,
    "/v1/performance": _performance,
    "/v1/questions/<int:seq>": _question,
    "/v1/quarantine": _quarantine,
    "/v1/trust": _trust,
}
