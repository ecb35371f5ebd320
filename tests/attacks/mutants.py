"""Documents gone wrong: real ones, cut, bent, spliced, filled with what no honest sender writes. Repeatable by seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324, "", "\x00", "x" * 5000, "\ud800", "🦀",
    "../../etc", "#", [], {}, [[]] * 50, {"": {}}, "1" * 400, "NaN",
)  # fmt: skip
WORDS = (b"\xff", b"\x00" * 9, b"{" * 3000, b"[" * 3000, b'"', b"1e9999", b"NaN", b"Infinity", b"\\ud800", b"9" * 5000)


def mutants(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` of them, each from one of `seeds`, half by its bytes and half by its meaning."""
    chance = random.Random(seed)
    for _ in range(count):
        found = chance.choice(seeds)
        for _ in range(chance.randint(1, 3)):
            found = chance.choice((_bent, _meant))(found, seeds, chance)
        yield found


def _bent(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :],
        lambda: data[:at] + chance.choice(WORDS) + data[at:],
        lambda: data[:at] + chance.choice(seeds)[at:],
        lambda: data + data,
        lambda: chance.randbytes(chance.randrange(200)),
    )
    return chance.choice(ways)()


def _meant(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Still JSON, with one value or name another; bytes that are none are bent instead."""
    try:
        document = json.loads(data)
        change(document, chance)
        return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return _bent(data, seeds, chance)


def change(document: Any, chance: random.Random) -> None:
    """One place of a document of dicts and lists, in place."""
    places = [p for p in _places(document) if p[0]]
    if not places:
        return
    parent, key = chance.choice(places)
    what = chance.random()
    if what < 0.2 and isinstance(parent, dict):
        parent[f"{key}?" if chance.random() < 0.5 else str(chance.choice(ODD))] = parent.pop(key)
    elif what < 0.4:
        del parent[key]
    elif what < 0.6:
        other, place = chance.choice(places)
        parent[key] = json.loads(json.dumps(other[place]))
    else:
        parent[key] = copy.deepcopy(chance.choice(ODD))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) of a document."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])
