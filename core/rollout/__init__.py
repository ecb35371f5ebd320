"""How a release reaches the fleet: `plans` says in which steps, `power` how many pairs they need, `judge` weighs the
pairs of the canary devices, `arms` the keys of a split (by the statistic of `splits`), `controller` decides the next
step. All pure."""
