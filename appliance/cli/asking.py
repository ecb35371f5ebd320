"""`falaj device predictions` and `falaj device bundle`: a device far away is asked once, its answer is read here."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from appliance import clock
from appliance.api import Api
from appliance.cli import telling
from appliance.cli.clients import api
from appliance.cli.options import DEVICE, F, actor, at_options, core_dir, json_option, progress_line, show, wanted
from appliance.cli.suggesting import whole
from appliance.errors import Trouble
from appliance.moments import spoken
from appliance.screen import visible
from core.orders import Question
from sync import answers, codec
from sync.answers import Predictions, Support
from sync.commands import Ask, AskSupport
from sync.durable import write_private
from sync.errors import SyncError
from sync.names import DeviceId, ModelName

if TYPE_CHECKING:
    from appliance.core.opening import Opening

PATIENCE = 60.0  # seconds that a device which is online has for its answer
PAUSE = 0.2

_T = TypeVar("_T", Predictions, Support)


class Away(Trouble):
    """The device is not there."""


class NotAnswered(Trouble):
    """The device does not answer, or not in time."""


@dataclass(frozen=True)
class Come:
    """A sealed file that the core hands over as the answer of `device` to question `seq`, which wanted `ask` (None:
    whoever reads it did not put the question)."""

    file: bytes
    device: str
    seq: int
    ask: Ask | None = None


def wait_option(command: F) -> F:
    """`--wait`: for a device that is away."""
    return click.option("--wait", is_flag=True, help="Leave the question for a device that is away, for a day.")(
        command
    )


@click.command()
@click.argument("name", type=DEVICE)
@at_options
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False),
              help="With inputs as far as they may leave, as a sealed file for `falaj replay`.")  # fmt: skip
@wait_option
@core_dir
@json_option
def predictions(
    name: DeviceId,
    at: str,
    window: str,
    model: ModelName | None,
    save: Path | None,
    wait: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Ask device NAME what it said at a time: "why did it say FAULT at 03:12?"."""
    ask = wanted(at, window, model, inputs=save is not None, now=clock.now())
    _said(folder, _answer(api(folder), name, ask, wait=wait, say=progress_line(as_json)), save, as_json)


@click.command()
@click.argument("name", type=DEVICE)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file [default: NAME-support.tar.gz].")
@wait_option
@core_dir
@json_option
def bundle(name: DeviceId, out: Path | None, wait: bool, folder: Path | None, as_json: bool) -> None:
    """Ask device NAME for a support bundle: versions, status, last events and log lines; no reading, no key."""
    _bundled(folder, _answer(api(folder), name, AskSupport(), wait=wait, say=progress_line(as_json)), out, as_json)


@click.command()
@click.argument("number", type=int)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Where to: a sealed file, or a bundle.")
@core_dir
@json_option
def answer(number: int, save: Path | None, folder: Path | None, as_json: bool) -> None:
    """Read the answer to question NUMBER, which was left for a device with --wait."""
    come = _come(api(folder), number)
    if come is None:
        raise NotAnswered(f"question {number} has no answer yet: see `falaj device list`")
    if answers.read(come.file).kind == answers.PREDICTIONS_TYPE:
        _said(folder, come, save, as_json)
    else:
        _bundled(folder, come, save, as_json)


def believed(place: Opening, come: Come, wanted: type[_T]) -> _T:
    """What is in it; raises Trouble unless this device signed it as the answer to this very question."""
    try:
        found = place.read(come.file, wanted)
        answers.check(found, come.device, come.seq, come.ask)
    except SyncError as error:
        raise Trouble(f"refused-{error.code}: {error}; nothing of it is believed, ask the device anew") from error
    return found


def _said(folder: Path | None, come: Come, save: Path | None, as_json: bool) -> None:
    found = believed(opening(folder), come, Predictions)
    lines = telling.said(found)
    if save is not None:
        write_private(save, come.file)
        lines.append(f"saved in {save}; next: `falaj replay {save}`")
    show(as_json, codec.builtins(found), lines)


def _bundled(folder: Path | None, come: Come, out: Path | None, as_json: bool) -> None:
    found = believed(opening(folder), come, Support)
    place = out or Path(f"{found.device}-support.tar.gz")
    write_private(place, found.archive)
    document = {"device": found.device, "made": found.made, "file": str(place), "bytes": len(found.archive)}
    show(as_json, document, f"{place}: {len(found.archive) >> 10} KiB, made {spoken(found.made)}")


def opening(folder: Path | None) -> Opening:
    """What opens sealed files on the core of this state folder."""
    from appliance.core.opening import Opening
    from appliance.core.state import CoreFolder
    from appliance.settings import CoreSettings, load, state_folder

    root = state_folder("core", folder)
    return Opening(CoreFolder(root, load(CoreSettings, root / "core.toml", "FALAJ_CORE__").tenant), api(folder))


def _answer(core: Api, device: DeviceId, ask: Ask, *, wait: bool, say: Callable[[str], None]) -> Come:
    """What the device sends; raises Away, NotAnswered, or what the core says."""
    row = next((row for row in core.get("/v1/devices")["devices"] if row["device"] == device), None)
    if row is not None and row["status"] != "online" and not wait:
        since = f" since {spoken(row['status_ts'])}" if row["status_ts"] else ""
        raise Away(f"{device} is {row['status'] or 'away'}{since}: with --wait the question is left for it, for a day")
    put = core.order(Question(actor=actor(), device=device, ask=ask))
    if wait:
        later = f"{device} is asked; if you do not wait, read its answer with `falaj device answer {put['seq']}`"
        click.echo(whole(later), err=True)
    end = put["expires"] if wait else clock.now() + PATIENCE
    say(f"{device} is asked ...")
    try:
        while clock.now() < end:
            come = _come(core, put["seq"])
            if come is not None:
                return Come(come.file, device, put["seq"], ask)
            time.sleep(PAUSE)
    finally:
        say("")
    raise NotAnswered(f"{device} has not answered yet: see `falaj device list`, and `falaj device answer {put['seq']}`")


def _come(core: Api, seq: int) -> Come | None:
    """The answer to a question, None while it may still come; raises NotAnswered where the device said no."""
    found = core.get(f"/v1/questions/{seq}")
    question = found["question"]
    if question["refused"]:
        raise NotAnswered(visible(f"{question['device']} says: {question['refused']}"))
    if question["answered"] is None:
        return None
    return Come(base64.b64decode(found["answer_base64"]), question["device"], seq)
