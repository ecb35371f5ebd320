"""How an order is refused, and what every desk asks first: the current project and one of its models."""

from __future__ import annotations

from pathlib import Path

from core import project
from core.steward.house import House
from sync.names import ModelName


class Refusal(Exception):
    """An order that is not done; the state is as before, but for what is noted of a refusal with `noted`."""

    def __init__(self, code: str, text: str, hint: str = "", *, noted: bool = False) -> None:
        super().__init__(text)
        self.code, self.hint, self.noted = code, hint, noted


def current_project(house: House) -> tuple[project.Project, str]:
    """The project applied last and the folder of its relative paths; raises Refusal if there is none."""
    current = house.catalog.projects.current()
    if current is None:
        raise Refusal("no-project", "no project yet", "run `falaj apply falaj.toml` first")
    return current[0], str(Path(current[1]))


def declared_model(house: House, name: ModelName) -> project.Model:
    """The model as the project declares it now; it may have gone since its training began."""
    current, _ = current_project(house)
    model = current.models.get(name)
    if model is None:
        raise Refusal("no-such-model", f"no model {name!r}; declared: {', '.join(current.models)}")
    return model
