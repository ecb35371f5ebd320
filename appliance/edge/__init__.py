"""The agent's process and its rooms on this machine: doors, state, local broker, enrolment, folders."""
