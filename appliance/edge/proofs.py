"""The proofs of one agent: each waits for its proving child in a thread of its own, and is heard of in any case."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge import proving
from edge.states import Failure, FailureClass, Prove, Proved


class Proofs:
    """`told` hears the result of each, on any thread."""

    def __init__(self, told: Callable[[Proved], None]) -> None:
        self._told = told

    def begin(self, job: Prove) -> None:
        """Returns at once; where the host has no thread left, that is the result."""
        try:
            threading.Thread(target=self._prove, args=(job,), name="prover", daemon=True).start()
        except RuntimeError as error:
            text = f"no thread for a proof: {error}; see what else runs on this machine"
            self._told(Proved(job.model, job.artifact, Failure(FailureClass.ENVIRONMENT, "prove-no-child", text)))

    def _prove(self, job: Prove) -> None:
        self._told(Proved(job.model, job.artifact, proving.prove(job.request, proving.DEADLINE)))
