"""`falaj edge listen`: what sensors publish here, and the binding that reads it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.options import edge_dir, json_option, progress_line, show
from appliance.errors import Trouble
from appliance.settings import EdgeSettings, load, state_folder

if TYPE_CHECKING:
    from sync.mqtt import Broker


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 86_400), default=10.0, show_default=True, help="How long.")
@click.option("--topic", "filters", multiple=True, default=("#",), show_default=True,
              help="A topic filter; may be repeated.")  # fmt: skip
@click.option("--host", help="Another broker than this box's own.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Its port [default: 1883, or as edge.toml says].")
@click.option("--user", help="For a broker that asks.")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False), help="With its password.")
@edge_dir
@json_option
def listen(
    seconds: float,
    filters: tuple[str, ...],
    host: str | None,
    port: int | None,
    user: str | None,
    password_file: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Listen to a broker for a while: topics, rates, what the messages are, and bindings for falaj.toml that read them.

    Without --host it is the broker that edge.toml names, else 127.0.0.1:1883. Nothing is published or kept.
    """
    from appliance.cli.heard import document, lines
    from appliance.first_hour.listening import overhear
    from appliance.first_hour.suggesting import suggestions

    at = _broker(state_folder("edge", folder), host, port, user, password_file)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    say = progress_line(as_json)
    say(f"listening to {at.host}:{at.port} for {seconds:g} s, Ctrl-C ends it ...")
    heard = overhear(at, filters, seconds, ended)
    say("")
    found = suggestions(heard)
    place = f"{at.host}:{at.port}"
    show(as_json, {"broker": place, **document(heard, found)}, "\n".join(lines(heard, found, place)))


def _broker(root: Path, host: str | None, port: int | None, user: str | None, file: Path | None) -> Broker:
    """Where to listen, as whom; raises Trouble if a password cannot be read."""
    from sync.mqtt import Broker

    try:
        own = load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__").local_broker
        if host is None and user is None and own.managed and (root / "broker" / "app.password").exists():
            user, file = "app", root / "broker" / "app.password"
        elif host is None and user is None and not own.managed:
            user, file = own.user, Path(own.password_file) if own.password_file else None
        password = file.read_text().strip() if file is not None else None
    except OSError as error:
        place = error.filename or file
        raise Trouble(f"{place} cannot be read ({error.strerror}): run this as the agent's account (sudo)") from error
    return Broker(host or own.host, port or (own.port if host is None else 1883), "", user=user, password=password)
