"""What may be put before a person's eyes of words that strangers chose: topics, names of files, texts of devices."""

from __future__ import annotations


def visible(text: str) -> str:
    """On one line, with signs escaped that would move the cursor, colour the screen, or are no text at all."""
    return text if text.isprintable() else "".join(s if s.isprintable() else ascii(s)[1:-1] for s in text)


def visible_lines(text: str) -> str:
    """The same for lines of ours, which stay lines."""
    return "\n".join(map(visible, text.split("\n")))
