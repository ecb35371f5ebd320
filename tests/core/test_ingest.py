"""From CSV files to the lake: whole files or nothing, rows by their contract, and never the same file twice."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.orders_socket import LINE_LIMIT
from core.handoffs import Landed, Rejection
from core.ingest.files import RACY, CsvFiles, parse
from core.ingest.interface import Feed, SourceError, Unit
from core.ingest.landing import CHANGED_TOLD, CHANGED_WORDS, MARKS, WORDS, land
from core.lake import Lake
from core.project import Column, Contract, Source

CONTRACT = Contract(
    columns={
        "ts": Column(type="float64"),
        "ax": Column(type="float32", min=-20, max=20, nullable=True),
        "subject": Column(type="int64"),
        "exercise": Column(type="string", values=("ABD", "PEN")),
    }
)
SOURCE = Source(kind="files", path="in/*.csv", contract="watch", time="ts")
HEADER = "ts,ax,subject,exercise\n"
GOOD = HEADER + "0.0,1.5,1,ABD\n0.02,,1,PEN\n"


class Place:
    """A folder with incoming files, a lake beside it and the position the last commit left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = Lake(folder / "lake", base64.b64encode, base64.b64decode)
        self.position: dict[str, str] = {}
        self.heard: list[float] = []
        self.now = 1e10  # long after any file was written
        (folder / "in").mkdir()

    def put(self, name: str, text: str) -> None:
        (self.folder / "in" / name).write_bytes(text.encode())

    def run(self, most: int = MARKS) -> Landed:
        feed = CsvFiles(self.folder, SOURCE.path, CONTRACT, self.now)
        landed = land("watch", SOURCE, CONTRACT, feed, self.lake, self.position, self.heard.append, most)
        self.position = {**self.position, **landed.position}
        return landed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refusal(text: str) -> Rejection:
    found = parse(text.encode(), CONTRACT, "a.csv")
    assert isinstance(found, Rejection), found
    assert (found.origin, found.row) == ("a.csv", -1)
    return found


def test_rows_land_typed_and_a_rerun_lands_nothing(place: Place) -> None:
    place.put("a.csv", GOOD)
    place.put("b.csv", "exercise,subject,ax,ts\r\nABD,2,1.5,86400\r\n")
    landed = place.run()
    assert landed.rows == 3 and len(landed.files) == 2 and landed.rejections == ()
    assert set(landed.position) == {"in/a.csv", "in/b.csv"}
    assert place.heard == [0.5, 1.0]
    rows = place.lake.read("watch", [f.name for f in landed.files], list(CONTRACT.columns))
    assert rows.column("ts").to_pylist() == [0.0, 0.02, 86400.0]
    assert rows.column("ax").to_pylist() == [1.5, None, 1.5]
    assert str(rows.schema.field("ax").type) == "float" and rows.column("subject").to_pylist() == [1, 1, 2]
    again = place.run()
    assert (again.rows, again.files, again.rejections) == (0, (), ())
    assert again.position == {}


def test_of_very_many_files_each_run_takes_in_some_until_all_have_landed(place: Place) -> None:
    for n in range(5):
        place.put(f"{n}.csv", GOOD)
    runs = [place.run(most=2) for _ in range(4)]
    assert [(sorted(run.position), run.rows, run.more) for run in runs] == [
        (["in/0.csv", "in/1.csv"], 4, True), (["in/2.csv", "in/3.csv"], 4, True), (["in/4.csv"], 2, False),
        ([], 0, False),
    ]  # fmt: skip


def test_a_file_that_looks_as_before_is_not_read_again(place: Place) -> None:
    place.put("a.csv", GOOD)
    place.run()
    _, _, looks = place.position["in/a.csv"].partition("@")
    place.position["in/a.csv"] = f"{'0' * 64}@{looks}"  # as if other bytes had been taken in
    assert place.run().rejections == (), "nobody looked inside"
    os.utime(place.folder / "in" / "a.csv", ns=(5, 5))
    assert [r.reason for r in place.run().rejections] == ["changed"]


def rewritten(path: Path, text: str) -> None:
    path.write_text(text)


def replaced(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.rename(path)


@pytest.mark.parametrize("write", [rewritten, replaced])
def test_a_file_that_was_written_anew_with_its_size_and_time_is_noticed(
    place: Place, write: Callable[[Path, str], None]
) -> None:
    """As `cp -p` and `rsync --times` do it, and editors that keep the time."""
    path = place.folder / "in" / "a.csv"
    for text, reasons in ((GOOD, []), (GOOD.replace("1.5", "2.5"), ["changed"]), (GOOD, [])):
        before = path.stat().st_ctime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_ctime_ns == before:  # the kernel counts it in steps of milliseconds
            write(path, text)
            os.utime(path, ns=(10**18, 10**18))
        landed = place.run()
        assert [r.reason for r in landed.rejections] == reasons
        assert landed.rows == (2 if len(place.heard) == 1 else 0)


@pytest.mark.parametrize("age", [RACY - 1, -100.0], ids=["just now", "by a clock that is ahead"])
@pytest.mark.parametrize("kept", [False, True], ids=["its own time", "a time that was kept"])
def test_a_file_that_changed_just_before_it_was_read_is_read_again(place: Place, age: float, kept: bool) -> None:
    def put(text: str) -> None:
        place.put("a.csv", text)
        if kept:
            os.utime(path, ns=(10**18, 10**18))

    path = place.folder / "in" / "a.csv"
    put(GOOD)
    changed = path.stat().st_ctime
    place.now = changed + age
    assert place.run().rows == 2
    again = place.run()
    assert again.position == {} and not again.more, "nothing is new, and it takes no place of another"
    put(GOOD.replace("1.5", "2.5"))
    assert [r.reason for r in place.run().rejections] == ["changed"]
    put(GOOD)
    place.now = path.stat().st_ctime + 2 * RACY
    assert "@" in place.run().position["in/a.csv"], "once it is older it is known by its looks"
    assert place.run().position == {}


@pytest.mark.parametrize("text", [GOOD, GOOD[:-1]], ids=["taken in", "refused"])
def test_a_file_that_was_touched_only_lands_nothing_and_is_known_from_then_on(place: Place, text: str) -> None:
    place.put("a.csv", text)
    before = place.run().position["in/a.csv"]
    os.utime(place.folder / "in" / "a.csv", ns=(5, 5))
    landed = place.run()
    after = landed.position["in/a.csv"]
    assert (landed.rows, landed.rejections) == (0, ())
    assert after != before and after.partition("@")[0] == before.partition("@")[0]


def test_a_mark_of_an_older_core_is_still_one(place: Place) -> None:
    place.put("a.csv", GOOD)
    place.run()
    place.position = {origin: mark.partition("@")[0] for origin, mark in place.position.items()}
    assert place.run().rows == 0 and "@" in place.position["in/a.csv"]


def test_a_bad_row_is_turned_away_alone(place: Place) -> None:
    place.put("a.csv", GOOD + "0.04,99,1,ABD\n0.06,1,1,XXX\n0.08,1,1,ABD\n")
    landed = place.run()
    assert landed.rows == 3
    assert [(r.row, r.reason) for r in landed.rejections] == [(2, "range"), (3, "value")]


def test_a_flood_of_bad_rows_is_counted_not_listed(place: Place) -> None:
    place.put("a.csv", GOOD + "0.04,99,1,ABD\n" * 1500)
    landed = place.run()
    assert landed.rows == 2 and len(landed.rejections) == 1000
    assert landed.rejections[-1].text.endswith("500 more rows of it were turned away after this one")


class Shelf:
    """A source of `count` units, each of which is turned away for `reason`, at length."""

    def __init__(self, count: int, reason: str) -> None:
        self._count, self._reason = count, reason

    def count(self) -> int:
        return self._count

    def units(self, position: Mapping[str, str]) -> Iterator[Unit | None]:
        for n in range(self._count):
            origin = f"in/{n:06d}-{'x' * 200}.csv"
            done = origin in position and self._reason != "changed"
            yield None if done else Unit(origin, "0" * 64, Rejection(origin, -1, self._reason, '"' * 400))


def taken_in(place: Place, feed: Feed) -> Landed:
    """What a run makes of `feed`, which an order can carry."""
    landed = land("watch", SOURCE, CONTRACT, feed, place.lake, place.position, place.heard.append)
    assert len(msgspec.json.encode(landed)) < WORDS + CHANGED_WORDS + 10_000 < LINE_LIMIT
    place.position |= landed.position
    return landed


def test_a_folder_of_refused_files_is_taken_in_by_runs_that_an_order_can_carry(place: Place) -> None:
    runs = [taken_in(place, Shelf(10_000, "truncated"))]
    while runs[-1].more:
        runs.append(taken_in(place, Shelf(10_000, "truncated")))
    assert len(place.position) == sum(len(run.rejections) for run in runs) == 10_000 and len(runs) > 2


def test_files_that_changed_are_counted_beyond_the_first_and_keep_no_others_out(place: Place) -> None:
    landed = taken_in(place, Shelf(MARKS + 5, "changed"))
    told = landed.rejections
    assert not landed.more and not landed.position and CHANGED_TOLD >= len(told) > CHANGED_TOLD / 2
    assert told[-1].text.endswith(f"; {MARKS + 5 - len(told)} more files of this source changed like it")


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        (GOOD + "0.04,1.5", "truncated", "no newline"),
        ("", "truncated", "the file is empty"),
        (GOOD + "0.04,1.5\n", "truncated", "line 4 has 2 fields instead of 4"),
        (GOOD + "0.04,1.5,1,ABD,7\n", "truncated", "line 4 has 5 fields instead of 4"),
        (GOOD.replace("ax", "a_x"), "columns", "'a_x' is not in the contract (did you mean 'ax'?)"),
        (GOOD.replace("subject", "subjekt"), "columns", "(did you mean 'subject'?); column 'subject' is missing"),
        ("ts,ax,exercise\n0,1,ABD\n", "columns", "column 'subject' is missing"),
        (GOOD.replace(",", ";"), "columns", "separated by ';'; save the file with commas"),
        (HEADER[:-1] + ",extra\n0,1,1,ABD,2\n", "columns", "column 'extra' is not in the contract"),
        (HEADER[:-1] + ",ax\n0,1,1,ABD,2\n", "columns", "'ax' appears more than once"),
        (GOOD + "0.04,much,1,ABD\n", "type", "column 'ax', row 3: 'much' is no float"),
        (GOOD + "0.04,1.5,1.5,ABD\n", "type", "column 'subject', row 3: '1.5' is no int64"),
    ],
)
def test_a_broken_file_is_refused_whole(text: str, reason: str, says: str) -> None:
    found = refusal(text)
    assert found.reason == reason
    assert says in found.text


def test_nothing_of_a_refused_file_lands_and_its_repair_does(place: Place) -> None:
    place.put("a.csv", GOOD + "0.04,1.5")
    place.put("b.csv", GOOD.replace("ABD", "PEN"))
    first = place.run()
    assert first.rows == 2 and [r.reason for r in first.rejections] == ["truncated"]
    assert place.run().rejections == ()  # told once
    place.put("a.csv", GOOD + "0.04,1.5,1,ABD\n")
    assert place.run().rows == 3
    assert place.run().rows == 0


def test_a_landed_file_that_changed_is_reported_and_not_doubled(place: Place) -> None:
    place.put("a.csv", GOOD)
    place.run()
    place.put("a.csv", GOOD + "0.04,1.5,1,ABD\n")
    landed = place.run()
    assert landed.rows == 0 and [r.reason for r in landed.rejections] == ["changed"]
    place.put("a.csv", GOOD)
    assert place.run().rejections == ()


def test_a_crash_before_the_commit_leaves_no_double(place: Place) -> None:
    place.put("a.csv", GOOD)
    lost = place.run()
    place.position = {}
    assert place.run().files == lost.files


def test_two_files_with_equal_rows_are_two_files_of_rows(place: Place) -> None:
    place.put("a.csv", GOOD)
    first = place.run()
    place.put("b.csv", GOOD)
    second = place.run()
    names = [file.name for file in (*first.files, *second.files)]
    assert len(set(names)) == 2
    assert place.lake.read("watch", names, ["ts"]).num_rows == 4


def test_a_glob_that_finds_nothing_says_so(place: Place) -> None:
    with pytest.raises(SourceError, match=r"no file matches 'in/\*\.csv'"):
        place.run()


def test_folders_are_no_files_and_empty_files_of_rows_are_done(place: Place) -> None:
    (place.folder / "in" / "x.csv").mkdir()
    place.put("a.csv", HEADER)
    assert CsvFiles(place.folder, SOURCE.path, CONTRACT, 0.0).count() == 1
    assert place.run().rows == 0 and set(place.position) == {"in/a.csv"}


def test_blank_lines_hold_no_rows(place: Place) -> None:
    place.put("a.csv", GOOD + "\n\n")
    landed = place.run()
    assert landed.rows == 2 and landed.rejections == ()


def test_header_marks_quotes_and_foreign_text() -> None:
    marked = parse(b"\xef\xbb\xbf" + GOOD.replace("ts,", '"ts",').encode(), CONTRACT, "a.csv")
    assert not isinstance(marked, Rejection) and marked.num_rows == 2
    latin = parse(HEADER.encode() + "0,1,1,Übung\n".encode("latin-1"), CONTRACT, "a.csv")
    assert isinstance(latin, Rejection) and latin.reason == "type"
    assert "line 2 is not UTF-8" in latin.text


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_file_never_lands_as_rows_it_does_not_hold(length: int) -> None:
    found = parse(GOOD[:length].encode(), CONTRACT, "a.csv")
    if not isinstance(found, Rejection):
        assert GOOD[:length].count("\n") - 1 == found.num_rows


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_a_refusal(data: bytes) -> None:
    parse(HEADER.encode() + data + b"\n", CONTRACT, "a.csv")
    parse(data, CONTRACT, "a.csv")
