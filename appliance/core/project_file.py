"""Reads a project file (`falaj.toml`) and says everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

from appliance.settings import BadSettings, convert, read_toml
from core.consistency import problems
from core.project import Project


def read_project(file: Path) -> Project:
    """The project in a file, complete and consistent; raises BadSettings with every problem found."""
    if not file.exists():
        raise BadSettings(f"there is no project file {file}: name one, or write it as docs/first-project.md shows")
    project = convert(Project, read_toml(file), str(file))
    found = problems(project)
    if found:
        raise BadSettings(f"{file}: " + "\n  ".join(found))
    return project
