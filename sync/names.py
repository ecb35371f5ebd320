"""Small values that cannot be wrong: a bad name fails at birth, so no room downstream checks it again.

Only these values may enter a topic, a table key, a file path or a log line (protocol.md, "Names").
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

import msgspec

LAST = 2**63 - 1  # what a column of a table holds
Count = Annotated[int, msgspec.Meta(ge=0, le=LAST)]  # a number that counts something, or is a place in an order

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_TRUST_FILE = re.compile(r"[A-Za-z0-9._%-]{1,128}")


class BadName(ValueError):
    """A name that must not enter a topic, a path or a table; the message says what would be accepted."""


class Name(str):
    """A validated string. Subclasses differ only in meaning, so that a device is never passed for a tenant."""

    __slots__ = ()
    shape: ClassVar[re.Pattern[str]] = _NAME
    noun: ClassVar[str] = "name"
    says: ClassVar[str] = "1 to 63 of a-z, 0-9 and '-', starting with a letter or digit"

    def __new__(cls, text: str) -> Self:
        if not isinstance(text, str) or cls.shape.fullmatch(text) is None:
            raise BadName(f"{text!r} is no {cls.noun}: it must be {cls.says}")
        return super().__new__(cls, text)


class TenantId(Name):
    """One owner; every key, path, topic and log line carries it."""

    __slots__ = ()
    noun = "tenant name"


class DeviceId(Name):
    """The CN of a device's certificate."""

    __slots__ = ()
    noun = "device name"


class SiteId(Name):
    """A place where boxes stand; it is no part of any topic."""

    __slots__ = ()
    noun = "site name"


class Serial(Name):
    """What a maker wrote on a box; no more than a claim until the box has a certificate."""

    __slots__ = ()
    noun = "serial number"
    shape = _SERIAL
    says = "1 to 64 of A-Z, a-z, 0-9, '.', '_', ':' and '-', starting with a letter or digit"


class ModelName(Name):
    """What a model is called across its releases."""

    __slots__ = ()
    noun = "model name"


class LookupName(Name):
    """A table of values by entity, and the graph input that it fills."""

    __slots__ = ()
    noun = "lookup name"


class Kind(Name):
    """The kind of an upward record: metrics, event, why, ..."""

    __slots__ = ()


class Digest(Name):
    """SHA-256 in 64 lowercase hex digits."""

    __slots__ = ()
    noun = "digest"
    shape = _DIGEST
    says = "64 lowercase hexadecimal digits"


class TrustFile(Name):
    """The file name of one piece of TUF metadata or of a manifest."""

    __slots__ = ()
    noun = "name of a trust file"
    shape = _TRUST_FILE
    says = "1 to 128 of A-Z, a-z, 0-9, '.', '_', '%' and '-'"


DEFAULT_TENANT = TenantId("default")
