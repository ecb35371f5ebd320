"""The gates: facts of a candidate in, verdicts out. Pure; the figures come from `scorecard`.

Gate | passes if
-----|----------
G2   | accuracy on the gate rows reaches the floor; on too few rows that is INCONCLUSIVE
G6   | the exported graph answers as torch does, on gate rows and on generated ones
G7   | what ships is fp32, or an int8 candidate that is faster and not worse by the project's figures
G8   | the edge's own prover blesses each file (the verdict comes from the caller)
G9   | only known operator domains, nothing outside the file, size within the limit

One more is given where a candidate is committed, by what listeners know then: `schema` fails for other classes under
the same major version (`core.steward.staging.judged`), and nobody can overrule it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from core.handoffs import Score, Scorecard, Verdict
from core.project import ModelGates
from sync.manifest import Precision

NEEDED = ("G2", "G6", "G7", "G8", "G9")
DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})  # built into the runtime; none loads code
SIZE_LIMIT = 64 * 1024 * 1024  # bytes of one model file


class GraphFacts(msgspec.Struct, frozen=True):
    """One model file as the security gate sees it; "" is the standard domain."""

    precision: Precision
    bytes: int
    domains: tuple[str, ...]
    external: bool


class Facts(msgspec.Struct, frozen=True):
    """What gates need beside the scorecard: the files that would ship, and parity on generated rows."""

    graphs: tuple[GraphFacts, ...]
    generated_rows: int
    generated_parity: float


def judge(scorecard: Scorecard, gates: ModelGates, facts: Facts) -> tuple[Verdict, ...]:
    """The verdicts of G2, G6, G7 and G9, in this order."""
    return (
        _quality(scorecard, gates),
        _parity(scorecard, gates, facts),
        _quantization(scorecard, gates),
        _security(facts),
    )


def accepted(verdicts: Sequence[Verdict], needed: Collection[str] = NEEDED) -> bool:
    """True if every needed gate has spoken and none failed. Only G2 may be inconclusive: then floor (in G2
    itself) and parity on generated rows (in G6) stand in for it, and the verdict remains as the flag.
    """
    heard = {verdict.gate for verdict in verdicts}
    return heard.issuperset(needed) and all(
        verdict.outcome == "pass" or (verdict.gate == "G2" and verdict.outcome == "inconclusive")
        for verdict in verdicts
    )


def _chosen(scorecard: Scorecard, precision: Precision) -> Score:
    return next(score for score in scorecard.scores if score.precision == precision)


def _quality(scorecard: Scorecard, gates: ModelGates) -> Verdict:
    accuracy = _chosen(scorecard, scorecard.chosen).accuracy
    figures = {"accuracy": accuracy, "floor": gates.min_accuracy, "rows": float(scorecard.rows)}
    said = f"accuracy {accuracy:.4f} on {scorecard.rows} rows, floor {gates.min_accuracy:.4f}"
    if accuracy < gates.min_accuracy or scorecard.rows == 0:
        return Verdict("G2", "fail", f"{said}; take in more rows, or look at the classes it confuses", figures)
    if scorecard.rows < gates.min_rows:
        return Verdict("G2", "inconclusive", f"{said}; fewer than {gates.min_rows} rows prove little", figures)
    return Verdict("G2", "pass", said, figures)


def _parity(scorecard: Scorecard, gates: ModelGates, facts: Facts) -> Verdict:
    found = (scorecard.parity, facts.generated_parity)
    figures = {
        "gate_rows": scorecard.parity,
        "generated_rows": facts.generated_parity,
        "generated": float(facts.generated_rows),
        "limit": gates.parity,
    }
    if facts.generated_rows == 0:
        return Verdict("G6", "fail", "no generated rows were compared", figures)
    said = f"the graph differs from torch by at most {max(found):.2e}, allowed are {gates.parity:.0e}"
    # Written so that a figure that is not a number fails.
    fits = all(difference <= gates.parity for difference in found)
    return Verdict("G6", "pass" if fits else "fail", said, figures)


def _quantization(scorecard: Scorecard, gates: ModelGates) -> Verdict:
    base, chosen = _chosen(scorecard, "fp32"), _chosen(scorecard, scorecard.chosen)
    speedup = base.p50_us / max(chosen.p50_us, 1e-9)
    loss = base.accuracy - chosen.accuracy
    figures = {"speedup": speedup, "loss": loss, "agreement": chosen.agreement}
    if chosen.precision == "fp32":
        return Verdict("G7", "pass", scorecard.reason, figures)
    fits = speedup >= gates.int8_speedup and loss <= gates.int8_margin and scorecard.rows >= gates.min_rows
    return Verdict("G7", "pass" if fits else "fail", scorecard.reason, figures)


def _security(facts: Facts) -> Verdict:
    faults = []
    for graph in facts.graphs:
        strange = sorted(set(graph.domains) - DOMAINS)
        if strange:
            faults.append(f"{graph.precision} uses operators of {', '.join(strange)}")
        if graph.external:
            faults.append(f"{graph.precision} keeps data outside its file")
        if graph.bytes > SIZE_LIMIT:
            faults.append(f"{graph.precision} has {graph.bytes} bytes, the limit is {SIZE_LIMIT}")
    figures = {"largest_bytes": float(max((graph.bytes for graph in facts.graphs), default=0))}
    if not facts.graphs:
        faults.append("no file was looked at")
    text = "; ".join(faults) or "pure ONNX: known operators, nothing outside the file, within the size limit"
    return Verdict("G9", "fail" if faults else "pass", text, figures)
