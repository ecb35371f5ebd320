"""The road: what the signed policy lets out and no more, sealed for the tenant alone, never above a day's budget."""

from __future__ import annotations

import base64
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.budget import DAY, Budget
from edge.predictions import Predictions, draw
from edge.road import BATCH, BATCHES, PAUSE, Road, cut, pick, releases
from sync import codec, samples
from sync.errors import Damaged
from sync.features import WindowSpec
from sync.manifest import Blob, Lineage, Manifest, Profile, Uplink
from sync.messages import Prediction, Record, SampleBatch
from sync.names import DeviceId, Digest, ModelName, TenantId
from sync.reports import DriftReport, RoadReport
from sync.samples import Sample

TENANT, DEVICE, MODEL = TenantId("acme"), DeviceId("press-1"), ModelName("motion")
SECRET = X25519PrivateKey.generate()
KEY = base64.b64encode(SECRET.public_key().public_bytes_raw()).decode()
CLASSES = ("walk", "run", "sit")
START = 1_790_000_000.0  # some moment, and day, of the story
LABELLED = Uplink("labelled", data_class="health", region="om")
ALARM = DriftReport("alarm", 9, 1.0, ("x",), since=START + 5.0)
QUIET = DriftReport("quiet", 9)


def manifest(
    uplink: Uplink = LABELLED, number: int = 1, size: int = 4, channels: tuple[str, ...] = ("x", "y")
) -> Manifest:
    blob = Blob(Digest("0" * 64), Digest("1" * 64), 1, 1, (Digest("2" * 64),))
    spec = WindowSpec(size, size, 0.02, channels)
    lineage = Lineage("s", "v", "cnn1d", 7, {}, "the only one")
    return Manifest(TENANT, MODEL, number, START, (), blob, (), (), CLASSES, spec, (), Profile(), lineage, None, uplink)


@dataclass
class Roadside:
    """A road on a folder, with what left it and what it said; `restart` is what a kill leaves."""

    folder: Path
    now: float = START
    size: int = 4
    told: list[str] = field(default_factory=list)
    sent: list[SampleBatch] = field(default_factory=list)
    sealed: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # bytes a day

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.predictions = Predictions(
            self.folder / "predictions.db", TENANT, bytes(32), os.urandom, lambda: self.now, self.tell
        )
        self.budget = Budget(self.folder / "budget.db", int(self.now // DAY), self.tell)
        self.road = Road(self.predictions, self.budget, TENANT, DEVICE, self.tell)

    def close(self) -> None:
        self.predictions.close()
        self.budget.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def tell(self, code: str, text: str) -> None:
        self.told.append(code)

    def predict(self, number: int, release: int = 1, label: str | None = None, channels: int = 2) -> None:
        window = np.arange(self.size * channels, dtype=np.float32).reshape(self.size, channels) + number
        said = Prediction(
            f"{number:032x}", MODEL, START + number, "ok", "walk", (0.9, 0.1, 0.0), CLASSES, "w1", release
        )
        self.predictions.remember(said, window)
        if label is not None:
            assert self.predictions.label(said.id, label) is None

    def tick(self, what: Manifest, drift: DriftReport | None = None, key: str = KEY, *, crash: bool = False) -> int:
        """What the walker does with what is due; `crash`: the power goes before the first batch is marked."""
        batches = self.road.due(what, drift, key, self.now)
        for batch in batches:
            self.sealed[int(self.now // DAY)] += len(base64.b64decode(batch.sealed))
            self.sent.append(batch)
            if crash:
                self.restart()
                break
            self.road.handed(batch)
        return len(batches)

    def samples(self) -> list[Sample]:
        """All that the tenant can read of what left."""
        private = SECRET.private_bytes_raw()
        opened = [samples.unseal(base64.b64decode(b.sealed), TENANT, DEVICE, private) for b in self.sent]
        return [one for batch in opened for one in batch.samples]

    def ids(self) -> list[int]:
        return [int(one.id, 16) for one in self.samples()]


@pytest.fixture
def side(ram: Path) -> Iterator[Roadside]:
    found = Roadside(ram)
    yield found
    found.close()


# --- what may leave ---


@pytest.mark.parametrize(
    ("uplink", "drift", "expected"),
    [
        (Uplink(), ALARM, []),
        (Uplink("labelled"), None, [2, 4, 6, 8]),
        (Uplink("labelled", "alarm"), None, []),
        (Uplink("labelled", "alarm"), QUIET, []),
        (Uplink("labelled", "alarm"), ALARM, [6, 8]),
        (Uplink("sampled", share=1.0), None, [1, 2, 3, 4, 5, 6, 7, 8]),
        (Uplink("sampled", share=0.0), None, []),
        (Uplink("sampled", "alarm", share=1.0), QUIET, []),
        (Uplink("sampled", "alarm", share=1.0), ALARM, [5, 6, 7, 8]),
        (Uplink("labelled", daily_bytes=0), None, []),
    ],
)
def test_only_what_the_signed_policy_names_leaves(
    side: Roadside, uplink: Uplink, drift: DriftReport | None, expected: list[int]
) -> None:
    for number in range(1, 9):
        side.predict(number, label="run" if number % 2 == 0 else None)
    side.tick(manifest(uplink), drift)
    assert side.ids() == expected
    assert {(b.data_class, b.region) for b in side.sent} <= {(uplink.data_class, uplink.region)}


def test_a_share_is_the_same_share_wherever_it_is_asked_for(side: Roadside) -> None:
    for number in range(200):
        side.predict(number)
    side.tick(manifest(Uplink("sampled", share=0.25)))
    assert side.ids() == [n for n in range(200) if draw(f"{n:032x}") < 0.25]
    assert 25 <= len(side.ids()) <= 75


def test_a_sample_tells_what_was_seen_said_and_true(side: Roadside) -> None:
    side.now = START + 100
    side.predict(7, label="sit")
    side.tick(manifest(LABELLED))
    (one,) = side.samples()
    window = np.arange(8, dtype="<f4").reshape(4, 2) + 7
    assert one == Sample(
        f"{7:032x}", "w1", START + 7, START + 100, 1, (4, 2), window.tobytes(), "walk", (0.9, 0.1, 0.0), "sit"
    )
    assert (side.sent[0].model, side.sent[0].data_class, side.sent[0].region) == (MODEL, "health", "om")


def test_nothing_of_it_is_readable_on_the_way_and_nobody_else_opens_it(side: Roadside) -> None:
    side.predict(1, label="sit")
    side.tick(manifest())
    sealed = base64.b64decode(side.sent[0].sealed)
    row = np.float32(1.0).tobytes() + np.float32(2.0).tobytes()
    assert row not in sealed and b"sit" not in sealed and b"walk" not in sealed
    with pytest.raises(Damaged):
        samples.unseal(sealed, TENANT, DEVICE, X25519PrivateKey.generate().private_bytes_raw())
    with pytest.raises(Damaged):
        samples.unseal(sealed, TENANT, DeviceId("press-2"), SECRET.private_bytes_raw())


def test_releases_with_other_windows_or_another_policy_stay_out() -> None:
    serving = manifest(number=3)
    same, wider = manifest(number=2), manifest(number=1, channels=("x", "y", "z"))
    silent = manifest(Uplink(), number=1)
    assert releases(serving, (same, wider)) == (2, 3) and releases(serving, (same, silent)) == (2, 3)
    for other in (Uplink("labelled", "alarm"), Uplink("labelled", region="eu"), Uplink("labelled", data_class="x")):
        assert releases(serving, (manifest(other, number=2),)) == (3,), "promised otherwise"
    assert releases(serving, (manifest(replace(LABELLED, daily_bytes=7), number=2),)) == (2, 3)
    choice = pick(serving, None, (same,))
    assert choice is not None and choice.releases == (2, 3) and choice.labelled
    assert pick(replace(serving, window=None), None) is None


def test_labels_of_the_release_before_still_go(side: Roadside) -> None:
    side.predict(1, release=1, label="run")
    side.predict(2, release=2, label="run")
    side.predict(3, release=9, label="run")
    for batch in side.road.due(manifest(number=2), None, KEY, side.now, (manifest(number=1),)):
        side.sent.append(batch)
    assert side.ids() == [1, 2]


# --- once ---


def test_what_was_handed_over_does_not_go_again_until_its_label_changes(side: Roadside) -> None:
    side.predict(1, label="run")
    assert side.tick(manifest()) == 1
    for _ in range(3):
        side.now += PAUSE
        assert side.predictions.label(f"{1:032x}", "run") is None
        assert side.tick(manifest()) == 0
    side.restart()
    assert side.tick(manifest()) == 0
    side.predictions.label(f"{1:032x}", "sit")
    side.now += PAUSE
    side.tick(manifest())
    assert [one.label for one in side.samples()] == ["run", "sit"]


def test_a_label_that_changes_while_its_sample_is_under_way_goes_too(side: Roadside) -> None:
    side.predict(1, label="run")
    (batch,) = side.road.due(manifest(), None, KEY, side.now)
    side.predictions.label(f"{1:032x}", "sit")
    side.road.handed(batch)
    side.now += PAUSE
    side.tick(manifest())
    assert [one.label for one in side.samples()] == ["sit"]


def test_a_crash_between_the_outbox_and_the_mark_sends_it_twice(side: Roadside) -> None:
    side.predict(1, label="run")
    side.tick(manifest(), crash=True)
    side.tick(manifest())
    assert side.ids() == [1, 1]


def test_batches_are_bounded_and_so_is_what_one_call_gives(ram: Path) -> None:
    side = Roadside(ram, size=300)
    for number in range(120):
        side.predict(number, label="run")
    while side.tick(manifest(LABELLED, size=300)):
        assert side.told == []
    sizes = [len(base64.b64decode(b.sealed)) for b in side.sent]
    assert side.ids() == list(range(120)) and len(sizes) > BATCHES
    assert max(sizes) <= BATCH and all(size > BATCH - 2 * 2500 for size in sizes[:-1])
    record = codec.encode(Record(1, 2**40, START, "b" * 32, msgspec.Raw(codec.encode(side.sent[0]))))
    assert len(record) <= codec.LIMIT, "a batch in its record is a document of the wire"
    side.close()


def test_what_is_not_full_waits_for_more(side: Roadside) -> None:
    side.predict(1, label="run")
    assert side.tick(manifest()) == 1, "the first goes at once"
    side.predict(2, label="run")
    side.now += PAUSE / 2
    assert side.tick(manifest()) == 0
    side.predict(3, label="run")
    side.now += PAUSE / 2
    assert side.tick(manifest()) == 1
    assert side.ids() == [1, 2, 3]


def test_a_window_too_large_for_any_batch_is_passed_over_and_told_once(ram: Path) -> None:
    side = Roadside(ram, size=5000)
    for number in (1, 2):
        side.predict(number, label="run")
    side.size = 4
    side.predict(3, label="run")
    side.tick(manifest(LABELLED))
    side.now += PAUSE
    side.tick(manifest(LABELLED))
    assert side.ids() == [3] and side.told == ["sample-too-large"]
    side.close()


# --- the key ---


@pytest.mark.parametrize(
    "key", ["not base64!", base64.b64encode(b"short").decode(), base64.b64encode(bytes(32)).decode()]
)
def test_a_key_that_is_none_closes_the_road_and_is_told_once(side: Roadside, key: str) -> None:
    side.predict(1, label="run")
    for _ in range(3):
        assert side.tick(manifest(), key=key) == 0
        side.now += PAUSE
    assert side.told == ["road-closed"]
    assert side.tick(manifest(), key=KEY) == 1, "a good one opens it"


def test_without_a_key_nothing_goes_and_nothing_is_said(side: Roadside) -> None:
    side.predict(1, label="run")
    assert side.tick(manifest(), key="") == 0 and side.told == []


# --- the budget ---


def test_what_the_budget_holds_back_is_counted_told_once_a_day_and_goes_tomorrow(side: Roadside) -> None:
    for number in range(20):
        side.predict(number, label="run")
    small = manifest(Uplink("labelled", daily_bytes=1500))
    side.tick(small)
    gone = len(side.ids())
    assert 0 < gone < 20
    side.now += PAUSE
    side.tick(small)
    side.restart()
    side.tick(small)
    spent = side.budget.spent(MODEL, int(side.now // DAY))
    assert side.road.report(MODEL) == RoadReport("labelled", gone, spent, 1500, 20 - gone)
    assert side.told == ["uplink-budget-spent"] and spent <= 1500
    side.now += DAY
    side.tick(small)
    assert side.ids() == list(range(len(side.ids()))) and len(side.ids()) > gone
    assert side.told == ["uplink-budget-spent"] * 2


def test_the_report_is_none_where_the_policy_lets_nothing_out(side: Roadside) -> None:
    assert side.road.report(MODEL) is None
    side.tick(manifest(Uplink()))
    assert side.road.report(MODEL) is None
    side.tick(manifest(), key="")
    assert side.road.report(MODEL) == RoadReport("labelled", 0, 0, 1_000_000)


def test_a_disk_that_refuses_the_budget_closes_the_road(side: Roadside) -> None:
    side.predict(1, label="run")
    side.budget._db.execute("PRAGMA query_only = ON")
    assert side.tick(manifest()) == 0 and side.told == ["budget-not-kept"]
    side.budget._db.execute("PRAGMA query_only = OFF")
    side.now += PAUSE
    assert side.tick(manifest()) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("predict"), st.integers(0, 40)),
        st.tuples(st.just("run"), st.integers(0, 40)),
        st.tuples(st.just("sit"), st.integers(0, 40)),
        st.tuples(st.just("tick"), st.sampled_from([0.25, PAUSE, 3600.0, DAY / 2, DAY, -DAY])),
        st.tuples(st.just("crash"), st.just(PAUSE)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, budget=st.integers(0, 3000))
def test_no_order_of_labels_ticks_days_and_restarts_exceeds_a_day_or_loses_a_label(
    steps: list[tuple[str, float]], budget: int
) -> None:
    what = manifest(Uplink("labelled", daily_bytes=budget))
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        side = Roadside(Path(folder))
        labels: dict[int, list[str]] = defaultdict(list)  # by prediction, each change of its label
        crashes = 0
        known: set[int] = set()
        for verb, value in steps:
            match verb:
                case "predict":
                    side.predict(int(value))
                    known.add(int(value))
                case "run" | "sit" as label:
                    kept = side.predictions.label(f"{int(value):032x}", label) is None
                    assert kept == (int(value) in known)
                    if kept and labels[int(value)][-1:] != [label]:
                        labels[int(value)].append(label)
                case "tick" | "crash":
                    side.now += value
                    crashes += side.tick(what, crash=verb == "crash") > 0 and verb == "crash"
                case "restart":
                    side.restart()
        for _ in range(60):  # days, each of which lets at least one sample out
            side.now = max(side.now, START) + DAY
            side.tick(what)
        assert all(spent <= budget for spent in side.sealed.values())
        last = {int(one.id, 16): one.label for one in side.samples()}
        if budget > 400:
            assert last == {number: told[-1] for number, told in labels.items()}
            often = Counter(int(one.id, 16) for one in side.samples())
            assert crashes or all(often[number] <= len(told) for number, told in labels.items())
        side.close()


@given(
    sizes=st.lists(st.integers(1, BATCH - 200), max_size=40),
    left=st.integers(-10, 6 * BATCH),
    empty=st.integers(60, 200),
)
def test_a_cut_is_the_longest_that_keeps_all_three_bounds(sizes: list[int], left: int, empty: int) -> None:
    found = cut(sizes, empty, left)
    parts, at = [], 0
    for count in found.counts:
        parts.append(empty + sum(sizes[at : at + count]))
        at += count
    assert len(parts) <= BATCHES and all(part <= BATCH for part in parts) and sum(parts) <= max(0, left)
    assert (at == len(sizes)) == (not found.full)
    if found.full:
        more = sizes[at] if parts and parts[-1] + sizes[at] <= BATCH else sizes[at] + empty
        assert found.spent == (sum(parts) + more > left)
        assert found.spent or len(parts) == BATCHES
