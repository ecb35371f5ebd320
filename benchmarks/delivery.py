"""Measures delivery: releases as retained chunks against three other ways of carrying the same bytes.

    .venv/bin/python benchmarks/delivery.py [--only near,far,cut,quiet] [--write]

In one run, on one Mosquitto with TLS 1.3 and the access rules of a core; the HTTP server speaks TLS too:

    falaj  a whole agent (walker, tick of 0.25 s, journal, outbox, tuf) that is given a signed order: trust files, a
           window of chunks, each checked and written, every sixteenth and the last flushed, both blobs opened, until
           the model is handed to the child that proves it
    line   the same chunks by the same rooms, without order, trust files, walker and tick; blob and key are given
    a      the same bytes as plain retained chunks: one subscription to all, each hashed, written and flushed
    a'     the same, flushed once at the end
    b      one chunk asked for after the other, each answered by the core: hashed, written and flushed
    c      one HTTP download: hashed, written, flushed once at the end

Each agent is a process, as each device is: in one, many would wait for each other's Python. All sessions are up before
a time begins: for `falaj` when the core publishes the orders, which were signed just before; for the others when they
are told to begin (HTTP connections are opened within the time). It ends when the last agent is done. The ways go in
turn, so that a disturbance meets all alike. `near` is loopback, `far` 20 ms there and back (10 ms each way) through
the proxy of tests/faults; `cut` is a whole agent whose line is cut every ten chunks, `quiet` one that has nothing to
fetch, and what the record of an hour costs with its answer.

Not measured: signing, proof and trial of the release, which no other way has, local broker and HTTP of the agent; and a
steward that publishes again what agents report as missing (the core here publishes once, and only `cut` loses chunks,
which the broker still has). Egress is what the core sent on its socket, without the orders: those are of each device,
and are told apart. Needs the development set-up and Mosquitto. With the default flags it takes about six minutes;
`--quick` takes about one, which shows that it runs.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.carriers import PATIENCE, Asking, Cargo, Client, Falaj, Plain, Site, Steward, Web, Whole, web
from benchmarks.results import options, tell
from edge.performance import EVERY
from sync import codec, topics
from sync.chunks import CHUNK
from sync.link import Publish
from sync.messages import METRICS, Ack
from sync.mqtt import Broker as At
from tests.attacks.ground import open_ground
from tests.core.world import TENANT
from tests.edge import graphs
from tests.edge.test_agent_accounting import DRIFT, Accounts
from tests.edge.world import DEVICE, EPOCH, MODEL, NOW, new_identity
from tests.faults.field import Wired, WiredCore, size_of
from tests.faults.proxy import CLEAR, FaultProxy, Weather

FORK = multiprocessing.get_context("fork")  # all that an agent needs was loaded before it begins
FAR = Weather(delay=0.01)
DAY = 86_400.0
REPORTS = 17  # of a day of one answer a second: one for each doubling
LAST_ROUND = 5  # agents, by which egress is told
TITLE = "## Delivery"
HOURS = 24
MANY = 40  # agents from which one run has to do: it is the sum of many, and takes minutes
CHANNELS = tuple(f"acc-{k}" for k in range(6))  # of the demo's machine
Make = Callable[[Site, str, Cargo, int], Client | Web | Whole]
WAYS: dict[str, Make] = {
    "falaj": Whole,
    "line": Falaj,
    "a": Plain,
    "a'": functools.partial(Plain, flush=False),
    "b": Asking,
    "c": Web,
}


@dataclass
class Found:
    """What a run measured, as the rows of its two tables."""

    times: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)


FOUND = Found()


def verdict(name: str, figure: float, bound: float, *, least: bool = False, unit: str = "x", row: bool = True) -> str:
    """One line: what was measured, what was promised."""
    met = figure >= bound if least else figure <= bound
    word, sign = "met" if met else "MISSED", ">=" if least else "<="
    print(f"  {name:64} {figure:8.2f} {unit:3} (target {sign} {bound:g}) {word}", flush=True)
    if row:
        FOUND.figures.append(f"| {name.strip()} | {figure:.2f} {unit} | {sign} {bound:g} | {word.lower()} |")
    return f"{figure:.2f} ({word.lower()})"


def timed(site: Site, steward: Steward, make: Make, agents: int, cargo: Cargo, port: int) -> tuple[float, float, float]:
    """Seconds until the last of `agents` is done, bytes that each received per byte of the blob, and the seconds of CPU
    that took in their processes."""
    lines, names = [], [f"box-{k}" for k in range(agents)]
    orders = [cargo.order(name) for name in names] if make is Whole else []
    for name in names:
        site.tls(name)  # made before the processes part
        here, there = FORK.Pipe()
        FORK.Process(target=agent, args=(there, make, site, name, cargo, port), daemon=True).start()
        there.close()
        lines.append(here)
    for line in lines:
        line.recv()
    begun = perf_counter()
    for line in lines:
        line.send(None)
    for order in orders:
        steward.link.publish(order)
    found: list[tuple[float, int, float]] = [line.recv() for line in lines]
    for line in lines:
        line.recv()
    for order in orders:  # the next agents of these names have other keys
        steward.link.publish(Publish(order.topic, b"", retain=True))
    steward.settle()
    return (
        max(ended for ended, _, _ in found) - begun,
        sum(came for _, came, _ in found) / agents / len(cargo.sealed),
        sum(cpu for _, _, cpu in found),
    )


def agent(line: Connection, make: Make, site: Site, name: str, cargo: Cargo, port: int) -> None:
    """One agent in a process of its own: says that it is up, waits to be let go, says when it was done, and ends."""
    client = make(site, name, cargo, port)
    line.send(None)
    line.recv()
    worked = process_time()
    client.begin()
    if not client.done.wait(PATIENCE):
        raise SystemExit(f"{type(client).__name__}: {name} is not done after {PATIENCE:.0f} s")
    line.send((perf_counter(), client.came, process_time() - worked))  # one clock for all processes
    client.end()
    line.send(None)


@dataclass
class Egress:
    """Bytes that the core sent on its socket while it was counted."""

    line: FaultProxy
    bytes: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = self.line.traffic.up
        yield
        self.bytes += self.line.traffic.up - before


@contextmanager
def published(site: Site, size: int, where: str) -> Iterator[tuple[Cargo, Steward]]:
    """A signed release on the broker, and its blob in the web server's folder. Prints what the core sent for it: to
    publish it, its trust files included, and in one more round of agents, orders apart."""
    with FaultProxy(site.ground.broker.port) as line:
        steward, core = Steward(site, line.port), WiredCore()
        core.link = steward.link  # type: ignore[assignment]
        egress = Egress(line)
        with egress.counted():
            cargo = steward.cargo = Cargo.of(core, size)
        (site.folder / "web" / cargo.blob.sealed).write_bytes(cargo.sealed)
        yield cargo, steward
        orders = Egress(line)
        with orders.counted():
            timed(site, steward, Whole, LAST_ROUND, cargo, site.ground.broker.port)
        sent = egress.bytes / size_of(cargo.shipped)
        verdict(f"core egress, bytes on its socket / bytes of the release, {size // 1_000_000} MB, {where}", sent, 1.02)
        each = f"{orders.bytes / LAST_ROUND:.0f} bytes"
        print(f"  core egress while {LAST_ROUND} more agents fetch, for each: {each}", flush=True)
        name = f"core egress for each agent more, {size // 1_000_000} MB, {where}: its order, and the end of it"
        FOUND.figures.append(f"| {name} | {each} | | |")
        steward.clear()
        steward.link.stop()


def compare(site: Site, sizes: Sequence[int], agents: Sequence[int], runs: int, weather: Weather) -> None:
    """Times of all ways and the promised ratios, per size and number of agents; medians over runs."""
    server = web(site)
    for size in sizes:
        print(f"{size} MB", flush=True)
        where = "loopback" if weather is CLEAR else "far"
        with published(site, size * 1_000_000, where) as (cargo, steward):
            for count in agents:
                one_place(site, cargo, steward, count, runs if count < MANY else 1, weather, server.server_address[1])
    server.shutdown()


def one_place(
    site: Site, cargo: Cargo, steward: Steward, count: int, runs: int, weather: Weather, web_port: int
) -> None:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    cpus: dict[str, list[float]] = {way: [] for way in WAYS}
    shares: list[float] = []
    carried: list[float] = []  # on the socket, where a proxy counts
    for _ in range(runs):
        for way, make in WAYS.items():
            end = web_port if way == "c" else site.ground.broker.port
            with nullcontext() if weather is CLEAR else FaultProxy(end, weather) as line:
                took, share, cpu = timed(site, steward, make, count, cargo, line.port if line else end)
                carried += [line.traffic.down / count / len(cargo.sealed)] if line and way == "falaj" else []
            times[way].append(took)
            cpus[way].append(cpu)
            shares += [share] if way == "falaj" else []
    middle = {way: statistics.median(found) for way, found in times.items()}
    row = ", ".join(f"{way} {found:.2f} s" for way, found in middle.items())
    where = "loopback" if weather is CLEAR else f"{2000 * weather.delay:.0f} ms there and back"
    print(f"  {count} agents, {where}: {row}", flush=True)
    name = f"{len(cargo.sealed) // 1_000_000} MB, {count} agent{'s' * (count > 1)}, {where}"
    verdict(f"bytes received per agent / bytes of the blob, {name}", max(shares), 1.02)
    if carried:
        told = f"bytes on the line to an agent, its session's beginning too / bytes of the blob, {name}"
        verdict(told, max(carried), 1.02)
    effort = statistics.median(cpus["falaj"]) / statistics.median(cpus["a"])
    print(f"  CPU of falaj / CPU of a: {effort:.2f}", flush=True)
    if weather is CLEAR:
        told = "falaj / a " + verdict("time of falaj / time of a", middle["falaj"] / middle["a"], 1.5, row=False)
    else:
        pace = middle["b"] / middle["falaj"]
        told = "b / falaj " + verdict("time of b / time of falaj", pace, 5.0, least=True, row=False)
    cells = " | ".join(f"{found:.2f}" for found in middle.values())
    FOUND.times.append(f"| {name} | {cells} | {told} | {effort:.2f} |")


def cut_often(site: Site, size: int) -> None:
    """A whole agent whose line is cut every ten chunks: what came, per byte of the release."""
    core = WiredCore().connect(site.core_at(site.ground.broker.port))
    shipped = core.ship_large(1, size)
    with FaultProxy(site.ground.broker.port, Weather(cut_after=10 * CHUNK + 20_000)) as line:
        at = At("127.0.0.1", line.port, DEVICE, site.tls(DEVICE))
        device = Wired(core, site.new_folder("cut"), new_identity(core.root), at=at).boot()
        core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        print(f"{size // 1_000_000} MB, one whole agent, {line.traffic.cuts} cuts", flush=True)
        name = f"{size // 1_000_000} MB, cut every ten chunks, {line.traffic.cuts} cuts"
        verdict(f"bytes of chunks received / bytes of the release, {name}", device.chunk_ratio(shipped), 1.15)
        verdict(f"bytes on the line / bytes of the release, {name}", line.traffic.down / size_of(shipped), 1.15)
        device.cut_power()
    core.link.stop()


def quiet(site: Site, seconds: float) -> None:
    """A whole agent with nothing to fetch: what a refresh costs, and what a day would."""
    core = WiredCore().connect(site.core_at(site.ground.broker.port))
    shipped = core.ship_large(1, 1_000_000)
    with FaultProxy(site.ground.broker.port) as line:
        at = At("127.0.0.1", line.port, DEVICE, site.tls(DEVICE))
        device = Wired(core, site.new_folder("whole"), new_identity(core.root), at=at).boot()
        core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        for kind, n, _ in device.house.outbox.pending():  # as a core does that has committed them: they are not resent
            core.link.publish(Publish(topics.ack(TENANT, DEVICE, kind), codec.encode(Ack(EPOCH, n))))
        rest(device, 2.0, ask=None)

        before = line.traffic.up + line.traffic.down
        core.now = NOW + 60.0
        core.renew()
        core.publish_trust()
        rest(device, 2.0, ask=None)
        spent = line.traffic.up + line.traffic.down - before
        verdict("refresh, nothing changed but the timestamp: bytes, both ways", spent, 1024, unit="B")

        told_hourly = hourly(device, line, core, site)
        pings, _ = idle(device, line, seconds, None)
        spent, reports = idle(device, line, min(seconds, 20.0), 0)
        ways = zip(("up", "down"), pings, spent, told_hourly, (1.0, 0.3), strict=True)
        for way, quiet_rate, busy_rate, hour, bound in ways:
            told = (busy_rate - quiet_rate) * min(seconds, 20.0) / max(reports, 1)
            pinged = f"{quiet_rate * DAY / 1024:.1f} KiB of pings a day"
            print(f"  {way}: {pinged}, {told:.0f} bytes a report, {hour} a record of an hour", flush=True)
            day = (quiet_rate * DAY + REPORTS * told + HOURS * hour) / 1e6
            what = f"keepalive over {seconds:.0f} s, TLS, {REPORTS} reports, {HOURS} hourly records and answers"
            verdict(f"idle, MB a day {way}: {what}", day, bound, unit="MB")
        before = line.traffic.up + line.traffic.down
        line.cut()
        device.until(lambda: device.sessions > 1, "the next session")
        rest(device, 2.0, ask=None)
        again = line.traffic.up + line.traffic.down - before
        print(f"  a lost session and the next: {again} bytes, TLS and state")
        FOUND.figures.append(f"| a lost session and the next, TLS and state | {again} bytes | | |")
        device.cut_power()
    core.link.stop()


def hourly(device: Wired, line: FaultProxy, core: WiredCore, site: Site) -> tuple[int, int]:
    """Bytes on the socket, up and down, of the record of one hour in which a model of six channels was asked, the
    counters of its drift window included, and of the core's answer to it."""
    accounts = Accounts(device, site.new_folder("drift"))
    manifest = graphs.manifest(1)
    assert manifest.window is not None
    window = msgspec.structs.replace(manifest.window, channels=CHANNELS)
    accounts.telemetry.watch(msgspec.structs.replace(manifest, model=MODEL, drift=DRIFT, window=window))
    rows = np.random.default_rng(1).normal(0, 1, (DRIFT.window * 60, len(CHANNELS)))
    accounts.telemetry.observe(MODEL, 0.0, rows)
    accounts.answer(1)
    accounts.go_on(EVERY)
    (record,) = accounts.waiting()
    assert record.sketch is not None
    up, down = line.traffic.up, line.traffic.down
    rest(device, 1.0, ask=None)
    last = device.house.outbox.last(METRICS)
    core.link.publish(Publish(topics.ack(TENANT, DEVICE, METRICS), codec.encode(Ack(EPOCH, last))))
    device.until(lambda: not accounts.waiting(), "the answer")
    return line.traffic.up - up, line.traffic.down - down


def idle(device: Wired, line: FaultProxy, seconds: float, ask: int | None) -> tuple[tuple[float, float], int]:
    """Bytes a second on the socket, up and down, while the device has nothing to do but to answer; and reports sent."""
    up, down, begun = line.traffic.up, line.traffic.down, perf_counter()
    reports = device.house.journal.counter("reported_seq")
    rest(device, seconds, ask)
    took = perf_counter() - begun
    spent = ((line.traffic.up - up) / took, (line.traffic.down - down) / took)
    return spent, device.house.journal.counter("reported_seq") - reports


def rest(device: Wired, seconds: float, ask: int | None) -> None:
    over = perf_counter() + seconds
    device.until(lambda: perf_counter() > over, "time to pass", ask=ask, patience=seconds + 60.0)


def tables(runs: int) -> list[str]:
    """What was found."""
    return [
        f"Medians of {runs} runs, one of {MANY} agents. Each agent is a process. `falaj` is a whole agent, "
        "from the signed order until what came is flushed,\nopened and handed to the proof; `line` is without order "
        "and trust files; the plain ways only hash, write and flush.\nThe script says what each way does.", "",
        "| seconds until the last agent is done | falaj | line | a: plain retained chunks | a': flushed once "
        "| b: asked for one by one | c: HTTPS | target: falaj / a <= 1.5, far: b / falaj >= 5 | CPU falaj / a |",
        "|---|---|---|---|---|---|---|---|---|", *FOUND.times, "",
        "| figure | measured | target | |", "|---|---|---|---|", *FOUND.figures,
    ]  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=numbers, default=[5, 20], help="MB, with commas")
    parser.add_argument("--agents", type=numbers, default=[1, 10, 40], help="with commas")
    parser.add_argument("--runs", type=int, default=3, help="medians are over so many; of 40 agents it is one")
    parser.add_argument(
        "--idle", type=float, default=65.0, help="seconds without anything to do; a ping comes every 60"
    )
    parser.add_argument("--only", default="near,far,cut,quiet", help="parts, with commas")
    parser.add_argument("--quick", action="store_true", help="5 MB, 1 and 10 agents, one run, a short idle time")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.sizes, chosen.agents, chosen.runs, chosen.idle = [5], [1, 10], 1, 10.0
    with tempfile.TemporaryDirectory() as place:
        site = Site(open_ground(Path(place) / "ground"), Path(place))
        try:
            if "near" in chosen.only:
                compare(site, chosen.sizes, chosen.agents, chosen.runs, CLEAR)
            if "far" in chosen.only:
                compare(site, chosen.sizes, chosen.agents[:1], chosen.runs, FAR)
            if "cut" in chosen.only:
                for size in chosen.sizes:
                    cut_often(site, size * 1_000_000)
            if "quiet" in chosen.only:
                quiet(site, chosen.idle)
            tell(TITLE, "delivery.py", tables(chosen.runs), chosen)
        finally:
            site.ground.broker.stop()


if __name__ == "__main__":
    main()
