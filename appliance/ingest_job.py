"""The long work of taking rows in. Apart from the training job, so that it never loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from appliance import clock
from core.handoffs import Landed
from core.ingest.files import CsvFiles
from core.ingest.interface import SourceError
from core.ingest.landing import land
from core.ingest.samples import Box, SampleFeed, tally
from core.lake import Lake
from core.project import Contract, Project, Source, declared
from sync.features import WindowSpec


def run(
    project: Project,
    name: str,
    folder: Path,
    lake: Lake,
    position: Mapping[str, str],
    progress: Callable[[float], None],
    open_box: Callable[[], Box] | None = None,
) -> Landed:
    """Runs source `name` of the project; see `core.ingest.landing.land`. Raises UnknownPart besides.

    `open_box` gives what opens samples; it is called for a source of that kind only.
    """
    source = declared("source", name, project.sources)
    contract = declared("contract", source.contract, project.contracts)
    if source.kind == "files":
        files = CsvFiles(folder, source.path, contract, clock.now())
        return land(name, source, contract, files, lake, position, progress)
    if open_box is None:
        raise SourceError(f"source {name!r} holds samples of devices; only the core that they were sent to opens them")
    feed, window = _samples(project, name, source, contract, open_box())
    landed = land(name, source, contract, feed, lake, position, progress)
    return tally(landed, lake, window.size, position)


def _samples(
    project: Project, name: str, source: Source, contract: Contract, box: Box
) -> tuple[SampleFeed, WindowSpec]:
    """The feed of a samples source; its rows are as far apart as those of the windows of its model's view."""
    if source.model is None:
        raise SourceError(f"source {name!r} holds samples of no model; set its `model`")
    view = declared("view", declared("model", source.model, project.models).view, project.views)
    return SampleFeed(box, source.model, contract, source.time, view.window), view.window
