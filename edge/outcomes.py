"""What became of the answers of a split: whose keys each release answered, and which of its answers were right.

Theory. A split is judged by its keys (an entity, or the key of a request), for what is drawn by lot is the key, and
answers to one key resemble each other. A key has one word: how many of its first `per_key` outcomes were bad, of the
answers by the release that the split meant for it. So a request for a certain version, a window from before the split
and a key whose arm has fallen say nothing. Only the first `KEYS` keys are followed, whichever release is theirs.

The books lie sealed on disk (`edge.kept`) as of the last checkpoint; a kill costs the words since then.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

import msgspec

from edge.kept import Kept
from edge.routing import Routes
from sync.errors import SyncError
from sync.messages import SHARES, Prediction
from sync.names import Digest, ModelName
from sync.sketch import pack, unpack

KEYS = 10_000  # keys of one split that are followed
PER_KEY = 20  # outcomes of a key at most


class Followed(msgspec.Struct, frozen=True, array_like=True):
    """One key: the release that answers it, how many outcomes became known (`per_key` at most), and the bad ones."""

    release: int
    outcomes: int = 0
    bad: int = 0


class Books(msgspec.Struct, frozen=True):
    """All of a split that outlives a restart; `keys` by their mark (`edge.routing`), the counts by release number."""

    split: str
    began: float
    keys: dict[int, Followed] = {}
    labels: dict[int, int] = {}
    right: dict[int, int] = {}
    full: bool = False


class Found(msgspec.Struct, frozen=True):
    """What the books say of one release: keys it answered, outcomes that became known, the good ones, and keys by the
    number of bad ones among their first `per_key`."""

    keys: int = 0
    labels: int = 0
    right: int = 0
    losses: tuple[int, ...] = ()


@dataclass
class _Open:
    routes: Routes
    per_key: int
    split: Digest
    began: float
    keys: dict[int, Followed]
    labels: Counter[int]
    right: Counter[int]
    full: bool
    changed: bool = False
    found: tuple[dict[int, Found], bool] | None = None  # what they say, as of the last change


class Outcomes:
    """The books of one device, one a model. Thread-safe; nothing that goes wrong here reaches serving. Without `kept`
    they do not outlive the process."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept
        self._open: dict[ModelName, _Open] = {}
        self._lock = threading.Lock()

    def open(self, split: Digest, routes: Routes, per_key: int, now: float) -> None:
        """Follows the keys of this split from now on (seconds since 1970); kept books of the same one are continued, so
        this may be called again and again. `routes` are those of the split as it was ordered."""
        with self._lock:
            before = self._open.get(routes.model)
            if before is not None and before.split == split:
                return
            books = self._restore(routes.model, split) or Books(split, now)
            counts = Counter(books.labels), Counter(books.right)
            within = min(max(1, per_key), PER_KEY)
            self._open[routes.model] = _Open(
                routes, within, split, books.began, dict(books.keys), *counts, full=books.full
            )

    def close(self, model: ModelName) -> None:
        """Ends the books, if there are any, for good."""
        with self._lock:
            self._open.pop(model, None)
            if self._kept is not None:
                self._kept.remove(model)

    def asks(self, model: ModelName) -> bool:
        """Whether a split of this model is followed; never waits."""
        return model in self._open

    def see(self, prediction: Prediction) -> None:
        """One answered prediction, with its key as `entity`."""
        with self._lock:
            books = self._open.get(prediction.model)
            mark = _meant(books, prediction) if books is not None else None
            if books is None or mark is None or mark in books.keys:
                return
            if len(books.keys) >= KEYS:
                if not books.full:
                    books.full, books.found = True, None
                return
            books.keys[mark] = Followed(prediction.release or 0)
            books.changed, books.found = True, None

    def learn(self, prediction: Prediction, arrived: float, *, good: bool) -> None:
        """The first word on what became of a prediction that was answered at `arrived` (seconds since 1970)."""
        with self._lock:
            books = self._open.get(prediction.model)
            mark = _meant(books, prediction) if books is not None and arrived >= books.began else None
            followed = books.keys.get(mark) if books is not None and mark is not None else None
            if books is None or mark is None or followed is None or followed.release != prediction.release:
                return
            books.labels[followed.release] += 1
            books.right[followed.release] += good
            if followed.outcomes < books.per_key:
                known = Followed(followed.release, followed.outcomes + 1, followed.bad + (not good))
                books.keys[mark] = known
            books.changed, books.found = True, None

    def found(self, model: ModelName) -> tuple[dict[int, Found], bool]:
        """What the books say of each release, by its number; and whether there were more keys than are followed."""
        with self._lock:
            books = self._open.get(model)
            if books is None:
                return {}, False
            if books.found is None:
                books.found = _found(books)
            return books.found

    def checkpoint(self) -> None:
        """Writes down all books that changed since they were written last."""
        with self._lock:
            for model, books in self._open.items():
                if books.changed:
                    self._keep(model, books)

    def _keep(self, model: ModelName, books: _Open) -> None:
        books.changed = False
        if self._kept is not None:
            counts = dict(books.labels), dict(books.right)
            self._kept.save(model, pack(Books(str(books.split), books.began, books.keys, *counts, books.full)))

    def _restore(self, model: ModelName, split: Digest) -> Books | None:
        content = self._kept.load(model) if self._kept is not None else None
        if self._kept is None or content is None:
            return None
        try:
            books = unpack(Books, content)
        except SyncError as error:
            self._kept.lost(model, error)
            return None
        return books if books.split == split else None


def _meant(books: _Open, prediction: Prediction) -> int | None:
    """The mark of the prediction's key, if the release that answered is the one that the split put there."""
    if not prediction.entity or prediction.quality != "ok":
        return None
    mark = books.routes.mark(prediction.entity)
    return mark if books.routes.at(mark % SHARES) == prediction.release else None


def _found(books: _Open) -> tuple[dict[int, Found], bool]:
    keys = Counter(one.release for one in books.keys.values())
    words = Counter((one.release, one.bad) for one in books.keys.values() if one.outcomes >= books.per_key)
    return {
        release: Found(
            keys[release], books.labels[release], books.right[release],
            tuple(words[release, bad] for bad in range(books.per_key + 1)),
        )
        for release in sorted(keys)
    }, books.full  # fmt: skip
