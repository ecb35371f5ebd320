"""The demo, timed: `python benchmarks/bench_demo.py [runs]` (needs `make demo` once before).

Prints each step's seconds (median over the runs) and the figures of the last run. Ends 1 if a run failed.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FALAJ = Path(__file__).parents[1] / ".venv" / "bin" / "falaj"


def play() -> list[dict[str, object]]:
    """One run; its steps as `falaj demo --json` prints them."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(FALAJ), "demo", "--json", "--dir", home], capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(done.stderr[-2000:])
        sys.exit(1)
    steps: list[dict[str, object]] = json.loads(done.stdout)
    return steps


def main() -> None:
    runs = [play() for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]
    print(
        f"machine: {platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
    print(f"{'step':<58} {'seconds (median)':>16}")
    for number, step in enumerate(runs[0]):
        seconds = statistics.median(float(str(run[number]["seconds"])) for run in runs)
        print(f"{step['step']!s:<58} {seconds:>16.2f}")
    for act in dict.fromkeys(str(step["act"]) for step in runs[0]):
        total = statistics.median(sum(float(str(s["seconds"])) for s in run if s["act"] == act) for run in runs)
        print(f"{act:<58} {total:>16.2f}")
    for step in runs[-1]:
        print(f"  {step['step']}: {step['figure']}")


if __name__ == "__main__":
    main()
