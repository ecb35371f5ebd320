"""`falaj edge try MODEL.onnx`: the first hour, without a core."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.options import edge_dir
from appliance.processes import close_to_others
from appliance.settings import state_folder

if TYPE_CHECKING:
    from appliance.first_hour.node import TryoutNode
    from sync.bindings import Format

FORMATS = ("json", "rows", "csv", "scalar", "float32")  # those of bindings; importing them would load numpy
PORT = click.IntRange(1, 65_535)


def _words(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@click.command("try")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--bind", default="", metavar="TOPIC",
              help="Start a broker too, and predict what sensors publish: 'plant/+/vib'.")  # fmt: skip
@click.option("--classes", default="", callback=_words, metavar="A,B,C",
              help="Names for the numbers of the model's first output.")  # fmt: skip
@click.option("--channels", default="", callback=_words, metavar="X,Y,Z",
              help="Names of the numbers in a reading, in the model's order; 'accel.x' is one level down "
              "[default: c1,c2,...].")  # fmt: skip
@click.option("--time", "time_path", default="ts", show_default=True, metavar="FIELD",
              help="Of a JSON object, where its time is; '' of any format: readings have none.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), default="json", show_default=True,
              help="What a message is.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="HZ",
              help="Readings a second of one sensor [default: what the first readings tell].")  # fmt: skip
@click.option("--port", type=PORT, default=8000, show_default=True, help="For HTTP.")
@click.option("--mqtt-port", type=PORT, default=1883, show_default=True, help="For the broker.")
@edge_dir
def try_(
    model: Path,
    bind: str,
    classes: tuple[str, ...],
    channels: tuple[str, ...],
    time_path: str,
    form: Format,
    rate: float | None,
    port: int,
    mqtt_port: int,
    folder: Path | None,
) -> None:
    """Serve a model on this machine at once: no core, no keys, nothing signed.

    It is served as an agent serves its releases, on loopback alone, until Ctrl-C; then nothing is left. Lines to copy
    are printed. Refused on a box that belongs to a core.
    """
    from appliance.edge.install import STATE
    from appliance.first_hour.node import look_at, refuse_enrolled, running
    from appliance.first_hour.planning import Wishes

    close_to_others()
    refuse_enrolled(state_folder("edge", folder), STATE)
    tryout = look_at(model, Wishes(bind, classes, channels, rate, form, time_path))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with running(tryout, port, mqtt_port, click.echo) as node:
        click.secho("NOT FOR PRODUCTION: nobody has signed or judged this model, and nothing of it is kept.", bold=True)
        click.echo("\n".join(_lines(node, port, mqtt_port)))
        ended.wait()
    click.echo("ended; nothing is left of it")


def _lines(node: TryoutNode, port: int, mqtt_port: int) -> Iterator[str]:
    from appliance.first_hour import lines

    tryout = node.tryout
    measured, manifest = tryout.measured, tryout.manifest
    yield f"  model     {manifest.model}: {measured.p50_ms:.3g} ms an answer, {measured.rss_mb:.0f} MiB"
    for what, specs in (("input", measured.inputs), ("output", measured.outputs)):
        yield from (f"  {what:<8}  {spec.name}, {spec.datatype} {list(spec.shape)}" for spec in specs)
    yield f"  HTTP      http://127.0.0.1:{port} (Open Inference Protocol v2)"
    if node.local is not None:
        yield f"  MQTT      127.0.0.1:{mqtt_port}, user app, password in {node.local.password}"
        yield from _reading(node)
    yield "\nIn another terminal, ask over HTTP:\n"
    yield lines.curl(tryout, port)
    if node.local is not None:
        password = node.local.password
        yield "\nor see what the binding answers; this one stays, the next one is a sensor:\n"
        yield lines.listen(tryout, mqtt_port, password)
        yield lines.publish(tryout, mqtt_port, password)
        yield "\nor ask over MQTT:\n"
        yield lines.ask(tryout, mqtt_port, password)
        if shutil.which("mosquitto_pub") is None:
            yield "\n(mosquitto_pub and _sub are missing here: `sudo apt-get install mosquitto-clients`)"
    yield "\nCtrl-C ends it."


def _reading(node: TryoutNode) -> Iterator[str]:
    manifest = node.tryout.manifest
    binding, window = manifest.bindings[0], manifest.window
    if window is not None:
        many = f"{window.size} make a window" if window.size > 1 else "each a prediction"
        names = [name for name in (binding.time_field, *window.channels) if name in window.channels or binding.timed()]
        what = ", ".join(binding.fields.get(name, name) for name in names)
        yield f"  readings  {binding.topic}, {binding.format}: {what}; {many}"
        yield f"  answers   {binding.output}, classes {', '.join(manifest.classes) or 'none: a number'}"
