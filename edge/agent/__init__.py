"""The walker of the edge: takes in what arrives, moves each model along its lifecycle, tells the core.

`walker.Agent` has five verbs: `start`, `handle` and `tick` return actions, `stop` says that the end was asked for, and
`overview` what people are shown. In the order of a message and what it leads to:

- `house` is what the walker holds: `ports` are what the process around it hands it, `line` its session with the broker,
  `bench` what is in memory of releases on trial, `pieces` tables and config, `events` what the core is told.
- `intake` reads messages, `commands` the questions among them, `trusting` the trust files (`news`: what came of them),
  `revoking` hears what the owners took back; `renewing` looks after the certificate, `timing` after a clock that is not
  set, `strangers` counts whom the broker is not.
- `steps` is one function a phase: `fetching` gets a release here, `loading` is
  the only way a model gets into memory, `trying` are the phases of a trial (`pacing`: whom slow answers wait for),
  `standing` who answers before its trial is over, `splitting` several releases that answer at once (`growing`: their
  memory), `leaving` the way back.
- `gathering` fetches tables and config. `patience` says when what is in the way is met again.
- `resuming` goes on after a restart, `disk` knows of a disk that refuses.
- `reporting` writes what the core is told, `returning` when it is told again, `why` the card of a verdict, `accounting`
  how releases do.

All of it runs on one thread.
"""

from edge.agent.house import House, Identity
from edge.agent.walker import Agent

__all__ = ["Agent", "House", "Identity"]
