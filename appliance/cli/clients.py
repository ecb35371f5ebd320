"""How a command reaches the core whose state folder it was given."""

from __future__ import annotations

from pathlib import Path

from appliance.api import Api
from appliance.settings import state_folder


def api(folder: Path | None) -> Api:
    """The core's API on its Unix socket."""
    return Api(state_folder("core", folder) / "run" / "api.sock")
