"""Document to bytes and back: JSON, typed, validated, size-capped; unknown fields are tolerated.

A document says by `v` which version of its kind it is. What may be left unread is a new field and raises nothing; `v`
rises where whoever does not know it would misread the rest, so a newer one is refused, not guessed at.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from sync.errors import Malformed
from sync.names import Name

LIMIT = 64 * 1024  # bytes of one document; what a small broker and a small box can hold

Document = TypeVar("Document")


def _plain(value: object) -> object:
    if isinstance(value, Name):
        return str(value)
    raise TypeError(f"a document holds plain values, structs and names, no {type(value).__name__}")


def _named(wanted: type, value: object) -> Any:
    return wanted(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain, order="deterministic")
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_versions: dict[type, int | None] = {}  # the newest of each kind that this program knows; None: it has no `v`


def encode(document: object) -> bytes:
    """The bytes of a document; the same document always gives the same bytes."""
    return _encoder.encode(document)


def decode(kind: type[Document], payload: bytes, limit: int = LIMIT) -> Document:
    """The document of type `kind` in `payload`; raises Malformed, naming the field that is wrong."""
    if len(payload) > limit:
        raise Malformed(f"{getattr(kind, '__name__', kind)}: {len(payload)} bytes, more than the {limit} allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=_named)
    try:
        document: Document = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{getattr(kind, '__name__', kind)}: {error}") from error
    check_version(document)
    return document


def typed(kind: type[Document], plain: object) -> Document:
    """The document of type `kind` that `builtins` made `plain` of; raises Malformed, naming the field that is wrong."""
    try:
        document = msgspec.convert(plain, kind, dec_hook=_named)
    except msgspec.ValidationError as error:
        raise Malformed(f"{getattr(kind, '__name__', kind)}: {error}") from error
    check_version(document)
    return document


def check_version(document: object) -> None:
    """Raises Malformed for a document of a version that this program does not know yet; `decode` and `typed` do it."""
    kind = type(document)
    if kind not in _versions:
        _versions[kind] = _known(kind)
    known = _versions[kind]
    if known is not None and document.v > known:  # type: ignore[attr-defined]
        says = f"it is of version {document.v}, this program knows {known}"  # type: ignore[attr-defined]
        raise Malformed(f"{kind.__name__}: {says}: update falaj here first")


def builtins(document: object) -> Any:
    """The document as plain dicts, lists and strings, for pages and `--json`."""
    return msgspec.to_builtins(document, enc_hook=_plain)


def _known(kind: type) -> int | None:
    """The version that this program writes: what `v` is unless told otherwise."""
    if not issubclass(kind, msgspec.Struct):
        return None
    version = {field.name: field.default for field in msgspec.structs.fields(kind)}.get("v")
    return version if isinstance(version, int) else None
