"""Opens a tenant's catalog: SQLCipher with the tenant's catalog key, WAL, one writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlite_utils
from sqlcipher3 import dbapi2 as sqlcipher

from core.catalog.datasets import Datasets
from core.catalog.decisions import Decisions
from core.catalog.events import Events
from core.catalog.failing import Failing
from core.catalog.fleet import FleetShelf
from core.catalog.identities import Identities
from core.catalog.performance import PerformanceShelf
from core.catalog.pieces import Pieces
from core.catalog.projects import Projects
from core.catalog.questions import Questions
from core.catalog.releases import Releases
from core.catalog.retained import Retained
from core.catalog.samples import SampleShelf
from core.catalog.schema import MIGRATIONS, VERSION
from core.catalog.skew import SkewShelf

_ASKED = frozenset(  # SQLite's primary result codes for what was asked of it; all others speak of the file or the host
    (sqlcipher.SQLITE_ERROR, sqlcipher.SQLITE_TOOBIG, sqlcipher.SQLITE_CONSTRAINT, sqlcipher.SQLITE_MISMATCH,
     sqlcipher.SQLITE_MISUSE, sqlcipher.SQLITE_RANGE)
)  # fmt: skip


class CatalogLocked(Exception):
    """The catalog does not open with this key, or is not a catalog."""


class Catalog:
    """The shelves over one connection. Writers wrap what belongs together in `transaction()`."""

    def __init__(self, connection: Any) -> None:
        self._db = connection
        self.projects = Projects(connection)
        self.datasets = Datasets(connection)
        self.releases = Releases(connection)
        self.fleet = FleetShelf(connection)
        self.identities = Identities(connection)
        self.decisions = Decisions(connection)
        self.events = Events(connection)
        self.samples = SampleShelf(connection)
        self.pieces = Pieces(connection)
        self.retained = Retained(connection)
        self.questions = Questions(connection)
        self.failing = Failing(connection)
        self.performance = PerformanceShelf(connection)
        self.skew = SkewShelf(connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, also across a power cut; transactions do not nest."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            _roll_back(self._db)
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


def open_catalog(path: Path, key: bytes, *, read_only: bool = False) -> Catalog:
    """The catalog at `path`, made if it is not there (unless read-only). `key` is 32 raw bytes.

    Raises CatalogLocked for a wrong key or a foreign file, FileNotFoundError for a missing one read-only.
    """
    if read_only and not path.exists():
        raise FileNotFoundError(f"no catalog at {path}: the core has not run here yet")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = "ro" if read_only else "rwc"
    db = sqlcipher.connect(f"file:{path}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None)
    try:
        db.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA busy_timeout = 5000")
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlcipher.DatabaseError as error:
        db.close()
        raise CatalogLocked(f"{path} does not open with this tenant's key: {error}") from error
    if version > VERSION:
        db.close()
        raise CatalogLocked(f"the catalog has schema {version}, this version knows {VERSION}: update falaj")
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, version, MIGRATIONS)
        path.chmod(0o600)
    db.row_factory = sqlcipher.Row
    return Catalog(db)


def is_hosts(error: BaseException) -> bool:
    """Whether the host is at fault (disk, memory, the catalog's file), so that the next thing asked would fare no
    better."""
    if isinstance(error, sqlcipher.Error):
        return getattr(error, "sqlite_errorcode", sqlcipher.SQLITE_ERROR) & 0xFF not in _ASKED
    return isinstance(error, OSError | MemoryError)


def _roll_back(db: Any) -> None:
    """Unless SQLite did so itself, as it does on a full disk."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def _migrate(db: Any, version: int, steps: Mapping[int, str]) -> None:
    """Each step is one transaction with the number it leads to: a cut leaves the old schema or the new one."""
    tables = sqlite_utils.Database(db)
    while version in steps:
        try:
            tables.executescript(f"BEGIN IMMEDIATE; {steps[version]}; PRAGMA user_version = {version + 1}; COMMIT;")
        except sqlcipher.DatabaseError:
            _roll_back(db)
            raise
        version += 1
