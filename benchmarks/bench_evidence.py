"""Measures what sync/evidence.py and sync/detector.py promise: false rollbacks and false alarms, and what they find.

    .venv/bin/python benchmarks/bench_evidence.py [pairs] [made-up] [watch] [long] [demo] [--recordings FOLDER]

`pairs`: a healthy and a harmful candidate whose disagreements come in bursts, judged row by row and by blocks.
`made-up`: false alarms and delays of the drift detector on made-up streams. `watch`: the same on real smartwatches, by
their recordings in FOLDER (watch_samples.parquet, recordings.csv). `long`: how the alarm level and the length of the
baseline keep a watch quiet that nobody moves, over hours; of the same recordings. `demo`: the same on the stretches of
the demo, if it was played here once. Without arguments all that have what they need: about 17 minutes. What they print
stands in docs/adr/0012 and 0013, with the decisions it led to; RESULTS.md points there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
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
STAYS = 650  # windows of the demo's watches before one moves
HOURS = 20_000  # windows watched of those that nobody moves
W = 50
ALARM = 10_000.0  # of the tables by b
LEVELS = (1e4, 1e6, 1e7, 1e8)
NAMES = ("ax", "ay", "az", "wx", "wy", "wz")


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
                    rule = Drift(baseline=baseline, turns=turns, alarm=ALARM)
                    quiet.append(first_alarm(base, live, rule, names))
                    shifted.append(first_alarm(base, live + np.array([1.0, 1.0, 0, 0, 0, 0]), rule, names))
                label = f"memory {memory}, baseline {baseline:4}"
                report(f"{label}, unchanged", quiet)
                report(f"{label}, 2 of 6 moved by 1 sd", shifted)


def recordings(folder: Path) -> dict[tuple[int, int], list[Array]]:
    """(subject, right wrist) to its recordings, rows of 6 channels."""
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "watch_samples.parquet").to_pydict()
    rows = np.column_stack([table[name] for name in ("ax", "ay", "az", "wx", "wy", "wz")])
    of = np.array(table["recording"])
    index = pyarrow.csv.read_csv(folder / "recordings.csv").to_pylist()
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


def watches(folder: Path | None) -> None:
    if folder is None:
        print("watch: skipped, it needs --recordings")
        return
    found = recordings(folder)
    print(f"watches: 6 subjects x {RUNS // 2} runs, stretches of 12 windows of {W}, {LIVE} windows watched, A = 10,000")
    for baseline in (240, 480, 960, 1920):
        for turns in (1, 8, 16, None):
            quiet, moved = [], []
            for run in range(RUNS // 2):
                for subject in range(1, 7):
                    rng = np.random.default_rng([13, run, subject])
                    base = stretches(rng, found[subject, 1], baseline, 12)
                    rule = Drift(baseline=baseline, turns=turns, alarm=ALARM)
                    quiet.append(first_alarm(base, stretches(rng, found[subject, 1], LIVE, 12), rule, NAMES))
                    moved.append(first_alarm(base, stretches(rng, found[subject, 0], LIVE // 4, 12), rule, NAMES))
            label = f"baseline {baseline:4}, turns {turns or 'chosen'}"
            report(f"{label}, right wrist stays", quiet)
            report(f"{label}, moved to the left wrist", moved)


def long(folder: Path | None) -> None:
    """Every stretch of 12 windows is one observation, not 12: a short baseline holds few, and the level cannot help."""
    if folder is None:
        print("long: skipped, it needs --recordings")
        return
    found = recordings(folder)
    print(f"long: 10 subjects x {RUNS // 2} runs, stretches of 12 windows of {W}; {HOURS} windows stay, 600 moved")
    for baseline in (240, 480, 960, 1920):
        quiet, moved = [], []
        for run in range(RUNS // 2):
            for subject in range(1, 11):
                rng = np.random.default_rng([17, baseline, run, subject])
                base = stretches(rng, found[subject, 1], baseline, 12)
                quiet.append(course(base, stretches(rng, found[subject, 1], HOURS, 12), baseline))
                moved.append(course(base, stretches(rng, found[subject, 0], LIVE // 2, 12), baseline))
        for level in LEVELS:
            stays = [sum((one[:n] >= level).any() for one in quiet) for n in (LIVE, HOURS)]
            delays = [int((one >= level).argmax()) + 1 for one in moved if (one >= level).any()]
            print(
                f"  baseline {baseline:4}, A = {level:.0e}: alarm in {stays[0]} of {len(quiet)} within {LIVE} windows, "
                f"in {stays[1]} within {HOURS}; moved: {len(delays)} of {len(moved)} found, "
                f"after {np.median(delays):.0f} windows (median), {max(delays)} at most",
                flush=True,
            )


def demo() -> None:
    """As `tests/journey/test_seeds.py`, without agents and for all ten people: its stretches, baseline and lengths."""
    from appliance.bootstrap import demo_wheel
    from appliance.demo.recordings import at_least, read
    from appliance.demo.recordings import stretches as unseen

    if (wheel := demo_wheel(os.environ)) is None:
        print("demo: skipped, the demo's recordings are not here: `make demo` fetches them")
        return
    worn = {(subject, side): [] for subject in range(1, 11) for side in ("right", "left")}
    for one in read(wheel):
        worn[one.subject, one.side].append(one)
    courses = []
    for run in range(2 * RUNS):
        for subject in range(1, 11):
            rng = np.random.default_rng([19, run, subject])
            base, stays, moves = (
                np.concatenate([s.samples for s in at_least(n * W, unseen(worn[subject, side], "last", rng))])[: n * W]
                for n, side in ((960, "right"), (STAYS, "right"), (400, "left"))
            )
            courses.append(course(base, np.concatenate([stays, moves]), 960))
    print(f"demo: 10 subjects x {2 * RUNS} runs, baseline 960; {STAYS} windows stay, then 400 moved")
    for level in LEVELS:
        quiet = [one[STAYS:] >= level for one in courses if not (one[:STAYS] >= level).any()]
        delays = [int(moved.argmax()) + 1 for moved in quiet if moved.any()]
        early, most = len(courses) - len(quiet), STAYS * len(courses) / level
        print(
            f"  A = {level:.0e}: alarm in {early} of {len(courses)} (promise: at most {most:.2g}); moved: "
            f"{len(delays)} of {len(quiet)} found, after {np.median(delays):.0f} (median), {max(delays)} at most",
            flush=True,
        )


def course(base: Array, live: Array, baseline: int) -> Array:
    """The statistic after each window of `live`, for levels up to a billion; the material effect is left out."""
    detector = watch(tuple(Stream(name) for name in NAMES), Drift(baseline=baseline, alarm=1e9))
    detector.push(base)
    return np.array([verdict.statistic for verdict in detector.push(live)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("pairs", "made-up", "watch", "long", "demo")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}")
    parser.add_argument("--recordings", type=Path, metavar="FOLDER", help="of smartwatches, for watch and long")
    given = parser.parse_args()
    if wrong := set(given.parts) - set(names):
        parser.error(f"no such part: {', '.join(sorted(wrong))}")
    parts: dict[str, Callable[[], None]] = {"pairs": pairs, "made-up": made_up, "demo": demo}
    parts |= {"watch": partial(watches, given.recordings), "long": partial(long, given.recordings)}
    for name in given.parts or names:
        begun = perf_counter()
        parts[name]()
        print(f"  ({perf_counter() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
