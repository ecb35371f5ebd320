"""`falaj demo`: the whole story on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import click

from appliance.bootstrap import demo_wheel
from appliance.cli.options import json_option
from appliance.errors import Trouble


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running and print the addresses; Ctrl-C ends it.")
@click.option("--dir", "home", type=click.Path(path_type=Path, file_okay=False), default=Path(".falaj-demo"),
              show_default=True, help="Where the demo keeps everything; an earlier run's is replaced.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(1, 50), default=6.0, show_default=True,
              help="How many times faster than recorded the watches send.")  # fmt: skip
@json_option
def demo(keep: bool, home: Path, speed: float, as_json: bool) -> None:
    """Run the whole story: real recordings become a signed release that six devices prove and serve."""
    from rich.console import Console

    from appliance.demo import bad, drift, learning
    from appliance.demo.fleet import Machines, fresh_home
    from appliance.demo.recordings import BadRecordings
    from appliance.demo.stage import Stage
    from appliance.demo.story import Act, watches
    from appliance.demo.summary import Story

    wheel = demo_wheel(os.environ)
    if wheel is None:
        raise BadRecordings("the demo's recordings are not here: run `make demo`, which fetches and checks them")
    story = Story(Console(stderr=as_json))
    machines = Machines(fresh_home(home))
    project = Path(__file__).parent.parent / "demo" / "falaj.toml"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    trouble: Trouble | None = None
    try:
        try:
            cast = watches(wheel, project, speed)
            Act(machines, story, cast).run()
            story.act = "act two"
            with Stage(machines, story, cast) as stage:
                drift.play(stage)
                bad.play(stage, learning.play(stage))
                stage.account()
        except Trouble as error:
            trouble = error
        except KeyboardInterrupt:
            trouble = Trouble("stopped by Ctrl-C")
        story.console.print()
        story.console.print(story.table())
        if as_json:
            click.echo(json.dumps(story.document(), indent=2))
        if keep and trouble is None:
            _wait(machines)
        elif trouble is None and not as_json:
            click.echo("Next: `make demo ARGS=--keep` leaves it running; docs/first-project.md starts one of your own.")
    finally:
        machines.stop()
    if trouble is not None:
        raise trouble


def _wait(machines: object) -> None:
    from appliance.cli.core import console_address
    from appliance.core.state import CoreFolder
    from appliance.demo.fleet import Machines
    from appliance.settings import CoreSettings, Ports
    from sync.names import DEFAULT_TENANT

    assert isinstance(machines, Machines)
    ports = Ports(**machines.ports)
    click.echo(
        f"console   {console_address(CoreFolder(machines.core_folder, DEFAULT_TENANT), CoreSettings(ports=ports))}"
    )
    for device in machines.devices:
        click.echo(f"{device.name}   http://127.0.0.1:{device.http_port}   mqtt 127.0.0.1:{device.mqtt_port} user app")
    click.echo("Ctrl-C ends it")
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo("ending")
