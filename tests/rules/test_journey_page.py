"""docs/journey.md is true to the code: every name on it can be looked up."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "journey.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:appliance|core|edge|sync)\.[A-Za-z_.]+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_walk_is_in_the_code(name: str) -> None:
    """The longest beginning that is a module, then attributes of it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return
    raise AssertionError(name)


def test_the_walk_goes_through_every_folder() -> None:
    """A package that neither a reading nor a release comes through would be one nobody needs."""
    walked = {".".join(name.split(".")[:2]) for name in NAMES}
    stages = {"ingest", "features", "training", "release", "rollout", "fleet", "steward", "console", "catalog"}
    assert {f"core.{stage}" for stage in stages} <= walked
    assert {"edge.agent", "edge.bindings", "edge.http", "edge.serving", "edge.trials", "edge.road"} <= walked


def test_there_are_names_to_look_up() -> None:
    assert len(NAMES) > 60
