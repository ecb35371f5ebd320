"""Two releases on the same windows: who is asked, what counts once, what a restart and many threads leave of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.kept import Kept
from edge.runtime import Session, load
from edge.serving import Loaded
from edge.states import Health
from edge.trials import KEEP_EVERY, LATE, SPARE, Trials
from sync.chunks import digest
from sync.evidence import Decision
from sync.features import TensorSpec, WindowSpec
from sync.golden import Arrays
from sync.messages import Gates, Prediction
from sync.names import ModelName
from sync.reports import Release, TrialReport
from tests.edge import bad_graphs, graphs
from tests.edge.graphs import MODEL, SIZE, TENANT
from tests.edge.world import speaking

LABELS = Gates(evidence="labels", margin=0.05, block=2)
REST, RUN = (3.0, 0.0), (0.0, 3.0)  # rows that a good release calls so


def released(number: int, data: bytes) -> Loaded:
    """A release that listens to windows of SIZE rows, one a second."""
    slot = graphs.slot(number, data, graphs.manifest(number))
    return Loaded(load(data), replace(slot, release=Release(number, digest(b"%d" % number), slot.release.artifact)))


OLD, NEW = released(1, graphs.classifier()), released(2, graphs.classifier())
WORSE = released(3, graphs.classifier(100.0))  # to it everything is rest
BROKEN = released(4, graphs.classifier(float("inf")))  # its softmax is no number
OTHER_SHAPE = released(5, speaking((1.0, 1.0), (0, 1)))


class SlowDisk(Kept):
    """Files that are written when the test lets them be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, TENANT, bytes(32), "trial", token_bytes, lambda code, text: None)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def save(self, model: ModelName, content: bytes) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        super().save(model, content)


class Bench:
    """The trials of a device over a folder, and the windows that come past."""

    def __init__(self, folder: Path, new: Loaded = NEW, gates: Gates = LABELS) -> None:
        self.folder, self.new, self.gates = folder, new, gates
        self.reports: list[str] = []
        self.known: dict[str, str] = {}  # labels as the ring of predictions has them
        self.start()

    def start(self, retry: int = 0) -> None:
        """A new process: what was not kept is gone."""
        kept = Kept(self.folder, TENANT, bytes(32), "trial", token_bytes, lambda code, text: self.reports.append(code))
        self.trials = Trials(kept, self.known.get)
        self.trials.open(MODEL, self.new, OLD, self.gates, retry)

    def see(self, end: float, row: tuple[float, float] = REST, entity: str = "w1", by: Loaded = OLD) -> str:
        """The window that ends at `end`, answered by `by`; returns the prediction's id."""
        window: npt.NDArray[np.float32] = np.tile(np.array(row, np.float32), (SIZE, 1))
        value = "rest" if row == REST or by is WORSE else "run"
        number = f"{entity}-{end}"
        said = Prediction(number, MODEL, end, "ok", value, release=by.slot.release.number, entity=entity)
        self.trials.see(said, window)
        return number

    def stream(self, count: int, row: tuple[float, float] = RUN, start: float = 0.0, by: Loaded = OLD) -> None:
        """Windows that do not overlap, each with its label."""
        for n in range(count):
            self.trials.label(self.see(start + SIZE * n, row, by=by), "rest" if row == REST else "run")

    @property
    def report(self) -> TrialReport:
        found = self.trials.report(MODEL)
        assert found is not None
        return found

    @property
    def blocks(self) -> tuple[int, int, int]:
        return self.report.plus, self.report.zero, self.report.minus


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "trials")


def test_without_a_trial_nothing_is_asked_and_nothing_is_said(bench: Bench) -> None:
    bench.trials.close(MODEL)
    bench.see(10.0)
    assert bench.trials.report(MODEL) is None and bench.trials.health(MODEL) == Health()
    assert bench.trials.decision(MODEL) == (Decision.HOLD, 0.0, 0.0)
    bench.trials.close(MODEL)
    assert bench.reports == []


def test_two_equal_releases_agree_and_their_blocks_are_equal(bench: Bench) -> None:
    for n in range(6):
        bench.see(SIZE * n, RUN if n % 2 else REST)
    report = bench.report
    assert (report.pairs, report.agreed, report.labels, report.waiting) == (6, 6, 0, 0)
    assert bench.blocks == (0, 3, 0), "without a single label"
    assert (report.manifest, report.against) == (NEW.slot.release.manifest, OLD.slot.release.manifest)
    assert (report.retry, report.metric, report.block) == (0, "labels", 2)
    assert bench.trials.health(MODEL) == Health(answers=6)


def test_a_worse_candidate_is_harm_by_this_device_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)
    bench.stream(40)
    decision, harm, safe = bench.trials.decision(MODEL)
    assert decision is Decision.HARM and harm > 4.6 and safe < 0
    assert bench.blocks == (20, 0, 0) and (bench.report.right, bench.report.right_before) == (0, 40)


def test_an_equal_candidate_is_safe_in_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gates=replace(LABELS, margin=0.2))
    bench.stream(100, REST)
    assert bench.trials.decision(MODEL)[0] is Decision.SAFE


def test_entities_whose_disagreements_wait_do_not_drop_out_of_safe(tmp_path: Path) -> None:
    """Those that agree go on; left alone they would say safe of a candidate that is wrong everywhere else."""
    bench = Bench(tmp_path, WORSE, replace(LABELS, margin=0.2))
    held = [bench.see(0.0, RUN, f"bad{n}") for n in range(60)]
    held += [bench.see(float(SIZE), RUN, f"bad{n}") for n in range(60)]
    for n in range(100):
        bench.see(SIZE * n, REST, "good")
    assert bench.blocks == (0, 50, 0), "enough to be safe, if these were all"
    decision, _, safe = bench.trials.decision(MODEL)
    assert decision is Decision.HOLD and safe < 0
    for number in held:
        bench.trials.label(number, "rest")
    assert bench.trials.decision(MODEL)[0] is Decision.SAFE, "they spoke for it"


def test_of_releases_without_classes_no_block_is_counted(tmp_path: Path) -> None:
    """A label is never the very number, so both would be wrong alike, whatever they say."""
    new, old = (replace_classes(one, ()) for one in (NEW, OLD))
    bench = Bench(tmp_path, gates=replace(LABELS, margin=0.2, block=1))
    bench.trials.open(MODEL, new, old, bench.gates, 0)
    bench.trials.open(MODEL, new, old, bench.gates, 0)
    bench.stream(100, REST)
    assert bench.trials.decision(MODEL)[0] is Decision.HOLD and bench.blocks == (0, 0, 0)
    assert bench.reports == ["trial-not-paired"]


def replace_classes(one: Loaded, classes: tuple[str, ...]) -> Loaded:
    return Loaded(one.session, replace(one.slot, manifest=replace(one.slot.manifest, classes=classes)))


def test_a_label_that_is_no_class_changes_nothing(bench: Bench) -> None:
    number = bench.see(0.0)
    assert not bench.trials.label(number, "wlak") and bench.report.labels == 0
    assert bench.trials.label(number, "rest") and not bench.trials.label(number, "rest")


class Endless(Session):
    """A release that begins to answer, and goes on when it is let."""

    def __init__(self, like: Session) -> None:
        self._like, self.inputs, self.outputs = like, like.inputs, like.outputs
        self.begun, self.let = threading.Event(), threading.Event()

    def run(self, inputs: Arrays) -> Arrays:
        self.begun.set()
        assert self.let.wait(20)
        return self._like.run(inputs)


def test_a_candidate_that_never_answers_has_failed_and_holds_up_nobody(tmp_path: Path) -> None:
    session, now = Endless(NEW.session), [0.0]
    kept = Kept(tmp_path, TENANT, bytes(32), "trial", token_bytes, lambda code, text: None)
    trials = Trials(kept, clock=lambda: now[0])
    trials.open(MODEL, Loaded(session, NEW.slot), OLD, LABELS, 0)
    said = Prediction("p", MODEL, 3.0, "ok", "rest", release=1, entity="w1")
    with ThreadPoolExecutor(1) as beside:
        seen = beside.submit(trials.see, said, np.full((SIZE, 2), (3.0, 0.0), np.float32))
        assert session.begun.wait(20)
        now[0] = LATE - 1
        assert trials.health(MODEL) == Health() and trials.decision(MODEL)[0] is Decision.HOLD
        now[0] = LATE
        assert trials.health(MODEL) == Health(errors=1)
        trials.close(MODEL)
        session.let.set()
        seen.result()
    assert trials.report(MODEL) is None and not list(tmp_path.iterdir())


def test_in_probation_the_one_before_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)
    bench.stream(4, by=WORSE)
    assert bench.blocks == (2, 0, 0) and bench.report.right_before == 4
    assert bench.trials.health(MODEL) == Health(), "serving counts what answers"


def test_an_answer_of_a_third_release_or_none_at_all_is_no_pair(bench: Bench) -> None:
    bench.see(10.0, by=WORSE)
    bench.trials.see(Prediction("p", MODEL, 20.0, "warming", entity="w1"), np.zeros((SIZE, 2), np.float32))
    bench.trials.see(Prediction("p", ModelName("other"), 20.0, "ok", "rest"), np.zeros((SIZE, 2), np.float32))
    assert bench.report.pairs == 0


def test_a_candidate_that_gives_no_number_is_at_fault_and_wrong(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BROKEN)
    bench.stream(4)
    assert bench.trials.health(MODEL) == Health(0, 4, 4)
    assert bench.blocks == (2, 0, 0) and bench.report.right == 0


def test_an_incumbent_that_gives_no_number_in_probation_is_wrong_likewise(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.trials.open(MODEL, NEW, BROKEN, LABELS, 0)
    bench.stream(4, by=NEW)
    assert bench.blocks == (0, 0, 2) and bench.trials.health(MODEL) == Health()


def test_windows_that_are_not_for_both_releases_are_no_pairs_and_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OTHER_SHAPE)
    bench.stream(3)
    assert bench.report.pairs == 0 and bench.trials.health(MODEL) == Health()
    assert bench.reports == ["trial-not-paired"]


def test_overlapping_windows_of_an_entity_count_once(bench: Bench) -> None:
    for end in (3.0, 5.0, 6.5, 7.0, 9.0, 11.0):  # windows of 4 rows, a new one every 2 rows
        bench.see(end)
        bench.see(end, entity="w2")
    assert bench.report.pairs == 6, "those that end at 3, 7 and 11, of two entities"


def test_what_the_broker_repeats_changes_nothing(bench: Bench) -> None:
    for end in (3.0, 7.0, 3.0, 7.0, 11.0, 7.0, 3.0):
        bench.see(end)
    assert bench.report.pairs == 3


# --- what lasts ---


def test_a_restart_goes_on_where_the_trial_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)
    bench.stream(5)
    waiting = bench.see(100.0, RUN)
    before = bench.report
    bench.trials.checkpoint()
    bench.start()
    assert bench.report == before and before.waiting == 1
    bench.trials.label(waiting, "run")
    assert bench.blocks == (3, 0, 0)


def test_a_label_that_a_kill_took_from_the_books_is_asked_for_again(tmp_path: Path) -> None:
    """Else the rows behind it would wait for good: whoever gave it knows that it arrived."""
    bench = Bench(tmp_path, WORSE)
    held = [bench.see(SIZE * n, RUN) for n in range(2)]
    agreed = bench.see(SIZE * 2)
    bench.trials.checkpoint()
    late = bench.see(SIZE * 3, RUN)
    for number, label in zip((*held, agreed, late), ("run", "run", "rest", "run"), strict=True):
        bench.known[number] = label
    bench.start()
    assert bench.blocks == (1, 0, 0) and (bench.report.labels, bench.report.waiting) == (3, 0)
    bench.see(SIZE * 3, RUN)  # repeated, for it was not acknowledged
    assert bench.blocks == (2, 0, 0) and (bench.report.labels, bench.report.pairs) == (4, 4)
    bench.trials.label(late, "run")
    bench.start()
    assert bench.report.labels == 4


def test_whoever_labels_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """Labels come on the loop that answers: a block that one of them ends is written down by the next checkpoint."""
    bench = Bench(tmp_path / "trials", WORSE)
    bench.stream(2)
    assert bench.blocks == (1, 0, 0) and not list(bench.folder.iterdir())
    before = bench.report
    bench.trials.checkpoint()
    bench.start()
    assert bench.report == before


def test_a_checkpoint_writes_only_what_changed(bench: Bench) -> None:
    bench.see(3.0)
    bench.trials.checkpoint()
    (bench.folder / MODEL).unlink()
    bench.trials.checkpoint()
    assert not list(bench.folder.iterdir())


moments = st.lists(st.sampled_from(["see", "again", "label", "kill"]), max_size=120)


@given(moments)
@settings(max_examples=60, deadline=None)
def test_a_kill_costs_a_few_pairs_and_never_counts_one_twice(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    """After a kill the broker may repeat any window; each counts at most once, labelled at most once."""
    bench = Bench(tmp_path_factory.mktemp("trial"), WORSE)
    seen: list[str] = []
    for moment in story:
        if moment == "see":
            seen.append(bench.see(SIZE * len(seen), RUN))
        elif moment == "again":
            for n in range(max(0, len(seen) - KEEP_EVERY - 5), len(seen)):
                bench.see(SIZE * n, RUN)
        elif moment == "label":
            for number in seen[-7:]:
                bench.trials.label(number, "run")
        else:
            before = bench.report
            bench.start()
            assert before.pairs - bench.report.pairs < KEEP_EVERY
        report = bench.report
        assert report.labels <= report.pairs <= len(seen)
        assert 2 * sum(bench.blocks) <= report.labels and report.right_before == report.labels
    assert bench.reports == []


def test_another_retry_metric_block_or_release_begins_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)
    for change in (
        lambda: bench.start(retry=1),
        lambda: bench.trials.open(MODEL, WORSE, OLD, replace(LABELS, block=3), 1),
        lambda: bench.trials.open(MODEL, WORSE, OLD, replace(LABELS, evidence="agreement"), 1),
        lambda: bench.trials.open(MODEL, NEW, OLD, LABELS, 1),
    ):
        bench.stream(6)
        assert bench.report.pairs == 6
        change()
        assert bench.report.pairs == 0 and bench.blocks == (0, 0, 0)


def test_another_margin_is_the_same_trial_with_another_question(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.stream(100, REST)
    assert bench.trials.decision(MODEL)[0] is Decision.HOLD
    bench.trials.open(MODEL, NEW, OLD, replace(LABELS, margin=0.2), 0)
    assert bench.trials.decision(MODEL)[0] is Decision.SAFE


def test_gates_that_no_evidence_can_meet_are_taken_as_the_nearest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gates=Gates(evidence="labels", margin=7.0, block=0))
    bench.stream(10, REST)
    assert bench.report.block == 1 and bench.trials.decision(MODEL)[0] is not Decision.HARM


def test_a_closed_trial_leaves_nothing_behind(bench: Bench) -> None:
    bench.stream(10)
    assert list(bench.folder.iterdir())
    bench.trials.close(MODEL)
    assert not list(bench.folder.iterdir())
    bench.start()
    assert bench.report.pairs == 0


def test_a_file_that_cannot_be_read_is_reported_and_the_trial_begins_anew(bench: Bench) -> None:
    bench.stream(10)
    (bench.folder / MODEL).write_bytes(b"rust")
    bench.start()
    assert bench.report.pairs == 0 and bench.reports == ["trial-state-lost"]
    Kept(bench.folder, TENANT, bytes(32), "trial", token_bytes, print).save(MODEL, b"\xc1 no books")
    bench.start()
    assert bench.report.pairs == 0 and bench.reports == ["trial-state-lost"] * 2


def test_a_trial_without_a_folder_lives_as_long_as_its_process() -> None:
    trials = Trials()
    trials.open(MODEL, NEW, OLD, LABELS, 0)
    trials.checkpoint()
    assert trials.report(MODEL) is not None
    trials.close(MODEL)
    assert trials.report(MODEL) is None


def test_too_many_pairs_without_labels_are_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)
    for n in range(1003):
        bench.see(SIZE * n, RUN)
    assert bench.report.pairs == bench.report.waiting == 1000 and bench.reports == ["trial-full"]


def test_many_threads_count_each_window_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WORSE)

    def listen(entity: str) -> None:
        for n in range(40):
            bench.trials.label(bench.see(SIZE * n, RUN, entity), "run")
            bench.trials.decision(MODEL)

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(listen, f"w{n % 3}") for n in range(6)]:
            done.result()
    assert bench.report.pairs == bench.report.labels == 120
    assert bench.blocks == (60, 0, 0)


class Timed(Session):
    """A session that takes a while, by the bench's clock."""

    def __init__(self, real: Session, bench: list[float], seconds: float) -> None:
        self._real, self._clock, self._seconds = real, bench, seconds
        self.inputs, self.outputs = real.inputs, real.outputs

    def run(self, inputs: Arrays) -> Arrays:
        self._clock[0] += self._seconds
        return self._real.run(inputs)

    def late(self) -> int:
        return 0


class Stopwatch(Session):
    """A session that takes its own time, and writes down how long (seconds)."""

    def __init__(self, real: Session) -> None:
        self._real, self.runs = real, list[float]()
        self.inputs, self.outputs = real.inputs, real.outputs

    def run(self, inputs: Arrays) -> Arrays:
        before = time.perf_counter()
        try:
            return self._real.run(inputs)
        finally:
            self.runs.append(time.perf_counter() - before)

    def late(self) -> int:
        return self._real.late()


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 400, 400), (0.1, 35, 65), (0.5, 170, 240)])
def test_a_shadow_keeps_to_its_share_of_a_core(share: float, least: int, most: int) -> None:
    """400 windows of two entities, one every 0.1 s in turn, on a candidate that takes 0.1 s; the clock's own seconds
    are not counted twice."""
    clock = [1000.0]
    trials = Trials(clock=lambda: clock[0])
    slow = Loaded(Timed(NEW.session, clock, 0.1), NEW.slot)
    trials.open(MODEL, slow, OLD, replace(LABELS, shadow_share=share), 0)
    window = np.tile(np.array(REST, np.float32), (SIZE, 1))
    for n in range(400):
        before, entity = clock[0], f"w{n % 2}"
        said = Prediction(f"{entity}-{n}", MODEL, float(SIZE * n), "ok", "rest", release=1, entity=entity)
        trials.see(said, window)
        clock[0] = before + 0.1
    report = trials.report(MODEL)
    assert report is not None and least <= report.pairs <= most


def slowly_kept(folder: Path) -> tuple[Bench, SlowDisk]:
    bench, disk = Bench(folder), SlowDisk(folder)
    bench.trials = Trials(disk, bench.known.get)
    bench.trials.open(MODEL, NEW, OLD, LABELS, 0)
    return bench, disk


@pytest.mark.slow
def test_a_shadow_that_is_really_slow_keeps_to_its_share_of_a_core() -> None:
    """A graph that takes its time, and a real clock: windows that come without a pause would keep it busy all the
    while."""
    slow = bad_graphs.by_window(bad_graphs.spins(25_000, 25_000, 25_000))
    taken = (TensorSpec("window", "FP32", (-1, 1, 1)),)
    slot = graphs.slot(2, slow, replace(graphs.manifest(2), inputs=taken, window=WindowSpec(1, 1, 1.0, ("i",), 2.0)))
    trials, session = Trials(clock=time.perf_counter), Stopwatch(load(slow))
    trials.open(MODEL, Loaded(session, slot), OLD, replace(LABELS, shadow_share=0.1), 0)
    begun, windows = time.perf_counter(), 0
    while time.perf_counter() - begun < 2 * SPARE:
        said = Prediction(f"{windows:032x}", MODEL, 10.0 * windows, "ok", "rest", release=1, entity="w1")
        trials.see(said, np.zeros((1, 1), np.float32))
        windows += 1
    runs = session.runs  # what the trial counts is never less, whoever else has this core meanwhile
    assert 0 < len(runs) < windows / 2 and min(runs) > 0.001, "it is slow, and was asked of a part"
    assert sum(runs) <= SPARE + 0.1 * (time.perf_counter() - begun) + max(runs)


def test_nobody_who_asks_waits_for_the_disk_and_the_newest_is_what_stays(tmp_path: Path) -> None:
    bench, disk = slowly_kept(tmp_path)
    with ThreadPoolExecutor() as others:
        writes = others.submit(bench.stream, 2)
        assert disk.begun.wait(60)
        assert bench.report.pairs == 2 and bench.trials.decision(MODEL)[0] is Decision.HOLD, "they do not wait"
        more = others.submit(bench.stream, 2, REST, 100.0)
        disk.go_on.set()
        writes.result(60), more.result(60)
    before = bench.report
    bench.trials.checkpoint()
    bench.start()
    assert bench.report == before


def test_what_is_closed_while_the_disk_writes_is_not_written_again(tmp_path: Path) -> None:
    bench, disk = slowly_kept(tmp_path)
    with ThreadPoolExecutor() as others:
        writes = others.submit(bench.stream, 2)
        assert disk.begun.wait(60)
        closes = others.submit(bench.trials.close, MODEL)
        disk.go_on.set()
        writes.result(60), closes.result(60)
    assert list(tmp_path.iterdir()) == []


def test_an_entity_whose_clock_was_set_back_is_paired_again_and_that_is_told_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.stream(3, start=1_000_000.0)
    bench.stream(3, start=1_000_000.0)
    assert bench.report.pairs == 3, "a repeated window counts once"
    bench.stream(3, start=5_000.0)
    bench.stream(3, start=1_000.0)
    assert bench.report.pairs == 6 and bench.reports == ["trial-set-back"]
