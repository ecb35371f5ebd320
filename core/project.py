"""What a project file (`falaj.toml`) may say: sources, contracts, feature views, models. Stable across releases.

The hall's part that people write. Unknown keys are refused where the file is read (`appliance.settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from sync.features import WindowSpec
from sync.manifest import Binding, Drift, Profile, Uplink
from sync.messages import Evidence
from sync.names import BadName, DeviceId, ModelName, Name

Value = str | int | float
_T = TypeVar("_T")
_Name = TypeVar("_Name", bound=str)


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all tables of the file: a misspelt key is an error, never ignored."""


class Column(_Part, frozen=True, kw_only=True):
    """One column of a contract; `min` and `max` are inclusive, `values` is the closed list of allowed values."""

    type: Literal["float32", "float64", "int64", "string"]
    min: float | None = None
    max: float | None = None
    values: tuple[Value, ...] | None = None
    nullable: bool = False


class Contract(_Part, frozen=True, kw_only=True):
    """What rows of a source must look like. More columns than named here are an error too: rename is not add."""

    columns: dict[str, Column]


class Source(_Part, frozen=True, kw_only=True):
    """Where rows come from; `time` is the event-time column (seconds).

    `files`: CSV files, `path` is a glob relative to the project file. `samples`: predictions that devices send up by
    the uplink policy of `model`, one row of the contract for each row of their windows (`core.ingest.samples`).
    """

    kind: Literal["files", "samples"]
    path: str = ""
    model: ModelName | None = None
    contract: str
    time: str


class View(_Part, frozen=True, kw_only=True):
    """A feature view: windows over the rows of one entity, labelled by a column that is constant in a window.

    `samples` names a source of that kind: its labelled windows, as devices saw them, are windows of this view too.
    """

    source: str
    samples: str | None = None
    entity: str
    label: str
    window: WindowSpec


class Training(_Part, frozen=True, kw_only=True):
    """How a recipe is run; the defaults suit the small networks of `core.training.networks`."""

    recipe: Literal["cnn1d"] = "cnn1d"
    seed: int = 7
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 5e-3


class ModelGates(_Part, frozen=True, kw_only=True):
    """Start values of the gates; fewer than `min_rows` held-out rows make the quality gate INCONCLUSIVE."""

    min_accuracy: float
    min_rows: int = 100
    parity: float = 1e-4  # largest absolute difference of probabilities, torch against the graph
    int8_speedup: float = 1.10  # int8 must be at least this much faster than fp32 ...
    int8_margin: float = 0.005  # ... and lose at most this much accuracy


class Rollout(_Part, frozen=True, kw_only=True):
    """How a release reaches the fleet: the canary devices first, then the rest in one stage.

    Under `labels` or `agreement` the canary devices run it in shadow first, until the pairs of all of them decide
    with this `margin` (a net share of blocks of `block` input windows). A first release has no incumbent to be
    compared with: it is judged by guardrails.
    """

    evidence: Evidence = "guardrails"
    margin: float = 0.02
    block: int = 50
    canary: tuple[DeviceId, ...]
    soak_answers: int = 20
    max_errors: int = 0


class Retraining(_Part, frozen=True, kw_only=True):
    """When the core trains anew by itself: so many devices with a standing drift alarm, and so many labelled samples
    that no training has used yet; at most once in `every_hours`."""

    devices: int = 1
    samples: int = 200
    every_hours: float = 24.0


class Model(_Part, frozen=True, kw_only=True):
    """One model: its data (`fit` and `gate` are stretches of each entity's recording, as fractions), its gates,
    what it may cost a device, where it listens, what may leave a device, and how it is rolled out.

    `samples`: whether labelled samples of the view are learned from beside its rows (`add`), instead of them
    (`only`), or not at all (`none`). The gate judges rows and samples, unless it is `none`.
    """

    view: str
    samples: Literal["none", "add", "only"] = "add"
    where: dict[str, Value | tuple[Value, ...]] = {}
    fit: tuple[float, float] = (0.0, 0.6)
    gate: tuple[float, float] = (0.6, 0.75)
    training: Training = Training()
    gates: ModelGates
    profile: Profile = Profile()
    drift: Drift | None = None  # without it the devices do not watch for drift
    metadata: dict[str, str] = {}  # written into the graph: owner, purpose, licence, ...
    bindings: tuple[Binding, ...] = ()
    uplink: Uplink = Uplink()  # what rows may leave a device; none unless said
    retraining: Retraining | None = None  # without it only people start a training
    rollout: Rollout


class Project(_Part, frozen=True, kw_only=True):
    """The whole file."""

    sources: dict[str, Source] = {}
    contracts: dict[str, Contract] = {}
    views: dict[str, View] = {}
    models: dict[ModelName, Model] = {}


# What rows of samples have beside time and channels (`core.ingest.samples`); the first four are always there.
_TEXTS = ("prediction", "device", "entity", "label")
_SAMPLE_TYPES = dict.fromkeys((*_TEXTS, "value"), "string") | {"release": "int64", "arrived": "float64"}


class UnknownPart(LookupError):
    """The order names something the project does not declare; the message lists what it does."""

    code = "not-declared"


def declared(what: str, name: _Name, table: Mapping[_Name, _T]) -> _T:
    """What the project declares under this name; raises UnknownPart."""
    if name not in table:
        known = ", ".join(sorted(table)) or "none"
        raise UnknownPart(f"{what} {name!r} is not in the project file; declared are: {known}")
    return table[name]


def problems(project: Project) -> list[str]:
    """What does not fit together, one sentence each, with the place and the fix; empty if all is well."""
    found = []
    for name, contract in project.contracts.items():
        for column, rule in contract.columns.items():
            if rule.min is not None and rule.max is not None and rule.min > rule.max:
                found.append(f"contracts.{name}.columns.{column}: min {rule.min:g} is above max {rule.max:g}")
    for name, source in project.sources.items():
        found += _source_problems(project, name, source)
    for name, view in project.views.items():
        found += _view_problems(project, name, view)
    for name, model in project.models.items():
        found += _model_problems(project, name, model)
    return found


def _source_problems(project: Project, name: str, source: Source) -> list[str]:
    found = []
    try:
        Name(name)
    except BadName as error:
        found.append(f"sources.{name}: {error}")
    if source.contract not in project.contracts:
        found.append(_missing(f"sources.{name}.contract", source.contract, project.contracts))
    elif source.time not in project.contracts[source.contract].columns:
        found.append(_missing(f"sources.{name}.time", source.time, project.contracts[source.contract].columns))
    elif project.contracts[source.contract].columns[source.time].type == "string":
        found.append(f"sources.{name}.time: {source.time!r} is text; event time is a number, in seconds")
    elif source.kind == "samples":
        found += _sample_columns(project, name, source)
    if source.kind == "files":
        if not source.path or source.model is not None:
            found.append(f"sources.{name}: a source of files has a `path` and no `model`")
    elif source.path or source.model is None:
        found.append(f"sources.{name}: a source of samples has a `model`, whose samples it takes in, and no `path`")
    elif source.model not in project.models:
        found.append(_missing(f"sources.{name}.model", source.model, project.models))
    elif (first := next(n for n, s in project.sources.items() if s.model == source.model)) != name:
        found.append(f"sources.{name}.model: {first!r} takes in the samples of {source.model!r} already")
    return found


def _sample_columns(project: Project, name: str, source: Source) -> list[str]:
    """A contract of samples has the columns that samples have, and the channels of its model's view."""
    columns, place = project.contracts[source.contract].columns, f"sources.{name}.contract: {source.contract!r}"
    model = project.models.get(source.model) if source.model is not None else None
    if model is None or model.view not in project.views:
        return []  # said elsewhere
    channels = project.views[model.view].window.channels
    found = [f"{place} lacks {c!r}; every sample has one" for c in (*_TEXTS, *channels) if c not in columns]
    for column, rule in columns.items():
        wanted = _SAMPLE_TYPES.get(column)
        if column in channels:
            if column in (*_TEXTS, "batch"):
                found.append(f"{place}: samples have a {column!r} of their own; give the channel another name")
        elif wanted is None and column != source.time:
            known = ", ".join(_SAMPLE_TYPES)
            found.append(f"{place}: no sample has {column!r}; beside channels and time there are {known}")
        elif wanted is not None and rule.type != wanted:
            found.append(f"{place}: {column!r} of a sample is of type {wanted}, not {rule.type}")
    return found


def _model_problems(project: Project, name: str, model: Model) -> list[str]:
    found = []
    if model.view not in project.views:
        found.append(_missing(f"models.{name}.view", model.view, project.views))
    if not 0 <= model.gates.min_accuracy <= 1:
        found.append(f"models.{name}.gates.min_accuracy: a share from 0 to 1, not {model.gates.min_accuracy:g}")
    found += _learning_problems(project, name, model)
    if not 0 <= model.rollout.margin <= 0.4:
        found.append(f"models.{name}.rollout.margin: a share of blocks from 0 to 0.4, not {model.rollout.margin:g}")
    if model.rollout.block < 1:
        found.append(f"models.{name}.rollout.block: at least 1 input window, not {model.rollout.block}")
    if not model.rollout.canary:
        found.append(f"models.{name}.rollout.canary: name at least one device; nothing starts without a canary")
    for key, (low, high) in (("fit", model.fit), ("gate", model.gate)):
        if not 0 <= low < high <= 1:
            found.append(f"models.{name}.{key}: needs 0 <= from < to <= 1, not [{low}, {high}]")
    if model.fit[1] > model.gate[0] and model.gate[1] > model.fit[0]:
        found.append(f"models.{name}: fit and gate overlap; the gate would judge rows it was trained on")
    for binding in model.bindings:
        if binding.topic.split("/").count("{entity}") != 1:
            found.append(f"models.{name}.bindings: topic {binding.topic!r} needs one level '{{entity}}'")
        elif binding.output == binding.topic:
            found.append(f"models.{name}.bindings: output and topic are both {binding.topic!r}: it would hear itself")
    return found


def _learning_problems(project: Project, name: str, model: Model) -> list[str]:
    """The road up, and what is learned from it."""
    found = []
    view = project.views.get(model.view)
    field = view.samples if view else None
    if model.samples == "only" and view is not None and field is None:
        found.append(f'models.{name}.samples: "only" needs samples; views.{model.view}.samples names their source')
    settings = model.retraining
    if settings is None:
        return found
    place = f"models.{name}.retraining"
    if settings.devices < 1 or settings.samples < 1:
        found.append(f"{place}: devices and samples are at least 1, not {settings.devices} and {settings.samples}")
    if not settings.every_hours >= 0:
        found.append(f"{place}.every_hours: 0 hours or more, not {settings.every_hours:g}")
    if model.uplink.policy == "none":
        found.append(f"{place}: without a road nothing comes up to learn from; set models.{name}.uplink.policy")
    elif view is not None and (field is None or model.samples == "none"):
        found.append(f"{place}: it learns from samples; views.{model.view}.samples names none, or this model uses none")
    return found


def _view_problems(project: Project, name: str, view: View) -> list[str]:
    found = []
    if view.samples is not None and view.samples not in project.sources:
        found.append(_missing(f"views.{name}.samples", view.samples, project.sources))
    elif view.samples is not None and project.sources[view.samples].kind != "samples":
        found.append(f"views.{name}.samples: {view.samples!r} is a source of files, not of samples")
    source = project.sources.get(view.source)
    if source is None:
        return [*found, _missing(f"views.{name}.source", view.source, project.sources)]
    if source.kind != "files":
        found.append(f"views.{name}.source: {view.source!r} holds samples; a view begins with rows of files")
    contract = project.contracts.get(source.contract)
    if contract is None:
        return found  # said at the source already
    wanted = (view.entity, view.label, *view.window.channels)
    missing = [_missing(f"views.{name}", c, contract.columns) for c in wanted if c not in contract.columns]
    texts = [c for c in view.window.channels if c in contract.columns and contract.columns[c].type == "string"]
    return found + missing + [f"views.{name}.window.channels: {c!r} is text; a channel is a number" for c in texts]


def _missing(place: str, given: str, known: object) -> str:
    names = ", ".join(sorted(known)) or "none" if isinstance(known, dict) else "none"
    return f"{place}: {given!r} is not declared; declared are: {names}"
