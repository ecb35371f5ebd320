"""paho's client as `sync.mqtt` needs it: what comes is bounded and read in one go, a publish pays for nothing that is
not used.

paho goes through every name that MQTT has for a property, several times a publish, and makes two objects to say of each
QoS 0 message that it was sent. Here the two properties we send are packed as MQTT 5.0 says (2.2.2, 3.3.2.3), and only
what a broker answered is told.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

_EXPIRY, _CORRELATION = 2, 9  # identifiers
_SHORT = 128  # bytes from which a length takes more than one
_AHEAD = 8192  # bytes


def _unheard(reason: ReasonCode) -> None:
    """Nobody asked."""


class Client(paho.Client):
    """Holds no more of one packet than `largest` bytes: paho would take 256 MB of whoever announces them. `answered` is
    called, in place of `on_publish`, with what the broker said of a publish with QoS 1, once that is settled."""

    largest = 2**28 - 1  # MQTT has no larger ones
    answered: Callable[[ReasonCode], None] = staticmethod(_unheard)
    ahead = b""  # read from the socket, and not yet by paho: no poll tells of it

    def reconnect(self) -> MQTTErrorCode:
        self.ahead = b""
        return super().reconnect()

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho asks for the head of a packet byte by byte; the kernel is asked once for all that has come."""
        if not self.ahead:
            if bufsize >= _AHEAD:
                return super()._sock_recv(bufsize)
            self.ahead = super()._sock_recv(_AHEAD)
        taken, self.ahead = self.ahead[:bufsize], self.ahead[bufsize:]
        return taken

    def _packet_read(self) -> MQTTErrorCode:
        done = super()._packet_read()
        return done if self._in_packet["remaining_length"] <= self.largest else MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _do_on_publish(self, mid: int, reason_code: ReasonCode, properties: Properties) -> MQTTErrorCode:
        done = super()._do_on_publish(mid, reason_code, properties)
        self.answered(reason_code)
        return done


class Packed(Properties):
    """What paho sends as it is; it holds no property by name."""

    _packed: bytes

    def __init__(self, packed: bytes) -> None:
        object.__setattr__(self, "_packed", packed)  # paho's own takes nothing but names of properties

    def __str__(self) -> str:
        return self._packed.hex()

    def pack(self) -> bytes:
        return self._packed


def properties(expiry: int | None, correlation: bytes | None) -> Packed | None:
    """The seconds a broker keeps a message, and the asker's own mark of at most 65,535 bytes; None of neither."""
    if expiry is None and correlation is None:
        return None
    said = b"" if expiry is None else struct.pack(">BI", _EXPIRY, expiry)
    if correlation is not None:
        said += struct.pack(">BH", _CORRELATION, len(correlation)) + correlation
    return Packed(_length(len(said)) + said)


def _length(number: int) -> bytes:
    """A variable byte integer."""
    found = bytearray()
    while number >= _SHORT:
        found.append(number % _SHORT | _SHORT)
        number //= _SHORT
    return bytes([*found, number])
