"""The only onnxruntime on the edge: a model's bytes in, named arrays through, typed refusals out.

Models come from memory alone, never from a path: the disk holds ciphertext, and a graph that refers to other
files is refused. Loading proves little (a tiny graph may ask for 64 GiB or never end once it runs), so
whatever has not been proven runs in `edge.proving`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edge.deadlines import Deadlines, standing
from sync import chunks
from sync.arrays import DTYPES
from sync.errors import Malformed
from sync.features import Datatype, TensorSpec, check_shape, fits
from sync.golden import Arrays
from sync.manifest import Profile

_FATAL = 4  # onnxruntime's own log stays silent: what goes wrong is raised, and told once
# A run is stopped when it takes PATIENCE times what the profile allows an answer, and LEAST_S, and the profile's time
# for each of its rows; MOST_S is the end of all patience. A throttled or busy CPU alone is far from that.
PATIENCE, LEAST_S, MOST_S = 20, 1.0, 60.0
_FEW = 32  # numbers: up to here Python looks at them faster than numpy begins to
_NOWHERE = "/dev/null/none"  # a folder that cannot exist, so that external data is never found

_DATATYPES: Mapping[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

# onnxruntime's exceptions share no base below Exception; these are all it defines for graphs.
_ORT_REFUSALS: tuple[type[Exception], ...] = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    MemoryError,
)
# How onnxruntime's own errors end where this process could get no more.
_NO_MEMORY = re.compile(r"(std::bad_alloc|Failed to allocate memory for requested buffer of size \d+)\s*\Z")
_LOAD_REFUSALS: tuple[type[Exception], ...] = (*_ORT_REFUSALS, ValueError, TypeError)


class ModelError(Exception):
    """Base of what can go wrong with a model; `code` is stable."""

    code = "model-error"


class Unloadable(ModelError):
    """Bytes that are no model this runtime can serve."""

    code = "unloadable"


class BadInput(ModelError):
    """Inputs that do not fit the graph: the asker's fault, never held against a release."""

    code = "bad-input"


class RunFailed(ModelError):
    """The graph broke on inputs that fit it."""

    code = "run-failed"


class NoMemory(RunFailed):
    """This process could not get the memory that the graph needs: nobody knows yet whose fault that is."""

    code = "no-memory"


class Overdue(RunFailed):
    """The graph was still running when its time was up, and was stopped."""

    code = "overdue"


class WrongShape(RunFailed):
    """The graph gave an output of another shape than it says it has."""

    code = "wrong-shape"


class Session:
    """A loaded model. `run` may be called from several threads at once; `deadlines` ends one that takes too long."""

    def __init__(self, session: ort.InferenceSession, deadlines: Deadlines, profile: Profile, digest: bytes) -> None:
        self._session, self._deadlines, self._digest = session, deadlines, digest
        self._row_s = profile.p99_ms / 1000
        self._least_s = max(LEAST_S, PATIENCE * self._row_s)
        self.inputs = tuple(_spec(node.name, node.type, node.shape) for node in session.get_inputs())
        self.outputs = tuple(_spec(node.name, node.type, node.shape) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """All outputs of the graph by name; raises BadInput before running, RunFailed if the run breaks, which is
        Overdue if it did not end in `allowed` seconds and WrongShape if an output is not as the graph says."""
        rows = check_inputs(self.inputs, inputs)
        options = ort.RunOptions()
        self._deadlines.begin(options, self, self._digest, self.allowed(rows))
        try:
            values = self._session.run(self._names, inputs, options)
        except _ORT_REFUSALS as error:
            if options.terminate:
                raise Overdue(f"no answer after {self.allowed(rows):g} s; the model was stopped") from error
            if _short(error):
                raise NoMemory("there is not enough memory to run this model; free some") from error
            raise RunFailed(f"the model failed to run: {error}") from error
        finally:
            self._deadlines.end(options)
        outputs = {}
        for spec, value in zip(self.outputs, values, strict=True):
            # onnxruntime leaves it at a warning; a graph that says nothing of a shape may give any
            if spec.shape and not fits(spec.shape, value.shape):
                raise WrongShape(f"output {spec.name!r} is {list(value.shape)}, the model says {list(spec.shape)}")
            outputs[spec.name] = value
        return outputs

    def allowed(self, rows: int) -> float:
        """Seconds that a question of so many rows may take."""
        return min(MOST_S, self._least_s + rows * self._row_s)

    def late(self) -> int:
        """Runs that are beyond their time and go on all the same: onnxruntime is within one operator."""
        return self._deadlines.late(self)


def load(model: bytes, threads: int = 1, deadlines: Deadlines | None = None, profile: Profile | None = None) -> Session:
    """A session from ONNX bytes on the CPU with `threads` threads inside an operator; raises Unloadable or
    NoMemory. A load that
    ends the process leaves its mark, as a run does: another onnxruntime may break on what loaded for years.

    Without `deadlines` no run is ever stopped; `profile` says what an answer of this model may take.
    """
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    deadlines, digest, loading = deadlines or Deadlines(standing), chunks.digest(model).encode(), ort.RunOptions()
    deadlines.begin(loading, None, digest, inf)
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _LOAD_REFUSALS as error:
        if _short(error):
            raise NoMemory("there is not enough memory to load this model; free some") from error
        raise Unloadable(f"onnxruntime {ort.__version__} cannot load this model: {error}") from error
    finally:
        deadlines.end(loading)
    return Session(session, deadlines, profile or Profile(), digest)


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Arrays) -> int:
    """How many rows they have, the first that has any; raises BadInput unless `inputs` has exactly the names, dtypes
    and shapes of `specs`."""
    rows = 0
    for spec in specs:
        array = inputs.get(spec.name)
        if array is None or len(inputs) != len(specs):
            wanted = ", ".join(spec.name for spec in specs)
            raise BadInput(f"inputs are [{', '.join(inputs)}], the model takes [{wanted}]")
        if array.dtype != DTYPES[spec.datatype]:
            raise BadInput(f"input {spec.name!r} is {array.dtype}, the model takes {spec.datatype}")
        try:
            check_shape(spec, array.shape)
        except Malformed as error:
            raise BadInput(str(error)) from error
        if array.size == 0:
            raise BadInput(f"input {spec.name!r} is empty: its shape is {list(array.shape)}")
        rows = rows or (len(array) if array.ndim else 0)
    return rows or 1


def finite(arrays: Arrays) -> bool:
    """Whether no float in any of the arrays is NaN or infinite."""
    return all(_finite(array) for array in arrays.values() if array.dtype.kind == "f")


def beyond(arrays: Arrays, limit: float) -> bool:
    """Whether a float in any of the arrays is larger than `limit`, either way."""
    floats = (array for array in arrays.values() if array.dtype.kind == "f")
    return any(bool((np.abs(_floats(array)) > limit).any()) for array in floats)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets of this CPU as Linux names them (x86 `flags`, ARM `Features`), or none.

    A CPU of unknown abilities gets the variant that needs nothing, so not being able to read is no error.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _short(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _finite(array: npt.NDArray[np.generic]) -> bool:
    if array.size <= _FEW:
        return all(map(isfinite, array.ravel().tolist()))
    return bool(np.isfinite(_floats(array)).all())


def _floats(array: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
    return array  # type: ignore[return-value]  # the caller has looked at dtype.kind


def _spec(name: str, kind: str, shape: list[int | str | None] | None) -> TensorSpec:
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        raise Unloadable(f"{name!r} is {kind}, which is not served; export it as one of {sorted(_DATATYPES)}")
    return TensorSpec(name, datatype, tuple(d if isinstance(d, int) else -1 for d in shape or ()))
