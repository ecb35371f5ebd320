"""Many small files of a day become one, in the job that takes rows in: the only one that writes files of its source.

A file of the lake never changes. So the rows of small ones are written once more, into one file, and the steward
commits in one catalog transaction that it stands for them. Who reads has either list, whole: those that were replaced
stay on the disk until no training is left that was given their names, and a later run of the source removes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pyarrow as pa
from msgspec.structs import replace

from core.handoffs import LakeFile, Landed, Merged
from core.lake import Lake, LakeError

log = logging.getLogger("falaj.lake")


def compact(landed: Landed, lake: Lake, crowded: Iterable[tuple[LakeFile, ...]]) -> Landed:
    """`landed` with what became of each group of `crowded` files (`core.catalog.datasets.crowded`). A group that cannot
    be read or written stays as it is: a training says what is wrong with it, what landed is taken in all the same, and
    a later run tries again."""
    merged: list[Merged] = []
    for group in crowded:
        try:
            merged += lake.merge(landed.source, [file.name for file in group])
        except (LakeError, OSError, MemoryError, pa.ArrowException) as error:
            log.error("files of %s stay apart: %r", landed.source, error)
    return replace(landed, merged=tuple(merged))
