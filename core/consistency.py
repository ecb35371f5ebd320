"""What does not fit together in a project file, told all at once: the rules between its parts."""

from __future__ import annotations

import re

from core.project import SAMPLE_BATCH, SAMPLE_COLUMNS, LookupSource, Model, Project, Source, View, variables
from sync.bindings import complaint as unbindable
from sync.lookups import Config, complaint, filled
from sync.manifest import Binding
from sync.names import BadName, LookupName, Name
from sync.topics import matches

_WORD = re.compile(r"\{(\w+)\}")

_SAMPLE_TYPES = dict.fromkeys((*SAMPLE_COLUMNS, "value"), "string") | {"release": "int64", "arrived": "float64"}
_TAKEN = ("window", "probabilities", "config")  # names of the graph's own input and output, and of what is no table


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
    for key, lookup in project.lookups.items():
        found += _lookup_problems(project, key, lookup)
    return found + _heard_again(project) + _config_problems(project)


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
    found = [f"{place} lacks {c!r}; every sample has one" for c in (*SAMPLE_COLUMNS, *channels) if c not in columns]
    for column, rule in columns.items():
        wanted = _SAMPLE_TYPES.get(column)
        if column in channels:
            if column in (*SAMPLE_COLUMNS, SAMPLE_BATCH):
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
    if model.drift is not None and (wrong := model.drift.complaint()):
        found.append(f"models.{name}.drift: {wrong}")
    if not 0 <= model.rollout.margin <= 0.4:
        found.append(f"models.{name}.rollout.margin: a share of blocks from 0 to 0.4, not {model.rollout.margin:g}")
    if model.rollout.block < 0:
        found.append(f"models.{name}.rollout.block: input windows, or 0 to have it measured, not {model.rollout.block}")
    if not model.rollout.canary:
        found.append(f"models.{name}.rollout.canary: name at least one device; nothing starts without a canary")
    return found + _stretch_problems(name, model) + _binding_problems(project, name, model)


def _stretch_problems(name: str, model: Model) -> list[str]:
    stretches = {"fit": model.fit, "gate": model.gate, "calibrate": model.calibrate or (0.0, 1.0)}
    found = [
        f"models.{name}.{key}: needs 0 <= from < to <= 1, not [{low}, {high}]"
        for key, (low, high) in stretches.items()
        if not 0 <= low < high <= 1
    ]
    if _overlap(model.fit, model.gate):
        found.append(f"models.{name}: fit and gate overlap; the gate would judge rows it was trained on")
    if model.calibrate is not None:
        for key, other in (("fit", model.fit), ("gate", model.gate)):
            if _overlap(model.calibrate, other):
                found.append(f"models.{name}: calibrate and {key} overlap; it takes rows that neither train nor judge")
    return found


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[1] > other[0] and other[1] > one[0]


def _binding_problems(project: Project, name: str, model: Model) -> list[str]:
    """What a binding cannot know by itself: whether it fits the channels of its model, and its neighbours."""
    place, found = f"models.{name}.bindings", []
    heard: dict[str, tuple[object, ...]] = {}
    for binding in model.bindings:
        if why := unbindable(binding):
            found.append(f"{place}: {why}")
        payload = (binding.format, binding.time_field, binding.fields, binding.columns, binding.units)
        if heard.setdefault(binding.topic, payload) != payload:
            found.append(f"{place}: two read {binding.topic!r}, each as another payload; they must agree on it")
        view = project.views.get(model.view)
        if view is not None:
            found += [
                f"{place}: {binding.topic!r}: {text}" for text in _payload_problems(binding, view.window.channels)
            ]
    return found


def _heard_again(project: Project) -> list[str]:
    """Predictions, and what is said of those that failed, must reach no binding as readings, of whichever model: one
    device may have all of them. A variable stands for itself."""
    every = [(name, binding) for name, model in project.models.items() for binding in model.bindings]
    found = []
    for name, said in every:
        output = said.output.replace("{entity}", "entity")
        for listener, heard in every:
            if heard.topic.split("/").count("{entity}") != 1:
                continue  # said elsewhere
            pattern = heard.topic.replace("{entity}", "+")
            if matches(pattern, output) or matches(pattern, f"{output}/error"):
                whose = f"models.{listener}.bindings hears it as readings, by {heard.topic!r}"
                found.append(f"models.{name}.bindings: output {said.output!r}: {whose}; give it another topic")
    return found


def _payload_problems(binding: Binding, channels: tuple[str, ...]) -> list[str]:
    """Whether every channel, and the time if there is one, stands once where the binding says, and nothing else."""
    wanted = (*channels, binding.time_field) if binding.timed() else channels
    given = [column for column in binding.laid_out(channels) if column]
    there, found = f"there are {', '.join(wanted)}", []
    if binding.format == "scalar" and len(channels) > 1:
        found.append(f"a scalar is one number, and the window has {len(channels)} channels: {', '.join(channels)}")
    if binding.columns and sorted(given) != sorted(wanted):
        found.append(f"columns must name each once, and skip others by an empty name; {there}")
    strange = [key for part in (binding.fields, binding.units) for key in part if key not in wanted]
    return found + [f"{key!r} in fields or units is none of its names; {there}" for key in strange]


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
    found = [_missing(f"views.{name}.lookups", n, project.lookups) for n in view.lookups if n not in project.lookups]
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
    found += [
        f"views.{name}.units: {c!r} is no channel of its window" for c in view.units.keys() - view.window.channels
    ]
    texts = [c for c in view.window.channels if c in contract.columns and contract.columns[c].type == "string"]
    return found + missing + [f"views.{name}.window.channels: {c!r} is text; a channel is a number" for c in texts]


def _lookup_problems(project: Project, name: LookupName, lookup: LookupSource) -> list[str]:
    place, found = f"lookups.{name}", []
    if name in project.sources:
        found.append(f"{place}: a source has that name too; `falaj ingest {name}` could mean either")
    if name in _TAKEN or any(name in view.window.channels for view in project.views.values()):
        found.append(f"{place}: graph inputs, outputs and channels have that name; give the table another")
    if lookup.key in lookup.columns:
        found.append(f"{place}.columns: {lookup.key!r} is the key; it is no number that a model is given")
    if lookup.default is not None and lookup.default.keys() != lookup.columns.keys():
        return [*found, f"{place}.default: needs one number for each of {', '.join(lookup.columns)}"]
    try:
        lookup.accepted(name)
    except ValueError as error:
        found.append(f"{place}: {error}")
    for column, rule in lookup.columns.items():
        value = lookup.default[column] if lookup.default else None
        low, high = rule.min, rule.max
        if low is not None and high is not None and low > high:
            found.append(f"{place}.columns.{column}: min {low:g} is above max {high:g}")
        elif value is not None and not (low if low is not None else value) <= value <= (
            high if high is not None else value
        ):
            found.append(f"{place}.default.{column}: {value:g} is outside what the column may hold")
    return found


def _config_problems(project: Project) -> list[str]:
    """Values that no model's variables allow, and words of bindings that nobody declares."""
    found = []
    config, known = project.config, {name for model in project.models.values() for name in model.variables}
    parts = {"variables": config.variables}
    parts |= {f"sites.{site}": values for site, values in config.sites.items()}
    parts |= {f"devices.{device}": values for device, values in config.devices.items()}
    for place, values in parts.items():
        found += [f"config.{place}.{name}: no model declares that variable" for name in values if name not in known]
        for model_name, model in project.models.items():
            said = [complaint(v, values[v.name]) for v in variables(model) if v.name in values]
            found += [f"config.{place}: {text} (models.{model_name}.variables)" for text in said if text]
            bound = [filled(one, variables(model), Config(values)) for one in model.bindings if not unbindable(one)]
            found += [f"config.{place}: models.{model_name}.bindings: {why}" for b in bound if (why := unbindable(b))]
    for model_name, model in project.models.items():
        place = f"models.{model_name}.variables"
        found += [f"{place}: {text}" for v in variables(model) if (text := complaint(v, v.default))]
        found += [
            f"{place}.{name}: not a name of letters, digits and _"
            for name in model.variables
            if not name.isidentifier()
        ]
        if "entity" in model.variables:
            found.append(f"{place}.entity: {{entity}} is the name of the sensor already")
        words = {word for b in model.bindings for word in _WORD.findall(f"{b.topic} {b.output}")} - {"entity"}
        found += [
            f"models.{model_name}.bindings: {{{w}}} is no variable of it"
            for w in sorted(words - model.variables.keys())
        ]
    return found


def _missing(place: str, given: str, known: object) -> str:
    names = ", ".join(sorted(known)) or "none" if isinstance(known, dict) else "none"
    return f"{place}: {given!r} is not declared; declared are: {names}"
