"""The long work of taking rows in. Apart from the training job, so that it never loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from core.handoffs import Landed
from core.ingest.landing import land
from core.lake import Lake
from core.project import Project, declared


def run(
    project: Project,
    source: str,
    folder: Path,
    lake: Lake,
    position: Mapping[str, str],
    progress: Callable[[float], None],
) -> Landed:
    """Runs one source of the project; see `core.ingest.landing.land`. Raises UnknownPart besides."""
    found = declared("source", source, project.sources)
    contract = declared("contract", found.contract, project.contracts)
    return land(source, found, contract, folder, lake, position, progress)
