"""The project file: what does not fit together is said with its place, all of it at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.consistency import problems
from core.project import Column, Config, Contract, LookupSource, Project, Range, Retraining, Source, Word
from sync.features import Unit
from sync.manifest import Binding, Drift, Uplink
from sync.names import DeviceId, LookupName, ModelName, SiteId
from tests.core.world import MODEL, project

GOOD = project()
THE_MODEL, THE_VIEW, THE_SOURCE = GOOD.models[MODEL], GOOD.views["windows"], GOOD.sources["watches"]


def with_model(**changes: object) -> Project:
    return replace(GOOD, models={MODEL: replace(THE_MODEL, **changes)})


def with_view(**changes: object) -> Project:
    return replace(GOOD, views={"windows": replace(THE_VIEW, **changes)})


def test_a_project_that_fits_together_has_no_problems() -> None:
    assert problems(GOOD) == [] and problems(Project()) == []


CASES: dict[str, tuple[Project, str]] = {
    "source without contract": (
        replace(GOOD, sources={"watches": replace(THE_SOURCE, contract="cols")}),
        "sources.watches.contract: 'cols' is not declared; declared are: rows",
    ),
    "time that is no column": (
        replace(GOOD, sources={"watches": replace(THE_SOURCE, time="when")}),
        "sources.watches.time: 'when' is not declared; declared are: label, ts, who, x, y",
    ),
    "view without source": (with_view(source="clocks"), "views.windows.source: 'clocks' is not declared"),
    "entity that is no column": (with_view(entity="whom"), "views.windows: 'whom' is not declared"),
    "label that is no column": (with_view(label="class"), "views.windows: 'class' is not declared"),
    "channel that is no column": (
        with_view(window=replace(THE_VIEW.window, channels=("x", "z"))),
        "views.windows: 'z' is not declared",
    ),
    "model without view": (
        with_model(view="frames"),
        "models.motion.view: 'frames' is not declared",
    ),
    "channel that is text": (
        with_view(window=replace(THE_VIEW.window, channels=("x", "who"))),
        "views.windows.window.channels: 'who' is text",
    ),
    "share as per cent": (
        with_model(gates=replace(THE_MODEL.gates, min_accuracy=90.0)),
        "models.motion.gates.min_accuracy: a share from 0 to 1, not 90",
    ),
    "drift by no more than noise": (
        with_model(drift=Drift(baseline=60)),
        "models.motion.drift: a baseline of 60 windows is too short; give 80 or more",
    ),
    "nobody to begin with": (
        with_model(rollout=replace(THE_MODEL.rollout, canary=())),
        "models.motion.rollout.canary: name at least one device",
    ),
    "binding that hears itself": (
        with_model(bindings=(Binding("a/{entity}", "a/{entity}"),)),
        "models.motion.bindings: output 'a/{entity}': models.motion.bindings hears it as readings, by 'a/{entity}'",
    ),
    "binding that hears itself as another sensor": (
        with_model(bindings=(Binding("plant/{entity}", "plant/{entity}-score"),)),
        "output 'plant/{entity}-score': models.motion.bindings hears it as readings, by "
        "'plant/{entity}'; give it another topic",
    ),
    "binding that hears its own complaints": (
        with_model(bindings=(Binding("plant/{entity}/+", "plant/{entity}"),)),
        "output 'plant/{entity}': models.motion.bindings hears it",
    ),
    "binding that hears another model": (
        replace(
            GOOD,
            models={
                MODEL: replace(THE_MODEL, bindings=(Binding("plant/{entity}/vib", "plant/{entity}"),)),
                ModelName("other"): replace(THE_MODEL, bindings=(Binding("plant/{entity}", "out/{entity}"),)),
            },
        ),
        "models.motion.bindings: output 'plant/{entity}': models.other.bindings hears it",
    ),
    "stretch backwards": (with_model(fit=(0.6, 0.6)), "models.motion.fit: needs 0 <= from < to <= 1"),
    "stretch beyond the end": (with_model(gate=(0.7, 1.1)), "models.motion.gate: needs 0 <= from < to <= 1"),
    "calibrates by what judges": (
        with_model(fit=(0.0, 0.6), gate=(0.6, 0.8), calibrate=(0.7, 0.9)),
        "models.motion: calibrate and gate overlap",
    ),
    "calibrates by what was trained on": (
        with_model(fit=(0.0, 0.6), gate=(0.6, 0.8), calibrate=(0.5, 0.6)),
        "models.motion: calibrate and fit overlap",
    ),
    "no stretch to calibrate by": (with_model(calibrate=(0.9, 0.9)), "models.motion.calibrate: needs 0 <= from < to"),
    "gate judges what was trained on": (with_model(fit=(0.0, 0.7), gate=(0.6, 0.8)), "fit and gate overlap"),
    "binding without entity": (
        with_model(bindings=(Binding("sensors/all", "out/{entity}"),)),
        "topic 'sensors/all' needs one level '{entity}'",
    ),
    "columns that lack a channel": (
        with_model(bindings=(Binding("s/{entity}", "o", format="csv", columns=("ts", "x")),)),
        "'s/{entity}': columns must name each once, and skip others by an empty name; there are x, y, ts",
    ),
    "raw numbers with a time": (
        with_model(bindings=(Binding("s/{entity}", "o", format="float32", columns=("ts", "x", "y")),)),
        "columns must name each once, and skip others by an empty name; there are x, y",
    ),
    "one number for two channels": (
        with_model(bindings=(Binding("s/{entity}", "o", format="scalar"),)),
        "a scalar is one number, and the window has 2 channels: x, y",
    ),
    "units of no channel": (
        with_model(bindings=(Binding("s/{entity}", "o", units={"z": Unit(2.0)}),)),
        "'z' in fields or units is none of its names; there are x, y, ts",
    ),
    "one topic read in two ways": (
        with_model(bindings=(Binding("s/{entity}", "o"), Binding("s/{entity}", "p", format="csv"))),
        "two read 's/{entity}', each as another payload",
    ),
    "view units of no channel": (with_view(units={"z": Unit(2.0)}), "views.windows.units: 'z' is no channel"),
    "binding with two entities": (
        with_model(bindings=(Binding("{entity}/{entity}", "out/{entity}"),)),
        "needs one level '{entity}'",
    ),
}

TEXT = Column(type="string")
FIELD = Source(kind="samples", model=MODEL, contract="field", time="ts")
SAMPLES = Contract(
    columns={"prediction": TEXT, "device": TEXT, "entity": TEXT, "label": TEXT, "ts": Column(type="float64"),
             "x": Column(type="float32"), "y": Column(type="float32")}
)  # fmt: skip
ROAD = replace(
    GOOD,
    sources={"watches": THE_SOURCE, "field": FIELD},
    contracts={**GOOD.contracts, "field": SAMPLES},
    views={"windows": replace(THE_VIEW, samples="field")},
    models={MODEL: replace(THE_MODEL, uplink=Uplink("labelled"), retraining=Retraining())},
)


def on_the_road(**changes: object) -> Project:
    return replace(ROAD, models={MODEL: replace(ROAD.models[MODEL], **changes)})


def with_field(**changes: object) -> Project:
    return replace(ROAD, sources={"watches": THE_SOURCE, "field": replace(FIELD, **changes)})


def with_columns(**columns: Column | None) -> Project:
    made = {**SAMPLES.columns, **columns}
    kept = {name: column for name, column in made.items() if column is not None}
    return replace(ROAD, contracts={**ROAD.contracts, "field": Contract(columns=kept)})


def test_a_project_with_a_road_has_no_problems() -> None:
    assert problems(ROAD) == []
    optional = with_columns(release=Column(type="int64"), value=TEXT, arrived=Column(type="float64"))
    assert problems(optional) == []


CASES |= {
    "files without a path": (
        replace(GOOD, sources={"watches": replace(THE_SOURCE, path="")}),
        "sources.watches: a source of files has a `path` and no `model`",
    ),
    "files of a model": (replace(GOOD, sources={"watches": replace(THE_SOURCE, model=MODEL)}), "and no `model`"),
    "samples with a path": (with_field(path="*.csv"), "sources.field: a source of samples has a `model`"),
    "samples of no model": (with_field(model=None), "sources.field: a source of samples has a `model`"),
    "samples of a model that is not there": (with_field(model=ModelName("other")), "sources.field.model: 'other' is"),
    "samples taken in twice": (
        replace(ROAD, sources={**ROAD.sources, "again": FIELD}),
        "sources.again.model: 'field' takes in the samples of 'motion' already",
    ),
    "samples without a label": (with_columns(label=None), "sources.field.contract: 'field' lacks 'label'"),
    "samples without a channel": (with_columns(y=None), "sources.field.contract: 'field' lacks 'y'"),
    "samples with a column of their own": (with_columns(z=TEXT), "no sample has 'z'"),
    "samples with labels that are numbers": (
        with_columns(label=Column(type="int64")),
        "'label' of a sample is of type string, not int64",
    ),
    "rows that are samples": (
        replace(ROAD, views={"windows": replace(ROAD.views["windows"], source="field", entity="entity")}),
        "views.windows.source: 'field' holds samples",
    ),
    "samples that are files": (
        replace(GOOD, views={"windows": replace(THE_VIEW, samples="watches")}),
        "views.windows.samples: 'watches' is a source of files",
    ),
    "samples from nowhere": (
        replace(GOOD, views={"windows": replace(THE_VIEW, samples="sky")}),
        "views.windows.samples: 'sky' is not declared",
    ),
    "only samples and none": (with_model(samples="only"), 'models.motion.samples: "only" needs samples'),
    "margin as per cent": (
        with_model(rollout=replace(THE_MODEL.rollout, margin=2.0)),
        "models.motion.rollout.margin: a share of blocks from 0 to 0.4, not 2",
    ),
    "blocks of nothing": (
        with_model(rollout=replace(THE_MODEL.rollout, block=-1)),
        "models.motion.rollout.block: input windows, or 0 to have it measured, not -1",
    ),
    "learning from nobody": (
        on_the_road(retraining=Retraining(devices=0)),
        "models.motion.retraining: devices and samples are at least 1, not 0 and 200",
    ),
    "learning backwards": (
        on_the_road(retraining=Retraining(every_hours=-1)),
        "retraining.every_hours: 0 hours or more",
    ),
    "learning without a road": (on_the_road(uplink=Uplink()), "without a road nothing comes up to learn from"),
    "learning from samples that are not used": (on_the_road(samples="none"), "or this model uses none"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_said_with_its_place(case: str) -> None:
    made, said = CASES[case]
    (found,) = problems(made)
    assert said in found


def test_all_problems_are_said_at_once() -> None:
    made = replace(with_model(view="frames", fit=(1.0, 0.0)), sources={})
    assert len(problems(made)) == 3


def test_a_gate_before_the_fit_is_no_overlap() -> None:
    assert problems(with_model(fit=(0.4, 1.0), gate=(0.0, 0.4))) == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"sourcse":{}}',
        b'{"models":{"Motion":{}}}',
        b'{"sources":{"a":{"kind":"ftp"}}}',
        b'{"models":{"m":{}}}',
    ],
)
def test_misspelt_and_foreign_words_are_errors(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Project, dec_hook=lambda kind, value: kind(value))


# --- lookups and config -----------------------------------------------------------------------------------------

HALLS = LookupSource(path="halls.csv", key="who", columns={"floor": Range(min=0, max=9)}, ttl_hours=24)
LINE = {"line": Word(default="a"), "limit": Word(default=0.5, min=0, max=1)}


def with_lookups(lookup: LookupSource = HALLS, name: str = "halls", **config: Any) -> Project:
    (view_name, view), (model_name, model) = next(iter(GOOD.views.items())), next(iter(GOOD.models.items()))
    return replace(
        GOOD,
        views=GOOD.views | {view_name: replace(view, lookups=(LookupName("halls"),))},
        models=GOOD.models | {model_name: replace(model, variables=LINE)},
        lookups={LookupName(name): lookup},
        config=Config(**config),
    )


def test_a_project_with_lookups_and_a_config_has_no_problems() -> None:
    assert problems(with_lookups(variables={"line": "b"}, devices={DeviceId("w-1"): {"limit": 1.0}})) == []


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (with_lookups(name="others"), "lookups: 'halls' is not declared; declared are: others"),
        (with_lookups(replace(HALLS, columns={})), "lookups.halls: lookup halls: columns must be named"),
        (with_lookups(replace(HALLS, ttl_hours=0.0)), "ttl is more than 0"),
        (with_lookups(replace(HALLS, columns={"who": Range()})), "'who' is the key"),
        (with_lookups(replace(HALLS, columns={"floor": Range(min=2, max=1)})), "min 2 is above max 1"),
        (with_lookups(replace(HALLS, default={"roof": 1.0})), "default: needs one number for each of floor"),
        (with_lookups(replace(HALLS, default={"floor": 10.0})), "default.floor: 10 is outside"),
        (with_lookups(variables={"line": "a/b"}), "config.variables: line is 'a/b'; it must be one level"),
        (with_lookups(variables={"limit": 2.0}), "limit is 2; allowed is 0 to 1"),
        (with_lookups(sites={SiteId("north"): {"lime": "a"}}), "config.sites.north.lime: no model declares"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(made: Project, says: str) -> None:
    found = problems(made)
    assert len(found) == 1 and says in found[0], found


@pytest.mark.parametrize("name", ["window", "probabilities", "config", "x"])
def test_a_lookup_is_not_called_as_the_graph_calls_its_own(name: str) -> None:
    place = f"lookups.{name}: graph inputs, outputs"
    assert [text for text in problems(with_lookups(name=name)) if text.startswith(place)], name


@pytest.mark.parametrize("words", ["{line}", "{place}"])
def test_a_word_in_a_binding_must_be_declared(words: str) -> None:
    made = with_lookups()
    name, model = next(iter(made.models.items()))
    bound = replace(model, bindings=(Binding(f"plant/{words}/{{entity}}/x", "out/{entity}"),))
    found = problems(replace(made, models={name: bound}))
    assert found == ([] if words == "{line}" else [f"models.{name}.bindings: {{place}} is no variable of it"])
