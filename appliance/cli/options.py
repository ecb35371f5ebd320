"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from appliance.cli.suggesting import remember, whole
from appliance.moments import duration, moment
from appliance.screen import visible, visible_lines
from sync.commands import AskPredictions
from sync.names import BadName, DeviceId, ModelName, Name, SiteId

F = TypeVar("F", bound=Callable[..., Any])


class Named(click.ParamType):  # type: ignore[type-arg]  # generic in the newest versions alone
    """A word that must be a name of this kind: any other is wrong usage, told with what would be one."""

    name = "name"

    def __init__(self, kind: type[Name]) -> None:
        self.kind = kind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.kind(value)
        except BadName as error:
            self.fail(str(error), param, ctx)


class Group(click.Group):
    """A group whose list gives the first sentence of each command whole: click cuts it off at the end of the line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        shown = [(name, command) for name, command in found.items() if command is not None and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=1000)) for name, command in shown])


DEVICE, MODEL, SITE = Named(DeviceId), Named(ModelName), Named(SiteId)


def json_option(command: F) -> F:
    """`--json`: one JSON document on standard output, nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def core_dir(command: F) -> F:
    """`--dir`: the core's state folder."""
    return click.option(
        "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), envvar="FALAJ_CORE_DIR", callback=remember,
        help="The core's state folder [default: systemd's, else ~/.local/state/falaj/core].",
    )(command)  # fmt: skip


def edge_dir(command: F) -> F:
    """`--dir`: the agent's state folder."""
    return click.option(
        "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), envvar="FALAJ_EDGE_DIR", callback=remember,
        help="The agent's state folder [default: systemd's, else ~/.local/state/falaj/edge].",
    )(command)  # fmt: skip


def serial_option(command: F) -> F:
    """`--serial`: who a box says it is."""
    return click.option("--serial", help="The box's serial number, for a site's token.")(command)


def reason_option(command: F) -> F:
    """`--reason`: what is kept for good beside who asked."""
    return click.option("--reason", required=True, callback=_said, help="Why; it is kept for good, with your name.")(
        command
    )


def at_options(command: F) -> F:
    """`--at`, `--window`, `--model`: which predictions."""
    for option in (
        click.option("--model", type=MODEL, help="Of this model alone."),
        click.option("--window", default="5m", show_default=True, help="How far before and after: 30s, 5m, 2h."),
        click.option("--at", required=True, help="When: 03:12, 2026-11-23T03:12, 03:12Z or -2h; this machine's zone."),
    ):
        command = option(command)
    return command


def wanted(at: str, window: str, model: ModelName | None, *, inputs: bool, now: float) -> AskPredictions:
    """What the options of `at_options` ask for."""
    around, middle = duration(window), moment(at, now)
    return AskPredictions(middle - around, middle + around, model, inputs)


def _said(context: click.Context, option: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter("say why in a few words; it is kept for good")
    return text.strip()


def progress_line(as_json: bool) -> Callable[[str], None]:
    """One line on standard error that is written over, where somebody looks; an empty text clears it."""

    def say(text: str) -> None:
        if sys.stderr.isatty() and not as_json:
            click.echo(f"\r\x1b[K{visible(text)}", err=True, nl=False)

    return say


def show(as_json: bool, document: Any, text: str | Iterable[str]) -> None:
    """Prints the document, or the text for people: ours, or lines that may quote what devices and publishers say.
    Whatever they say, it moves no cursor, and begins no line in a list. What they suggest can be copied (`whole`)."""
    if as_json:
        click.echo(json.dumps(document, indent=2, sort_keys=True, default=str))
    else:
        click.echo(whole(visible_lines(text) if isinstance(text, str) else "\n".join(map(visible, text))))


def actor() -> str:
    """Who asks, for the record."""
    return f"cli:{getpass.getuser()}"
