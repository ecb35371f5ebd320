"""paho's client as `sync.mqtt` needs it: what comes is bounded and read in one go, what goes is written in one go, a
publish pays for nothing that is not used.

paho goes through every name that MQTT has for a property, several times a publish, and makes two objects to say of each
QoS 0 message that it was sent. Here the two properties we send are packed as MQTT 5.0 says (2.2.2, 3.3.2.3), and only
what a broker answered is told. Of what comes `plain` takes a message that could not be simpler, a question with its
response topic and correlation data; whatever is not so, or not well-formed, paho reads and judges.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from sync.link import Message, Receiver

_EXPIRY, _RESPONSE, _CORRELATION = 2, 8, 9  # identifiers
_SHORT = 128  # bytes from which a length takes more than one
_AHEAD, _LONG = 65_536, 8192  # bytes that are asked for, and of which so many are read into their packet at once
_JOINED = (paho.PUBLISH, paho.PUBACK)
_AT_ONCE = 65_536  # bytes of packets that are written as one: more would be copied at every write that takes a part


def _unheard(reason: ReasonCode) -> None:
    """Nobody asked."""


class Client(paho.Client):
    """Holds no more of one packet than `largest` bytes: paho would take 256 MB of whoever announces them. `answered` is
    called, in place of `on_publish`, with what the broker said of a publish with QoS 1, once that is settled.
    `received` is called with each message that is `plain`, in place of `on_message`, which has the others."""

    largest = 2**28 - 1  # MQTT has no larger ones
    answered: Callable[[ReasonCode], None] = staticmethod(_unheard)
    received: Receiver | None = None
    ahead, at = b"", 0  # read from the socket, and up to where by paho

    @property
    def holds(self) -> bool:
        """Whether something was read from the socket, and not yet by paho: no poll tells of it."""
        return self.at < len(self.ahead)

    def reconnect(self) -> MQTTErrorCode:
        self.ahead, self.at = b"", 0
        return super().reconnect()

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho asks for the head of a packet byte by byte; the kernel is asked once for all that has come."""
        if not self.holds:
            if bufsize >= _LONG:
                return super()._sock_recv(bufsize)
            self.ahead, self.at = super()._sock_recv(_AHEAD), 0
        start = self.at
        self.at = start + bufsize
        return self.ahead[start : self.at]

    def _handle_publish(self) -> MQTTErrorCode:
        taken = plain(self._in_packet["command"], self._in_packet["packet"]) if self.received is not None else None
        if self.received is None or taken is None:
            return super()._handle_publish()
        self.received(taken)
        if taken.qos and not self._manual_ack:
            return self._send_puback(taken.receipt)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _packet_write(self) -> MQTTErrorCode:
        """paho asks the kernel once for each packet; those that wait go out as one."""
        if len(self._out_packet) > 1:
            _join(self._out_packet)
        return super()._packet_write()

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


def plain(head: int, packet: bytes | bytearray) -> Message | None:
    """The message of a PUBLISH, by the first byte of the packet and what follows its length (MQTT 5.0, 3.3), of QoS 0
    or 1 and without properties but a response topic and correlation data. None of any other, and wherever something is
    not as it must be: then it is paho's to read."""
    qos, size = head >> 1 & 3, len(packet)
    stop = 2 + int.from_bytes(packet[:2], "big")
    at = stop + 2 * qos
    if qos > 1 or stop == 2 or at >= size or packet[at] >= _SHORT or at + packet[at] >= size:
        return None
    found = _properties(packet[at + 1 : at + 1 + packet[at]])
    try:
        topic = packet[2:stop].decode()
        response = found[_RESPONSE].decode("ascii") if found and _RESPONSE in found else None
    except UnicodeDecodeError:
        return None
    if found is None or not (response is None or response.isprintable()):
        return None
    receipt, payload = int.from_bytes(packet[stop:at], "big"), bytes(packet[at + 1 + packet[at] :])
    return Message(topic, payload, qos, bool(head & 1), receipt, response, found.get(_CORRELATION))


def _properties(packed: bytes | bytearray) -> dict[int, bytes] | None:
    """Response topic and correlation data by their identifiers; None where another property is, or one is twice."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(packed):
        name, start = packed[at], at + 3
        at = start + int.from_bytes(packed[at + 1 : start], "big")
        if name not in (_RESPONSE, _CORRELATION) or name in found or max(start, at) > len(packed):
            return None
        found[name] = bytes(packed[start:at])
    return found


def _join(waiting: deque[Any]) -> None:
    """Makes one packet of those that wait first, as paho keeps them: what must stay a packet of its own to it (it acts
    when a DISCONNECT has gone) ends them. Nobody asks of one with QoS 0 whether it went."""
    first, size = list[Any](), 0
    while waiting and waiting[0]["command"] & 0xF0 in _JOINED and size + waiting[0]["to_process"] <= _AT_ONCE:
        first.append(waiting.popleft())
        size += first[-1]["to_process"]
    if first:
        packet = b"".join([one["packet"][one["pos"] :] for one in first])
        waiting.appendleft({**first[0], "qos": 1, "pos": 0, "to_process": size, "packet": packet, "info": None})


def _length(number: int) -> bytes:
    """A variable byte integer."""
    found = bytearray()
    while number >= _SHORT:
        found.append(number % _SHORT | _SHORT)
        number //= _SHORT
    return bytes([*found, number])
