"""The server's socket and thread: one event loop of its own, on loopback, a Unix socket, or with TLS and a token."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge.http.capacity import Capacity, Handle, Limits, Together
from edge.http.doorkeeper import Doorkeeper
from edge.http.gathering import Gathering
from edge.http.parsing import Connection

HOST = "127.0.0.1"
# Names a browser may send for a loopback address. A foreign one means a page that had its own name point here.
_OUR_NAMES = frozenset({"localhost", HOST, "[::1]"})
_SWEEP_S = 0.5
_GRACE_S = 5.0
_HANDSHAKE_S = 5.0


class CannotListen(OSError):
    """The address cannot be had; the message says which and what to do."""

    code = "cannot-listen"


class HttpServer:
    """Serves `handle` until stopped, what comes at once by `together` (`edge.http.gathering`). `port` 0 takes a free
    one; `unix` is a socket path to use instead of a port. Another `host` than loopback needs `tls` and a `door`: raises
    ValueError without."""

    def __init__(
        self,
        handle: Handle,
        *,
        together: Together | None = None,
        port: int = 0,
        unix: Path | None = None,
        host: str = HOST,
        tls: ssl.SSLContext | None = None,
        door: Doorkeeper | None = None,
        limits: Limits | None = None,
    ) -> None:
        if host != HOST and (tls is None or door is None):
            raise ValueError(f"on {host} strangers can hear and ask: that takes TLS and a token")
        self._handle, self._together, self._unix = handle, together, unix
        self._host, self._tls, self._door = host, tls, door
        self._limits = limits or Limits()
        self.port = port
        self._peers: set[Connection] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._swept = 0.0  # by the loop's clock

    def start(self) -> None:
        """Listens and answers once it returns; `port` is then the real one. Raises CannotListen."""
        listener = _listen_unix(self._unix) if self._unix is not None else _listen_tcp(self._host, self.port)
        if self._unix is None:
            self.port = int(listener.getsockname()[1])
        started = threading.Event()
        args = (listener, started)
        self._thread = threading.Thread(target=self._run, args=args, name="falaj-http", daemon=True)
        self._thread.start()
        started.wait()

    def stop(self) -> None:
        """Takes no more connections, lets what is under way finish for a few seconds, then ends the thread."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        if self._unix is not None:
            self._unix.unlink(missing_ok=True)

    def answers(self, within_s: float) -> bool:
        """Whether the loop has turned within the last seconds: one that is held up answers nobody."""
        return self._loop is not None and self._loop.time() - self._swept < within_s

    def _run(self, listener: socket.socket, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(listener, started))
        finally:
            started.set()  # so that a loop that could not even begin keeps nobody waiting

    async def _serve(self, listener: socket.socket, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._swept = self._loop.time()
        self._stopping = asyncio.Event()
        hosts = _OUR_NAMES if self._unix is None and self._door is None else None
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="falaj-http") as pool:
            capacity = Capacity(self._handle, self._limits, pool, hosts, self._together, self._door)
            gathering = Gathering(capacity, self._loop)

            def connect() -> Connection:
                return Connection(capacity, self._peers, gathering)

            if self._unix is None:
                patience = _HANDSHAKE_S if self._tls is not None else None
                server = await self._loop.create_server(
                    connect, sock=listener, ssl=self._tls, ssl_handshake_timeout=patience, ssl_shutdown_timeout=patience
                )
            else:
                server = await self._loop.create_unix_server(connect, sock=listener)
            self._swept = self._loop.time()  # it answers from here on, whenever the sweeper first gets its turn
            sweeper = self._loop.create_task(self._sweep())
            started.set()
            await self._stopping.wait()
            server.close()
            await self._drain(self._loop)
            sweeper.cancel()

    async def _sweep(self) -> None:
        """One look at all deadlines now and then costs less than a timer for each request."""
        while True:
            self._swept = now = asyncio.get_running_loop().time()
            for peer in [p for p in self._peers if p.deadline < now]:
                peer.expire()
            await asyncio.sleep(_SWEEP_S)

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + _GRACE_S
        while self._peers and loop.time() < until:
            for peer in [p for p in self._peers if p.idle]:
                peer.close()
            await asyncio.sleep(0.01)
        for peer in list(self._peers):
            peer.abort()
        until = loop.time() + _SWEEP_S
        while self._peers and loop.time() < until:  # TLS takes a few turns to end
            await asyncio.sleep(0)


def _listen_tcp(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            why = "another program has it: stop that one, or set another port in edge.toml"
        else:
            why = f"{error.strerror}: set another port in edge.toml (ports below 1024 need a privilege)"
        raise CannotListen(error.errno, f"cannot listen on port {port} of {host}: {why}") from error
    return listener


def _listen_unix(path: Path) -> socket.socket:
    """A socket file that a killed process left behind is taken over, a living one is not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "another program listens there")
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = f"{error.strerror}: stop the other program, or set another path in edge.toml"
        raise CannotListen(error.errno, f"cannot listen on {path}: {why}") from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0
