"""The house that learns: from rows to a signed release, and from reports to the next decision.

Read `handoffs` first (the hall: what the stages pass on), then `orders` (wishes from people), then the stages
in the order data walks: ingest, features, training, release, rollout, fleet. `steward` is the walker.
What does not belong: anything of `edge`, sockets and processes (`appliance` holds those).
"""
