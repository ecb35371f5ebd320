"""SQLite files of a device: what a host does is no file's fault, and what was written is read all the while."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge.database import Database, Schema, connect, last_written, obstacle, open_or_memory, put_aside
from tests.faults.small_disk import SmallDisk

SCHEMA = Schema("CREATE TABLE IF NOT EXISTS word (text TEXT);")
LARGE = "x" * 8192


def say(db: Database, text: str) -> None:
    with db.transaction() as open_:
        open_.execute("INSERT INTO word VALUES (?)", (text,))


def said(db: Database) -> list[str]:
    return [text for (text,) in db.execute("SELECT text FROM word ORDER BY rowid")]


def refuses(db: Database, text: str) -> bool:
    try:
        say(db, text)
    except (sqlite3.Error, OSError) as error:
        return obstacle(error)
    return False


def killed(path: Path, db: Database) -> None:
    """Ends a database as a kill does: its log and shared memory stay."""
    left = {part: part.read_bytes() for part in path.parent.glob(f"{path.name}*")}
    db.close()
    for part, content in left.items():
        part.write_bytes(content)


def test_only_its_owner_may_read_it_whoever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    connect(path, SCHEMA).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_which_errors_are_the_hosts_doing(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "rust.db").write_bytes(b"rust" * 5000)
    found = {}
    for name in ("folder.db", "rust.db", "none/a.db"):
        with pytest.raises((sqlite3.Error, OSError)) as error:
            connect(tmp_path / name, SCHEMA)
        found[name] = obstacle(error.value)
    assert found == {"folder.db": True, "rust.db": False, "none/a.db": True}
    db = connect(tmp_path / "a.db", SCHEMA)
    for query, host in (("PRAGMA query_only = ON", True), ("SELECT * FROM nothing", False)):
        with pytest.raises(sqlite3.Error) as refusal:
            db.executescript(f"{query}; INSERT INTO word VALUES ('a')")
        assert obstacle(refusal.value) is host
    db.close()


def test_nothing_put_aside_covers_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    names = []
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        path.with_name("a.db-wal").write_bytes(content * 2)
        names.append(put_aside(path).name)
    assert names == ["a.unreadable", "a.unreadable-2", "a.unreadable-3"]
    assert (tmp_path / "a.unreadable-2-wal").read_bytes() == b"twotwo"


def test_a_spoilt_file_is_put_aside_and_the_new_one_knows_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"rust" * 5000)
    db = Database(path, SCHEMA, lambda new, aside: new.execute("INSERT INTO word VALUES (?)", (aside.name,)) and None)
    assert db.put_aside is not None and said(db) == ["a.unreadable"] and last_written(db.put_aside) > 10**12
    db.close()
    db = Database(path, SCHEMA)
    assert db.put_aside is None and said(db) == ["a.unreadable"]
    db.close()


@pytest.mark.parametrize("spoil", ["no", "garbage", "obstacle"])
def test_rooms_that_may_forget_go_on_in_a_new_file_or_in_memory(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "a.db"
    if spoil == "garbage":
        path.write_bytes(b"rust" * 5000)
    if spoil == "obstacle":
        path.mkdir()
    told: list[bool] = []
    db = open_or_memory(path, SCHEMA, lambda text, memory: told.append(memory))
    db.execute("INSERT INTO word VALUES ('a')")
    db.close()
    assert told == {"no": [], "garbage": [False], "obstacle": [True]}[spoil]
    assert path.is_dir() is (spoil == "obstacle"), "an obstacle is nothing to put aside"


def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    db = Database(tmp_path / "a.db", SCHEMA)
    say(db, "a")
    db.execute("PRAGMA query_only = ON")
    assert refuses(db, "b") and said(db) == ["a"]
    say(db, "c")  # opened anew: a file found read-only once would stay so
    assert said(db) == ["a", "c"]
    db.close()


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_full_disk_is_read_from_and_takes_everything_when_there_is_room(disk: SmallDisk, end: str) -> None:
    path = disk.folder / "a.db"
    db = Database(path, SCHEMA)
    say(db, "before")
    disk.fill()
    while not refuses(db, LARGE):
        pass
    known = said(db)
    assert known[0] == "before"
    killed(path, db) if end == "killed" else db.close()
    disk.fill()
    db = Database(path, SCHEMA)
    while not refuses(db, LARGE):
        known.append(LARGE)
    assert said(db) == known and db.put_aside is None
    disk.free()
    say(db, "after")
    db.close()
    db = Database(path, SCHEMA)
    assert said(db) == [*known, "after"]
    db.close()


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_read_only_disk_is_read_from_until_it_is_not_any_more(disk: SmallDisk, end: str) -> None:
    path = disk.folder / "a.db"
    db = Database(path, SCHEMA)
    say(db, "before")
    killed(path, db) if end == "killed" else db.close()
    disk.read_only(True)
    db = Database(path, SCHEMA)
    assert said(db) == ["before"] and refuses(db, "not") and refuses(db, "not")
    disk.read_only(False)
    assert said(db) == ["before"]
    say(db, "after")
    db.close()
    db = Database(path, SCHEMA)
    assert said(db) == ["before", "after"]
    db.close()


def test_where_there_is_neither_file_nor_room_nothing_is_known_until_there_is(disk: SmallDisk) -> None:
    disk.fill()
    db = Database(disk.folder / "new" / "a.db", SCHEMA)
    assert said(db) == [] and refuses(db, "not")
    disk.free()
    say(db, "after")
    db.close()
    assert (disk.folder / "new" / "a.db").stat().st_mode & 0o777 == 0o600


def test_a_spoilt_file_on_a_full_disk_is_put_aside_and_its_successor_still_knows(disk: SmallDisk) -> None:
    path = disk.folder / "a.db"
    path.write_bytes(b"rust" * 5000)
    disk.fill()
    db = Database(path, SCHEMA, lambda new, aside: new.execute("INSERT INTO word VALUES (?)", (aside.name,)) and None)
    assert db.put_aside is not None and said(db) == [] and refuses(db, "not")
    disk.free()
    say(db, "after")
    assert said(db) == ["a.unreadable", "after"]
    db.close()


@pytest.mark.parametrize("spoilt", ["its beginning", "a page"])
def test_a_spoilt_file_on_a_read_only_disk_says_nothing_until_it_can_be_put_aside(disk: SmallDisk, spoilt: str) -> None:
    path = disk.folder / "a.db"
    db = Database(path, SCHEMA)
    for _ in range(4):
        say(db, LARGE)
    db.close()
    with path.open("r+b") as file:
        file.seek(0 if spoilt == "its beginning" else 8192)
        file.write(b"rust" * 2048)
    disk.read_only(True)
    db = Database(path, SCHEMA, lambda new, aside: new.execute("INSERT INTO word VALUES (?)", (aside.name,)) and None)
    assert db.unreadable and said(db) == [] and refuses(db, "not") and path.exists()
    with pytest.raises(OSError, match="Read-only"):
        db.settle()
    disk.read_only(False)
    db.settle()
    assert db.put_aside is not None and not db.unreadable and said(db) == ["a.unreadable"]
    say(db, "after")
    db.close()
