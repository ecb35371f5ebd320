"""The demo, timed: the median seconds of each step, and the figures of the last run.

    .venv/bin/python benchmarks/bench_demo.py [3] [--write]

Each run is `falaj demo` in a fresh folder, and takes two to three minutes. Needs `make demo` once before, for what it
trains on. Ends 1 if a run failed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.results import options, tell

FALAJ = Path(__file__).parents[1] / ".venv" / "bin" / "falaj"
TITLE = "## The demo, timed"


def play() -> list[dict[str, Any]]:
    """One run; its steps as `falaj demo --json` prints them."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [str(FALAJ), "demo", "--json", "--dir", home], capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(1)
    steps: list[dict[str, Any]] = json.loads(done.stdout)
    return steps


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=3, help="medians are over so many (%(default)s)")
    given = parser.parse_args()
    runs = [play() for _ in range(given.runs)]
    rows = []
    for steps in zip(*runs, strict=True):
        seconds = statistics.median(step["seconds"] for step in steps)
        rows.append(f"| {steps[-1]['step']} | {seconds:.1f} | {steps[-1]['figure']} |")
    for act in dict.fromkeys(step["act"] for step in runs[0]):
        total = statistics.median(sum(step["seconds"] for step in run if step["act"] == act) for run in runs)
        rows.append(f"| **{act}** | **{total:.1f}** | |")
    head = ["| step | seconds | figure of the last run |", "|---|---:|---|"]
    tell(TITLE, "bench_demo.py", [f"Medians of {given.runs} runs.", "", *head, *rows], given)


if __name__ == "__main__":
    main()
