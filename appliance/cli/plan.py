"""`falaj plan`: what a project file would change, and what its rollouts will ask for, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from appliance.api import CoreAway
from appliance.cli.clients import api
from appliance.cli.options import core_dir, json_option, show
from appliance.core.project_file import read_project
from core.breaking import declared
from core.project import Config, Model, Project, View
from core.rollout.power import Needs, needs, refuse
from sync import codec
from sync.messages import Gates

PARTS = ("sources", "contracts", "views", "models", "lookups")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="falaj.toml")
@core_dir
@json_option
def plan(file: Path, folder: Path | None, as_json: bool) -> None:
    """Say what the project FILE (default: falaj.toml) would change, and what evidence its rollouts need.

    Changes nothing. Without a core that answers, the file is looked at by itself.
    """
    project = read_project(file)
    models = {name: evidence(model) for name, model in sorted(project.models.items())}
    watched = {name: watching(model, project.views[model.view]) for name, model in sorted(project.models.items())}
    try:
        applied, alone = _applied(folder), ""
    except CoreAway as away:
        applied, alone = None, f"compared with nothing: {away}"
    changed = changes(applied, project) if not alone else None
    breaks = declared(applied, project)
    document = {"changes": changed, "not_compared": alone, "breaking": breaks, "models": models, "drift": watched}
    lines = [alone] if changed is None else [*_change_lines(changed, applied is None)]
    if changed is not None and any(names for part in changed.values() for names in part.values()):
        lines.append(f"  take it in: `falaj apply {file}`")
    lines += [f"  BREAKING: {said}" for said in breaks]
    lines += ["", *(f"{name}: {told['text']}" for name, told in models.items())]
    show(as_json, document, lines + [f"{name}: {told}" for name, told in watched.items()])


def changes(applied: Project | None, wanted: Project) -> dict[str, dict[str, list[str]]]:
    """Part of the file -> added, changed, removed names, sorted."""
    found = {part: _differences(getattr(applied, part, {}), getattr(wanted, part)) for part in PARTS}
    return found | {"config": _differences(_values(applied), _values(wanted))}


def _values(project: Project | None) -> dict[str, object]:
    """Every value that `config` gives, under its place in the file."""
    config = project.config if project is not None else Config()
    parts = {"variables": config.variables}
    parts |= {f"sites.{site}": given for site, given in config.sites.items()}
    parts |= {f"devices.{device}": given for device, given in config.devices.items()}
    return {f"{place}.{name}": value for place, given in parts.items() for name, value in given.items()}


def evidence(model: Model) -> dict[str, Any]:
    """What the rollouts of a model decide on, in words and, where pairs are counted, in blocks and input windows."""
    settings = model.rollout
    gates = Gates(evidence=settings.evidence, margin=settings.margin, block=settings.block)
    refused = refuse(gates)
    found: Needs | None = None if refused else needs(gates, len(settings.canary))
    soak = f"guardrails: {settings.soak_answers} answers with at most {settings.max_errors} errors on each device"
    text = f"never decides: {refused.text}" if refused else found.text if found else soak
    return {"evidence": settings.evidence, "needs": msgspec.to_builtins(found), "text": text}


def watching(model: Model, view: View) -> str:
    """How often a device may cry drift while nothing changes, and how long it learns first, in time rather than in
    drift windows: of one stream that never pauses."""
    rule = model.drift
    if rule is None:
        return "drift is not watched"
    seconds = rule.window * view.window.period
    return (
        f"drift is watched after {_time(rule.baseline * seconds)} of readings; while nothing changes at most one alarm "
        f"in {_time(rule.alarm * seconds)} of them, on average, on each device"
    )


def _time(seconds: float) -> str:
    for unit, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.1f} seconds"


def _applied(folder: Path | None) -> Project | None:
    document = api(folder).get("/v1/project")["project"]
    return codec.typed(Project, document) if document else None


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, list[str]]:
    return {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "removed": sorted(before.keys() - after.keys()),
    }


def _change_lines(changed: Mapping[str, Mapping[str, list[str]]], first: bool) -> list[str]:
    lines = [
        f"  {part}: {kind} {', '.join(names)}"
        for part, kinds in changed.items()
        for kind, names in kinds.items()
        if names
    ]
    head = "no project was applied yet; this one would bring" if first else "against the project that was applied last"
    return [head, *lines] if lines else ["the same as the project that was applied last"]
