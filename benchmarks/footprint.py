"""What the agent takes of a small box: memory beside its own libraries, disk, time to the first prediction, a soak.

    .venv/bin/python benchmarks/footprint.py [--minutes 20] [--install] [--write]

The agent is `falaj edge run` in a process of its own, with one committed release, its uplink (TLS) up, its local broker
beside it and everything on that it has in the field. Memory is its resident set; beside it that of a process that only
imports onnxruntime, numpy, paho, cryptography, tuf and sqlite3 and holds a session. The first prediction counts from
the start of the process. In the soak a new release comes every ten seconds, by the uplink, the proving child and a
trial, while it is asked without a pause: memory and open files must stay flat. `--install` puts `falaj[edge]` into a
fresh environment and weighs it (needs a package index, and a few minutes more). Needs the development set-up and
Mosquitto, and a minute beside the soak.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.ground import Ground, answer, ground, program, start
from benchmarks.results import options, tell
from benchmarks.rivals import graphs
from tests.edge.world import MODEL

ROOT = Path(__file__).parents[1]
TITLE = "## Footprint of the agent"
RELEASE_S, LOOK_S = 10.0, 5.0
SIZE = 100_000  # bytes of a release
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


def committed(found: Ground, number: int) -> None:
    """Asks until this release is committed: it answers, and nothing is on trial."""
    ends = time.monotonic() + 60
    while answer(found.box.http_port) != number or found.box.status()["models"][MODEL]["phase"] != "steady":
        if time.monotonic() > ends:
            raise SystemExit(f"release {number} was not committed:\n{found.box.said()}")


def at_rest(folder: Path, runs: int) -> list[str]:
    """Memory and time to the first prediction, medians of fresh processes."""
    ours, alone, first = [], [], []
    with ground(folder, broker=True) as found, found.box.ended():
        found.release(1, SIZE, soak_answers=5)
        start(found.box, program(found.box))
        committed(found, 1)
        for _ in range(runs):
            found.box.end()
            _, seconds = start(found.box, program(found.box))
            for _ in range(200):
                answer(found.box.http_port)
            assert found.box.process is not None
            ours.append(resident(found.box.process.pid))
            first.append(seconds)
            alone.append(bare(folder))
        found.box.end()  # as a service manager ends it: its broker goes with it
    mine, theirs = statistics.median(ours), statistics.median(alone)
    return [
        f"- memory: {mine:.1f} MiB (target 100), its libraries with a session {theirs:.1f} MiB:"
        f" {mine / theirs:.2f} times (target 1.25)",
        f"- start to the first prediction: {statistics.median(first):.2f} s (target 1.5)",
    ]


def soak(folder: Path, minutes: float) -> list[str]:
    """Memory and open files while it is asked and updated; the first fifth is left out as warming up."""
    seen: list[tuple[float, int]] = []
    with ground(folder, broker=True) as found, found.box.ended():
        number, asked, began = 1, 0, time.monotonic()
        found.release(number, SIZE, soak_answers=5)
        start(found.box, program(found.box))
        assert found.box.process is not None
        pid, looked = found.box.process.pid, began
        while (now := time.monotonic()) - began < 60 * minutes:
            if answer(found.box.http_port) is None:
                raise SystemExit(f"an answer failed during the soak:\n{found.box.said()}")
            asked += 1
            if now - began >= number * RELEASE_S:
                number += 1
                found.release(number, SIZE, soak_answers=5)
            if now - looked >= min(LOOK_S, 6 * minutes):
                looked = now
                seen.append((resident(pid), descriptors(pid)))
        committed(found, number)
        found.box.end()
    steady = seen[len(seen) // 5 :]
    half = len(steady) // 2
    before, after = (statistics.median(mb for mb, _ in part) for part in (steady[:half], steady[half:]))
    files = sorted(count for _, count in steady)
    return [
        f"- soak of {minutes:g} min, {number} releases, one every {RELEASE_S:g} s, {asked:,} questions, all answered:"
        f" memory {before:.1f} MiB in its first half, {after:.1f} in its second; open files {files[0]} to {files[-1]}"
        f" (median {files[len(files) // 2]})",
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


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak; 0 leaves it out")
    parser.add_argument("--runs", type=int, default=5, help="starts of which memory and time are medians")
    parser.add_argument("--install", action="store_true", help="weigh a fresh installation as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        rest, moving = Path(home) / "rest", Path(home) / "moving"
        rest.mkdir()
        moving.mkdir()
        (rest / "cnn.onnx").write_bytes(graphs.cnn())
        lines = at_rest(rest, args.runs)
        lines += soak(moving, args.minutes) if args.minutes else []
    lines += installed() if args.install else []
    tell(TITLE, "footprint.py", lines, args)


if __name__ == "__main__":
    main()
