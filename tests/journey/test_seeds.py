"""How often act two ends as it must, over seeds that choose who moves, when, and who judges (slow).

The demo's own project and recordings, its detector and judge settings as they stand in its file, on the in-memory
link. Streams are lengthened by block bootstrap of stretches that no training has seen.

What is asked of the quiet runs is what the project promises: n windows end in a false alarm with a chance of at most
n / A (sync.detector). At A = 10,000 the 20 runs were allowed seven of them, and one came (docs/adr/0013).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from appliance.bootstrap import demo_wheel
from appliance.core.project_file import read_project
from appliance.demo import recordings as data
from appliance.demo.recordings import Recording
from core.orders import Ingest, Train
from tests.journey.tale import MODEL, PROJECT, Tale, act_one, again

pytestmark = pytest.mark.slow

SUBJECTS = (1, 2, 3, 4, 5, 6)
SEEDS = 20
AT_REST, AFTER = 50_000, 20_000  # samples; a move comes up to LATER samples after the baseline is complete
LATER = 10_000
GOOD, BAD = 2, 3  # releases: another seed of the same training, and one of left wrists


@pytest.fixture(scope="module")
def everything() -> tuple[Recording, ...]:
    wheel = demo_wheel(os.environ)
    if wheel is None:
        pytest.skip("the demo's recordings are not here: `make demo` fetches and checks them")
    return tuple(r for r in data.read(wheel) if r.subject in SUBJECTS)


@pytest.fixture(scope="module")
def prepared(everything: tuple[Recording, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1 committed by six devices, a good and a bad candidate staged."""
    home = tmp_path_factory.mktemp("seeds") / "home"
    act_one(home, everything, lambda text: text)
    tale = Tale(home, everything)
    left = tuple(r for r in everything if r.side == "left")
    data.write_csv(left, home / "left")
    tale.apply(lambda text: text.replace("seed = 7", "seed = 8"))
    tale.world.order(Train(model=MODEL))
    tale.apply(lambda text: text.replace('where = { side = "right" }', 'where = { side = "left" }')
               .replace("recordings/*.csv", "left/*.csv").replace("seed = 8", "seed = 7"))  # fmt: skip
    tale.world.order(Ingest(source="watches"))
    tale.world.order(Train(model=MODEL))
    assert tale.release(GOOD) and tale.release(BAD)
    for box in tale.world.boxes.values():
        box.kill()
    tale.world.kill_core()
    return home


def _play(prepared: Path, home: Path, everything: tuple[Recording, ...], seed: int, movers: set[str]) -> set[str]:
    """Who alarms when these watches move at a moment that the seed chooses."""
    tale = Tale(again(prepared, home), everything, seed)
    rng = np.random.default_rng((5, seed))
    tale.stream(AT_REST + int(rng.integers(LATER)))
    early = tale.drifted()
    for name in movers:
        tale.people[name].wear("left")
    tale.stream(AFTER)
    found = tale.drifted()
    _close(tale, home)
    assert not early & movers, f"seed {seed}: {early} alarmed before the move"
    return found


def _close(tale: Tale, home: Path) -> None:
    for box in tale.world.boxes.values():
        box.kill()
    tale.world.kill_core()
    shutil.rmtree(home)


def test_exactly_the_moved_watches_alarm(prepared: Path, everything: tuple[Recording, ...], tmp_path: Path) -> None:
    exact = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng((6, seed))
        chosen = rng.choice(SUBJECTS, size=int(rng.integers(1, 4)), replace=False)
        movers = {f"watch-{s}" for s in chosen}
        found = _play(prepared, tmp_path / str(seed), everything, seed, movers)
        exact += found == movers
        print(f"seed {seed}: moved {sorted(movers)}, alarmed {sorted(found)}", flush=True)
    assert exact >= 19


def test_the_project_promises_that_nobody_alarms_when_nobody_moves() -> None:
    rule = read_project(PROJECT).models[MODEL].drift
    assert rule is not None
    windows = SEEDS * len(SUBJECTS) * (AT_REST + LATER + AFTER) / rule.window
    assert windows / rule.alarm < 0.05


def test_nobody_alarms_when_nobody_moves(prepared: Path, everything: tuple[Recording, ...], tmp_path: Path) -> None:
    for seed in range(100, 100 + SEEDS):
        assert _play(prepared, tmp_path / str(seed), everything, seed, set()) == set(), seed


def test_a_good_release_is_never_reversed_and_a_bad_one_always(
    prepared: Path, everything: tuple[Recording, ...], tmp_path: Path
) -> None:
    for seed in range(SEEDS):
        home = tmp_path / str(seed)
        tale = Tale(again(prepared, home), everything, seed)
        canary = f"watch-{np.random.default_rng((7, seed)).choice(SUBJECTS)}"
        tale.apply(lambda text, who=canary: text.replace('"watch-1"', f'"{who}"'))
        tale.approve(GOOD)
        tale.roll(GOOD, canary, "complete")
        assert {box.serves() for box in tale.world.boxes.values()} == {GOOD}
        tale.approve(BAD)
        tale.roll(BAD, canary, "reversed")
        tale.force(BAD)
        tale.roll(BAD, canary, "reversed")
        had = [w for w in tale.people.values() if any(a.release == BAD for a in w.box.answers)]
        assert [w.box.name for w in had] == [canary]
        assert {box.serves() for box in tale.world.boxes.values()} == {GOOD}
        served = [a for a in tale.people[canary].answers() if a.release == BAD]
        print(
            f"seed {seed}: {canary}, bad right in {tale.people[canary].right(served):.2f} of {len(served)}", flush=True
        )
        _close(tale, home)
