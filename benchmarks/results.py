"""How a benchmark is asked, and how it tells: the options that each has, and RESULTS.md, a section a script, put in the
place of the one that the script wrote before."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
MACHINE = (
    f"{os.cpu_count()}-core {platform.machine()}, {platform.system()} {'.'.join(platform.release().split('.')[:2])}, "
    f"{platform.python_implementation()} {platform.python_version()}"
)


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser that says on `--help` all that a script's docstring `doc` says, with the options that `tell` reads."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default=MACHINE, help="as the heading is to call it (%(default)s)")
    parser.add_argument("--write", action="store_true", help="put the figures into benchmarks/RESULTS.md")
    return parser


def tell(title: str, script: str, lines: Iterable[str], given: argparse.Namespace) -> None:
    """Prints a section: under `title` with the script, the date (UTC) and the machine, these lines of Markdown. It goes
    into RESULTS.md where it was `given` so."""
    head = f"{title} (`python benchmarks/{script}`), {datetime.now(UTC):%Y-%m-%d}, {given.machine}"
    section = "\n".join([head, "", *lines])
    print(section)
    if given.write:
        _put(section, title)


def _put(section: str, title: str) -> None:
    """Writes a section in the place of the one whose heading begins with `title`, prose below its tables included."""
    text = RESULTS.read_text(encoding="utf-8")
    start = text.find(title)
    end = text.find("\n## ", start + 1)
    before, after = (text[:start], text[end + 1 :] if end >= 0 else "") if start >= 0 else (text.rstrip() + "\n\n", "")
    RESULTS.write_text(f"{before}{section.rstrip()}\n\n{after}".rstrip() + "\n", encoding="utf-8")
