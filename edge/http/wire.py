"""A request and a response as plain values: what stands between bytes and their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
import orjson

JSON = "application/json"
BINARY = "application/octet-stream"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Request(msgspec.Struct, frozen=True):
    """One request. `path` is without query and decoded no further; header names are lowercase."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Response(msgspec.Struct, frozen=True):
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
    first = (
        f"{_LINES[response.status]}content-type: {response.content_type}\r\ncontent-length: {len(response.body)}\r\n"
    )
    for name, value in response.headers:
        first += f"{name}: {value}\r\n"
    if not keep_alive:
        first += "connection: close\r\n"
    start = (first + "\r\n").encode("latin-1")
    return start if head else start + response.body
