"""The console's process (API on a Unix socket, pages on loopback) and the enrolment listener's (TLS), by gunicorn.

The console is given the catalog's key on standard input and opens the catalog read-only; the listener, the only
process open to the network, is given nothing but its TLS key. Which of the console's two faces a request gets is
decided by the socket it came in on, never by anything a client says.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.app.base import BaseApplication

from appliance import clock
from appliance.core.listener import THREADS, Listener
from appliance.core.orders_socket import ask, listens
from appliance.core.state import CoreFolder
from appliance.settings import CoreSettings
from core.answers import Answer
from core.catalog import Catalog, open_catalog
from core.console import create_api, create_enrolment, create_pages
from core.console.api import BODY_LIMIT

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Console(Listener):
    """The listener of the console: what strangers reach is the pages, which take no body."""

    def takes(self, peer: socket.socket) -> int:
        return BODY_LIMIT if peer.family == socket.AF_UNIX else 0


class _Server(BaseApplication):  # type: ignore[misc]
    """One gunicorn worker with threads, a request a connection, configured from here alone."""

    def __init__(self, app: Wsgi, **options: Any) -> None:
        self._app, self._options = app, options
        super().__init__()

    def load_config(self) -> None:
        defaults = {"workers": 1, "threads": THREADS, "keepalive": 0, "timeout": 15, "graceful_timeout": 3,
                    "umask": 0o177, "control_socket_disable": True, "loglevel": "warning"}  # fmt: skip
        for name, value in {**defaults, **self._options}.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Wsgi:
        return self._app


def run_console(folder: CoreFolder, settings: CoreSettings) -> None:
    """Serves until SIGTERM; reads the catalog key (hex) from standard input first."""
    key = bytes.fromhex(sys.stdin.read().strip())
    token = folder.console_token.read_text().strip()

    def catalog() -> Catalog:
        return open_catalog(folder.catalog, key, read_only=True)

    def steward() -> bool:
        return listens(folder.steward_socket)

    api = create_api(catalog, _asker(folder), clock.now, tenant=folder.tenant, steward=steward)
    pages = create_pages(catalog, token, clock.now, tenant=folder.tenant, steward=steward)
    folder.api_socket.unlink(missing_ok=True)
    binds = [f"unix:{folder.api_socket}", f"127.0.0.1:{settings.ports.console}"]
    _Server(_by_socket(api, pages), bind=binds, worker_class=Console, timeout=60).run()


def run_enrolment(folder: CoreFolder, settings: CoreSettings) -> None:
    """Serves `/v1/enrol` over TLS until SIGTERM."""
    app = create_enrolment(_asker(folder), (folder.pki / "ca.pem").read_bytes())
    _Server(
        app,
        bind=f"{settings.listen}:{settings.ports.enrol}",
        certfile=str(folder.pki / "enrol.pem"),
        keyfile=str(folder.pki / "enrol.key"),
        worker_class=Listener,
    ).run()


def _asker(folder: CoreFolder) -> Callable[[Any], Answer]:
    return lambda order: ask(folder.steward_socket, order)


def _by_socket(local: Wsgi, pages: Wsgi) -> Wsgi:
    def dispatch(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        came_in = environ["gunicorn.socket"]
        return (local if came_in.family == socket.AF_UNIX else pages)(environ, start_response)

    return dispatch
