"""`falaj trust ...`: the owner's signatures. They are made in this process, with the owner's own key file."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock, owner
from appliance.cli import screens
from appliance.cli.clients import api
from appliance.cli.options import actor, core_dir, dir_words, json_option, show
from appliance.cli.project import model_name
from appliance.settings import owner_folder

keys_option = click.option(
    "--keys", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="Folder of the release key [default: ~/.config/falaj/keys, or FALAJ_OWNER_KEYS].",
)  # fmt: skip


@click.group()
def trust() -> None:
    """Sign what may run on the tenant's devices."""


@trust.command()
@core_dir
@keys_option
@json_option
def init(folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Make the release key and the tenant's root of trust (profile single-owner)."""
    result = owner.init(api(folder), keys or owner_folder(), actor(), clock.now())
    text = (
        f"root of trust made, profile {result['profile']}\n"
        f"  release key {result['release_key']} (keep it, and a copy off this machine)\n"
        "  honest word: one key signs root and releases; who has this file decides what runs\n"
        f"  next: `falaj device token NAME{dir_words(folder)}` prints a token by which a device joins"
    )
    show(as_json, result, text)


@trust.command()
@core_dir
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show the state of trust: profile, versions, and until when they hold."""
    document = api(folder).get("/v1/status")["trust"]
    show(as_json, document, "\n".join(screens.trust_lines(document, clock.now())))


@trust.command()
@click.argument("release")
@core_dir
@keys_option
@json_option
def approve(release: str, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Sign RELEASE, written MODEL@NUMBER; it is published and its rollout begins."""
    model, _, number = release.partition("@")
    if not number.isdecimal():
        raise click.BadParameter("write MODEL@NUMBER, for example exercise@1")
    signed = owner.approve(api(folder), keys or owner_folder(), model_name(model), int(number), actor(), clock.now())
    document = {"model": signed.model, "number": signed.number, "manifest": signed.digest, "keyid": signed.key,
                "metrics": signed.metrics, "needs": signed.needs, "override": signed.override}  # fmt: skip
    figures = ", ".join(f"{name} {value:.4g}" for name, value in signed.metrics.items())
    text = f"signed {model} release {number}, manifest {signed.digest[:12]} ({figures})"
    told = f"\n  against a gate's word, by {signed.override}" if signed.override else ""
    told += f"\n  {signed.needs['text']}" if signed.needs else ""
    show(as_json, document, f"{text}{told}\n  its rollout: `falaj rollout show {model}{dir_words(folder)}`")
