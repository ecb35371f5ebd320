"""The scorecard: every candidate file measured on the gate rows and on this CPU, and the choice among them.

The judged files are the files that ship: whole graphs, opened from bytes, one thread, one window at a time.
The runs of the candidates take turns, so that a busy moment of the machine falls on all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from core.handoffs import Score, Scorecard, Split
from core.project import ModelGates
from core.release import calibration
from core.release.export import OUTPUT, feeds
from core.release.gates import GraphFacts
from core.release.graphs import open_session as open_session
from sync.evidence import burst_length
from sync.golden import LIMIT, Expected, Golden, pack
from sync.manifest import Precision

Floats = npt.NDArray[np.float32]

GOLDEN_WINDOWS = 16
FLOAT_TOLERANCE = 1e-4
# Kernels of other CPUs may round an activation to the neighbouring step; in probabilities that is about this.
INT8_TOLERANCE = 2e-2

_WARM_UP = 20
_RUNS = 300
_BATCH = 256


def measure(
    models: Mapping[Precision, bytes],
    gate: Split,
    reference: Floats,
    gates: ModelGates,
    clock: Callable[[], float],
    runs: int = _RUNS,
    temperature: float = 1.0,
) -> Scorecard:
    """Measures whole graphs, `fp32` among them; `reference` are torch's probabilities of the gate rows, and
    `temperature` is what divides the scores in all of them.

    `clock` counts seconds, monotonic and fine. Probabilities that are not finite count as wrong answers and
    as a parity of 1, the worst there is.
    """
    sessions = {precision: open_session(model) for precision, model in models.items()}
    answers = {precision: probabilities(session, gate.x) for precision, session in sessions.items()}
    times = _times(sessions, gate.x, clock, runs)
    scores = tuple(
        Score(
            precision=precision,
            accuracy=_share(_classes(answers[precision]) == gate.y),
            agreement=_share(_classes(answers[precision]) == _classes(answers["fp32"])),
            p50_us=float(np.percentile(times[precision], 50)) * 1e6,
            p99_us=float(np.percentile(times[precision], 99)) * 1e6,
            bytes=len(model),
            ece=calibration.expected_error(answers[precision], gate.y),
            ece_before=calibration.expected_error(calibration.undone(answers[precision], temperature), gate.y),
        )
        for precision, model in models.items()
    )
    chosen, reason = choose(scores, len(gate.y), gates)
    burst = _burst(_classes(answers[chosen]) != gate.y, gate.entity)
    return Scorecard(len(gate.y), scores, chosen, reason, parity(answers["fp32"], reference), burst)


def choose(scores: tuple[Score, ...], rows: int, gates: ModelGates) -> tuple[Precision, str]:
    """Pure: fp32, unless an int8 candidate is faster and not worse by the gates' figures; and why, in
    words.
    """
    base = next(score for score in scores if score.precision == "fp32")
    others = [score for score in scores if score.precision != "fp32"]
    if not others:
        return "fp32", "fp32 ships: no other candidate could be made"
    if rows < gates.min_rows:
        return "fp32", f"fp32 ships: {rows} gate rows are too few to tell what int8 would lose"
    said = []
    for score in sorted(others, key=lambda score: score.p50_us):
        speedup, loss = base.p50_us / max(score.p50_us, 1e-9), base.accuracy - score.accuracy
        figures = f"{score.precision} is {speedup:.2f} times as fast and loses {loss * 100:.2f} points"
        if speedup >= gates.int8_speedup and loss <= gates.int8_margin:
            return score.precision, f"{score.precision} ships: {figures} of accuracy on {rows} rows"
        said.append(figures)
    wanted = f"{gates.int8_speedup:.2f} times and at most {gates.int8_margin * 100:.2f} points"
    return "fp32", f"fp32 ships: {'; '.join(said)}; wanted are at least {wanted}"


def golden(models: Mapping[Precision, bytes], gate: Split, count: int = GOLDEN_WINDOWS) -> Golden:
    """Real gate windows, spread over the classes, as one batch, with what each of `models` answers."""
    order = np.argsort(gate.y, kind="stable")
    most = max(1, LIMIT // 4 // gate.x[0].nbytes)  # leaves room for the answers
    picks = order[np.linspace(0, len(order) - 1, min(count, most, len(order))).astype(np.int64)]
    x = gate.x[picks]
    expected = {
        precision: Expected(
            pack({OUTPUT: probabilities(open_session(model), x)}),
            FLOAT_TOLERANCE if precision == "fp32" else INT8_TOLERANCE,
        )
        for precision, model in models.items()
    }
    return Golden(pack(feeds(open_session(next(iter(models.values()))), x)), expected)


def probabilities(session: ort.InferenceSession, x: Floats) -> Floats:
    """The answers to raw windows `x`, (n, classes)."""
    parts = [session.run([OUTPUT], feeds(session, x[i : i + _BATCH]))[0] for i in range(0, len(x), _BATCH)]
    return np.concatenate(parts)


def parity(given: Floats, wanted: Floats) -> float:
    """The worst absolute difference; 1.0 if anything is not finite."""
    worst = float(np.abs(given.astype(np.float64) - wanted).max(initial=0.0))
    return worst if np.isfinite(worst) else 1.0


def _burst(wrong: npt.NDArray[np.bool_], entity: npt.NDArray[np.str_]) -> float:
    """How long runs of errors are, of each entity for itself: windows of two of them are no neighbours."""
    apart = [np.append(wrong[entity == name], False) for name in np.unique(entity)]
    return burst_length(np.concatenate([*apart, [False]]))


def inspect(precision: Precision, model: bytes) -> GraphFacts:
    """What the security gate must know of a file: its domains, whether it points outside itself, its size."""
    parsed = onnx.load_model_from_string(model)
    domains = {entry.domain for entry in parsed.opset_import} | {f.domain for f in parsed.functions}
    external = False
    nodes, tensors = list(parsed.graph.node), list(parsed.graph.initializer)
    tensors += [part for s in parsed.graph.sparse_initializer for part in (s.values, s.indices)]
    nodes += [node for function in parsed.functions for node in function.node]
    while nodes or tensors:
        external |= any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in tensors)
        tensors = []
        for node in nodes:
            domains.add(node.domain)
        attributes = [attribute for node in nodes for attribute in node.attribute]
        graphs = [g for a in attributes for g in (*a.graphs, *([a.g] if a.HasField("g") else []))]
        tensors += [t for a in attributes for t in (*a.tensors, *([a.t] if a.HasField("t") else []))]
        for a in attributes:
            sparse = (*a.sparse_tensors, *([a.sparse_tensor] if a.HasField("sparse_tensor") else []))
            tensors += [part for s in sparse for part in (s.values, s.indices)]
        tensors += [t for g in graphs for t in g.initializer]
        tensors += [part for g in graphs for s in g.sparse_initializer for part in (s.values, s.indices)]
        nodes = [node for g in graphs for node in g.node]
    return GraphFacts(precision, len(model), tuple(sorted("" if d == "ai.onnx" else d for d in domains)), external)


def _times(
    sessions: Mapping[Precision, ort.InferenceSession], x: Floats, clock: Callable[[], float], runs: int
) -> dict[Precision, list[float]]:
    times: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for i in range(_WARM_UP + runs):
        for precision, session in sessions.items():
            one = feeds(session, x[i % len(x)][None])
            before = clock()
            session.run([OUTPUT], one)
            after = clock()
            if i >= _WARM_UP:
                times[precision].append(after - before)
    return times


def _classes(answers: Floats) -> npt.NDArray[np.int64]:
    return np.where(np.isfinite(answers).all(axis=1), answers.argmax(axis=1), -1)


def _share(hits: npt.NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else 0.0
