"""`falaj edge predictions` and `falaj edge bundle`: what the agent on this box said, and how it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance import clock
from appliance.cli import telling
from appliance.cli.options import at_options, edge_dir, json_option, show, wanted
from appliance.edge.log_tail import LINES
from appliance.errors import Trouble
from appliance.processes import tail
from appliance.settings import EdgeSettings, load, state_folder
from sync import codec
from sync.answers import LIMIT, Predictions
from sync.commands import AskSupport
from sync.durable import write_private
from sync.names import ModelName

if TYPE_CHECKING:
    from appliance.edge.state import EdgeFolder


@click.command()
@at_options
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False),
              help="With inputs, as a file sealed to the tenant, for `falaj replay` on the core.")  # fmt: skip
@edge_dir
@json_option
def predictions(
    at: str, window: str, model: ModelName | None, save: Path | None, folder: Path | None, as_json: bool
) -> None:
    """What this agent said at a time: "why did it say FAULT at 03:12?"."""
    from appliance.edge.agent_door import agent_of, ask
    from appliance.edge.answering import Asked
    from appliance.edge.state import EdgeFolder

    own = EdgeFolder(state_folder("edge", folder))
    own.enrolment()
    said, whole = (wanted(at, window, model, inputs=inputs, now=clock.now()) for inputs in (False, True))
    with agent_of(own):
        found = codec.decode(Predictions, ask(own, Asked(said)), LIMIT)
        sealed = ask(own, Asked(whole, sealed=True)) if save is not None else b""
    lines = telling.said(found)
    if save is not None:
        write_private(save, sealed)
        lines.append(f"saved in {save}, sealed to the tenant; next: `falaj replay {save.name}` on the core")
    show(as_json, codec.builtins(found), lines)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The file [default: falaj-support.tar.gz]."
)
@edge_dir
@json_option
def bundle(out: Path | None, folder: Path | None, as_json: bool) -> None:
    """A support bundle: versions, status, last events and log lines of this box; no reading, no key."""
    from appliance.edge.agent_door import agent_of, ask
    from appliance.edge.answering import Asked
    from appliance.edge.state import EdgeFolder

    own = EdgeFolder(state_folder("edge", folder))
    if not own.root.is_dir():
        raise Trouble(f"there is no agent in {own.root}: give its --dir")
    trouble = ""
    try:
        own.enrolment()
        with agent_of(own):
            archive = ask(own, Asked(AskSupport()))
    except Trouble as error:  # of a box whose agent does not start, what can be seen from outside is worth the most
        trouble = str(error)
        archive = _from_outside(own, trouble)
    place = out or Path("falaj-support.tar.gz")
    write_private(place, archive)
    told = f"{place}: {len(archive) >> 10} KiB"
    told += f"\nno agent answers, so it has only what can be seen from outside: {trouble}" if trouble else ""
    show(as_json, {"file": str(place), "bytes": len(archive), "trouble": trouble}, told)


def _from_outside(own: EdgeFolder, trouble: str) -> bytes:
    import platform

    from appliance.edge import support
    from edge.runtime import cpu_flags
    from sync.remembered import cpu_class

    try:
        settings = codec.builtins(load(EdgeSettings, own.root / "edge.toml", "FALAJ_EDGE__"))
    except Trouble as error:
        settings = {"unreadable": str(error)}
    lines = tail(own.root / "sync.log", LINES).splitlines()
    documents = {
        "host": support.host(own.root, cpu_class(platform.machine(), cpu_flags())),
        "files": support.files(own.root),
        "settings": settings,
        "trouble": {"text": trouble},
    }
    return support.bundle(documents, lines, clock.now())
