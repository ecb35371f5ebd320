"""TUF metadata as files: found by role, read strictly, written compactly. Pure; nothing is signed here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from sync.errors import Malformed, Untrusted

Files = Mapping[str, bytes]  # file name -> bytes, the newest version of each and all roots


def parse(data: bytes, kind: type) -> Metadata[Any]:
    """Metadata of exactly this kind; raises Malformed, or Untrusted for another kind."""
    try:
        metadata = Metadata.from_bytes(data)
    except (DeserializationError, ValueError) as error:
        raise Malformed(f"trust metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise Untrusted(f"trust metadata is {metadata.signed.type}, not {kind.__name__.lower()}")
    return metadata


def write(metadata: Metadata[Any]) -> bytes:
    """The bytes of a metadata file."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def newest(files: Files, role: str, kind: type) -> Metadata[Any]:
    """The newest metadata of a role; raises Untrusted where there is none."""
    names = [n for n in files if n.partition(".")[2] == f"{role}.json"]
    if not names:
        raise Untrusted(f"there is no {role} metadata yet: run `falaj trust init` first")
    return parse(files[max(names, key=version_of)], kind)


def newest_root(files: Files) -> bytes | None:
    """The root in force, None before the first."""
    names = [n for n in files if n.endswith(".root.json")]
    return files[max(names, key=version_of)] if names else None


def root_in_force(files: Files) -> Root | None:
    """The same, read."""
    data = newest_root(files)
    return parse(data, Root).signed if data is not None else None


def version_of(name: str) -> int:
    """The version in front of a metadata file's name."""
    return int(name.split(".", 1)[0])


def target_roles(files: Files) -> dict[str, str]:
    """Role -> file name of its newest version, for targets and every model role."""
    found: dict[str, str] = {}
    for name in files:
        if not name.endswith(".json") or name == "timestamp.json":
            continue
        role = name.split(".", 1)[1].removesuffix(".json")
        if role in ("root", "snapshot"):
            continue
        if role not in found or version_of(name) > version_of(found[role]):
            found[role] = name
    return found


def later(now: float, life: timedelta) -> datetime:
    """When something that is signed at `now` (seconds since 1970) ends, to the second."""
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0) + life
