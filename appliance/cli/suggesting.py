"""Commands that a text suggests: copied as they are, they mean the folder that was given to the command that says so.

Texts come from everywhere, the core's refusals among them, and know no folder: what lacks is put in where they are
printed. A folder of the core's is no folder of an agent's, and the other way round.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource

PLACELESS = (
    "falaj demo",
    "falaj doctor",
    "falaj trust key",
    "falaj edge bench",
    "falaj edge install",
)  # neither's
_COMMAND = re.compile(r"`(falaj [^`\n]+)`")
_META = "falaj.folder"  # of click's contexts: one dictionary for all of a call


@dataclass(frozen=True)
class Given:
    """The folder on the command line, and whose it is."""

    folder: Path
    edge: bool


def remember(context: click.Context, option: click.Parameter, folder: Path | None) -> Path | None:
    """Callback of `--dir`. A folder of the environment is remembered by the environment."""
    if folder is not None and context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE:
        context.meta[_META] = Given(folder, option.envvar == "FALAJ_EDGE_DIR")
    return folder


def whole(text: str) -> str:
    """The text with `--dir` in each command it suggests that lacks it; nothing changes outside of a command."""
    context = click.get_current_context(silent=True)
    given = context.meta.get(_META) if context is not None else None
    return completed(text, given) if given is not None else text


def completed(text: str, given: Given) -> str:
    """The same for a folder that is known."""

    def put(found: re.Match[str]) -> str:
        command = found[1]
        edge = command.startswith("falaj edge ")
        if edge != given.edge or "--dir" in command or command.startswith(PLACELESS):
            return found[0]
        return f"`{command} --dir {shlex.quote(str(given.folder))}`"

    return _COMMAND.sub(put, text)
