"""The long work of taking rows in. Apart from the training job, so that it never loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance import clock
from core.handoffs import Landed
from core.ingest.files import CsvFiles
from core.ingest.interface import SourceError
from core.ingest.landing import land
from core.ingest.samples import Box, SampleFeed, tally
from core.lake import Lake
from core.project import Contract, Project, Source, declared
from sync.features import WindowSpec

if TYPE_CHECKING:
    from core.release.replay import Replay


def run(
    project: Project,
    name: str,
    folder: Path,
    lake: Lake,
    position: Mapping[str, str],
    progress: Callable[[float], None],
    open_box: Callable[[], Box] | None = None,
    again: Callable[[], Replay] | None = None,
) -> Landed:
    """Runs source `name` of the project; see `core.ingest.landing.land`. Raises UnknownPart besides.

    `open_box` gives what opens samples, and `again` what makes some of them again; they are called for a source of that
    kind only.
    """
    source = declared("source", name, project.sources)
    contract = declared("contract", source.contract, project.contracts)
    if source.kind == "files":
        files = CsvFiles(folder, source.path, contract, clock.now())
        return land(name, source, contract, files, lake, position, progress)
    if open_box is None:
        raise SourceError(f"source {name!r} holds samples of devices; only the core that they were sent to opens them")
    feed, window = _samples(project, name, source, contract, open_box())
    landed = tally(land(name, source, contract, feed, lake, position, progress), lake, window.size, position)
    served = feed.taken(landed.position)
    if again is None or source.model is None or not served:
        return landed
    # Imported here: ONNX Runtime costs other sources a second they have no use for.
    from core.release import skew

    return replace(landed, skew=skew.compare(source.model, served, again()))


def _samples(
    project: Project, name: str, source: Source, contract: Contract, box: Box
) -> tuple[SampleFeed, WindowSpec]:
    """The feed of a samples source; its rows are as far apart as those of the windows of its model's view."""
    if source.model is None:
        raise SourceError(f"source {name!r} holds samples of no model; set its `model`")
    view = declared("view", declared("model", source.model, project.models).view, project.views)
    return SampleFeed(box, source.model, contract, source.time, view.window), view.window
