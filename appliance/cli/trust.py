"""`falaj trust ...`: the owners' signatures. They are made in this process, with key files of the person who types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from appliance import clock
from appliance.cli import screens
from appliance.cli.authority import authority
from appliance.cli.clients import api
from appliance.cli.options import MODEL, Group, actor, core_dir, json_option, reason_option, show
from appliance.core import automatic, owner
from appliance.core.key_ring import KeyRing
from appliance.core.owner import Changed
from appliance.errors import Trouble
from appliance.screen import visible
from appliance.settings import owner_folder
from core.release.layout import ONLINE, Quorum
from sync.names import ModelName

F = TypeVar("F", bound=Callable[..., Any])

keys_option = click.option(
    "--keys", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="Folder of your own keys [default: ~/.config/falaj/keys, or FALAJ_OWNER_KEYS].",
)  # fmt: skip


def people_options(command: F) -> F:
    """`--root`, `--release` and how many of them sign."""
    for option in (
        click.option("--releases-need", default=1, show_default=True, help="How many sign a release."),
        click.option("--root-needs", default=2, show_default=True, help="How many sign a root."),
        click.option("--release", "releases", multiple=True, metavar="PUB", help="Who approves; again for each."),
        click.option("--root", "roots", multiple=True, metavar="PUB", help="Who holds the root; again for each."),
    ):
        command = option(command)
    return command


@click.group(cls=Group)
def trust() -> None:
    """Sign what may run on the tenant's devices."""


trust.add_command(authority)


@trust.command()
@click.option("--profile", type=click.Choice(["single-owner", "organisation"]), default="single-owner",
              show_default=True, help="One key for all, or keys of several people.")  # fmt: skip
@people_options
@core_dir
@keys_option
@json_option
def init(
    profile: str, roots: Sequence[str], releases: Sequence[str], root_needs: int, releases_need: int,
    folder: Path | None, keys: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Make the tenant's root of trust.

    Profile single-owner makes a release key here. Profile organisation takes the public keys (NAME.pub) that people
    made with `falaj trust key`; each of them then signs with `falaj trust sign`.
    """
    if profile == "organisation":
        root, approve = _people(keys, roots, releases, root_needs, releases_need)
        result = owner.init_organisation(api(folder), _folder(keys), root, approve, actor(), clock.now())
        lacks = result.get("waiting", {}).get("lacks", ())
        text = f"root of trust for {len(root.keys)} holders, profile organisation\n{_rest(lacks)}"
    else:
        result = owner.init(api(folder), _folder(keys), actor(), clock.now())
        text = (
            f"root of trust made, profile {result['profile']}\n"
            f"  release key {result['release_key']} (keep it, and a copy off this machine)\n"
            "  honest word: one key signs root and releases; who has this file decides what runs\n"
            f"  next: `falaj device token NAME` prints a token by which a device joins"
        )
    show(as_json, result, text)


@trust.command()
@core_dir
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show profile, who holds which key, versions, until when they hold, and what waits for whose signature."""
    document = api(folder).get("/v1/status")["trust"]
    show(as_json, document, [*screens.trust_lines(document, clock.now()), *screens.holder_lines(document)])


@trust.command()
@click.argument("name")
@click.option("--holder", default="", help="Who signs with it, as others shall read it [default: NAME].")
@keys_option
@json_option
def key(name: str, holder: str, keys: Path | None, as_json: bool) -> None:
    """Make a key pair NAME.key and NAME.pub in your own folder. NAME.pub is given away, NAME.key never."""
    ring = KeyRing(_folder(keys))
    public = ring.make(name, holder)
    keyid = ring.public(str(public)).keyid
    text = f"key {name} ({keyid[:12]})\n  private {ring.folder / name}.key: keep it\n  public  {public}: give it away"
    show(as_json, {"keyid": keyid, "public": str(public)}, text)


@trust.command()
@click.argument("release")
@core_dir
@keys_option
@json_option
def approve(release: str, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Sign RELEASE, written MODEL@NUMBER; with enough signatures it is published and its rollout begins."""
    model, number = _release(release)
    signed = owner.approve(api(folder), _folder(keys), model, number, actor(), clock.now())
    document = {"model": signed.model, "number": signed.number, "manifest": signed.digest, "keyid": signed.key,
                "metrics": signed.metrics, "needs": signed.needs, "override": signed.override,
                "lacks": signed.lacks, "auto": signed.auto}  # fmt: skip
    figures = ", ".join(f"{name} {value:.4g}" for name, value in signed.metrics.items())
    text = f"signed {model} release {number}, manifest {signed.digest[:12]} ({figures})"
    told = f"\n  against a gate's word, by {signed.override}" if signed.override else ""
    told += f"\n  {signed.needs['text']}" if signed.needs else ""
    told += f"\n  {signed.auto}" if signed.auto else ""
    rest = f"  its rollout: `falaj rollout show {model}`"
    if signed.lacks:
        rest = f"  not published yet, it lacks {'; '.join(signed.lacks)}"
    show(as_json, document, f"{text}{told}\n{rest}")


@trust.command()
@click.argument("release")
@reason_option
@core_dir
@keys_option
@json_option
def revoke(release: str, reason: str, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Take RELEASE (MODEL@NUMBER) out of the signed ones. It never serves again: a device stops as soon as it hears."""
    model, number = _release(release)
    lacks = owner.revoke(api(folder), _folder(keys), model, number, reason, actor(), clock.now())
    text = f"signed the revocation of {model} release {number}\n{_rest(lacks)}"
    show(as_json, {"model": model, "number": number, "lacks": lacks}, text)


@trust.command()
@click.argument("model", type=MODEL)
@click.option("--on/--off", "allow", default=None, help="Let the core sign releases of MODEL by itself, or end that.")
@core_dir
@keys_option
@json_option
def auto(model: ModelName, allow: bool | None, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Let the core release MODEL by itself, on the terms of the newest release that people signed.

    A candidate that every gate passed, and that differs from that release in nothing but what was learned, is then
    rolled out without a person. --off revokes what the core alone had signed: approve before what shall stay.
    """
    if allow is None:
        raise click.UsageError("say --on or --off; `falaj trust status` names the models for which it is on")
    told = (automatic.allow if allow else automatic.end)(api(folder), _folder(keys), model, actor(), clock.now())
    document = {"model": model, "on": allow, "releases": told.releases, "lacks": told.lacks, "keyids": told.keys}
    show(as_json, document, [*told.text, _rest(told.lacks)])


@trust.command()
@people_options
@core_dir
@keys_option
@json_option
def harden(
    roots: Sequence[str], releases: Sequence[str], root_needs: int, releases_need: int, folder: Path | None,
    keys: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """From profile single-owner to organisation. No device is touched: they follow the new root by themselves."""
    root, approve = _people(keys, roots, releases, root_needs, releases_need)
    _tell(owner.harden(api(folder), _folder(keys), root, approve, actor(), clock.now()), as_json)


@trust.command()
@click.argument("old", metavar="KEY", required=False)
@click.option("--with", "new", metavar="PUB", help="The public key that takes its place.")
@click.option("--role", type=click.Choice(ONLINE), help="A key of the core's own; it makes the new one itself.")
@core_dir
@keys_option
@json_option
def rotate(old: str | None, new: str | None, role: Any, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Replace KEY (a name, or the beginning of its id) by another, or the core's own key of a role."""
    now, mine = clock.now(), _folder(keys)
    if role is not None and old is None and new is None:
        changed = owner.rotate_online(api(folder), mine, role, actor(), now)
    elif role is None and old is not None and new is not None:
        changed = owner.rotate(api(folder), mine, old, new, actor(), now)
    else:
        raise click.UsageError("give KEY and --with PUB, or --role ROLE alone; `falaj trust status` names the keys")
    _tell(changed, as_json)


@trust.command()
@core_dir
@keys_option
@json_option
def renew(folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Sign root and releases anew with the same keys, before they expire (365 days)."""
    _tell(owner.renew(api(folder), _folder(keys), actor(), clock.now()), as_json)


@trust.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@core_dir
@keys_option
@json_option
def sign(yes: bool, folder: Path | None, keys: Path | None, as_json: bool) -> None:
    """Add your signature to the change of keys that waits, after it is shown."""
    shown = owner.pending(api(folder), _folder(keys))
    if shown is None:
        raise Trouble("no change of keys waits for a signature: `falaj trust status` shows what does")
    if not yes:
        click.confirm("\n".join(map(visible, (*shown.text, "sign this?"))), abort=True, err=True)
    _tell(owner.sign(api(folder), _folder(keys), shown, actor(), clock.now()), as_json)


def _tell(changed: Changed, as_json: bool) -> None:
    document = {"text": changed.text, "lacks": changed.lacks, "keyids": changed.keys}
    show(as_json, document, [*changed.text, _rest(changed.lacks)])


def _rest(lacks: Sequence[str]) -> str:
    if not lacks:
        return "  signed, and in force; devices follow by themselves"
    return f"  signed, not in force yet; it lacks {'; '.join(lacks)}. See `falaj trust status`"


def _people(
    keys: Path | None, roots: Sequence[str], releases: Sequence[str], root_needs: int, releases_need: int
) -> tuple[Quorum, Quorum]:
    ring = KeyRing(_folder(keys))
    if not roots or not releases:
        raise click.UsageError("name the holders: --root NAME.pub three times at least, --release NAME.pub once")
    root, approve = (tuple(map(ring.public, given)) for given in (roots, releases))
    return Quorum(root, root_needs), Quorum(approve, releases_need)


def _release(given: str) -> tuple[ModelName, int]:
    model, _, number = given.partition("@")
    if not number.isdecimal():
        raise click.BadParameter("write MODEL@NUMBER, for example exercise@1")
    return MODEL.convert(model, None, None), int(number)


def _folder(keys: Path | None) -> Path:
    return keys or owner_folder()
