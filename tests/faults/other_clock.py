"""The agent's program on a machine whose clock says something else: `python -m tests.faults.other_clock FILE ARGS...`.

FILE holds the seconds by which the clock is wrong, read at every look at it, so that it can be put right meanwhile.
Only the wall clock differs; what never jumps (`time.monotonic`) is as it is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_REAL = time.time
_FILE = Path(sys.argv[1])


def _wrong() -> float:
    return _REAL() + float(_FILE.read_text() or 0.0)


if __name__ == "__main__":
    time.time = _wrong
    from appliance.cli import main

    sys.argv = ["falaj", *sys.argv[2:]]
    main()
