"""A proving child that its host lets do nothing: `python -m tests.edge.suspended`."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGSTOP)
