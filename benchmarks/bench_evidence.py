"""Measures what sync/evidence.py and sync/detector.py promise: false rollbacks and false alarms, and what they find.

    python benchmarks/bench_evidence.py [pairs] [made-up] [watch]

`pairs`: a healthy and a harmful candidate whose disagreements come in bursts, judged row by row and by blocks.
`made-up`: false alarms and delays of the drift detector on made-up streams. `watch`: the same on real smartwatches,
if ../shared/data/watch_har (or the folder in FALAJ_WATCH) is there. Without arguments all three: about 8 minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from sync.detector import Status, watch
from sync.evidence import ALPHA_HARM, BlockCounter, Blocks, Counters, Decision, block_length, decide, pool
from sync.manifest import Drift
from sync.sketch import Stream

Array = npt.NDArray[np.float64]
RUNS = 20
LIVE = 1200  # windows watched
W = 50
WATCH = Path(os.environ.get("FALAJ_WATCH", Path(__file__).parents[2] / "shared" / "data" / "watch_har"))


def bursts(rng: np.random.Generator, rows: int, length: int, share: float, harm: float) -> npt.NDArray[np.int8]:
    """D of one device: disagreements of `share` of the rows in bursts of one sign, `harm` net."""
    found = np.zeros(rows, np.int8)
    at = 0
    while at < rows:
        at += int(rng.geometric(1 / max(length * (1 - share) / share, 1.0)))
        end = at + (int(rng.geometric(1 / length)) if length > 1 else 1)
        found[at:end] = 1 if rng.random() < 0.5 * (1 + harm / share) else -1
        at = end
    return found


def share_of(decision: Decision, runs: int, trial: Callable[[np.random.Generator], list[Decision]]) -> float:
    return sum(decision in trial(np.random.default_rng([7, run])) for run in range(runs)) / runs


def pairs(runs: int = 400) -> None:
    """2 devices x 9,600 rows, 3 % disagreement, a look every 200 rows; harm at margin 0, safe at margin 10 %."""
    print(f"pairs: {runs} runs, 2 devices x 9,600 rows, 3 % disagreement, a look every 200 rows")
    print(f"rolled back = HARM at margin 0 and alpha {ALPHA_HARM} at any look; safe = SAFE at margin 10 % at the end")
    for burst in (1, 5, 20):
        for length in sorted({1, block_length(burst), 200}):

            def trial(
                rng: np.random.Generator, harm: float, burst: int = burst, length: int = length
            ) -> list[Decision]:
                devices = [bursts(rng, 9600, burst, 0.03, harm) for _ in range(2)]
                counters = [BlockCounter(Blocks(length)) for _ in devices]
                looks: list[Decision] = []
                kept = Counters()
                for at in range(0, 9600, 200):
                    kept = pool(c.push("", d[at : at + 200]) for c, d in zip(counters, devices, strict=True))
                    looks.append(decide(kept, 0.0))
                looks = [one for one in looks if one is Decision.HARM]
                return [*looks, *([Decision.SAFE] if decide(kept, 0.1) is Decision.SAFE else [])]

            figures = [share_of(Decision.HARM, runs, lambda rng, h=harm: trial(rng, h)) for harm in (0, 0.01, 0.02)]
            safe = share_of(Decision.SAFE, runs, lambda rng: trial(rng, 0.0))
            print(
                f"  bursts of {burst:2}, blocks of {length:3}: rolled back if equal {figures[0]:6.1%}, 1 point worse "
                f"{figures[1]:6.1%}, 2 points worse {figures[2]:6.1%}; equal one safe {safe:6.1%}",
                flush=True,
            )


def first_alarm(base: Array, live: Array, rule: Drift, names: tuple[str, ...]) -> tuple[int | None, int | None, int]:
    """Windows until the first notice and the first alarm (None: none), and b."""
    detector = watch(tuple(Stream(name) for name in names), rule)
    detector.push(base)
    verdicts = detector.push(live)
    found = [
        next((i + 1 for i, v in enumerate(verdicts) if v.status in kinds), None)
        for kinds in ((Status.NOTICE, Status.ALARM), (Status.ALARM,))
    ]
    return found[0], found[1], detector.turns or 0


def report(what: str, results: list[tuple[int | None, int | None, int]]) -> None:
    alarms = sorted(alarm for _, alarm, _ in results if alarm is not None)
    notices = sum(notice is not None for notice, _, _ in results)
    delay = f", after {alarms[len(alarms) // 2]} windows (median), {alarms[-1]} at most" if alarms else ""
    turns = sorted({b for _, _, b in results})
    print(
        f"  {what}: b {turns}, statistic over A in {notices}, alarm in {len(alarms)} of {len(results)}{delay}",
        flush=True,
    )


def autoregressive(rng: np.random.Generator, windows: int, memory: float) -> Array:
    """6 streams whose *windows* resemble each other: a level that wanders (AR(1)) under white rows; total sd 1."""
    level = np.zeros((windows, 6))
    level[0] = rng.normal(size=6)
    for t in range(1, windows):
        level[t] = memory * level[t - 1] + np.sqrt(1 - memory**2) * rng.normal(size=6)
    share = 0.5 if memory else 0.0
    return np.sqrt(share) * np.repeat(level, W, axis=0) + np.sqrt(1 - share) * rng.normal(size=(windows * W, 6))


def made_up() -> None:
    print(f"made-up streams: {RUNS} runs, 6 streams, windows of {W}, {LIVE} windows watched, A = 10,000")
    names = tuple("abcdef")
    for memory in (0.0, 0.7, 0.9):
        for baseline in (240, 480, 1920):
            for turns in (1, None):
                quiet, shifted = [], []
                for run in range(RUNS):
                    rows = autoregressive(np.random.default_rng([11, run]), baseline + LIVE, memory)
                    base, live = rows[: baseline * W], rows[baseline * W :]
                    rule = Drift(baseline=baseline, turns=turns)
                    quiet.append(first_alarm(base, live, rule, names))
                    shifted.append(first_alarm(base, live + np.array([1.0, 1.0, 0, 0, 0, 0]), rule, names))
                label = f"memory {memory}, baseline {baseline:4}"
                report(f"{label}, unchanged", quiet)
                report(f"{label}, 2 of 6 moved by 1 sd", shifted)


def recordings() -> dict[tuple[int, int], list[Array]]:
    """(subject, right wrist) to its recordings, rows of 6 channels."""
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(WATCH / "watch_samples.parquet").to_pydict()
    rows = np.column_stack([table[name] for name in ("ax", "ay", "az", "wx", "wy", "wz")])
    of = np.array(table["recording"])
    index = pyarrow.csv.read_csv(WATCH / "recordings.csv").to_pylist()
    found: dict[tuple[int, int], list[Array]] = {}
    for entry in index:
        key = (int(entry["subject"]), int(entry["right_side"]))
        found.setdefault(key, []).append(rows[of == entry["recording"]])
    return found


def stretches(rng: np.random.Generator, pool_: list[Array], windows: int, stretch: int) -> Array:
    """Block bootstrap: stretches of `stretch` windows from anywhere in the recordings, until there are enough."""
    parts: list[Array] = []
    while sum(map(len, parts)) < windows * W:
        one = pool_[int(rng.integers(len(pool_)))]
        size = min(stretch * W, len(one))
        start = int(rng.integers(len(one) - size + 1))
        parts.append(one[start : start + size])
    return np.concatenate(parts)[: windows * W]


def watches() -> None:
    if not (WATCH / "watch_samples.parquet").exists():
        print(f"watches: skipped, no recordings in {WATCH} (set FALAJ_WATCH)")
        return
    found = recordings()
    names = ("ax", "ay", "az", "wx", "wy", "wz")
    print(f"watches: 6 subjects x {RUNS // 2} runs, stretches of 12 windows of {W}, {LIVE} windows watched, A = 10,000")
    for baseline in (240, 480, 960, 1920):
        for turns in (1, 8, 16, None):
            quiet, moved = [], []
            for run in range(RUNS // 2):
                for subject in range(1, 7):
                    rng = np.random.default_rng([13, run, subject])
                    base = stretches(rng, found[subject, 1], baseline, 12)
                    rule = Drift(baseline=baseline, turns=turns)
                    quiet.append(first_alarm(base, stretches(rng, found[subject, 1], LIVE, 12), rule, names))
                    moved.append(first_alarm(base, stretches(rng, found[subject, 0], LIVE // 4, 12), rule, names))
            label = f"baseline {baseline:4}, turns {turns or 'chosen'}"
            report(f"{label}, right wrist stays", quiet)
            report(f"{label}, moved to the left wrist", moved)


def main(chosen: list[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"pairs": pairs, "made-up": made_up, "watch": watches}
    for name in chosen or list(parts):
        begun = perf_counter()
        parts[name]()
        print(f"  ({perf_counter() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
