"""`falaj edge sync FOLDER`: a device without a network meets a folder that somebody carries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.options import edge_dir, json_option, progress_line, show
from appliance.errors import Trouble
from appliance.settings import state_folder

if TYPE_CHECKING:
    from appliance.edge.state import EdgeFolder
    from appliance.edge.trips import Visited
    from appliance.stick import Stick


@click.command()
@click.argument("place", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@edge_dir
@json_option
def sync(place: Path, folder: Path | None, as_json: bool) -> None:
    """Take in what the core left in FOLDER, and leave what this device has to say.

    A running agent does it; where none runs, one is started for as long as it takes. A request to join that was left
    with `falaj edge enrol --folder` is completed first. Run it as often as you like.
    """
    from appliance.edge.agent_door import agent_of, runs
    from appliance.edge.state import EdgeFolder
    from appliance.edge.trips import visit
    from appliance.stick import Stick
    from sync.names import DeviceId, TenantId

    own = EdgeFolder(state_folder("edge", folder))
    joined = _join(own, place, as_json)
    if joined and runs(own):
        raise Trouble("the box has its new identity: restart the agent, then run this command again")
    kept = own.enrolment()
    stick = Stick(place, TenantId(kept.tenant))
    with agent_of(own) as converse:
        done = visit(stick, DeviceId(kept.device), converse, progress_line(as_json), time.sleep)
    document = {
        "device": done.device, "joined": joined, "brought": done.brought, "bytes": done.bytes, "taken": done.taken,
        "lacking": _lacking(done), "refused": done.refused, "told": list(done.told),
        "models": done.state.get("models", {}), "caution": stick.caution,
    }  # fmt: skip
    show(as_json, document, _lines(done, stick, joined=joined))


def _join(own: EdgeFolder, place: Path, as_json: bool) -> bool:
    """Whether an identity came; raises Trouble where one is waited for and nothing else can be done."""
    from appliance.edge.folder_enrolling import asks, complete
    from appliance.edge.state import NotEnrolled

    if not asks(own):
        return False
    answer = complete(own, place)
    if answer is None and not own.enrolled():
        raise NotEnrolled(
            f"{place} has no answer to this box's request yet: take it to the core, run `falaj device carry FOLDER` "
            "there, bring it back and run this command again"
        )
    if answer is not None and not as_json:
        click.echo(f"{answer.device} joined tenant {answer.tenant}")
    return answer is not None


def _lacking(done: Visited) -> list[str]:
    """What a release still needs; a next root that does not exist yet is asked for by every device."""
    return [name for name in done.lacking if name.startswith("blob/") or name.endswith((".manifest", "/desired"))]


def _lines(done: Visited, stick: Stick, *, joined: bool) -> Iterator[str]:
    lacking = _lacking(done)
    yield f"{done.device}: {done.brought} files taken in, {done.bytes >> 10} KiB; its words are in {stick.place}"
    for name, model in done.state.get("models", {}).items():
        serving, reason = model["serving"], model["reason"]
        what = f"serves release {serving['number']}" if serving else "serves no model"
        yield f"  {name}: {model['phase']}, {what}{f' ({reason})' if reason else ''}"
    if f"d/{done.device}/desired" in done.lacking:
        yield "  nothing of the core lies in it for this device yet"
    elif lacking:
        yield f"  still missing: {len(lacking)} files ({lacking[0]}{', ...' if lacking[1:] else ''})"
    for name, why in list(done.refused.items())[:10]:
        yield f"  not taken: {name}: {why}"
    if len(done.refused) > 10:
        yield f"  not taken: {len(done.refused) - 10} more"
    yield from (f"  attention: {text}" for text in done.told[:10])
    if len(done.told) > 10:
        yield f"  attention: {len(done.told) - 10} more, see the log"
    yield from (f"  attention: {text}" for text in (stick.caution,) if text)
    if joined:
        yield "  it has joined: start it with `falaj edge run`, or its service"
    yield "next: take the folder to the core and run `falaj device carry FOLDER` there"
