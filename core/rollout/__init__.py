"""How a release reaches the fleet: `plans` says in which steps, `controller` decides the next one. All pure."""
