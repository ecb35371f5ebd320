"""The thread under one MQTT session: it joins the broker, reads and writes, and joins again.

paho's own thread would do, but for four things. It wakes itself through a socket for each message that is sent from
where one is received, which costs an answer more than its question. It ends for ever, in silence, where a receiver
raises: here the line is dropped, told, and tried again. It does not say which message is the last of those that came
together. And it hands over neither why a try failed nor how long to wait for the next.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable

import paho.mqtt.client as paho

from sync.link import LONGEST
from sync.packets import Client

TURN_MS = 1000  # between two looks at the keepalive, at most
LAST = 5  # turns in which nothing more could be written, until an ended session is given up
TOGETHER = 64  # packets that are read, at most, until what they led to is written
_WAKE = b"\0"
_MANY = 4096  # wakings that are taken together

log = logging.getLogger("falaj.mqtt")


class Line:
    """Keeps `client` joined, through paho's functions for foreign loops. `failed` is told why a try to connect or a
    session came to nothing, where paho's own callbacks do not tell it; `pause` says how many seconds to wait before the
    next try; `drained` is called whenever what had come together was handed over. All callbacks come from this
    thread."""

    def __init__(
        self,
        client: Client,
        failed: Callable[[str], None],
        pause: Callable[[], float],
        drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._failed, self._pause, self._drained = client, failed, pause, drained
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="falaj-mqtt", daemon=True)
        client.on_socket_register_write = self._wake

    def start(self) -> None:
        """Begins to join; the client has been told where (`connect_async`)."""
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Sends what is still to be sent, says goodbye, and ends the thread."""
        self._ended.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._wake()
            self._thread.join()

    def _wake(self, *_: object) -> None:
        """There is something to send. What this thread itself has to send it sees at the end of its turn."""
        if threading.current_thread() is self._thread:
            return
        try:
            self._waker.send(_WAKE)
        except BlockingIOError:
            pass  # it has been woken often enough
        except OSError:
            if not self._ended.is_set():
                raise

    def _run(self) -> None:
        while not self._ended.is_set():
            seconds = LONGEST
            try:
                self._visit()
                self._close()
                seconds = self._pause()
            except Exception:  # nothing ends this thread but its end: nobody would begin another
                log.exception("the line is dropped")
                self._close()
            self._ended.wait(seconds)
        self._waker.close()
        self._woken.close()

    def _visit(self) -> None:
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:  # the second: a name that none can be
            self._failed(str(error) or type(error).__name__)
            return
        try:
            self._turn()
        except Exception as error:  # the border to what a broker may send, and to whoever takes it in
            log.exception("the session is dropped")
            self._failed(f"the session is dropped: {error!r}")

    def _turn(self) -> None:
        """Until the session is lost, or has ended."""
        line, left, goodbye = self._client.socket(), LAST, False
        if line is None:
            return
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(line, select.POLLIN)
        while self._client.socket() is line and left:
            if self._ended.is_set() and not goodbye:
                goodbye = True
                self._client.disconnect()
            poll.modify(line, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            ready = dict(poll.poll(0 if self._held(line) else TURN_MS))
            if ready.pop(self._woken.fileno(), 0):
                self._woken.recv(_MANY)
            if (ready or self._held(line)) and self._read():
                return
            if self._client.want_write() and self._client.loop_write():
                return
            if self._client.loop_misc():
                return
            left -= goodbye

    def _read(self) -> bool:
        """Hands over what has come together, until that leads to something to write; whether the session is lost."""
        try:
            for _ in range(TOGETHER):
                if self._client.loop_read():
                    return True
                if not self._client.holds or self._client.want_write():
                    break
            return False
        finally:
            self._drained()

    def _held(self, line: paho.SocketLike) -> bool:
        """Whether there is something to read that no poll tells of: read ahead, or opened by TLS already."""
        return self._client.holds or (isinstance(line, ssl.SSLSocket) and line.pending() > 0)

    def _close(self) -> None:
        """Lets go of a line that paho still holds."""
        line = self._client.socket()
        if line is not None:
            line.close()
