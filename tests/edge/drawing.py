"""Draws the lifecycle into docs/lifecycle.md, from the table: `python -m tests.edge.drawing`."""

from __future__ import annotations

import re
from pathlib import Path

from edge.lifecycle import drawing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md"
FENCED = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)

if __name__ == "__main__":
    PAGE.write_text(FENCED.sub(lambda _: drawing(), PAGE.read_text(), count=1))
