"""The boxes an owner expects: a CSV of serial numbers becomes names, sites and labels, or nothing does."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from core.handoffs import Box
from sync.names import BadName, DeviceId, Serial, SiteId

COLUMNS = ("serial", "name", "site", "labels")
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}(=[A-Za-z0-9][A-Za-z0-9._-]{0,62})?")


class BadLine(Exception):
    """A line that cannot be taken; its number counts from 1, with the heading."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


def read(text: str) -> tuple[Box, ...]:
    """The boxes of a CSV with the columns serial, name, site and (if wanted) labels, which `;` or blanks part.

    Raises BadLine for the first line that is wrong, a heading included: one bad line and none is taken.
    """
    lines = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), restkey="beyond", strict=True)
    try:
        heading = tuple(name.strip() for name in lines.fieldnames or ())
        lines.fieldnames = list(heading)
        if not set(COLUMNS[:3]) <= set(heading) <= set(COLUMNS) or len(set(heading)) != len(heading):
            raise BadLine(1, f"the columns are {', '.join(heading) or 'missing'}; wanted: {', '.join(COLUMNS)}")
        found = [(lines.line_num, _box(lines.line_num, row)) for row in lines]
    except csv.Error as error:
        raise BadLine(lines.reader.line_num, f"this is no CSV: {error}") from error
    _once(found)
    return tuple(box for _, box in found)


def proposed(serial: Serial) -> DeviceId:
    """The name of a box that nobody announced; raises BadName where its serial number gives none."""
    return DeviceId(re.sub(r"[._:]", "-", serial.lower())[:63])


def twice(found: Iterable[Box]) -> str | None:
    """The first name or serial number that two of the boxes have; None if there is none."""
    known: set[str] = set()
    for box in found:
        for one in (f"the serial number {box.serial}", f"the name {box.name}"):
            if one in known:
                return one
            known.add(one)
    return None


def _box(line: int, row: dict[str, str | None]) -> Box:
    if "beyond" in row or None in row.values():
        raise BadLine(line, f"it has not as many fields as the heading ({', '.join(k for k in row if k != 'beyond')})")
    fields = {name: (value or "").strip() for name, value in row.items()}
    try:
        labels = tuple(re.split(r"[;\s]+", fields["labels"])) if fields.get("labels") else ()
        wrong = [label for label in labels if not _LABEL.fullmatch(label)]
        if wrong:
            raise BadName(f"{wrong[0]!r} is no label: a word of a-z, 0-9 and '-', or word=value")
        return Box(Serial(fields["serial"]), DeviceId(fields["name"]), SiteId(fields["site"]), labels)
    except BadName as error:
        raise BadLine(line, str(error)) from error


def _once(found: Iterable[tuple[int, Box]]) -> None:
    serials: dict[str, int] = {}
    names: dict[str, int] = {}
    for line, box in found:
        for known, what, value in ((serials, "serial number", box.serial), (names, "name", box.name)):
            if value in known:
                raise BadLine(line, f"the {what} {value} stands in line {known[value]} too")
            known[value] = line
