"""What can go wrong with words: one family, so that a walker catches it in one place."""

from __future__ import annotations


class SyncError(Exception):
    """Base of all refusals in `sync`. `code` is stable and goes into events, tests and documentation."""

    code = "sync-error"


class Malformed(SyncError):
    """Bytes that are not the document they claim to be."""

    code = "malformed"


class Untrusted(SyncError):
    """A signature, key, digest or name that does not hold."""

    code = "untrusted"


class Barred(SyncError):
    """The word of a device that may not speak any more: revoked, replaced, or seen twice."""

    code = "barred"


class Damaged(SyncError):
    """Sealed bytes that do not open, or pieces whose digest differs."""

    code = "damaged"


class Unfit(SyncError):
    """A table or config that a release does not accept: other columns, or a value beyond what its owner allowed."""

    code = "unfit"
