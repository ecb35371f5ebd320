"""What a model takes on this board: loading, memory, time of an answer, each measured in a limited child of its own.

`python -m appliance.first_hour.measuring SECONDS` is the child: it reads one MessagePack `Wish` from standard input,
limits itself as `edge.proving` does, runs the model as the agent would, and writes one JSON `Measured`. Nothing of the
model ever runs in the parent: a graph that crashes, never ends or asks for all memory ends the child alone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from appliance.errors import Trouble
from edge.proving import REFUSED, Ended, Overdue, Run, begin_peak, memory, run_child, within_limits
from edge.runtime import Session, load
from sync.arrays import DTYPES
from sync.errors import Malformed
from sync.features import TensorSpec, check_shape
from sync.golden import Arrays

_MIB = 1 << 20
_SETUP = 60.0  # seconds that loading and the first answers may take beside the measurement
_WARM_UP, _LEAST = 3, 5  # answers before the measurement, and the fewest it consists of
_MOST = 200_000  # times that are kept of one measurement
_SEED = 7

Shapes = Mapping[str, tuple[int, ...]]  # by graph input; the first dimension is the rows


class Unmeasured(Trouble):
    """A model that does not run here, or not with these inputs; the message says why."""


class Wish(msgspec.Struct, frozen=True):
    """One measurement: `rows` rows to a run, for `seconds`. `shapes` fills, by input, the dimensions that the graph
    leaves open; the name of an only input may be empty."""

    model: bytes
    threads: int = 1
    rows: int = 1
    seconds: float = 0.0
    shapes: dict[str, tuple[int, ...]] = {}


class Measured(msgspec.Struct, frozen=True):
    """What one child saw. Times in milliseconds, memory in MiB above what the process held before loading; `inputs` and
    `outputs` are the graph's, `asked` and `answered` the shapes of this measurement."""

    threads: int
    rows: int
    runs: int
    load_ms: float
    rss_mb: float
    p50_ms: float
    p99_ms: float
    rows_per_s: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    asked: dict[str, tuple[int, ...]]
    answered: dict[str, tuple[int, ...]]


def read_model(file: Path) -> bytes:
    """The bytes of a model file; raises Unmeasured with what to do."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unmeasured(f"{file} cannot be read ({error.strerror}): give an ONNX file") from error


def as_child(request: bytes, deadline_s: float) -> Ended:
    """Runs this module as the proving child is run."""
    return run_child(request, deadline_s, "appliance.first_hour.measuring", cpu_s=deadline_s)


def measure(wish: Wish, run: Run = as_child) -> Measured:
    """What a child measured; blocks for about the wish's seconds. Raises Unmeasured."""
    try:
        ended = run(msgspec.msgpack.encode(wish), wish.seconds + _SETUP)
    except Overdue as error:
        raise Unmeasured(f"it was stopped: no answer after {wish.seconds + _SETUP:g} s") from error
    except OSError as error:
        raise Unmeasured(f"no child could be started to measure it: {error}; free some memory") from error
    if ended.status == REFUSED:
        said = ended.err.decode(errors="replace").strip()
        raise Unmeasured(f"{said} Export it as an ONNX file first." if "INVALID_PROTOBUF" in said else said)
    if ended.status:
        raise Unmeasured(f"it {_end(ended.status)} when it was run")
    return msgspec.json.decode(ended.out, type=Measured)


def fixed_rows(measured: Measured) -> int | None:
    """How many rows every run must have, if the graph says so; None: any number."""
    firsts = {spec.shape[0] for spec in measured.inputs if spec.shape}
    wanted = firsts - {-1}
    return min(wanted) if wanted else None


def shape_of(spec: TensorSpec, rows: int, given: Shapes) -> tuple[int, ...]:
    """The shape of one input for so many rows: what is open is as `given` says, else 1. Raises Malformed."""
    wanted = given.get(spec.name, (rows, *(1 if n < 0 else n for n in spec.shape[1:])))
    shape = (rows, *wanted[1:]) if spec.shape[:1] == (-1,) else wanted if spec.name in given else spec.shape
    shape = tuple(1 if n < 0 else n for n in shape)
    check_shape(spec, shape)
    return shape


def example(spec: TensorSpec, shape: tuple[int, ...], chance: np.random.Generator) -> npt.NDArray[np.generic]:
    """An input that any model takes: floats as sensors give them, bytes as pictures have them, else nought: a number
    may be an index."""
    kind = DTYPES[spec.datatype]
    if kind.kind == "f":
        return chance.normal(size=shape).astype(kind)
    if spec.datatype == "UINT8":
        return chance.integers(0, 256, shape, np.uint8)
    return np.full(shape, "a", np.object_) if kind.kind == "O" else np.zeros(shape, kind)


def _end(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "used up its processor time"
    if status == -signal.SIGKILL:
        return "was killed by the system, perhaps for want of memory,"
    return f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended its process with {status}"


# --- the child's side -------------------------------------------------------------------------------------------


def measure_here(wish: Wish, clock: Callable[[], float]) -> Measured:
    """Loads and runs the model here and now; raises ModelError or Malformed if it cannot be run."""
    before, began = begin_peak(), clock()
    session = load(wish.model, wish.threads)
    load_ms = 1000 * (clock() - began)
    shapes = _named(wish.shapes, [spec.name for spec in session.inputs])
    asked = {spec.name: shape_of(spec, wish.rows, shapes) for spec in session.inputs}
    chance = np.random.default_rng(_SEED)
    inputs = {spec.name: example(spec, asked[spec.name], chance) for spec in session.inputs}
    answer = session.run(inputs)
    times = _times(session, inputs, wish.seconds, clock)
    rss_mb = max(0, memory("VmHWM") - before) / _MIB
    p50, p99 = (float(p) for p in np.percentile(times, (50, 99)))
    rows = next((shape[0] for shape in asked.values() if shape), 1)  # the graph may leave no choice
    speed = rows * len(times) / max(sum(times), 1e-9)
    answered = {name: tuple(array.shape) for name, array in answer.items()}
    return Measured(
        wish.threads, rows, len(times), load_ms, rss_mb, 1000 * p50, 1000 * p99, speed, session.inputs,
        session.outputs, asked, answered,
    )  # fmt: skip


def _named(shapes: Shapes, inputs: Sequence[str]) -> Shapes:
    """The shapes by input; one without a name is that of the only input. Raises Malformed."""
    if "" in shapes and len(inputs) == 1:
        shapes = {inputs[0]: shapes[""]}
    if unknown := set(shapes) - set(inputs):
        wrong = "a shape without a name" if "" in unknown else f"no input {sorted(unknown)[0]!r}"
        raise Malformed(f"there is {wrong}; inputs are {', '.join(inputs)}")
    return shapes


def _times(session: Session, inputs: Arrays, seconds: float, clock: Callable[[], float]) -> Sequence[float]:
    for _ in range(_WARM_UP):
        session.run(inputs)
    times: list[float] = []
    until = clock() + seconds
    while len(times) < _LEAST or (clock() < until and len(times) < _MOST):
        start = clock()
        session.run(inputs)
        times.append(clock() - start)
    return times


def main() -> int:
    """The child; it may take what memory this machine has, and no more."""
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    return within_limits(
        Wish,
        lambda wish, seconds: (seconds * max(1, wish.threads), total_mb // 2),
        lambda wish: measure_here(wish, time.perf_counter),
    )


if __name__ == "__main__":
    sys.exit(main())
