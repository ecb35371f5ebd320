"""Rows of the journal that this program cannot read: each is put aside by itself, and all others count.

A validator that became stricter, an older agent after a newer one, a page that rotted where SQLite does not look. What
cannot be read is moved within the file, to the table `aside`, in the transaction that takes it out of force; it is
never deleted, and an alarm says which it was and why. What a row stood for, and what goes on without it:

- `deployment`: the model starts without a past, and the core's order brings it back. What may not run here stands in
  `quarantine`, and the floor comes with the order.
- `accepted`: the release is not loaded, and got anew from its signed files.
- `piece`: the table or config is taken up anew as the assignment names it.
- `quarantine`: the verdict holds all the same, for the most that it may have said (`edge.verdicts`).
- `untold`: the core does not hear of it.

Two are read where they are believed (`edge.agent.intake`). `root`: the newest under which a release was accepted takes
its place, else that of the enrolment, and no order counts before the chain has reached the version that was trusted
once. `assignment`: it stays, and so does its place in the order; the copy that the broker keeps counts anew. A why card
that cannot be read is left out. Counters and high-water marks are plain numbers. What was changed into something that
reads well nobody can tell here: signatures do, at each load.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from edge import verdicts
from edge.states import Deployment, HeldPiece, Phase
from edge.trust import Record
from sync import codec
from sync.errors import Malformed, SyncError
from sync.names import BadName, Kind, ModelName

LIMIT = 16 * 1024 * 1024  # bytes of a document

TABLE = """
CREATE TABLE IF NOT EXISTS aside (
    id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL,
    document BLOB, reason TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0
);
"""

NOT_TOLD = "SELECT id, place, model, name, reason FROM aside WHERE NOT told ORDER BY id"

FOLLOWS = {
    "deployment": "the model has no past here, and answers again when its order has brought its release back",
    "accepted": "the release is loaded again when its signed files have come anew",
    "piece": "it is taken up anew as the assignment names it",
    "root": "the newest that is known otherwise counts, and no order before it is as new as the one that was trusted",
    "quarantine": "what it said no more counts as the worst: a higher attempt lifts it, if it had a number",
    "untold": "the core does not hear of it",
}


class Aside(msgspec.Struct, frozen=True):
    """A row that was put aside: the table that it stood in, the name that it had there, and why it is not read."""

    id: int
    place: str
    model: ModelName | None
    name: str
    reason: str


class _Place(NamedTuple):
    """A table of documents: its key, what else stands in a row, the document last, and what raises where a reader
    would."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    read: Callable[..., object]


class _Unread(NamedTuple):
    place: _Place
    key: tuple[bytes, ...]
    row: tuple[Any, ...]
    reason: str


def sweep(db: sqlite3.Connection) -> None:
    """Puts aside what cannot be read, all in one transaction; where all can, nothing is written. Raises
    sqlite3.Error."""
    db.text_factory = _text
    found = [one for place in _PLACES for one in _unread(db, place)]
    if not found:
        return
    with db:
        for one in found:
            _move(db, one)


def lose_root(db: sqlite3.Connection, reason: str) -> None:
    """Puts the root aside, for whoever believes it found that it is none; in a transaction of the journal's."""
    db.execute(
        "INSERT INTO aside (place, model, name, document, reason) SELECT 'root', '', 'root', document, ? FROM root",
        (reason,),
    )
    db.execute("DELETE FROM root")


def rows(found: list[tuple[int, str, str, str, str]]) -> list[Aside]:
    """Rows of `NOT_TOLD`."""
    return [Aside(id_, place, _model(model), name, reason) for id_, place, model, name, reason in found]


def _text(raw: bytes) -> str:
    """Text that is none must not keep all other rows from being read."""
    return raw.decode(errors="replace")


def _unread(db: sqlite3.Connection, place: _Place) -> Iterator[_Unread]:
    # As bytes a key finds its row again, whatever became of it.
    keys = [f"CAST({column} AS BLOB)" for column in place.key]
    for row in db.execute(f"SELECT {', '.join((*keys, *place.key, *place.columns))} FROM {place.table}"):  # noqa: S608
        key, content = row[: len(keys)], row[len(keys) :]
        try:
            place.read(*content)
        except (SyncError, msgspec.MsgspecError, ValueError, TypeError) as error:
            yield _Unread(place, key, content, str(error))


def _move(db: sqlite3.Connection, one: _Unread) -> None:
    key, content = one.row[: len(one.key)], one.row[len(one.key) :]
    document = content[0] if len(content) == 1 else repr(content)
    model = str(key[0]) if one.place.key[:1] == ("model",) else ""
    db.execute(
        "INSERT INTO aside (place, model, name, document, reason) VALUES (?, ?, ?, ?, ?)",
        (one.place.table, model, " ".join(map(str, key)), document, one.reason),
    )
    where = " AND ".join(f"CAST({column} AS BLOB) = ?" for column in one.place.key)
    db.execute(f"DELETE FROM {one.place.table} WHERE {where}", one.key)  # noqa: S608 - names of our own schema
    if one.place.table == "quarantine":
        verdicts.keep_worst(db, *one.row)


def _model(found: Any) -> ModelName | None:
    try:
        return ModelName(found)
    except BadName:
        return None


# --- what each reader expects ---


def _deployment(model: Any, document: Any) -> None:
    found = codec.decode(Deployment, _bytes(document), LIMIT)
    if found.model != model:
        raise Malformed(f"it is of {found.model}")
    if found.phase is Phase.NO_MODEL and found.serving is not None:  # nobody would ever move it from there
        raise Malformed("a release serves in it, and it has no phase")


def _accepted(model: Any, number: Any, record: Any) -> None:
    ModelName(model)
    msgspec.msgpack.decode(_bytes(record), type=Record)


def _piece(name: Any, document: Any) -> None:
    codec.decode(HeldPiece, _bytes(document), LIMIT)


def _untold(id_: Any, kind: Any, ts: Any, document: Any) -> None:
    Kind(kind)
    float(ts)
    msgspec.json.decode(_bytes(document))


def _bytes(document: Any) -> bytes:
    if not isinstance(document, bytes):
        raise Malformed("it is no document")
    return document


_PLACES = (
    _Place("deployment", ("model",), ("document",), _deployment),
    _Place("piece", ("name",), ("document",), _piece),
    _Place("accepted", ("model", "number"), ("record",), _accepted),
    _Place("quarantine", ("model", "manifest"), ("artifact", "retry", "reason"), verdicts.check),
    _Place("untold", ("id",), ("kind", "ts", "document"), _untold),
)
