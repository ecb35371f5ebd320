"""Canaries: a marker in a model and a reading that occurs nowhere else, and the search for them in files."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterable
from pathlib import Path

READING = 61.72839455  # no recording has it, no graph either
ROWS = 120  # of it, a window and more


def needles(mark: str) -> dict[str, bytes]:
    """What is searched for: the marker, and the reading as text and as the numbers of two channels side by side."""
    single, double = struct.pack("<f", READING), struct.pack("<d", READING)
    return {"marker": mark.encode(), "text": str(READING).encode(), "floats": 2 * single, "doubles": 2 * double}


def found(roots: Iterable[Path], wanted: dict[str, bytes]) -> list[tuple[Path, str]]:
    """Every file below the roots that holds one, and which; a file that goes away meanwhile holds nothing."""
    hits = []
    for root in roots:
        for path in (root, *root.rglob("*")):
            try:
                content = path.read_bytes() if path.is_file() else b""
            except FileNotFoundError:
                continue
            hits += [(path, name) for name, needle in wanted.items() if needle in content]
    return hits


def plant(recordings: Path) -> Path:
    """One more file of the owner's, like the others, in which every reading is the canary."""
    pattern = sorted(recordings.glob("*.csv"))[0]
    with pattern.open(newline="") as file:
        rows = list(csv.DictReader(file))
    path = recordings / "canary.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            fields = dict.fromkeys(("ax", "ay", "az", "wx", "wy", "wz"), READING)
            writer.writerow({**row, **fields, "recording": "canary"})
    return path
