"""Quantization candidates: the ways one bare graph could be computed. Which one ships is measured, not
believed.

Static int8 (QDQ, signed activations and weights, per channel) for everything; dynamic int8 only for graphs
whose weights lie mostly in MatMul, Gemm or LSTM: on convolutions it is many times slower than float. The
final Softmax stays float, where a step of 1/256 would be seen.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from core.release.export import INPUT
from sync.manifest import Precision

Floats = npt.NDArray[np.float32]

CALIBRATION_WINDOWS = 512
_DYNAMIC_OPS = ["MatMul", "Gemm", "LSTM"]
_BATCH = 32


@dataclass(frozen=True)
class Candidates:
    """The graphs by precision, fp32 always first and unchanged; `refusals` says which could not be made and why."""

    models: dict[Precision, bytes]
    refusals: tuple[str, ...]


def candidates(bare: bytes, calibration: Floats) -> Candidates:
    """All candidates of a bare float graph; `calibration` are *normalised* windows.

    The quantizer works through files: they lie in a private folder of the temporary directory and hold weights,
    no readings.
    """
    kinds: list[tuple[Precision, Callable[[bytes, Path], bytes]]]
    kinds = [("int8-static", lambda prepared, folder: _static(prepared, calibration, folder))]
    if dynamic_applies(bare):
        kinds.append(("int8-dynamic", _dynamic))
    models: dict[Precision, bytes] = {"fp32": bare}
    refusals = []
    for precision, quantize in kinds:
        with tempfile.TemporaryDirectory(prefix="falaj-quantize-") as name, _quiet():
            try:
                models[precision] = quantize(_prepare(bare, Path(name)), Path(name))
            except Exception as error:  # noqa: BLE001 - the quantizer raises bare Exceptions; all are told
                refusals.append(f"{precision} cannot be made: {error}")
    return Candidates(models, tuple(refusals))


def dynamic_applies(model: bytes) -> bool:
    """True if at least half of the graph's weights belong to MatMul, Gemm or LSTM nodes."""
    graph = onnx.load_model_from_string(model).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    suited = {name for node in graph.node if node.op_type in _DYNAMIC_OPS for name in node.input}
    return 2 * sum(size for name, size in sizes.items() if name in suited) >= sum(sizes.values()) > 0


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration windows in batches, spread evenly over what there is."""

    def __init__(self, windows: Floats) -> None:
        count = min(len(windows), CALIBRATION_WINDOWS)
        chosen = windows[np.linspace(0, len(windows) - 1, count).astype(np.int64)]
        self._batches = iter([chosen[i : i + _BATCH] for i in range(0, count, _BATCH)])

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _prepare(bare: bytes, folder: Path) -> bytes:
    """The graph with shapes inferred and every node named, for exclusion goes by name."""
    given, path = folder / "bare.onnx", folder / "prepared.onnx"
    given.write_bytes(bare)  # by path: of a model in memory ONNX Runtime leaves a copy in the working folder
    # Symbolic inference leaves the graph in the working folder when it does not come to an end, in the clear.
    quant_pre_process(given, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
    return bytes(model.SerializeToString())


def _static(prepared: bytes, calibration: Floats, folder: Path) -> bytes:
    path = folder / "static.onnx"
    model = onnx.load_model_from_string(prepared)
    quantize_static(
        model,
        path,
        _Windows(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=[node.name for node in model.graph.node if node.op_type == "Softmax"],
    )
    return path.read_bytes()


def _dynamic(prepared: bytes, folder: Path) -> bytes:
    path = folder / "dynamic.onnx"
    model = onnx.load_model_from_string(prepared)
    quantize_dynamic(model, path, op_types_to_quantize=_DYNAMIC_OPS, weight_type=QuantType.QInt8)
    return path.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
