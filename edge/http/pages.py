"""Which path leads where, and which refusal gets which status. No sockets: a request in, a response out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from urllib.parse import unquote

import msgspec

from edge.buffers import Unheard
from edge.disclosing import shown
from edge.http import oip, wire
from edge.http.metrics import Metrics
from edge.http.wire import Refused, Request, Response
from edge.inference import Record, unrecorded
from edge.predictions import Refusal
from edge.serving import BadInput, ModelError, NoModel, Serving
from sync import codec
from sync.errors import Malformed
from sync.messages import Prediction
from sync.remembered import Remembered

_RETRY = ("Retry-After", "1")  # seconds
_MOST_LABELS = 1000  # of one request


class _Label(msgspec.Struct, frozen=True):
    id: str
    label: str


class _Labels(msgspec.Struct, frozen=True):
    labels: tuple[_Label, ...]


def _unknown(prediction_id: str, label: str) -> Refusal | None:
    """No predictions are kept, so none is known."""
    return Refusal.UNKNOWN_ID


def _unheard(model: str | None, entity: str) -> Prediction:
    """No sensor is listened to."""
    raise Unheard("nothing is heard on this device: no binding listens")


def _forgotten(prediction_id: str | None) -> list[Remembered]:
    """No predictions are kept."""
    return []


class _Asked(msgspec.Struct, frozen=True):
    model: str | None = None


_WHY = {
    Refusal.UNKNOWN_LABEL: "it is none of the classes this prediction chose from; see classes in the prediction",
    Refusal.NOT_KEPT: "the device could not keep it; /v1/status and the log say why, tell it again later",
}


class Pages:
    """The edge's HTTP surface. `status` gives the document of /v1/status; `ready` defaults to "a model serves";
    `label` keeps what a prediction, by id, really was, and says why it does not, if so.

    `record` remembers each answered prediction and gives its id; `said` has what is remembered: the newest, or the one
    under an id. `handle` and `handle_all` never raise what a request can cause; they may be called from several
    threads.
    """

    def __init__(
        self,
        serving: Serving,
        metrics: Metrics,
        status: Callable[[], Mapping[str, object]],
        version: str,
        ready: Callable[[], bool] | None = None,
        label: Callable[[str, str], Refusal | None] = _unknown,
        record: Record = unrecorded,
        predict: Callable[[str | None, str], Prediction] = _unheard,
        said: Callable[[str | None], list[Remembered]] = _forgotten,
    ) -> None:
        self._serving, self._metrics, self._status, self._version = serving, metrics, status, version
        self._label, self._record, self._predict, self._said = label, record, predict, said
        self._ready = ready or (lambda: any(serving.models().values()))

    def handle(self, request: Request) -> Response:
        """The response to a request; every refusal is `{"error": text}`."""
        return self.handle_all((request,))[0]

    def handle_all(self, requests: Sequence[Request]) -> list[Response]:
        """The responses to requests to one path that came together, in order: a model is asked once for all of them."""
        match requests[0].path.strip("/").split("/"):
            case ["v2", "models", model, "infer"]:
                return self._infer(model, None, requests)
            case ["v2", "models", model, "versions", version, "infer"]:
                return self._infer(model, version, requests)
        return [self._alone(request) for request in requests]

    def _alone(self, request: Request) -> Response:
        try:
            return self._route(request)
        except (Refused, ModelError) as error:
            return _refusal(error)

    def _infer(self, model: str, version: str | None, requests: Sequence[Request]) -> list[Response]:
        early = [_post(request) for request in requests]
        asking = [request for request, refusal in zip(requests, early, strict=True) if refusal is None]
        found: Iterator[Response | Refused | ModelError]
        try:
            found = iter(oip.infer(self._serving, model, version, asking, self._record) if asking else ())
        except (Refused, ModelError) as error:
            found = repeat(error)
        return [refusal or _response(next(found)) for refusal in early]

    def _route(self, request: Request) -> Response:
        serving = self._serving
        match request.path.strip("/").split("/"):
            case ["v2", "models", model, *rest]:
                return self._model(request, model, rest)
            case ["v2"]:
                return _get(request) or oip.server_metadata(self._version)
            case ["v2", "health", "live"]:
                return _get(request) or wire.json({"live": True})
            case ["v2", "health", "ready"]:
                return _get(request) or self._readiness()
            case ["v2", "repository", "index"]:
                return _post(request) or oip.repository_index(serving, request)
            case ["v2", "repository", "models", model, "load" | "unload" as verb]:
                return _post(request) or _not_by_http(model, verb)
            case ["v1", "status"]:
                return _get(request) or wire.json(codec.builtins(self._status()))
            case ["v1", "why"]:
                return _get(request) or wire.json({"why": codec.builtins(self._status().get("why", []))})
            case ["v1", "entities", entity, "predict"]:
                return _post(request) or self._entity(request, unquote(entity))
            case ["v1", "predictions"]:
                return _get(request) or self._predictions()
            case ["v1", "predictions", number]:
                return _get(request) or self._prediction(unquote(number))
            case ["v1", "labels"]:
                return _post(request) or self._labels(request)
            case ["metrics"]:
                return _get(request) or self._metrics.page()
        raise Refused(404, f"there is nothing at {request.path}; /v2 says what this server speaks")

    def _model(self, request: Request, model: str, rest: list[str]) -> Response:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match rest:
            case []:
                arms = self._serving.arms(model) if version is None else ()
                return _get(request) or oip.model_metadata(model, oip.live(self._serving, model, version), arms)
            case ["ready"]:
                refusal = _get(request)
                if refusal is None:
                    oip.live(self._serving, model, version)
                return refusal or wire.json({"name": model, "ready": True})
        raise Refused(404, f"there is nothing at {request.path}; /v2 says what this server speaks")

    def _labels(self, request: Request) -> Response:
        """Takes what predictions really were; those that are not kept are told, by why they are not."""
        try:
            given = codec.decode(_Labels, request.body, len(request.body)).labels
        except Malformed as error:
            raise Refused(400, str(error)) from error
        if len(given) > _MOST_LABELS:
            raise Refused(413, f"{len(given)} labels at once; {_MOST_LABELS} are taken")
        told = [(one, self._label(one.id, one.label)) for one in given]
        unknown = [one.id for one, why in told if why is Refusal.UNKNOWN_ID]
        refused = [
            {"id": one.id, "label": one.label, "code": why.value, "text": _WHY[why]} for one, why in told if why in _WHY
        ]
        kept = len(given) - len(unknown) - len(refused)
        return wire.json({"kept": kept, "unknown": unknown, "refused": refused})

    def _entity(self, request: Request, entity: str) -> Response:
        """The prediction document of an entity's newest rows and its lookups; its quality says if there is no word."""
        try:
            asked = codec.decode(_Asked, request.body, len(request.body)) if request.body else _Asked()
            return wire.json(codec.builtins(self._predict(asked.model, entity)))
        except Malformed as error:
            raise Refused(400, str(error)) from error
        except Unheard as error:
            raise Refused(404, str(error)) from error

    def _predictions(self) -> Response:
        return wire.json({"predictions": [codec.builtins(shown(one)) for one in self._said(None)]})

    def _prediction(self, number: str) -> Response:
        found = self._said(number)
        if not found:
            raise Refused(404, f"no prediction {number[:64]!r} is remembered (any longer)")
        return wire.json(codec.builtins(shown(found[0])))

    def _readiness(self) -> Response:
        if self._ready():
            return wire.json({"ready": True})
        return wire.error(503, "no model serves on this device yet; it keeps trying", _RETRY)


def _response(found: Response | Refused | ModelError) -> Response:
    return found if isinstance(found, Response) else _refusal(found)


def _refusal(error: Refused | ModelError) -> Response:
    if isinstance(error, Refused):
        return error.response
    if isinstance(error, BadInput):
        return wire.error(400, str(error))
    if isinstance(error, NoModel):
        return wire.error(503, str(error), _RETRY) if error.known else wire.error(404, str(error))
    return wire.error(500, str(error))


def _not_by_http(model: str, verb: str) -> Response:
    text = f"no {verb} of {model!r} over HTTP: models come and go by signed assignments; `falaj` on the core makes them"
    return wire.error(403, text)


def _get(request: Request) -> Response | None:
    return None if request.method in ("GET", "HEAD") else _wrong_method(request, "GET, HEAD")


def _post(request: Request) -> Response | None:
    if request.method != "POST":
        return _wrong_method(request, "POST")
    if request.headers.get("content-encoding", "identity") != "identity":
        plain = ("Accept-Encoding", "identity")
        return wire.error(415, "compressed bodies are not read here; send it as it is", plain)
    return None


def _wrong_method(request: Request, allowed: str) -> Response:
    return wire.error(405, f"{request.path} takes {allowed}, not {request.method}", ("Allow", allowed))
