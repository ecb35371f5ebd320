"""The one command, `falaj`. Each subcommand lives in a module of its own, imported only when it is called, so that
`falaj edge run` never loads the core's libraries.

Exit codes: 0 done · 1 it failed, the message says why · 2 wrong usage · 3 something is missing on this machine ·
4 `falaj replay` found a difference · 70 a mistake of ours.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from appliance.cli.suggesting import whole
from appliance.errors import Trouble
from appliance.screen import visible_lines
from sync.errors import SyncError

EXIT_MISTAKE = 70  # EX_SOFTWARE

# group or command -> (module, attribute, help shown without importing it)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("appliance.cli.demo", "Run the whole story: real recordings become a release that six devices serve."),
    "doctor": ("appliance.cli.doctor", "Look this machine over: what is missing, what is unsafe."),
    "plan": ("appliance.cli.plan", "What a project file would change, and what evidence its rollouts need."),
    "apply": ("appliance.cli.project", "Take in a project file (falaj.toml)."),
    "ingest": ("appliance.cli.project", "Read a source of the project into the lake."),
    "train": ("appliance.cli.project", "Make a candidate of a model: train, export, quantize, judge."),
    "candidate": ("appliance.cli.candidate", "What was trained and judged: list, override."),
    "status": ("appliance.cli.status", "The core in one screen: what needs you, devices, releases, rollouts, events."),
    "trust": ("appliance.cli.trust", "Sign what may run: init, status, approve, revoke; and whose keys do."),
    "rollout": ("appliance.cli.rollout", "Releases on their way to the fleet: show, force, reverse, aside."),
    "why": ("appliance.cli.why", "Why devices refused a release: criterion, figures, evidence."),
    "labels": ("appliance.cli.labels", "Tell a device what its predictions really were."),
    "device": (
        "appliance.cli.device",
        "Devices: token, import, accept, list, revoke, replace, carry, predictions, bundle, answer, metrics.",
    ),
    "replay": ("appliance.cli.replay", "Make predictions of the field again: did the release really say that?"),
    "core": ("appliance.cli.core", "The core node: run, link."),
    "edge": (
        "appliance.cli.edge",
        "An edge agent: try, listen, bench, enrol, run, sync, status, predictions, bundle, erase, install.",
    ),
}


class LazyGroup(click.Group):
    """Knows the commands by name and help; imports a module only to run it. Trouble, and what came in and must not be
    believed or cannot be read, ends in one message and an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Trouble, SyncError) as reason:
            click.echo(whole(visible_lines(f"Error: {reason}")), err=True)
            ctx.exit(reason.exit_code if isinstance(reason, Trouble) else 1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown command is answered with the nearest known one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="falaj", message="falaj %(version)s")
@click.option("--verbose", "-v", is_flag=True, help="Say more on standard error.")
def falaj(verbose: bool) -> None:
    """Falaj: train where the data is, serve where it is born."""
    level = logging.INFO if verbose or os.environ.get("FALAJ_LOG") else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """The console script: whatever happens ends in a message and an exit code, never in a traceback alone."""
    try:
        falaj()
    except Exception as mistake:  # the process border: reported with all there is to know
        logging.getLogger("falaj").critical("a mistake of ours", exc_info=mistake)
        click.echo(f"Error: this is a mistake of ours, please report the lines above ({mistake!r})", err=True)
        sys.exit(EXIT_MISTAKE)
