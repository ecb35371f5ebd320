"""The read-only pages on loopback, behind a token: what an operator looks at.

The token comes once in the address (`/?token=...`) and is traded for a cookie that scripts cannot read and other
sites cannot send. Pages carry no inline script or style, so the content policy allows none.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask, Response, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from core.catalog import Catalog, CatalogLocked
from core.console import learning, lines, wording
from core.console.concerns import Concern, concerns
from core.console.facts import Facts, gather
from core.console.rollout_card import RolloutCard, cards
from core.console.tallies import Tallies
from core.console.why_card import Why, whys
from core.console.wording import Moment
from sync.names import DEFAULT_TENANT, TenantId

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

PARTS = {"overview": "fragment.html", "why": "why.html"}  # page -> what of it is polled


@dataclass(frozen=True)
class Overview:
    """All the pages show."""

    concerns: tuple[Concern, ...]
    rollouts: tuple[RolloutCard, ...]
    learning: tuple[learning.LearningCard, ...]
    whys: tuple[Why, ...]
    devices: tuple[lines.DeviceLine, ...]
    enrolled: int
    online: int
    heard: Moment | None  # when a device last spoke
    releases: tuple[lines.ReleaseLine, ...]
    refused: tuple[lines.RefusedLine, ...]
    jobs: tuple[lines.JobLine, ...]
    events: tuple[lines.EventLine, ...]
    trust: tuple[lines.TrustLine, ...]
    facts: Facts


def create_pages(
    catalog: Callable[[], Catalog],
    token: str,
    now: Callable[[], float],
    *,
    tenant: TenantId = DEFAULT_TENANT,
    steward: Callable[[], bool] = lambda: True,
) -> Flask:
    """The pages of one tenant. `catalog` opens its catalog read-only; `now` gives seconds since 1970 (UTC); `steward`
    says whether it is there.

    Raises ValueError for an empty token: pages without one would be open to every user of the machine.
    """
    if not token:
        raise ValueError("the pages need a token; `falaj core link` makes and prints it")
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    tallies = Tallies()

    def read(part: str) -> dict[str, object]:
        moment = now()
        with closing(catalog()) as shelves:
            view = compose(gather(shelves, moment, steward=steward(), tallies=tallies), moment)
        body = render_template(PARTS[part], view=view)
        return {
            "part": part,
            "body": body,
            "digest": hashlib.sha256(body.encode()).hexdigest()[:16],
            "tenant": tenant,
            "title": title(view),
            "iso": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def page(part: str) -> str:
        return render_template("page.html", **read(part))

    def fragment(part: str) -> str | tuple[str, int]:
        shown = read(part)
        if request.args.get("have") == shown["digest"]:
            return "", 204  # nothing changed: the page keeps what it shows, and the reader's place in it
        return render_template("live.html", **shown)

    app.before_request(_gate(token, tenant))
    app.after_request(_guarded)
    app.add_url_rule("/", "overview", page, defaults={"part": "overview"})
    app.add_url_rule("/why", "why", page, defaults={"part": "why"})
    app.add_url_rule(f"/fragment/<any({', '.join(PARTS)}):part>", "fragment", fragment)
    app.register_error_handler(HTTPException, _failed)
    app.register_error_handler(CatalogLocked, _unread)
    app.register_error_handler(FileNotFoundError, _unread)
    return app


def _gate(token: str, tenant: TenantId) -> Callable[[], Response | None]:
    """Lets in whoever shows the token or the cookie it was traded for; static files are no secret."""
    cookie = f"falaj-console-{tenant}"  # per tenant: a cookie is sent to every port of this host
    badge = _badge(token)

    def admit() -> Response | None:
        if request.endpoint == "static":
            return None
        given = request.args.get("token")
        if given is not None and hmac.compare_digest(given.encode(), token.encode()):
            # A page that goes on by itself, not a redirect: the browser sends a Strict cookie only from here on.
            answer = make_response(render_template("welcome.html", tenant=tenant))
            answer.set_cookie(cookie, badge, httponly=True, samesite="Strict", path="/")
            return answer
        if given is None and hmac.compare_digest(request.cookies.get(cookie, "").encode(), badge.encode()):
            return None
        return make_response(render_template("refused.html", tenant=tenant), 403)

    return admit


def compose(facts: Facts, now: float) -> Overview:
    """The overview of these facts at this moment. Pure."""
    return Overview(
        concerns=concerns(facts, now),
        rollouts=cards(facts, now),
        learning=learning.cards(facts, now),
        whys=whys(facts, now),
        devices=lines.devices(facts, now),
        enrolled=len(facts.fleet),
        online=sum(row.status == "online" for row in facts.fleet),
        heard=wording.moment(max((row.seen for row in facts.fleet), default=None), now),
        releases=lines.releases(facts, now),
        refused=lines.refused(facts, now),
        jobs=lines.jobs(facts, now),
        events=lines.events(facts, now),
        trust=lines.trust(facts.trust, now),
        facts=facts,
    )


def title(view: Overview) -> str:
    """What the browser's tab says: the alarms are seen without opening it."""
    alarms = sum(concern.level == "alarm" for concern in view.concerns)
    return f"({alarms}) Falaj" if alarms else "Falaj"


def _badge(token: str) -> str:
    """What the cookie holds: enough to come in, not the token itself."""
    return hmac.new(token.encode(), b"falaj console cookie 1", hashlib.sha256).hexdigest()


def _guarded(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


def _failed(error: HTTPException) -> tuple[str, int]:
    status = error.code or 500
    text = "There is no such page." if status == 404 else "The console could not answer; its log says why."
    return render_template("failed.html", heading=f"{status} {error.name}", text=text), status


def _unread(error: Exception) -> tuple[str, int]:
    return render_template("failed.html", heading="The catalog does not open", text=str(error)), 503
