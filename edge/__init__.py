"""The house in the field: one light agent that proves, serves, watches and comes home by itself.

Read `states` first (the hall), then `roots` and `trust` (whom it believes), `lifecycle`, `slots`, `health` (pure
decisions), then the durable rooms (`journal`, `artifacts`, `outbox`), then `runtime`, `serving`, `inference`,
`http`, `bindings`, and last `agent`, the walker.
What does not belong: torch, pyarrow, flask, anything of `core`.
"""
