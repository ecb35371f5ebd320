"""The walker of the edge: takes in what arrives, moves each model along its lifecycle, tells the core.

`walker.Agent` has three verbs (start, handle, tick) and returns actions; `house` is what it holds, `intake` reads
messages, `steps` is one function a phase, `loading` is the only way a model gets into memory, `reporting` writes
what the core is told. All of it runs on one thread.
"""

from edge.agent.house import House, Identity
from edge.agent.walker import Agent

__all__ = ["Agent", "House", "Identity"]
