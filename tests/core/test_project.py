"""The project file: what does not fit together is said with its place, all of it at once."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from core.project import Project, problems
from sync.manifest import Binding
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
    "nobody to begin with": (
        with_model(rollout=replace(THE_MODEL.rollout, canary=())),
        "models.motion.rollout.canary: name at least one device",
    ),
    "binding that hears itself": (
        with_model(bindings=(Binding("a/{entity}", "a/{entity}"),)),
        "models.motion.bindings: output and topic are both 'a/{entity}'",
    ),
    "stretch backwards": (with_model(fit=(0.6, 0.6)), "models.motion.fit: needs 0 <= from < to <= 1"),
    "stretch beyond the end": (with_model(gate=(0.7, 1.1)), "models.motion.gate: needs 0 <= from < to <= 1"),
    "gate judges what was trained on": (with_model(fit=(0.0, 0.7), gate=(0.6, 0.8)), "fit and gate overlap"),
    "binding without entity": (
        with_model(bindings=(Binding("sensors/all", "out/{entity}"),)),
        "topic 'sensors/all' needs one level '{entity}'",
    ),
    "binding with two entities": (
        with_model(bindings=(Binding("{entity}/{entity}", "out/{entity}"),)),
        "needs one level '{entity}'",
    ),
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
