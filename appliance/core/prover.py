"""The prover port: runs the edge's limited child, for an agent and, with the same words, for the core's gate G8."""

from __future__ import annotations

from core.handoffs import Verdict
from edge import proving
from edge.states import Failure, ProofRequest
from sync.manifest import Precision, Profile


def bless(model: bytes, golden: bytes, precision: Precision, profile: Profile) -> Verdict:
    """Gate G8: the release proves itself on this machine exactly as it will on a device."""
    request = ProofRequest(model=model, golden=golden, precision=precision, rss_mb=profile.rss_mb)
    outcome = proving.prove(request, proving.DEADLINE)
    failure = outcome if isinstance(outcome, Failure) else proving.judge(outcome, profile)
    if failure is not None:
        return Verdict("G8", "fail", f"{precision}: {failure.text}")
    assert not isinstance(outcome, Failure)
    figures = {"p99_ms": outcome.p99_ms, "rss_mb": outcome.rss_mb, "worst": outcome.worst}
    return Verdict("G8", "pass", f"{precision} proved in the limited child", figures)
