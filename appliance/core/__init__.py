"""The core node's processes and their rooms on this machine: steward, jobs, console, broker watch, the owner's keys."""
