"""How a release reaches the fleet: `plans` says in which steps, `power` how many pairs they need, `judge` weighs the
pairs of the canary devices, `controller` decides the next step. All pure."""
