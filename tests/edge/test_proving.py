"""The limited child against really bad models, and the pure verdict on what it measures."""

from __future__ import annotations

import functools
import itertools
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.proving import Ended, Overdue, Run, compare, judge, measure, prove, run_child
from edge.runtime import load
from edge.states import Failure, FailureClass, Proof, ProofRequest
from sync import golden
from sync.golden import Arrays, Golden
from sync.manifest import Profile
from tests.edge import graphs

PROFILE = Profile(p99_ms=5000.0, rss_mb=256)
DEADLINE = 60.0  # far beyond what any of these takes; the endless one has its own


def request(model: bytes, inputs: Arrays, outputs: Arrays, tolerance: float = 1e-4) -> ProofRequest:
    vectors = Golden(golden.pack(inputs), {"fp32": golden.Expected(golden.pack(outputs), tolerance)})
    return ProofRequest(model, golden.encode(vectors), "fp32", PROFILE.rss_mb)


def verdict(outcome: Proof | Failure) -> str:
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureClass.VERDICT
    return outcome.code


def good() -> ProofRequest:
    model, inputs = graphs.classifier(), graphs.windows(8)
    return request(model, inputs, load(model).run(inputs))


def test_a_good_model_passes_and_is_measured() -> None:
    proof = prove(good(), DEADLINE)
    assert isinstance(proof, Proof)
    assert proof.passed and proof.worst < 1e-6
    assert proof.p99_ms > 0 and 0 <= proof.rss_mb < 256
    assert judge(proof, PROFILE) is None


def test_wrong_outputs_are_a_mismatch_with_the_worst_difference() -> None:
    model, inputs = graphs.classifier(), graphs.windows(8)
    outputs = load(graphs.classifier(bias=0.5)).run(inputs)
    proof = prove(request(model, inputs, outputs), DEADLINE)
    assert isinstance(proof, Proof)
    failure = judge(proof, PROFILE)
    assert failure is not None and failure.code == "golden-mismatch"
    assert 0.01 < float(failure.facts["worst"]) < 1


def test_nan_where_a_number_is_wanted_is_a_mismatch() -> None:
    inputs: Arrays = {"x": np.full((1, 2), -1, np.float32)}
    proof = prove(request(graphs.log_of_input(), inputs, {"y": np.zeros((1, 2), np.float32)}), DEADLINE)
    assert isinstance(proof, Proof)
    failure = judge(proof, PROFILE)
    assert failure is not None and failure.code == "golden-mismatch" and "finite" in failure.text


def test_a_memory_bomb_dies_in_the_child() -> None:
    inputs: Arrays = {"x": np.array([1], np.int64)}
    outcome = prove(request(graphs.memory_bomb(), inputs, {"y": np.zeros(1, np.float32)}), DEADLINE)
    assert verdict(outcome) == "prove-crashed"


def endless() -> ProofRequest:
    return request(graphs.endless_loop(), {"x": np.array([0], np.float32)}, {"y": np.zeros(1, np.float32)})


def test_an_endless_loop_uses_up_its_processor_time() -> None:
    outcome = prove(endless(), DEADLINE, functools.partial(run_child, cpu_s=1))
    assert verdict(outcome) == "prove-deadline"


def test_a_child_that_the_host_lets_do_nothing_is_no_verdict() -> None:
    """Suspended, out of its ration or swapped out: whatever it is, it is not the model."""
    outcome = prove(endless(), 2.0, functools.partial(run_child, module="tests.edge.suspended"))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (FailureClass.ENVIRONMENT, "prove-overdue")


@pytest.mark.parametrize(("works", "status"), [(0.2, 0), (60.0, -signal.SIGXCPU)])
def test_the_processor_time_of_a_start_is_not_the_models(works: float, status: int) -> None:
    """Python and onnxruntime alone take more than a second of a slow processor; from then on the second counts."""
    code = (
        "import time; from edge.proving import limit_self\n"
        "def work(s):\n    while time.process_time() < s: pass\n"
        f"work(1.1); limit_self(1, 64); work(1.1 + {works})"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], timeout=DEADLINE, check=False).returncode == status


def test_a_truncated_model_is_refused_with_the_reason() -> None:
    whole = good()
    outcome = prove(msgspec.structs.replace(whole, model=whole.model[:-20]), DEADLINE)
    assert verdict(outcome) == "prove-crashed"
    assert isinstance(outcome, Failure) and "cannot load" in outcome.text


def test_golden_vectors_of_another_precision_are_no_proof() -> None:
    outcome = prove(msgspec.structs.replace(good(), precision="int8-static"), DEADLINE)
    assert verdict(outcome) == "prove-crashed"
    assert isinstance(outcome, Failure) and "int8-static" in outcome.text


def ends(status: int, out: bytes = b"", err: bytes = b"") -> Run:
    return lambda stdin, deadline_s: Ended(status, out, err)


def raises(error: Exception) -> Run:
    def run(stdin: bytes, deadline_s: float) -> Ended:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "kind", "code"),
    [
        (raises(Overdue("3 s")), FailureClass.ENVIRONMENT, "prove-overdue"),
        (raises(BlockingIOError(11, "cannot fork")), FailureClass.ENVIRONMENT, "prove-no-child"),
        (raises(MemoryError()), FailureClass.ENVIRONMENT, "prove-no-child"),
        (ends(-signal.SIGKILL), FailureClass.ENVIRONMENT, "prove-killed"),
        (ends(-signal.SIGXCPU), FailureClass.VERDICT, "prove-deadline"),
        (ends(-signal.SIGSEGV), FailureClass.VERDICT, "prove-crashed"),
        (ends(1, err=b"Traceback"), FailureClass.VERDICT, "prove-crashed"),
        (ends(0, out=b"not json"), FailureClass.VERDICT, "prove-crashed"),
    ],
)
def test_how_a_child_ends_has_a_class_and_a_code(run: Run, kind: FailureClass, code: str) -> None:
    outcome = prove(ProofRequest(b"", b"", "fp32", 1), 1.0, run)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (kind, code)


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (Proof(True, 0.0, 50.0, 256.0), None),
        (Proof(True, 0.0, 50.1, 10.0, cpu_ms=50.1), "profile-exceeded"),
        (Proof(True, 0.0, 50.1, 10.0, cpu_ms=50.0), "host-busy"),
        (Proof(True, 0.0, 1.0, 257.0), "profile-exceeded"),
        (Proof(True, 0.0, 50.1, 257.0, cpu_ms=1.0), "profile-exceeded"),
        (Proof(False, 0.3, 0.0, 0.0, "y is off"), "golden-mismatch"),
    ],
)
def test_the_verdict_on_a_proof(proof: Proof, code: str | None) -> None:
    failure = judge(proof, Profile(p99_ms=50.0, rss_mb=256))
    assert (failure.code if failure else None) == code


def test_a_busy_host_makes_answers_late_and_no_verdict() -> None:
    """Each answer took a second by the wall, and the processor worked for a millisecond of it."""
    wall, processor = itertools.count(0.0, 1.0), itertools.count(0.0, 0.001)
    proof = measure(good(), lambda: next(wall), lambda: next(processor))
    assert proof.passed and (proof.p99_ms, round(proof.cpu_ms, 6)) == (1000.0, 1.0)
    failure = judge(proof, Profile(p99_ms=50.0, rss_mb=256))
    assert failure is not None and (failure.kind, failure.code) == (FailureClass.ENVIRONMENT, "host-busy")


def test_outputs_are_compared_by_name_shape_and_dtype() -> None:
    one = {"y": np.zeros(2, np.float32)}
    assert compare(one, one, 0.0) == (0.0, "")
    for other in ({}, {"y": np.zeros(3, np.float32)}, {"y": np.zeros(2, np.float64)}):
        assert compare(other, one, 1.0)[1]
    assert compare(one, {}, 1.0)[1]
    worst, detail = compare({"y": np.array([0, 0.5], np.float32)}, one, 0.4)
    assert worst == 0.5 and "0.5" in detail


def test_the_child_does_not_outlive_whoever_waits_for_it(tmp_path: Path) -> None:
    """An agent that is killed while it proves starts a new proof: the old one must not slow it down into a verdict."""
    inputs = {"x": np.zeros(1, np.float32)}
    asked = tmp_path / "request"
    asked.write_bytes(msgspec.msgpack.encode(request(graphs.endless_loop(), inputs, {"y": np.zeros(1, np.float32)})))
    code = f"from edge import proving; proving.run_child(open({str(asked)!r}, 'rb').read(), 60.0)"
    parent = subprocess.Popen([sys.executable, "-P", "-c", code])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    end = time.monotonic() + DEADLINE
    try:
        while not (children.read_text().split() and _busy(int(children.read_text().split()[0]))):
            assert time.monotonic() < end, "the child never began"
            time.sleep(0.05)
        child = int(children.read_text().split()[0])
    finally:
        parent.kill()
        parent.wait()
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.02)


def _busy(pid: int) -> bool:
    """Whether it has limited itself already: what comes after that is the model."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return re.search(r"Max open files +32 ", limits) is not None
