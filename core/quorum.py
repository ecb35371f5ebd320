"""How many devices it takes to move a fleet: one that lies must never be enough where there are others to ask.

A fleet of one or two has nobody to outvote a liar with, and goes by whoever speaks: an honest small fleet must work.
From three devices on it takes at least two, and a tenth of them where that is more.
"""

from __future__ import annotations

import math

FROM = 3  # devices that take part, from which on one alone moves nothing
SHARE = 0.1


def quorum(devices: int) -> int:
    """Of so many devices that take part, how many must say the same."""
    return 1 if devices < FROM else max(2, math.ceil(SHARE * devices))
