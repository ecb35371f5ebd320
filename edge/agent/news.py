"""What is remembered of signed metadata while it comes in: what of it is new, and how far the search for the files of a
release is. All of it may be forgotten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sync.names import Digest


@dataclass
class News:
    """Signed metadata that came and was not looked at for revocations yet."""

    unread: bool = False
    came: int = 0  # files that came and were other than those held
    asked: dict[str, float] = field(default_factory=dict)  # when those that have not come were asked for last
    again: float = 0.0  # when it is looked at once more after files that do not hold
    refused: set[str] = field(default_factory=set)  # what was told of files that do not hold, since some last did


@dataclass
class Hunt:
    """The search for the trust files of one release that is assigned."""

    since: float  # when what lacks began to be waited for
    tried: tuple[Digest, int] | None = None  # the release and `News.came` for which the files were last read
    again: float = math.inf  # when the same files are read once more
