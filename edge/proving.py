"""The limited child: an unproven release first runs where it can hurt nobody.

`python -m edge.proving SECONDS` reads one MessagePack `ProofRequest` from stdin and writes one JSON `Proof`
to stdout. It limits itself *before* the model is loaded: address space (a graph of 101 bytes may ask for 64
GiB), SECONDS of the processor (one of 230 bytes never ends), open files, no files written, no core dumps. Parent
side: `prove` starts it and kills it at the deadline, `judge` is the pure verdict on what it measured.

Golden outputs are compared by largest absolute difference. Latency is that of one answer; a busy host only
ever adds time, so the p99 is the best of a few rounds.

A host that is busy, swaps, was suspended or has its processor rationed is no fault of the model's. So it is held to
the processor's time alone: a model that never ends uses that up, and one is too slow if its answers take the processor
longer than the profile allows. What only took long is tried again.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from edge.runtime import ModelError, Session, load
from edge.states import Failure, FailureClass, Proof, ProofRequest
from sync import golden
from sync.errors import Malformed
from sync.golden import Arrays
from sync.manifest import Profile

DEADLINE = 120.0  # seconds until the child is killed, on a device and at the core's gate alike
REFUSED = 3  # exit status: the model, or what is given with it, cannot be used; the reason is on stderr

_MIB = 1024 * 1024
_RUNS, _ROUNDS, _WARM_UP = 50, 3, 5
_CPU_SHARE = 0.5  # of the deadline, that the child may compute: whatever is slower than that, the host made so
_HEADROOM = 256 * _MIB  # address space is not memory: arenas and mappings reserve more than they use
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_NEVER = sys.float_info.max  # the worst difference where there is no number for it (JSON knows no infinity)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: exit status (negative: the signal that killed it), stdout, stderr."""

    status: int
    out: bytes
    err: bytes


class Overdue(Exception):
    """The child was still running at the deadline and was killed, before it had used up its processor time."""


Asked = TypeVar("Asked")
Run = Callable[[bytes, float], Ended]  # (stdin, deadline in seconds); raises Overdue, OSError, MemoryError


# --- the parent's side ------------------------------------------------------------------------------------------


def run_child(request: bytes, deadline_s: float, module: str = "edge.proving", cpu_s: float | None = None) -> Ended:
    """Runs this module, or another that keeps its rules, as a child that may compute for `cpu_s`, or its share of the
    deadline; raises Overdue after killing it, OSError where none can be started."""
    seconds = math.ceil(deadline_s * _CPU_SHARE if cpu_s is None else cpu_s)
    command = [sys.executable, "-I", "-m", module, str(seconds)]
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            timeout=deadline_s,
            env=_child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Overdue(f"no proof after {deadline_s:g} s") from error
    return Ended(done.returncode, done.stdout, done.stderr)


def prove(request: ProofRequest, deadline_s: float, run: Run = run_child) -> Proof | Failure:
    """What the child measured, or why there is no measurement; blocks for at most about `deadline_s`."""
    try:
        ended = run(msgspec.msgpack.encode(request), deadline_s)
    except Overdue as error:
        text = f"{error}, and it had not used up its processor time: see what else runs on this machine"
        return _environment("prove-overdue", text)
    except (OSError, MemoryError) as error:
        return _environment("prove-no-child", f"no proving child could be started: {error}; free some memory")
    if ended.status == -signal.SIGXCPU:
        return _verdict("prove-deadline", "the model used up its processor time")
    if ended.status == -signal.SIGKILL:
        # Its own address space is limited, so whoever killed it did so for want of memory on the whole
        # machine.
        return _environment("prove-killed", "the system killed the proving child; is the machine out of memory?")
    if ended.status != 0:
        return _verdict("prove-crashed", f"the proving child ended with {ended.status}: {_tail(ended.err)}")
    try:
        return msgspec.json.decode(ended.out, type=Proof)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _verdict("prove-crashed", f"the proving child gave no proof: {error}")


def judge(proof: Proof, profile: Profile) -> Failure | None:
    """The verdict on a proof, None if it passes: golden outputs first, then what the profile allows. Memory goes before
    time, for no busy host excuses it."""
    if not proof.passed:
        text = f"golden outputs differ: {proof.detail}"
        return _verdict("golden-mismatch", text, {"worst": proof.worst})
    facts: dict[str, str | int | float] = {"p99_ms": proof.p99_ms, "rss_mb": proof.rss_mb}
    if proof.rss_mb > profile.rss_mb:
        text = f"it takes {proof.rss_mb:.0f} MiB, the profile allows {profile.rss_mb} MiB"
        return _verdict("profile-exceeded", text, facts)
    if proof.p99_ms > profile.p99_ms:
        facts["cpu_ms"] = proof.cpu_ms
        text = f"p99 is {proof.p99_ms:.2f} ms, the profile allows {profile.p99_ms:g} ms"
        if proof.cpu_ms <= profile.p99_ms:
            text = f"{text}, and the processor's part is {proof.cpu_ms:.2f} ms: see what else runs on this machine"
            return Failure(FailureClass.ENVIRONMENT, "host-busy", text, facts)
        return _verdict("profile-exceeded", text, facts)
    return None


def _verdict(code: str, text: str, facts: Mapping[str, str | int | float] | None = None) -> Failure:
    return Failure(FailureClass.VERDICT, code, text, dict(facts or {}))


def _environment(code: str, text: str) -> Failure:
    return Failure(FailureClass.ENVIRONMENT, code, text)


def _tail(err: bytes) -> str:
    return err.decode(errors="replace").strip()[-500:] or "it said nothing"


def _child_environment() -> dict[str, str]:
    """One thread a library and few arenas, so that the limits mean the model; no secret of ours gets in."""
    passed = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ}
    return {**passed, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


# --- the child's side -------------------------------------------------------------------------------------------


def end_with_parent() -> None:
    """From here on the kernel kills this process when the thread that started it ends, however it ends: a proof that
    nobody waits for must not slow down the one that follows it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_self(cpu_s: int, rss_mb: int) -> None:
    """Lays the limits on this process; they hold for all it does from here on and cannot be lifted again."""
    space = memory("VmSize") + 2 * rss_mb * _MIB + _HEADROOM
    cpu_s += math.ceil(time.process_time())  # what the start took is not the model's
    limits = (
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_NOFILE, 32, 32),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    )
    for which, soft, hard in limits:
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(which, (soft, hard))


def measure(request: ProofRequest, clock: Callable[[], float], spent: Callable[[], float]) -> Proof:
    """Loads and runs the model here and now; raises ModelError or Malformed if it cannot be run at all. `clock` and
    `spent` are seconds: the wall's, and those that the processor worked for this process.

    `rss_mb` is the peak of resident memory above what the process held before loading.
    """
    vectors = golden.decode(request.golden)
    expected = vectors.expected.get(request.precision)
    if expected is None:
        raise Malformed(f"the golden vectors have no outputs for {request.precision}")
    inputs, wanted = golden.unpack(vectors.inputs), golden.unpack(expected.outputs)
    before = begin_peak()
    session = load(request.model)
    worst, detail = compare(session.run(inputs), wanted, expected.tolerance)
    rounds = [_p99_ms(session, inputs, clock, spent) for _ in range(_ROUNDS)] if not detail else [(0.0, 0.0)]
    rss_mb = max(0, memory("VmHWM") - before) / _MIB
    p99_ms, cpu_ms = (min(figures) for figures in zip(*rounds, strict=True))
    return Proof(not detail, worst, p99_ms, rss_mb, detail, cpu_ms)


def compare(given: Arrays, wanted: Arrays, tolerance: float) -> tuple[float, str]:
    """(largest absolute difference, what is wrong or nothing); NaN for a number is never within tolerance."""
    worst, detail = 0.0, ""
    if not wanted:
        return _NEVER, "there are no golden outputs"
    for name, want in wanted.items():
        got = given.get(name)
        if got is None or got.shape != want.shape or got.dtype != want.dtype:
            shape = "missing" if got is None else f"{got.dtype}{list(got.shape)}"
            return _NEVER, f"{name} is {shape}, not {want.dtype}{list(want.shape)}"
        apart = np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64))
        if not np.isfinite(apart).all():
            return _NEVER, f"{name} is not finite"
        largest = float(apart.max(initial=0.0))
        if largest > tolerance and largest > worst:
            detail = f"{name} is off by {largest:.3g}, {tolerance:.3g} is allowed"
        worst = max(worst, largest)
    return worst, detail


def _p99_ms(
    session: Session, inputs: Arrays, clock: Callable[[], float], spent: Callable[[], float]
) -> tuple[float, float]:
    """Of one answer, by the wall and by the processor; where the graph takes any number of rows, the golden rows go in
    one by one."""
    rows = len(next(iter(inputs.values()), np.empty(0)))
    free = all(spec.shape[:1] == (-1,) and len(inputs[spec.name]) == rows for spec in session.inputs)
    singles = [{n: a[i : i + 1] for n, a in inputs.items()} for i in range(rows)] if free and rows else [inputs]
    for i in range(_WARM_UP):
        session.run(singles[i % len(singles)])
    took, worked = [], []
    for i in range(_RUNS):
        start, idle = clock(), spent()
        session.run(singles[i % len(singles)])
        worked.append(spent() - idle)
        took.append(clock() - start)
    return float(np.percentile(took, 99)) * 1000, float(np.percentile(worked, 99)) * 1000


def begin_peak() -> int:
    """Bytes of resident memory now; from here on `VmHWM` is the peak since this call."""
    with contextlib.suppress(OSError):  # some kernels lack it; then start-up's own peak counts too, which is safe
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory("VmRSS")


def memory(field: str) -> int:
    """Bytes of one field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def within_limits(
    kind: type[Asked], limits: Callable[[Asked, int], tuple[int, int]], work: Callable[[Asked], object]
) -> int:
    """The child's way from standard input to standard output: limits, then `work` on what was asked. `limits` gives the
    arguments of `limit_self`, from what was asked and the SECONDS of the command line.

    Returns the exit status: 0, or REFUSED with the reason on stderr; any other is that of a crash.
    """
    end_with_parent()
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=kind)
    limit_self(*limits(asked, int(sys.argv[1])))
    try:
        found = work(asked)
    except (ModelError, Malformed, MemoryError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


def main() -> int:
    """The child: anything but exit status 0 is a verdict on the model."""
    return within_limits(
        ProofRequest,
        lambda request, seconds: (seconds, request.rss_mb),
        lambda request: measure(request, time.perf_counter, time.process_time),
    )


if __name__ == "__main__":
    sys.exit(main())
