"""What the steward says to an order."""

from __future__ import annotations

from typing import Any

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What the steward says: a result, or an error with a stable code and what to do next."""

    ok: bool
    result: dict[str, Any] = {}
    error: str = ""
    code: str = ""
    hint: str = ""
