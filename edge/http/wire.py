"""A request and a response as plain values: what stands between bytes and their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson

JSON = "application/json"
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path` is without query and decoded no further; header names are lowercase."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One response; length and connection headers are added where it is written."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request that gets no answer but `{"error": text}` with this status."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = error(status, text, *headers)


def json(document: object, status: int = 200) -> Response:
    return Response(status, orjson.dumps(document))


def error(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """The error shape of the Open Inference Protocol."""
    return Response(status, orjson.dumps({"error": text}), JSON, headers)


def encode(response: Response, *, keep_alive: bool, head: bool = False) -> bytes:
    """The bytes of an HTTP/1.1 response; `head` leaves the body out, as HEAD asks."""
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"content-type: {response.content_type}",
        f"content-length: {len(response.body)}",
    ]
    lines += [f"{name}: {value}" for name, value in response.headers]
    if not keep_alive:
        lines.append("connection: close")
    first = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return first if head else first + response.body
