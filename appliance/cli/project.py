"""`falaj apply`, `falaj ingest`, `falaj train`: what a project declares, and the long work it leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from appliance.api import Api
from appliance.cli import screens
from appliance.cli.clients import api
from appliance.cli.options import MODEL, actor, core_dir, json_option, show
from appliance.cli.progress import following
from appliance.core.project_file import read_project
from core.orders import ApplyProject, Ingest, Train
from sync.names import ModelName

SHOWN = 5  # rejections that `falaj ingest` prints


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="falaj.toml")
@core_dir
@json_option
def apply(file: Path, folder: Path | None, as_json: bool) -> None:
    """Take in the project FILE (default: falaj.toml). Idempotent; starts no work by itself."""
    project = read_project(file)
    result = api(folder).order(ApplyProject(actor=actor(), project=project, folder=str(file.resolve().parent)))
    models = ", ".join(result["models"]) or "none"
    sources = ", ".join(result["sources"]) or "none"
    show(as_json, result, f"project version {result['version']}: models {models}; sources {sources}")


@click.command()
@click.argument("source")
@core_dir
@json_option
def ingest(source: str, folder: Path | None, as_json: bool) -> None:
    """Read SOURCE into the lake; what was read before is not read again. Or read a lookup: other values than before
    are a new version, sent to every device whose release asks for it.

    Rows and files that break the contract are turned away, each with its reason. Exit code 1 if that was all.
    """
    core = api(folder)
    result = _taken_in(core, source, as_json)
    if "lookup" in result:
        new, known = "goes to every device whose release asks for it", "is what the file still says: devices hear so"
        what = new if result["changed"] else known
        show(as_json, result, f"version {result['version']} of {source}, {result['rows']:,} rows, {what}")
        return
    lines = [f"{result['rows']:,} rows landed, {result['rejections']} rows or files turned away"]
    if result["rejections"]:
        shown = min(result["rejections"], SHOWN)
        found = core.get(f"/v1/quarantine?source={quote(source)}&limit={shown}")["rejections"]
        lines += [f"  {screens.rejection(row)}" for row in found]
        lines += [f"  and {result['rejections'] - shown} more"] * (result["rejections"] > shown)
    elif not result["rows"]:
        lines = [f"nothing new in {source}: every file was read before"]
    show(as_json, result, lines)
    if result["rejections"] and not result["rows"]:
        raise SystemExit(1)


@click.command()
@click.argument("model", type=MODEL)
@core_dir
@json_option
def train(model: ModelName, folder: Path | None, as_json: bool) -> None:
    """Make a candidate of MODEL: dataset, training, export, quantization, gates."""
    core = api(folder)
    result = _follow(core, core.order(Train(actor=actor(), model=model))["job"], as_json)
    if not result["accepted"]:
        step = f"against them: `falaj candidate override {result['candidate']} --reason TEXT`"
        show(as_json, result, f"the candidate was refused by its gates: {result['reasons']}\n  {step}")
        raise SystemExit(1)
    made = f"accuracy {result['accuracy']:.3f} on held-out rows"
    if result.get("automatic"):
        text = f"release {result['number']} of {model} was signed automatically by the core: {made}"
        show(as_json, result, f"{text}\n  its rollout: `falaj rollout show {model}`")
        return
    text = f"release {result['number']} of {model} awaits approval: {made}"
    if result.get("waits"):
        text += f"\n  not signed automatically: {result['waits']}"
    show(as_json, result, f"{text}\n  sign it: `falaj trust approve {model}@{result['number']}`")


def _taken_in(core: Api, source: str, quiet: bool) -> dict[str, Any]:
    """The result of all runs that it takes: each has its bound, and what it took in is kept whatever comes after."""
    result = _follow(core, core.order(Ingest(actor=actor(), source=source))["job"], quiet)
    while result.get("more"):
        further = _follow(core, core.order(Ingest(actor=actor(), source=source))["job"], quiet)
        result = further | {name: result[name] + further[name] for name in ("rows", "files", "rejections")}
    return result


def _follow(core: Api, job: int, quiet: bool) -> dict[str, Any]:
    with following(quiet) as watch:
        return core.wait_for_job(job, watch)
