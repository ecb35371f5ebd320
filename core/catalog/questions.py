"""What devices were asked, and their answers: sealed files, in the parts in which they come. Nobody here can open
one."""

from __future__ import annotations

from typing import Any

import msgspec

from sync import codec
from sync.commands import Ask
from sync.names import LAST, DeviceId

KEPT = 100  # questions with their answers, the newest


class Question(msgspec.Struct, frozen=True):
    """One question. `answered` is when the last part came; `refused`: the device's word why it does not answer."""

    seq: int
    device: DeviceId
    epoch: int
    actor: str
    asked: float
    expires: float
    ask: Ask
    answered: float | None = None
    refused: str = ""

    def open(self, now: float) -> bool:
        """Whether an answer may still come."""
        return self.answered is None and not self.refused and now <= self.expires


class Questions:
    """Shelf of questions by their numbers, which rise and are never used twice."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def next_seq(self, now: float) -> int:
        """Above every number there was, and by the clock: also a core that was restored from a backup is heard."""
        (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM question").fetchone()
        return max(int(last) + 1, int(now * 1000))

    def put(self, question: Question) -> None:
        """A new one, or what became of it. In a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO question VALUES (?, ?, ?)",
            (question.seq, question.device, codec.encode(question)),
        )
        (oldest,) = self._db.execute(
            "SELECT coalesce(min(seq), 0) FROM (SELECT seq FROM question ORDER BY seq DESC LIMIT ?)", (KEPT,)
        ).fetchone()
        self._db.execute("DELETE FROM question WHERE seq < ?", (oldest,))
        self._db.execute("DELETE FROM answer_part WHERE seq < ?", (oldest,))

    def get(self, seq: int) -> Question | None:
        """None for any number that is no question's: devices may say whatever they like."""
        if not 0 < seq <= LAST:
            return None
        row = self._db.execute("SELECT document FROM question WHERE seq = ?", (seq,)).fetchone()
        return codec.decode(Question, bytes(row[0])) if row else None

    def newest(self, device: DeviceId | None = None, limit: int = KEPT) -> list[Question]:
        """Of one device or all, newest first."""
        rows = self._db.execute(
            "SELECT document FROM question WHERE ? IS NULL OR device = ? ORDER BY seq DESC LIMIT ?",
            (device, device, limit),
        )
        return [codec.decode(Question, bytes(document)) for (document,) in rows]

    def put_part(self, seq: int, part: int, content: bytes) -> int:
        """One part of an answer; the same again changes nothing. Returns how many are here. In a transaction."""
        self._db.execute("INSERT OR IGNORE INTO answer_part VALUES (?, ?, ?)", (seq, part, content))
        return int(self._db.execute("SELECT count(*) FROM answer_part WHERE seq = ?", (seq,)).fetchone()[0])

    def answer(self, seq: int) -> bytes:
        """The sealed file, as far as it is here."""
        rows = self._db.execute("SELECT content FROM answer_part WHERE seq = ? ORDER BY part", (seq,))
        return b"".join(bytes(content) for (content,) in rows)
