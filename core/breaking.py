"""Which releases answer something else than the one before: another set of classes is a breaking schema, for programs
that listen compare names. It needs a higher `major` in the project file; nobody can overrule that.
"""

from __future__ import annotations

from core.handoffs import Known
from core.project import Model, Project
from sync.manifest import Manifest
from sync.names import ModelName

CODE = "classes-changed"


class ClassesChanged(ValueError):
    """A candidate that would answer other classes under the same major version; says what to do."""

    code = CODE


def known(newest: Manifest | None) -> Known | None:
    """What listeners know of a model by its newest approved release, None while nothing of it was approved."""
    return None if newest is None else Known(newest.number, newest.major, newest.classes)


class NoSuchClass(ValueError):
    """A condition of a binding that could never hold; names what there is."""

    code = "no-such-class"


def check(name: ModelName, model: Model, classes: tuple[str, ...], before: Known | None) -> None:
    """What can be said before hours of training: raises ClassesChanged or NoSuchClass."""
    if said := complaint(name, classes, model.major, before):
        raise ClassesChanged(said)
    for binding in model.bindings:
        if binding.when is not None and binding.when.label not in (classes or ("",)):
            there = ", ".join(classes) or "none: it compares values"
            text = f"models.{name}.bindings: when.class {binding.when.label!r} is no class of it; they are {there}"
            raise NoSuchClass(text)


def complaint(model: ModelName, classes: tuple[str, ...], major: int, before: Known | None) -> str:
    """Why a release with these classes may not follow the one that listeners know; empty if it may."""
    if before is None:
        return ""
    said = _said(model, classes, major, before)
    return said and f"{said} (against release {before.number})"


def declared(before: Project | None, after: Project) -> list[str]:
    """Which models would answer other classes as far as contracts declare them, without a higher major version: what
    the next training will be refused for."""
    found = []
    for name, model in after.models.items():
        old = before.models.get(name) if before is not None else None
        if before is None or old is None:
            continue
        known, wanted = _labels(before, old), _labels(after, model)
        if known is not None and wanted is not None:
            found.append(_said(name, wanted, model.major, Known(0, old.major, known)))
    return [said for said in found if said]


def _said(model: ModelName, classes: tuple[str, ...], major: int, before: Known) -> str:
    if major < before.major:
        return f"models.{model}.major = {major} goes back: listeners know {before.major}"
    changed = _changed(before.classes, classes)
    if not changed or major > before.major:
        return ""
    return (
        f"models.{model} {changed}: a breaking schema for all who listen. Set its major = {before.major + 1} in "
        "falaj.toml and apply it, or correct the rows"
    )


def _labels(project: Project, model: Model) -> tuple[str, ...] | None:
    """The values that a model's label column is declared to have; None if any."""
    view = project.views.get(model.view)
    source = project.sources.get(view.source) if view is not None else None
    contract = project.contracts.get(source.contract) if source is not None else None
    column = contract.columns.get(view.label) if contract is not None and view is not None else None
    return None if column is None or column.values is None else tuple(map(str, column.values))


def _changed(known: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """`adds run; removes rest`; empty for the same set."""
    added, removed = (", ".join(sorted(set(a) - set(b))) for a, b in ((classes, known), (known, classes)))
    parts = [f"adds class {added}"] * bool(added) + [f"removes class {removed}"] * bool(removed)
    return " and ".join(parts)
