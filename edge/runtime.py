"""The only onnxruntime on the edge: a model's bytes in, named arrays through, typed refusals out.

Models come from memory alone, never from a path: the disk holds ciphertext, and a graph that refers to other
files is refused. Loading proves little (a tiny graph may ask for 64 GiB or never end once it runs), so
whatever has not been proven runs in `edge.proving`, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from sync.errors import Malformed
from sync.features import Datatype, TensorSpec, check_shape
from sync.golden import Arrays

_FATAL = 4  # onnxruntime's own log stays silent: what goes wrong is raised, and told once
_NOWHERE = "/dev/null/none"  # a folder that cannot exist, so that external data is never found

_DATATYPES: Mapping[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(int8)": "INT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
DTYPES: Mapping[Datatype, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
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


class Session:
    """A loaded model. `run` may be called from several threads at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.inputs = tuple(_spec(node.name, node.type, node.shape) for node in session.get_inputs())
        self.outputs = tuple(_spec(node.name, node.type, node.shape) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """All outputs of the graph by name; raises BadInput before running, RunFailed if the run breaks."""
        check_inputs(self.inputs, inputs)
        try:
            values = self._session.run(self._names, inputs)
        except _ORT_REFUSALS as error:
            raise RunFailed(f"the model failed to run: {error}") from error
        return dict(zip(self._names, values, strict=True))


def load(model: bytes, threads: int = 1) -> Session:
    """A session from ONNX bytes on the CPU with `threads` threads inside an operator; raises Unloadable."""
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _LOAD_REFUSALS as error:
        raise Unloadable(f"onnxruntime {ort.__version__} cannot load this model: {error}") from error
    return Session(session)


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Arrays) -> None:
    """Raises BadInput unless `inputs` has exactly the names, dtypes and shapes of `specs`."""
    if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
        wanted = ", ".join(spec.name for spec in specs)
        raise BadInput(f"inputs are [{', '.join(inputs)}], the model takes [{wanted}]")
    for spec in specs:
        array = inputs[spec.name]
        if array.dtype != DTYPES[spec.datatype]:
            raise BadInput(f"input {spec.name!r} is {array.dtype}, the model takes {spec.datatype}")
        try:
            check_shape(spec, array.shape)
        except Malformed as error:
            raise BadInput(str(error)) from error
        if array.size == 0:
            raise BadInput(f"input {spec.name!r} is empty: its shape is {list(array.shape)}")


def finite(arrays: Arrays) -> bool:
    """Whether no float in any of the arrays is NaN or infinite."""
    floats = (array for array in arrays.values() if array.dtype.kind == "f")
    return all(bool(np.isfinite(_floats(array)).all()) for array in floats)


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


def _floats(array: npt.NDArray[np.generic]) -> npt.NDArray[np.floating]:
    return array  # type: ignore[return-value]  # the caller has looked at dtype.kind


def _spec(name: str, kind: str, shape: list[int | str | None] | None) -> TensorSpec:
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        raise Unloadable(f"{name!r} is {kind}, which is not served; export it as one of {sorted(_DATATYPES)}")
    return TensorSpec(name, datatype, tuple(d if isinstance(d, int) else -1 for d in shape or ()))
