"""Where an agent's HTTP server can be reached: on loopback or a Unix socket, and from other machines only with TLS and
a token."""

from __future__ import annotations

import logging
import secrets
import ssl
from collections.abc import Callable
from pathlib import Path

from appliance.keys import check_private
from appliance.processes import check_port_free
from appliance.settings import BadSettings, EdgeSettings, Network
from edge.http.capacity import Handle, Together
from edge.http.doorkeeper import Doorkeeper
from edge.http.server import HttpServer
from sync.durable import write_private

log = logging.getLogger("falaj.edge")

TOKEN = "network.token"  # noqa: S105 - a file's name: made at the first start, if settings name no other
Report = Callable[[str, str], None]  # (stable code, text)


class Doors:
    """The servers of one agent, with one face. `folder` is its state folder."""

    def __init__(
        self, settings: EdgeSettings, folder: Path, handle: Handle, together: Together | None, report: Report
    ) -> None:
        self._settings = settings
        unix = folder / settings.http_socket if settings.http_socket else None
        self.local = HttpServer(handle, together=together, port=settings.http_port, unix=unix)
        self.place = str(unix) if unix is not None else f"http://127.0.0.1:{settings.http_port}"
        self.network: HttpServer | None = None
        if (wanted := settings.network) is not None:
            door = Doorkeeper(_token(wanted, folder), lambda who: report("http-guessed", _guessed(who)))
            self.network = HttpServer(
                handle, together=together, host=wanted.listen, port=wanted.port, tls=_tls(wanted, folder), door=door
            )

    def check(self) -> None:
        """Raises PortTaken while nothing has begun yet."""
        if not self._settings.http_socket:
            check_port_free("127.0.0.1", self._settings.http_port, "http_port in edge.toml")
        if (wanted := self._settings.network) is not None:
            check_port_free(wanted.listen, wanted.port, "network.port in edge.toml")

    def start(self) -> None:
        """Listens and answers once it returns. Raises CannotListen."""
        self.local.start()
        if self.network is not None and self._settings.network is not None:
            self.network.start()
            log.info("other machines are answered at https://%s:%s", self._settings.network.listen, self.network.port)

    def stop(self) -> None:
        """Lets what is under way finish for a few seconds."""
        if self.network is not None:
            self.network.stop()
        self.local.stop()

    def answers(self, within_s: float) -> bool:
        """Whether every server's loop has turned within the last seconds."""
        return all(server.answers(within_s) for server in (self.local, self.network) if server is not None)


def _guessed(who: str) -> str:
    return f"wrong tokens come from {who}: see who speaks to the port of [network]"


def _token(wanted: Network, folder: Path) -> str:
    """From its file, which is made if there is none yet; raises KeyUnsafe if others can read it, and BadSettings."""
    path = folder / (wanted.token_file or TOKEN)
    try:
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode())
        check_private(path)
        token = path.read_text().strip()
        Doorkeeper(token, lambda who: None)
    except (OSError, ValueError) as error:
        raise BadSettings(f"network.token_file: {path}: {error}; remove it, and a good one is made") from error
    return token


def _tls(wanted: Network, folder: Path) -> ssl.SSLContext:
    certificate, key = folder / wanted.certificate, folder / wanted.key
    try:
        check_private(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
    except OSError as error:  # an SSLError is one
        raise BadSettings(f"network: {certificate} and {key} are no pair that TLS can use: {error}") from error
    return context
