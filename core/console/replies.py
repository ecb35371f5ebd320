"""What every JSON answer looks like: documents as `sync.codec` writes them, errors as {error, code, hint}."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response, current_app
from werkzeug.exceptions import HTTPException

from core.answers import Answer
from core.catalog import CatalogLocked
from core.orders import Order
from sync import codec

Ask = Callable[[Order], Answer]  # hands one order to the steward; raises OSError where it does not answer

_CODES = {
    404: ("not-found", "docs/openapi-core.yaml lists what is served here"),
    405: ("method-not-allowed", "docs/openapi-core.yaml lists the methods of each path"),
    413: ("too-large", "send less at once; docs/openapi-core.yaml gives the limit of each path"),
    500: ("internal", "the service's log has the details under this time"),
}


class Refusal(Exception):
    """A request that is not answered with a document; becomes {error, code, hint} with `status`."""

    def __init__(self, status: int, error: str, code: str, hint: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.code = code
        self.hint = hint


def document(value: object, status: int = 200) -> Response:
    """One document as JSON."""
    return Response(codec.encode(value), status, mimetype="application/json")


def put_order(ask: Ask, order: Order) -> Answer:
    """The steward's answer; raises Refusal 503 where it cannot be reached."""
    try:
        return ask(order)
    except OSError as error:
        # The reason names files of this machine; the enrolment listener answers strangers, so it goes to the log.
        current_app.logger.warning("the steward does not answer: %s", error)
        raise Refusal(
            503,
            "the steward does not answer",
            "steward-away",
            "is the core running? Start it with `falaj core run`, then try again",
        ) from error


def json_errors(app: Flask) -> None:
    """Makes every error of `app` a JSON document, also those that Flask itself raises."""
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(CatalogLocked, _locked)
    app.register_error_handler(FileNotFoundError, _absent)


def _refused(refusal: Refusal) -> Response:
    return _error(refusal.status, refusal.error, refusal.code, refusal.hint)


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    code, hint = _CODES.get(status, ("http-error", ""))
    return _error(status, error.description or error.name, code, hint)


def _locked(error: CatalogLocked) -> Response:
    return _error(503, str(error), "catalog-locked", "the catalog and the key file must be of the same core")


def _absent(error: FileNotFoundError) -> Response:
    return _error(503, str(error), "no-catalog", "start the core once with `falaj core run`")


def _error(status: int, error: str, code: str, hint: str) -> Response:
    return document({"error": error, "code": code, "hint": hint}, status)
