"""The walker of the edge: takes in what arrives, moves each model along its lifecycle, tells the core.

`walker.Agent` has three verbs (start, handle, tick) and returns actions; `house` is what it holds, `intake` reads
messages, `steps` is one function a phase (`trying` those of a trial, `leaving` the way back), `loading` is the only way
a model gets into memory, `reporting` writes what the core is told, `why` the card of a verdict, `revoking` what the
owners took back, `resuming` goes on
after a restart, `disk` knows of a disk that refuses. All of it runs on one thread.
"""

from edge.agent.house import House, Identity
from edge.agent.walker import Agent

__all__ = ["Agent", "House", "Identity"]
