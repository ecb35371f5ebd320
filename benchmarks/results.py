"""RESULTS.md: a section a script, put in the place of the one that the script wrote before."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def put(section: str, title: str) -> None:
    """Writes a section in the place of the one whose heading begins with `title`, prose below its tables included."""
    text = RESULTS.read_text(encoding="utf-8")
    start = text.find(title)
    end = text.find("\n## ", start + 1)
    before, after = (text[:start], text[end + 1 :] if end >= 0 else "") if start >= 0 else (text.rstrip() + "\n\n", "")
    RESULTS.write_text(f"{before}{section.rstrip()}\n\n{after}".rstrip() + "\n", encoding="utf-8")
