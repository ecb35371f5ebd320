"""One prediction a request, over HTTP: the agent's door, a bare uvicorn application, LitServe and MLServer.

    python3 -m venv /tmp/bench-venv
    /tmp/bench-venv/bin/pip install mlserver litserve uvicorn onnxruntime orjson
    .venv/bin/python benchmarks/serving.py --rivals /tmp/bench-venv/bin/python [--write]

Each server has core 0 to itself, the client (wrk: `apt-get install wrk`) core 1; the same client, body and graphs for
all; keep-alive, one request under way a connection. Every answer must be 200, and one of each is compared with the
graph's own before.
Rounds go over all servers in turn, so that a disturbance meets all alike; the table shows medians over rounds.
Before it is measured each server is asked for five seconds: an agent's first 48,000 answers are the baseline of its
drift detectors, and at half and whole of it one answer waits 20 to 40 ms until they are set up, twice in a release's
life.
The agent has everything on that it has in the field: metrics, drift telemetry, the sealed ring of predictions, and a
candidate in shadow whose pairs are counted. Then it is asked for 64 rows at a time as binary tensors, and over MQTT in
turn with a minimal paho loop around the same ORT call (`--only` does one of these alone); what telemetry costs a
prediction, checkpoints included, is timed in this process. `--quick` only looks whether it runs.
Needs the development set-up, Mosquitto and 2 cores; takes about ten minutes with all servers, three with ours alone.
Ends 1 if a server did not start or answered wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).parents[1]))
from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from appliance.edge.node import TICK
from appliance.edge.rooms import CHECKPOINT
from benchmarks.results import options, tell
from benchmarks.rivals import graphs, ours
from benchmarks.rivals.asker import Asker
from benchmarks.rivals.client import Load, NoClient, load_test
from edge.recording import ROWS as ROWS_WATCHED

HERE = Path(__file__).parent
TITLE = "## Serving over HTTP"
CONNECTIONS = (1, 16, 64)
SHAPES = {"mlp": (1, graphs.WIDTHS[0]), "cnn": (1, *graphs.WINDOW)}
TITLES = {"mlp": "MLP 32-64-64-6", "cnn": "the demo's 1D-CNN, 100 x 6"}
OURS, ASGI, LIT, MLSERVER = "Falaj's agent", "bare uvicorn + ORT", "LitServe", "MLServer"
GLUE = "asyncio + httptools + ORT, no more"  # what no server in Python goes beyond
LOOP = "a paho loop"
PATIENCE_S = 60.0
WARM = 16, 5.0  # connections and seconds, before a server is measured
ROWS, IN_BATCHES = 64, (4, 16)  # rows of a batched request, and connections that send such


class Failed(Exception):
    """A server that cannot be measured honestly."""


# --- servers ----------------------------------------------------------------------------------------------------


def commands(rivals: Path | None, folder: Path, port: int) -> dict[str, list[str]]:
    """The servers' commands by name."""
    place = [str(folder), str(port)]
    module = [sys.executable, "-m"]
    found = {OURS: [*module, "benchmarks.rivals.ours", *place], GLUE: [*module, "benchmarks.rivals.glue", *place]}
    if rivals is not None:
        found[ASGI] = [str(rivals), str(HERE / "rivals" / "asgi.py"), *place]
        found[LIT] = [str(rivals), str(HERE / "rivals" / "lit.py"), *place]
        found[MLSERVER] = [str(rivals.parent / "mlserver"), "start", str(folder)]
    return found


def prepare_mlserver(folder: Path, port: int) -> None:
    grpc, metrics = free_ports(2)
    ports = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(
        json.dumps({"debug": False, "parallel_workers": 0, "host": "127.0.0.1", **ports})
    )
    for name in SHAPES:
        settings = {
            "name": name,
            "implementation": "mlserver_model.Onnx",
            "parameters": {"uri": str(folder / f"{name}.onnx")},
        }
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model-settings.json").write_text(json.dumps(settings))


@contextmanager
def running(name: str, command: list[str], ready: Callable[[], bool]) -> Iterator[None]:
    """A server on core 0, from when it is ready: its first good answer."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE / 'rivals'}"}
    pinned = ["taskset", "-c", "0", *command]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(pinned, env=env, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            began = time.monotonic()
            while not ready():
                if process.poll() is not None or time.monotonic() - began > PATIENCE_S:
                    log.seek(0)
                    raise Failed(f"{name} does not answer: {log.read()[-1500:].decode(errors='replace')}")
                time.sleep(0.1)
            yield
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and all that it started: a child that outlives it (LitServe's does) takes the next one's core."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def answer(port: int, request: bytes) -> list[float] | None:
    """The numbers a server answers with; None while there is no good answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(request.replace(b"keep-alive", b"close"))
            received = b""
            while piece := peer.recv(65536):
                received += piece
    except OSError:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return None
    numbers: list[float] = np.ravel(json.loads(body)["outputs"][0]["data"]).tolist()
    return numbers


def answers(port: int, request: bytes) -> bool:
    return answer(port, request) is not None


# --- measuring --------------------------------------------------------------------------------------------------


def question(name: str, model: str) -> bytes:
    """The request of a model as a server wants it; the same numbers for all."""
    rows = np.random.default_rng(3).normal(size=SHAPES[model]).round(4)
    tensor = {"name": "x", "datatype": "FP32", "shape": rows.shape, "data": rows.ravel().tolist()}
    path = "/predict" if name == LIT else f"/v2/models/{model}/infer"
    body = json.dumps({"inputs": [tensor], **({"model": model} if name == LIT else {})}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def single() -> ort.SessionOptions:
    """One thread, as every server has."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def in_process(folder: Path, model: str, calls: int = 4000) -> tuple[list[float], float]:
    """The graph's own answer, and how many a second it gives with nothing around it (on this client's core)."""
    session = ort.InferenceSession(str(folder / f"{model}.onnx"), single(), providers=["CPUExecutionProvider"])
    tensor = json.loads(question(OURS, model).partition(b"\r\n\r\n")[2])["inputs"][0]
    x = {"x": np.array(tensor["data"], np.float32).reshape(tensor["shape"])}
    truth: list[float] = session.run(["y"], x)[0].ravel().tolist()
    return truth, runs(folder, model, x["x"], calls, 60.0)


def runs(folder: Path, model: str, x: np.ndarray, calls: int, seconds: float) -> float:
    """Calls a second of a graph alone, over so many calls or seconds, whichever is over first."""
    session = ort.InferenceSession(str(folder / f"{model}.onnx"), single(), providers=["CPUExecutionProvider"])
    done, began = 0, time.perf_counter()
    while done < calls and time.perf_counter() - began < seconds:
        session.run(["y"], {"x": x})
        done += 1
    return done / (time.perf_counter() - began)


Row = tuple[str, str, int]  # server, model, connections


def measure(args: argparse.Namespace, folder: Path) -> tuple[dict[Row, list[Load]], dict[str, list[float]]]:
    """Loads by row, one a round; and calls a second of the bare graphs."""
    loads: dict[Row, list[Load]] = {}
    bare: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        truth = {}
        for model in SHAPES:
            truth[model], rate = in_process(folder, model)
            bare.setdefault(model, []).append(rate)
        (port,) = free_ports(1)
        prepare_mlserver(folder, port)
        for name, command in commands(args.rivals, folder, port).items():
            with running(name, command, partial(answers, port, question(name, "mlp"))):
                for model in SHAPES:
                    request = question(name, model)
                    if not np.allclose(answer(port, request) or [], truth[model], atol=1e-5):
                        raise Failed(f"{name} answers {model} wrongly")
                    load_test(port, request, *WARM)
                    for connections in args.connections:
                        load = load_test(port, request, connections, args.seconds)
                        if load.wrong or not load.answers:
                            raise Failed(f"{name}, {model}, {connections} connections: {load.wrong} wrong answers")
                        loads.setdefault((name, model, connections), []).append(load)
                        print(f"  {name}, {model}, {connections}: {load.rate:,.0f}/s", flush=True)
    return loads, bare


def batch(model: str) -> tuple[bytes, np.ndarray]:
    """A request with `ROWS` rows, binary both ways, and the rows."""
    shape = (ROWS, *SHAPES[model][1:])
    rows = np.random.default_rng(5).normal(size=shape).astype("<f4")
    wish = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": rows.nbytes}}
    text = json.dumps({"inputs": [wish], "parameters": {"binary_data_output": True}}).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text) + rows.nbytes}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(text)}\r\n\r\n".encode() + text + rows.tobytes(), rows


def batched(args: argparse.Namespace, folder: Path) -> list[str]:
    """Rows a second in batched requests, to the agent and to the least that Python can do, beside the graph's own."""
    rates: dict[tuple[str, int], dict[str, list[float]]] = {}
    (port,) = free_ports(1)
    for _, name in product(range(args.rounds), (OURS, GLUE)):
        with running(name, commands(None, folder, port)[name], partial(answers, port, question(name, "mlp"))):
            for model, connections in product(SHAPES, IN_BATCHES):
                load = load_test(port, batch(model)[0], connections, args.seconds)
                if load.wrong or not load.answers:
                    raise Failed(f"batched requests: {load.wrong} wrong answers")
                of = rates.setdefault((model, connections), {})
                of.setdefault(name, []).append(ROWS * load.rate)
                of.setdefault("", []).append(ROWS * runs(folder, model, batch(model)[1], 2000, args.seconds))
    lines = [f"Batched: {ROWS} rows a request, binary tensors; ratio to ORT alone (target 0.5):", ""]
    for (model, connections), found in rates.items():
        served, least, alone = (statistics.median(found[name]) for name in (OURS, GLUE, ""))
        lines.append(
            f"- {TITLES[model]}, {connections} connections: {served:,.0f} rows/s, alone {alone:,.0f}, "
            f"ratio {served / alone:.2f}; {GLUE}: {least / alone:.2f}"
        )
    return [*lines, ""]


@contextmanager
def broker() -> Iterator[tuple[str, str, str]]:
    """A device's own Mosquitto, on the client's core: port, user and password file."""
    with tempfile.TemporaryDirectory() as home:
        folder, (port,) = Path(home) / "broker", free_ports(1)
        write_passwords(folder, ("falaj", "app"))
        found = Broker(folder, "127.0.0.1", port, "a free port")
        found.start(local_config(folder, port))
        try:
            yield str(port), "falaj", str(folder / "falaj.password")
        finally:
            found.stop()


def mqtt(args: argparse.Namespace, folder: Path) -> list[str]:
    """Questions a second over MQTT, the agent and a minimal paho loop in turn; a line for each model and load."""
    rates: dict[tuple[str, int], dict[str, list[Load]]] = {}
    module = [sys.executable, "-m"]
    with broker() as place, Asker(int(place[0]), "app", Path(place[2]).with_name("app.password")) as asker:
        loops = {
            OURS: [*module, "benchmarks.rivals.ours", str(folder), str(free_ports(1)[0]), *place],
            LOOP: [*module, "benchmarks.rivals.paho_loop", str(folder), *place],
        }
        bodies = {model: question(OURS, model).partition(b"\r\n\r\n")[2] for model in SHAPES}
        for number, model in product(range(args.rounds), SHAPES):
            for name in (OURS, LOOP) if number % 2 else (LOOP, OURS):
                topic = f"falaj/local/bench/infer/{model}"
                with running(name, loops[name], partial(answers_mqtt, asker, topic, bodies[model])):
                    asker.drain()
                    told = json.loads(asker.ask(topic, bodies[model], 5))["outputs"][0]["data"]
                    if not np.allclose(told, in_process(folder, model, 1)[0], atol=1e-5):
                        raise Failed(f"{name} answers {model} wrongly over MQTT")
                    for under_way in (1, 16):
                        load = asker.load_test(topic, bodies[model], under_way, args.seconds)
                        if load.wrong or not load.answers:
                            raise Failed(f"{name}, {model} over MQTT: {load.wrong} wrong answers")
                        rates.setdefault((model, under_way), {}).setdefault(name, []).append(load)
    lines = [
        "MQTT 5, QoS 0, through Mosquitto; ratio to a minimal paho loop around the same ORT call (target 0.8):",
        "",
    ]
    for (model, under_way), found in rates.items():
        ours, loop = (statistics.median(x.rate for x in found[name]) for name in (OURS, LOOP))
        p99, of = (statistics.median(1000 * x.p99 for x in found[n]) for n in (OURS, LOOP))
        lines.append(
            f"- {TITLES[model]}, {under_way} under way: {ours:,.0f}/s (p99 {p99:.2f} ms), "
            f"loop {loop:,.0f}/s ({of:.2f} ms), ratio {ours / loop:.2f}"
        )
    return [*lines, ""]


def answers_mqtt(asker: Asker, topic: str, body: bytes) -> bool:
    """Whether somebody answers questions on this topic."""
    try:
        return b'"outputs"' in asker.ask(topic, body, 0.3)
    except TimeoutError:
        return False


def telemetry(args: argparse.Namespace, folder: Path, width: int = graphs.WIDTHS[0], count: int = 20_000) -> list[str]:
    """Processor time to watch a prediction of `width` features, at full rate: the best of a few rounds; one line."""
    rows = np.random.default_rng(6).normal(size=(count, 1, width)).astype(np.float32)
    best, every = float("inf"), ROWS_WATCHED * round(CHECKPOINT / TICK)  # rows between two checkpoints at full rate
    with tempfile.TemporaryDirectory() as home:
        watched = ours.watched(Path(home), width)
        watched.observe(ours.WATCHED, 0.0, np.resize(rows[:, 0], (ours.BASELINE, width)))
        for _ in range(5):
            began = time.thread_time()
            for number, row in enumerate(rows):
                watched.observe(ours.WATCHED, 0.0, row)
                if number % every == 0:
                    watched.write_down()
            best = min(best, (time.thread_time() - began) / count)
    return [f"Telemetry: {1e6 * best:.2f} us a prediction of {width} features, one row at a time (target 3).", ""]


PARTS = {"batched": batched, "mqtt": mqtt, "telemetry": telemetry}


def table(model: str, loads: dict[Row, list[Load]], bare: dict[str, list[float]]) -> list[str]:
    """One Markdown table: requests a second and milliseconds, medians over rounds."""
    rates = {row: statistics.median(x.rate for x in found) for row, found in loads.items()}
    rate = statistics.median(bare[model])
    lines = [f"{TITLES[model]}; ORT alone, in process: {rate:,.0f} a second.", ""]
    lines += [
        "| server | connections | requests/s | p50 ms | p99 ms | to uvicorn | to MLServer |",
        "|---|" + "---:|" * 6,
    ]
    for (name, of, connections), found in loads.items():
        if of != model:
            continue
        p50, p99 = (1000 * statistics.median(part) for part in zip(*((x.p50, x.p99) for x in found), strict=True))
        rate = rates[(name, of, connections)]
        others = (rates.get((other, of, connections)) for other in (ASGI, MLSERVER))
        ratios = [f"{rate / other:.2f}" if other else "not measured" for other in others]
        lines.append(f"| {name} | {connections} | {rate:,.0f} | {p50:.2f} | {p99:.2f} | {ratios[0]} | {ratios[1]} |")
    return [*lines, ""]


def versions(rivals: Path | None) -> str:
    ours = f"Python {platform.python_version()}, onnxruntime {ort.__version__}"
    if rivals is None:
        return f"{ours}; no other servers were measured."
    wanted = ("mlserver", "litserve", "uvicorn", "uvloop", "fastapi", "onnxruntime")
    code = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {wanted!r}))"
    told = subprocess.run([str(rivals), "-c", code], capture_output=True, text=True, check=True)
    return f"{ours}; rivals: {told.stdout.strip()}."


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rivals", type=Path, help="Python of an environment with mlserver, litserve, uvicorn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over so many")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--quick", action="store_true", help="one short round with 16 connections")
    parser.add_argument("--only", choices=sorted(PARTS), help="this part alone, printed")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.connections = 1, 0.5, [16]
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        for name, graph in (("mlp", graphs.mlp()), ("cnn", graphs.cnn())):
            (folder / f"{name}.onnx").write_bytes(graph)
        try:
            if args.only:
                print("\n".join(PARTS[args.only](args, folder)))
                return 0
            loads, bare = measure(args, folder)
            beside = [line for part in PARTS.values() for line in part(args, folder)]
        except (Failed, NoClient) as error:
            print(error, file=sys.stderr)
            return 1
    lines = ["One prediction a request, JSON in and out, keep-alive. Server on one core, client (wrk) on the other."]
    lines += [f"Median of {args.rounds} rounds of {args.seconds:g} s each. {versions(args.rivals)}", ""]
    for model in SHAPES:
        lines += table(model, loads, bare)
    tell(TITLE, "serving.py --rivals ...", [*lines, *beside], args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
