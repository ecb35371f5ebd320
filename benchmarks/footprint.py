"""What the agent takes of a small box: memory beside its own libraries, disk, time to the first prediction, a soak.

    .venv/bin/python benchmarks/footprint.py [--minutes 20] [--install] [--write]

Memory is the resident set of a fresh process that serves the demo's CNN over HTTP with everything on (metrics,
telemetry, ring, pairs), bindings on a local broker, `edge.trust` loaded and a journal and an outbox open; beside it one
that only imports onnxruntime, numpy, paho, cryptography, tuf and sqlite3 and holds the same session. The first
prediction counts from the start of the process. The soak asks without a pause while the releases are switched every ten
seconds (each time a new session): memory and open files must stay flat. `--install` puts `falaj[edge]` into a fresh
environment and weighs it (needs a package index).
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from appliance.broker import Broker, local_config, write_passwords
from benchmarks import serving as bench
from benchmarks.rivals import graphs

ROOT = Path(__file__).parents[1]
TITLE = "## Footprint of the agent"
SWAP_S, LOOK_S = 10.0, 5.0
BARE = """
import sys, sqlite3, numpy as np, onnxruntime as ort, paho.mqtt.client, tuf.ngclient, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(["y"], {"x": np.zeros((1, 100, 6), np.float32)})
print("ready", flush=True)
time.sleep(60)
"""


@contextmanager
def agent(folder: Path, swap_s: float = 1e6) -> Iterator[tuple[int, int, float]]:
    """The agent's process on the folder's graphs: its id, its HTTP port, seconds to its first prediction."""
    http_port, mqtt_port = bench.free_port(), bench.free_port()
    broker = Broker(folder / "broker", "127.0.0.1", mqtt_port, "a free port")
    broker.start(local_config(folder / "broker", mqtt_port))
    command = [sys.executable, "-m", "benchmarks.rivals.swapped", str(folder), str(http_port), str(mqtt_port)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    process = subprocess.Popen([*command, str(swap_s)], env=env, stdout=subprocess.DEVNULL)
    try:
        request = bench.question(bench.OURS, "cnn")
        while bench.answer(http_port, request) is None:
            if process.poll() is not None or time.monotonic() - began > 60:
                raise SystemExit("the agent did not start")
            time.sleep(0.01)
        yield process.pid, http_port, time.monotonic() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        broker.stop()


def resident(pid: int) -> float:
    """MiB of the resident set."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss:"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def bare(folder: Path) -> float:
    """MiB of the libraries and the session alone."""
    command = [sys.executable, "-c", BARE, str(folder / "cnn.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = resident(process.pid)
        process.kill()
    return found


def at_rest(folder: Path, runs: int) -> list[str]:
    """Memory and time to the first prediction, medians of fresh processes."""
    ours, alone, first = [], [], []
    for _ in range(runs):
        with agent(folder) as (pid, port, seconds):
            for _ in range(200):
                bench.answer(port, bench.question(bench.OURS, "cnn"))
            ours.append(resident(pid))
            first.append(seconds)
        alone.append(bare(folder))
    mine, theirs = statistics.median(ours), statistics.median(alone)
    return [
        f"- memory: {mine:.1f} MiB (target 100), its libraries with the same session {theirs:.1f} MiB:"
        f" {mine / theirs:.2f} times (target 1.25)",
        f"- start to the first prediction: {statistics.median(first):.2f} s (target 1.5)",
    ]


def soak(folder: Path, minutes: float) -> list[str]:
    """Memory and open files while it is asked and switched; the first fifth is left out as warming up."""
    seen: list[tuple[float, int]] = []
    with agent(folder, SWAP_S) as (pid, port, _):
        request, ends = bench.question(bench.OURS, "cnn"), time.monotonic() + 60 * minutes
        while time.monotonic() < ends:
            look = time.monotonic() + min(LOOK_S, 6 * minutes)
            while time.monotonic() < look:
                if bench.answer(port, request) is None:
                    raise SystemExit("an answer failed during the soak")
            seen.append((resident(pid), descriptors(pid)))
    steady = seen[len(seen) // 5 :]
    half = len(steady) // 2
    before, after = (statistics.median(mb for mb, _ in part) for part in (steady[:half], steady[half:]))
    files = sorted({count for _, count in steady})
    return [
        f"- soak of {minutes:g} min, a switch to a new session every {SWAP_S:g} s: memory {before:.1f} MiB in its first"
        f" half, {after:.1f} in its second; open files {files[0]} to {files[-1]}",
    ]


def installed() -> list[str]:
    """Megabytes of a fresh environment with `falaj[edge]`, without pip itself."""
    with tempfile.TemporaryDirectory() as home:
        place = Path(home)
        venv.create(place, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, f"{ROOT}[edge]"], check=True)
        packages = next(place.glob("lib/python*/site-packages"))
        sizes = {
            path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
            for path in packages.iterdir()
        }
    total = sum(size for name, size in sizes.items() if not name.startswith("pip")) / 1e6
    most = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in sorted(sizes, key=lambda n: -sizes[n])[:6])
    return [f"- `pip install falaj[edge]`: {total:.0f} MB without pip (target 240): {most}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak; 0 leaves it out")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--install", action="store_true", help="weigh a fresh installation as well")
    parser.add_argument("--machine", default="2-core VM", help="as RESULTS.md calls it")
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    args = parser.parse_args()
    title = f"{TITLE} (`python benchmarks/footprint.py`), {datetime.now(UTC):%Y-%m-%d}, {args.machine}"
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        for name, graph in (("mlp", graphs.mlp()), ("cnn", graphs.cnn())):
            (folder / f"{name}.onnx").write_bytes(graph)
        write_passwords(folder / "broker", ("falaj", "app"))
        lines = at_rest(folder, args.runs)
        lines += soak(folder, args.minutes) if args.minutes else []
    lines += installed() if args.install else []
    section = "\n".join([title, "", *lines, ""])
    print(section)
    if args.write:
        bench.write(section, TITLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
