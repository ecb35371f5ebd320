"""The books of a trial as laws: what waits, what counts, and that neither labels' order nor a restart changes it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.pairing import SEEN, SEEN_KEPT, WAITING, WAITING_ALL, About, Books, Pair, Tally, fresh
from sync.evidence import BlockCounter, Blocks, Counters
from sync.reports import Evidence
from sync.sketch import pack, unpack

CLASSES = ("rest", "walk", "run")
Said = tuple[str | None, str | None, str]  # by the candidate, by the incumbent, and what it was


def about(metric: Evidence = "labels", block: int = 3) -> About:
    return About("a" * 64, "b" * 64, 0, metric, block)


def reopened(tally: Tally) -> Tally:
    """The same books after a restart, from their bytes."""
    return Tally(unpack(Books, pack(tally.books())))


answers = st.sampled_from(CLASSES)
said = st.tuples(st.none() | answers, answers, answers) | st.tuples(answers, st.none() | answers, answers)
streams = st.lists(st.tuples(st.sampled_from(["w1", "w2"]), said), max_size=60)


def feed(tally: Tally, stream: list[tuple[str, Said]]) -> None:
    for n, (entity, (new, old, _)) in enumerate(stream):
        assert tally.pair(entity, float(n), Pair(f"p{n}", new, old))


def by_hand(stream: list[tuple[str, Said]], block: int) -> Counters:
    """The blocks of a stream of which everything is known at once."""
    counter = BlockCounter(Blocks(block))
    for entity, (new, old, truth) in stream:
        counter.push(entity, [(new != truth) - (old != truth)])
    return counter.checkpoint().counters


@given(streams, st.randoms(use_true_random=False), st.integers(1, 5), st.integers(0, 60))
def test_the_order_of_labels_and_a_restart_change_nothing(
    stream: list[tuple[str, Said]],
    rng: object,
    block: int,
    cut: int,
) -> None:
    tally = Tally(fresh(about(block=block)))
    feed(tally, stream)
    order = list(range(len(stream)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    for step, n in enumerate(order):
        if step == cut:
            tally = reopened(tally)
        assert tally.label(f"p{n}", stream[n][1][2])
        assert not tally.label(f"p{n}", stream[n][1][2]), "twice is once"
    report = tally.report()
    assert Counters(report.plus, report.zero, report.minus) == by_hand(stream, block) == tally.counters
    assert (report.waiting, report.pairs, report.labels) == (0, len(stream), len(stream))
    assert report.right == sum(new == truth for _, (new, _, truth) in stream)
    assert report.right_before == sum(old == truth for _, (_, old, truth) in stream)
    assert report.agreed == sum(new == old for _, (new, old, _) in stream)


@given(streams, st.sets(st.integers(0, 59)))
def test_counters_only_grow_and_never_run_ahead_of_a_missing_label(
    stream: list[tuple[str, Said]], labelled: set[int]
) -> None:
    tally, full = Tally(fresh(about(block=2))), by_hand(stream, 2)
    feed(tally, stream)
    before = tally.counters
    for n in sorted(labelled, reverse=True):
        tally.label(f"p{n}", stream[n][1][2] if n < len(stream) else "rest")
        assert tally.counters.merge(before) == tally.counters
        before = tally.counters
    assert sum((before.plus, before.zero, before.minus)) <= sum((full.plus, full.zero, full.minus))


@given(streams, st.sets(st.integers(0, 60)), st.integers(1, 4))
def test_the_worst_case_is_what_labels_against_the_candidate_would_make_of_it(
    stream: list[tuple[str, Said]], labelled: set[int], block: int
) -> None:
    tally = Tally(fresh(about(block=block)))
    feed(tally, stream)
    told = [
        (entity, (new, old, truth) if n in labelled or new == old else (None, old, old or "run"))
        for n, (entity, (new, old, truth)) in enumerate(stream)
    ]
    for n in labelled & set(range(len(stream))):
        tally.label(f"p{n}", stream[n][1][2])
    worst = by_hand([(entity, said) for entity, said in told], block)
    if all(old is not None for _, (_, old, _) in stream):
        assert tally.worst() == worst
    assert reopened(tally).worst() == tally.worst()
    assert tally.worst().merge(tally.counters) == tally.worst(), "nothing is counted twice"


def test_the_rows_that_wait_are_bounded_over_all_entities_and_over_a_restart() -> None:
    tally = Tally(fresh(about(block=1)))
    for n in range(WAITING_ALL):
        assert tally.pair(f"w{n % 500}", float(n), Pair(f"p{n}", "rest", "walk"))
    assert not tally.pair("another", 0.0, Pair("late", "rest", "walk"))
    tally = reopened(tally)
    assert not tally.pair("another", 0.0, Pair("late", "rest", "walk")) and tally.report().waiting == WAITING_ALL
    assert tally.label("p0", "walk") and tally.report().waiting == WAITING_ALL - 1
    assert tally.pair("another", 0.0, Pair("late", "rest", "walk"))


def test_a_disagreement_holds_up_its_own_entity_only() -> None:
    tally = Tally(fresh(about(block=1)))
    tally.pair("w1", 1.0, Pair("a", "rest", "walk"))
    for n in range(3):
        tally.pair("w1", 2.0 + n, Pair(f"b{n}", "rest", "rest"))
        tally.pair("w2", 2.0 + n, Pair(f"c{n}", "rest", "rest"))
    assert (tally.counters, tally.report().waiting) == (Counters(zero=3), 4)
    tally.label("a", "run")
    assert (tally.counters, tally.report().waiting) == (Counters(zero=7), 0), "both were wrong: equal"


@pytest.mark.parametrize(("label", "expected"), [("rest", Counters(minus=1)), ("walk", Counters(plus=1))])
def test_who_was_wrong_is_what_counts_under_labels(label: str, expected: Counters) -> None:
    tally = Tally(fresh(about(block=1)))
    tally.pair("w1", 1.0, Pair("a", "rest", "walk"))
    tally.label("a", label)
    assert tally.counters == expected


def test_no_answer_is_wrong_whatever_the_label() -> None:
    tally = Tally(fresh(about(block=1)))
    tally.pair("w1", 1.0, Pair("a", None, "walk"))
    tally.pair("w1", 2.0, Pair("b", "walk", None))
    tally.label("a", "walk")
    tally.label("b", "walk")
    assert tally.counters == Counters(plus=1, minus=1)


def test_under_agreement_a_difference_counts_at_once_and_labels_only_inform() -> None:
    tally = Tally(fresh(about("agreement", block=1)))
    for n, (new, old) in enumerate([("rest", "rest"), ("rest", "walk"), (None, "walk"), ("walk", None)]):
        tally.pair("w1", float(n), Pair(f"p{n}", new, old))
    assert tally.counters == Counters(plus=2, zero=2)
    tally.label("p1", "rest")
    report = tally.report()
    assert tally.counters == Counters(plus=2, zero=2)
    assert (report.labels, report.right, report.right_before, report.waiting) == (1, 1, 0, 0)


def test_under_guardrails_no_block_is_counted() -> None:
    tally = Tally(fresh(about("guardrails", block=1)))
    tally.pair("w1", 1.0, Pair("a", "rest", "walk"))
    assert tally.label("a", "rest")
    report = tally.report()
    assert (tally.counters, report.pairs, report.agreed, report.labels) == (Counters(), 1, 0, 1)


def test_an_unknown_prediction_has_no_label() -> None:
    assert not Tally(fresh(about())).label("never-seen", "rest")


def test_a_full_queue_takes_no_more_pairs_until_labels_come() -> None:
    tally = Tally(fresh(about(block=10)))
    assert tally.pair("w1", 0.0, Pair("held", "rest", "walk"))
    for n in range(1, WAITING):
        assert tally.pair("w1", float(n), Pair(f"p{n}", "rest", "rest"))
    assert not tally.pair("w1", 5000.0, Pair("late", "rest", "rest"))
    assert tally.fits("w1", WAITING - 0.5), "what was not counted leaves no mark"
    assert tally.pair("w2", 1.0, Pair("other", "rest", "rest")), "another entity has room"
    assert tally.report().pairs == WAITING + 1
    tally.label("held", "walk")
    assert tally.pair("w1", 5001.0, Pair("later", "rest", "rest"))
    assert tally.counters == Counters(plus=1, zero=WAITING // 10 - 1)


def test_the_pairs_whose_label_is_still_taken_are_bounded() -> None:
    tally = Tally(fresh(about()))
    for n in range(SEEN + 5):
        tally.pair("w1", float(n), Pair(f"p{n}", "rest", "rest"))
    assert not tally.label("p4", "rest") and tally.label("p5", "rest")
    again = reopened(tally)
    first_kept = SEEN + 5 - SEEN_KEPT
    assert not again.label(f"p{first_kept - 1}", "rest") and again.label(f"p{first_kept}", "rest")


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 8)), max_size=30))
def test_counted_windows_of_an_entity_never_overlap(windows: list[tuple[float, int]]) -> None:
    tally, counted = Tally(fresh(about())), []
    for n, (end, size) in enumerate(windows):
        start = end - (size - 1)
        if tally.fits("w1", start):
            tally.pair("w1", end, Pair(f"p{n}", "rest", "rest"))
            counted.append((start, end))
            assert not tally.fits("w1", start), "the same window again"
    assert all(a[1] < b[0] for a, b in pairwise(counted))


@given(streams.filter(len), st.sampled_from(["labels", "agreement"]))
def test_a_report_is_true_after_every_change_and_made_once(stream: list[tuple[str, Said]], by: Evidence) -> None:
    tally = Tally(fresh(about(by)))
    for n, (entity, (new, old, truth)) in enumerate(stream):
        assert tally.pair(entity, float(n), Pair(f"p{n}", new, old))
        assert tally.report() == reopened(tally).report() and tally.report() is tally.report()
        tally.label(f"p{n}", truth)
        assert tally.report() == reopened(tally).report()
