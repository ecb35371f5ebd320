"""The listener a new device talks to before it has a certificate: the only one open to the network.

It holds no catalog and no key. It passes one signed request to the steward and gives its answer back.
"""

from __future__ import annotations

from flask import Flask, Response, request

from core.console.replies import Ask, Refusal, document, json_errors, put_order
from core.orders import Enrol

ENVELOPE_LIMIT = 64 * 1024  # bytes


def create_enrolment(ask: Ask, ca_pem: bytes) -> Flask:
    """`GET /v1/ca` gives the CA certificate (PEM), whose fingerprint stands in the token; `POST /v1/enrol` takes a
    DSSE envelope (JSON text) and gives the EnrolAnswer document, or with 202 EnrolWaiting: a person has to say so.

    Errors are {error, code, hint}: 400 malformed, 403 not admitted, 413 too long, 503 the steward is not there.
    """
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = ENVELOPE_LIMIT
    json_errors(app)

    def authority() -> Response:
        return Response(ca_pem, mimetype="application/x-pem-file")

    app.add_url_rule("/v1/ca", view_func=authority)
    app.add_url_rule("/v1/enrol", "enrol", lambda: _enrol(ask), methods=["POST"])
    return app


def _enrol(ask: Ask) -> Response:
    try:
        envelope = request.get_data().decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, f"body: {error}", "malformed", "send the DSSE envelope as JSON text") from error
    answer = put_order(ask, Enrol(actor="enrolment", envelope=envelope, source=request.remote_addr or ""))
    if answer.ok:
        return document(answer.result, 202 if "waiting" in answer.result else 200)
    raise Refusal(400 if answer.code == "malformed" else 403, answer.error, answer.code, answer.hint)
