"""Candidates with their verdicts, releases with their manifests, sealed blobs with their keys, trust files."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from core.handoffs import Candidate
from sync import codec
from sync.manifest import LIMIT, Blob, Manifest
from sync.names import Digest, ModelName

State = Literal["staged", "approved", "revoked"]
_CANDIDATE_LIMIT = 1024 * 1024
_PROPOSAL_LIMIT = 8 * 1024 * 1024


class ReleaseRow(msgspec.Struct, frozen=True):
    """A release as the catalog knows it."""

    model: ModelName
    number: int
    digest: Digest
    state: State
    ts: float
    candidate: int


class BlobRow(msgspec.Struct, frozen=True):
    """A sealed blob of a release; `length` in bytes."""

    model: ModelName
    number: int
    sealed: Digest
    length: int


class _Variant(msgspec.Struct, frozen=True):
    blob: Blob


class _Sealed(msgspec.Struct, frozen=True):
    """The part of a manifest that describes what travels."""

    variants: tuple[_Variant, ...]
    golden: Blob


class _Lineage(msgspec.Struct, frozen=True):
    metrics: dict[str, float] = {}


class _Measured(msgspec.Struct, frozen=True):
    """The part of a manifest that says what was measured."""

    lineage: _Lineage


class BlobSize(msgspec.Struct, frozen=True):
    """How a sealed blob is cut: bytes of a chunk, and how many there are."""

    chunk: int
    chunks: int


class Proposal(msgspec.Struct, frozen=True):
    """Metadata that waits for signatures. `text` says what it does, `signed` whose signatures it has, `lacks` what is
    missing, a sentence each."""

    subject: str  # one proposal a subject: "root", "motion@3", "revoke motion@3"
    text: tuple[str, ...]
    metadata: dict[str, str]  # role -> JSON text, with the signatures so far
    since: float
    actor: str
    signed: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class Releases:
    """Shelf of candidates, releases, blob keys, trust files and what waits to become one."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def add_candidate(self, candidate: Candidate, job: int, now: float) -> int:
        """A refused candidate is kept too, with its reasons."""
        cursor = self._db.execute(
            "INSERT INTO candidate (model, job, ts, accepted, document) VALUES (?, ?, ?, ?, ?)",
            (candidate.model, job, now, candidate.accepted, codec.encode(candidate)),
        )
        return int(cursor.lastrowid)

    def candidate(self, number: int) -> Candidate | None:
        row = self._db.execute("SELECT document FROM candidate WHERE id = ?", (number,)).fetchone()
        return codec.decode(Candidate, bytes(row[0]), _CANDIDATE_LIMIT) if row else None

    def candidates(self, limit: int = 20) -> list[tuple[int, float, Candidate]]:
        """(id, time, candidate), newest first."""
        rows = self._db.execute("SELECT id, ts, document FROM candidate ORDER BY id DESC LIMIT ?", (limit,))
        return [(i, ts, codec.decode(Candidate, bytes(d), _CANDIDATE_LIMIT)) for i, ts, d in rows]

    def next_number(self, model: ModelName) -> int:
        """Rises, never reused: refused and revoked releases keep theirs."""
        row = self._db.execute("SELECT max(number) FROM release WHERE model = ?", (model,)).fetchone()
        return int(row[0] or 0) + 1

    def stage(self, manifest: Manifest, payload: bytes, digest: Digest, candidate: int, now: float) -> None:
        self._db.execute(
            "INSERT INTO release VALUES (?, ?, ?, 'staged', ?, ?, ?)",
            (manifest.model, manifest.number, digest, now, candidate, payload),
        )

    def keep_key(self, blob: Blob, key: bytes, model: str, number: int) -> None:
        """The key of one sealed blob, of a release or, under its name and version, of a table; the catalog file is
        encrypted itself."""
        self._db.execute(
            "INSERT INTO blob VALUES (?, ?, ?, ?, ?, ?, ?)",
            (blob.sealed, blob.plain, model, number, blob.chunk, blob.length, key),
        )

    def drop_key(self, sealed: Digest) -> None:
        """Nobody will be given this blob again."""
        self._db.execute("DELETE FROM blob WHERE sealed = ?", (sealed,))

    def keys(self, model: str, number: int) -> dict[Digest, bytes]:
        """Sealed digest -> key of every blob of a release or a table."""
        rows = self._db.execute("SELECT sealed, key FROM blob WHERE model = ? AND number = ?", (model, number))
        return {Digest(sealed): bytes(key) for sealed, key in rows}

    def blob_size(self, sealed: Digest) -> BlobSize | None:
        row = self._db.execute("SELECT chunk, length FROM blob WHERE sealed = ?", (sealed,)).fetchone()
        return BlobSize(row[0], -(-row[1] // row[0])) if row else None

    def blob_length(self, sealed: Digest) -> int:
        """Bytes of a sealed blob; 0 of one that is not known."""
        row = self._db.execute("SELECT length FROM blob WHERE sealed = ?", (sealed,)).fetchone()
        return int(row[0]) if row else 0

    def revoked(self) -> set[tuple[ModelName, int]]:
        """(model, number) of every release that was revoked."""
        rows = self._db.execute("SELECT model, number FROM release WHERE state = 'revoked'")
        return {(ModelName(model), number) for model, number in rows}

    def revoked_blobs(self) -> list[BlobRow]:
        """Of revoked releases, what is still here and nothing of it on the broker; by release."""
        rows = self._db.execute(
            "SELECT model, number, sealed, length FROM blob JOIN release USING (model, number)"
            " WHERE state = 'revoked' AND sealed NOT IN (SELECT sealed FROM retained) ORDER BY model, number, sealed"
        )
        return [BlobRow(ModelName(model), number, Digest(sealed), length) for model, number, sealed, length in rows]

    def described(self, sealed: Digest) -> Blob | None:
        """A blob as the signed manifest of its release describes it; None for one that is of no release here."""
        row = self._db.execute(
            "SELECT manifest FROM release JOIN blob USING (model, number) WHERE sealed = ?", (sealed,)
        ).fetchone()
        if row is None:
            return None
        found = codec.decode(_Sealed, bytes(row[0]), LIMIT)
        return next((b for b in (found.golden, *(v.blob for v in found.variants)) if b.sealed == sealed), None)

    def set_state(self, model: ModelName, number: int, state: State) -> None:
        self._db.execute("UPDATE release SET state = ? WHERE model = ? AND number = ?", (state, model, number))

    def release(self, model: ModelName, number: int) -> tuple[ReleaseRow, bytes] | None:
        """The row and the manifest's bytes."""
        row = self._db.execute("SELECT * FROM release WHERE model = ? AND number = ?", (model, number)).fetchone()
        return (_row(row), bytes(row["manifest"])) if row else None

    def releases(self, limit: int = 50) -> list[ReleaseRow]:
        """Newest first."""
        return [_row(row) for row in self._db.execute("SELECT * FROM release ORDER BY ts DESC LIMIT ?", (limit,))]

    def is_calibrated(self, model: ModelName, number: int) -> bool:
        """Whether its signed manifest says that its probabilities were made honest."""
        row = self._db.execute(
            "SELECT manifest FROM release WHERE model = ? AND number = ?", (model, number)
        ).fetchone()
        return row is not None and "temperature" in codec.decode(_Measured, bytes(row[0]), LIMIT).lineage.metrics

    def by_manifest(self, digest: Digest) -> ReleaseRow | None:
        row = self._db.execute("SELECT * FROM release WHERE digest = ?", (digest,)).fetchone()
        return _row(row) if row else None

    def floor(self, model: ModelName) -> int:
        """The oldest release of a model that may serve: what lies below it was revoked, or never approved."""
        query = "SELECT min(number) FROM release WHERE state = 'approved' AND model = ?"
        return int(self._db.execute(query, (model,)).fetchone()[0] or 1)

    def newest_approved(self, model: ModelName) -> Manifest | None:
        """The manifest of a model's newest release that may serve."""
        row = self._db.execute(
            "SELECT manifest FROM release WHERE state = 'approved' AND model = ? ORDER BY number DESC LIMIT 1", (model,)
        ).fetchone()
        return codec.decode(Manifest, bytes(row[0]), LIMIT) if row else None

    def newest(self, model: ModelName, limit: int) -> tuple[Manifest, ...]:
        """The manifests of a model's newest releases that any device may have served, also of those revoked since."""
        rows = self._db.execute(
            "SELECT manifest FROM release WHERE state != 'staged' AND model = ? ORDER BY number DESC LIMIT ?",
            (model, limit),
        )
        return tuple(codec.decode(Manifest, bytes(row[0]), LIMIT) for row in rows)

    def put_proposal(self, proposal: Proposal) -> None:
        """In place of the one on the same subject."""
        document = codec.encode(proposal)
        self._db.execute("INSERT OR REPLACE INTO proposal VALUES (?, ?)", (proposal.subject, document))

    def drop_proposal(self, subject: str) -> None:
        self._db.execute("DELETE FROM proposal WHERE subject = ?", (subject,))

    def proposal(self, subject: str) -> Proposal | None:
        row = self._db.execute("SELECT document FROM proposal WHERE subject = ?", (subject,)).fetchone()
        return codec.decode(Proposal, bytes(row[0]), _PROPOSAL_LIMIT) if row else None

    def proposals(self) -> list[Proposal]:
        """All that waits for signatures, by subject."""
        rows = self._db.execute("SELECT document FROM proposal ORDER BY subject")
        return [codec.decode(Proposal, bytes(row[0]), _PROPOSAL_LIMIT) for row in rows]

    def put_trust(self, files: dict[str, bytes]) -> None:
        """New trust files beside the old ones, in one transaction with whatever made them valid."""
        self._db.executemany("INSERT OR REPLACE INTO trust_file VALUES (?, ?)", list(files.items()))

    def trust(self) -> dict[str, bytes]:
        return {name: bytes(content) for name, content in self._db.execute("SELECT name, content FROM trust_file")}


def _row(row: Any) -> ReleaseRow:
    return ReleaseRow(
        ModelName(row["model"]),
        row["number"],
        Digest(row["digest"]),
        row["state"],
        row["ts"],
        row["candidate"],
    )
