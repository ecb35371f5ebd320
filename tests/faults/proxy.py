"""A line that can be made bad: a TCP proxy between a client and a broker, on a thread of its own.

It works on bytes, so it sits below TLS and needs no key: delay, throttle, freeze (nothing moves, nobody is told), cut
now or after so many bytes. On a plain listener of a test it can also cut the stream into MQTT packets and hand each to
a `PacketFilter`, which repeats, drops or reorders them. What passed is counted.

    with FaultProxy(broker.port, Weather(delay=0.02)) as line:
        ...connect to line.port...
        line.cut()
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]  # to the broker, from the broker
PIECE = 16 * 1024  # bytes read at once
AGAIN = 0.02  # seconds until what was too large is sent again
START = 10.0  # seconds for the thread to come up or to end
_PUBLISH = 3  # MQTT control packet type


@dataclass(frozen=True)
class Weather:
    """What the line does to every connection; times in seconds, rates in bytes a second."""

    delay: float = 0.0  # each way
    rate: float = 0.0  # each way; 0: as fast as it goes
    buffered: int = 1 << 20  # bytes the line holds in each direction before the sender has to wait
    cut_after: int = 0  # bytes from the broker after which a connection ends; 0: never
    largest: int = 0  # bytes of a piece: larger ones are sent in vain again and again, all behind them waits; 0: any


@dataclass(frozen=True, slots=True)
class Packet:
    """One MQTT control packet as it stood in the stream."""

    direction: Direction
    raw: bytes

    @property
    def kind(self) -> int:
        return self.raw[0] >> 4

    @property
    def topic(self) -> str:
        """Of a PUBLISH; of any other packet the empty string."""
        if self.kind != _PUBLISH:
            return ""
        start = 1
        while self.raw[start] & 0x80:
            start += 1
        length = int.from_bytes(self.raw[start + 1 : start + 3], "big")
        return self.raw[start + 3 : start + 3 + length].decode()


CLEAR = Weather()
PacketFilter = Callable[[Packet], list[bytes]]  # what goes on instead of the packet, in order


@dataclass
class Traffic:
    """What passed, over all connections."""

    up: int = 0
    down: int = 0
    connections: int = 0
    cuts: int = 0


@dataclass(eq=False)
class _Connection:
    from_client: asyncio.StreamReader
    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    down: int = 0
    lost: bool = False  # nothing of it arrives any more, at either end, and no end hears of it


class FaultProxy:
    """Listens on a free port of 127.0.0.1. `weather` may be replaced at any time; it holds from the next piece on."""

    def __init__(self, broker: int, weather: Weather = CLEAR, packets: PacketFilter | None = None) -> None:
        self.broker, self.weather, self.packets = broker, weather, packets
        self.traffic = Traffic()
        self.port = 0
        self._open: set[_Connection] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._clients: list[asyncio.StreamWriter] = []
        self._coming: set[asyncio.Task[None] | None] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START)
        self._loop.close()

    def cut(self) -> None:
        """Ends every connection. What was handed to either end before still arrives there; nothing else does."""
        self._call(self._cut_all())

    def freeze(self) -> None:
        """From now on nothing moves, in either direction, and no end hears of it."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def move(self) -> None:
        """The client has another address: what is open leads nowhere, what it opens from now on is as good as ever."""
        self._call(self._lose_all())

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.set)

    def _call(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START)

    # --- the proxy's thread ---

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        while self._coming:  # a client may be coming back just now
            await asyncio.sleep(0.001)
        await self._cut_all()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for client in self._clients:  # whoever was cancelled before it began has closed nothing
            client.close()
        for _ in range(5):  # a transport is closed in a later turn of the loop
            await asyncio.sleep(0)

    async def _cut_all(self) -> None:
        tasks = [task for connection in self._open for task in connection.tasks]
        for connection in list(self._open):
            self._end(connection)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _lose_all(self) -> None:
        for connection in self._open:
            connection.lost = True

    async def _accept(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._coming.add(task)
        self._clients.append(client)
        try:
            await self._join(from_client, client)
        finally:
            self._coming.discard(task)

    async def _join(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            from_broker, broker = await asyncio.open_connection("127.0.0.1", self.broker, limit=PIECE)
        except OSError:  # a broker that is away: the client sees its connection end, as on a real line
            client.close()
            return
        self.traffic.connections += 1
        connection = _Connection(from_client, client, broker)
        self._open.add(connection)
        for direction, source, sink in (("up", from_client, broker), ("down", from_broker, client)):
            held = _Held()
            connection.tasks += [
                asyncio.create_task(self._read(connection, direction, source, held)),  # type: ignore[arg-type]
                asyncio.create_task(self._write(connection, direction, sink, held)),  # type: ignore[arg-type]
            ]

    async def _read(
        self, connection: _Connection, direction: Direction, source: asyncio.StreamReader, held: _Held
    ) -> None:
        """Takes in what one end sends, as long as the line has room for it."""
        stream = _PacketStream(direction)
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                pieces = [data]
                if self.packets is not None:
                    pieces = [out for packet in stream.feed(data) for out in self.packets(packet)]
                for piece in pieces:
                    await held.put(self._loop.time() + self.weather.delay, piece, self.weather.buffered)
        await held.put(self._loop.time() + self.weather.delay, b"", 0)

    async def _write(
        self, connection: _Connection, direction: Direction, sink: asyncio.StreamWriter, held: _Held
    ) -> None:
        """Hands on what is due, at the line's pace; a connection's end is handed on too."""
        free = 0.0  # when the line has passed all before this
        with contextlib.suppress(OSError):
            while True:
                due, piece = await held.get()
                if self.weather.rate:
                    free = max(free, self._loop.time()) + len(piece) / self.weather.rate
                    due = max(due, free)
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._flows.wait()
                while 0 < self.weather.largest < len(piece):
                    await asyncio.sleep(AGAIN)
                if connection.lost:
                    continue
                if not piece or not self._pass(connection, direction, piece, sink):
                    break
                await sink.drain()
        self._end(connection)

    def _pass(self, connection: _Connection, direction: Direction, piece: bytes, sink: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on after this piece."""
        goes_on = True
        if direction == "down" and self.weather.cut_after:
            piece = piece[: self.weather.cut_after - connection.down]
            goes_on = connection.down + len(piece) < self.weather.cut_after
        sink.write(piece)
        if direction == "up":
            self.traffic.up += len(piece)
        else:
            self.traffic.down += len(piece)
            connection.down += len(piece)
        return goes_on

    def _end(self, connection: _Connection) -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.traffic.cuts += 1
        connection.broker.close()
        leaving = self._loop.create_task(_leave(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        current = asyncio.current_task()
        for task in connection.tasks:
            if task is not current:
                task.cancel()


async def _leave(connection: _Connection) -> None:
    """Ends the client's side as a line does: what was handed to it is read there. A socket that is closed with bytes
    unread would be reset, and its other end lose what it has not read yet."""
    try:
        await asyncio.gather(*connection.tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            if connection.client.can_write_eof():
                connection.client.write_eof()
            while await connection.from_client.read(PIECE):
                pass
    finally:
        connection.client.close()


class _Held:
    """What is on the line in one direction."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, due: float, piece: bytes, limit: int) -> None:
        while limit and self._bytes >= limit:
            self._room.clear()
            await self._room.wait()
        self._bytes += len(piece)
        self._queue.put_nowait((due, piece))

    async def get(self) -> tuple[float, bytes]:
        due, piece = await self._queue.get()
        self._bytes -= len(piece)
        self._room.set()
        return due, piece


class _PacketStream:
    """Cuts a byte stream into MQTT control packets (MQTT 5, section 2.1)."""

    def __init__(self, direction: Direction) -> None:
        self._direction: Direction = direction
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Packet]:
        self._rest += data
        while (size := _size(self._rest)) and len(self._rest) >= size:
            yield Packet(self._direction, self._rest[:size])
            self._rest = self._rest[size:]


def _size(data: bytes) -> int:
    """Bytes of the packet that begins here; 0 while its header is not complete."""
    length = 0
    for i, byte in enumerate(data[1:5]):
        length |= (byte & 0x7F) << 7 * i
        if not byte & 0x80:
            return 2 + i + length
    return 0


@dataclass
class Mishaps:
    """A PacketFilter: of the PUBLISH packets with `topics` in their topic, every `repeat`-th goes twice, every
    `drop`-th not at all, every `swap`-th after its successor, every `halve`-th by half, so that what follows is read as
    the rest of it. 0: never. TCP does none of this to a stream; brokers and bridges under load do."""

    topics: str
    repeat: int = 0
    drop: int = 0
    swap: int = 0
    halve: int = 0
    seen: int = 0
    repeated: int = 0
    dropped: int = 0
    swapped: int = 0
    halved: int = 0
    _held: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.topics, "an empty text is in the topic of every packet"

    def __call__(self, packet: Packet) -> list[bytes]:
        if self.topics not in packet.topic:
            return [packet.raw]
        self.seen += 1
        if self.drop and self.seen % self.drop == 0:
            self.dropped += 1
            return []
        if self.halve and self.seen % self.halve == 0:
            self.halved += 1
            return [packet.raw[: len(packet.raw) // 2]]
        held, self._held = self._held, []
        if self.swap and self.seen % self.swap == 0:
            self.swapped += 1
            self._held = [packet.raw]
            return held
        twice = bool(self.repeat) and self.seen % self.repeat == 0
        self.repeated += twice
        return [packet.raw] * (1 + twice) + held
