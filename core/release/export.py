"""Export: a torch network becomes an ONNX graph that takes raw windows and ends in probabilities.

The order matters: the bare network is exported alone, quantized alone, and only then gets its normalisation
in front and its temperature behind (`core.release.calibration`), so that neither is ever quantized and the quantizer
sees plain floats. The exporter's
notes (source paths, docstrings) are taken out: a model that ships says only what its caller wrote into its
metadata.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from core.release.tempering import temper
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Lookup

Floats = npt.NDArray[np.float32]

OPSET = 20
IR_VERSION = 10  # what opset 20 came with; onnx would write its own newest, which older runtimes refuse
INPUT = "window"
OUTPUT = "probabilities"

# Values that are ours have a dot or an underscore in their names, which no lookup has: its name is one of an input.
_JOINED, _NORMALISED = "window_joined", "window_normalised"
_NETWORK = "network."  # before the names of the bare graph, for an exporter says `mean` or `linear` as it likes

Exporter = Callable[[nn.Module, torch.Tensor], onnx.ModelProto]


class ExportError(RuntimeError):
    """No exporter could turn the network into a usable graph; the message carries what each of them said."""

    code = "export-failed"


class Taken(Protocol):
    """One input of a session: its name, and its shape, whose last dimension is a number."""

    name: str
    shape: list[int | str]


class Session(Protocol):
    """What `feeds` needs of an open graph."""

    def get_inputs(self) -> Sequence[Taken]: ...


class Trainee(Protocol):
    """What export needs of a trained network: logits of windows normalised as (x - mean) / deviation."""

    @property
    def network(self) -> nn.Module: ...

    @property
    def mean(self) -> Floats: ...

    @property
    def deviation(self) -> Floats: ...


def inputs(window: WindowSpec, lookups: Sequence[Lookup]) -> tuple[TensorSpec, ...]:
    """What a whole graph takes: the window as devices cut it, then an input for each lookup."""
    beside = (TensorSpec(one.name, "FP32", (-1, len(one.columns))) for one in lookups)
    return (TensorSpec(INPUT, "FP32", (-1, window.size, len(window.channels))), *beside)


def feeds(session: Session, x: Floats) -> dict[str, Floats]:
    """The inputs of a whole graph from windows that have the values of their lookups as channels, behind their own."""
    given, at = {}, 0
    for taken in session.get_inputs():
        width = int(taken.shape[-1])
        part = x[:, :, at : at + width]
        given[taken.name] = np.ascontiguousarray(part if taken.name == INPUT else part[:, 0])
        at += width
    return given


def specs(window: WindowSpec, classes: Sequence[str]) -> tuple[TensorSpec, TensorSpec]:
    """The one input and the one output of every bare graph; the first dimension is the free batch."""
    taken = TensorSpec(INPUT, "FP32", (-1, window.size, len(window.channels)))
    return taken, TensorSpec(OUTPUT, "FP32", (-1, len(classes)))


def scores(trained: Trainee, x: Floats) -> Floats:
    """What the network says of raw windows `x` before any Softmax: (n, classes)."""
    with torch.inference_mode():
        return np.asarray(trained.network(torch.from_numpy((x - trained.mean) / trained.deviation)), np.float32)


def reference(trained: Trainee, x: Floats, temperature: float = 1.0) -> Floats:
    """What torch itself says of raw windows `x`: probabilities (n, classes); the measure of every graph."""
    return np.asarray(torch.softmax(torch.from_numpy(scores(trained, x)) / temperature, 1), np.float32)


def generated_windows(
    trained: Trainee, window: WindowSpec, count: int, rng: np.random.Generator, beside: int = 0
) -> Floats:
    """`count` raw windows of normal noise around the fit data, also far out: rows no recording would show. The last
    `beside` channels are of lookups: the same in all rows of a window."""
    noise = rng.standard_normal((count, window.size, len(window.channels)))
    if beside:
        noise[:, :, -beside:] = noise[:, :1, -beside:]
    spread = np.linspace(0.5, 4.0, count)[:, None, None]
    return (trained.mean + trained.deviation * noise * spread).astype(np.float32)


def export_dynamo(network: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
    """By graph capture: the exporter torch keeps up."""
    program = torch.onnx.export(
        network,
        (sample,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise ExportError("the exporter returned nothing")
    return program.model_proto


def export_legacy(network: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
    """By tracing: deprecated, but it still takes some networks the other one does not."""
    file = io.BytesIO()
    torch.onnx.export(
        network,
        (sample,),
        file,  # type: ignore[arg-type]  # the stub knows paths only, this exporter takes files
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
    )
    return onnx.load_model_from_string(file.getvalue())


def export_bare(
    network: nn.Module,
    window: WindowSpec,
    classes: Sequence[str],
    exporters: Sequence[Exporter] = (export_dynamo, export_legacy),
) -> bytes:
    """The network with its Softmax, without normalisation; the first exporter that gives a usable graph wins.

    Raises ExportError.
    """
    served = nn.Sequential(network, nn.Softmax(1)).eval()
    # Two windows: a batch of one would be taken for a constant.
    sample = torch.zeros(2, window.size, len(window.channels))
    said = []
    for exporter in exporters:
        try:
            with _quiet():
                model = exporter(served, sample)
            return _serialize(_finish(model, window, classes))
        except (RuntimeError, ImportError, ValueError, TypeError, onnx.checker.ValidationError) as error:
            # Exporters fail in many ways; all are told, none is swallowed.
            said.append(f"{getattr(exporter, '__name__', exporter)}: {error}")
    raise ExportError("the network cannot be written as ONNX; use layers of opset 20. " + " | ".join(said))


def assemble(
    bare: bytes, mean: Floats, deviation: Floats, metadata: Mapping[str, str], lookups: Sequence[Lookup] = (),
    temperature: float = 1.0,
) -> bytes:  # fmt: skip
    """`bare` (float or quantized) with (x - mean) / deviation in front and `metadata` in its properties; a
    `temperature` other than 1 divides what goes into its Softmax. Raises ValueError if it has none then.

    The channels of `lookups`, the last ones of `bare`, become inputs of their own, laid beside every row of the window.
    """
    model = onnx.load_model_from_string(bare)
    graph = model.graph
    if temperature != 1:
        temper(graph, temperature)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == INPUT:
                node.input[i] = _NORMALISED
    front = [
        helper.make_node("Sub", [_JOINED if lookups else INPUT, "window_mean"], ["window_centred"], name="centre"),
        helper.make_node("Div", ["window_centred", "window_deviation"], [_NORMALISED], name="scale"),
    ]
    for i, node in enumerate([*_beside(graph, lookups), *front]):
        graph.node.insert(i, node)
    graph.initializer.append(numpy_helper.from_array(np.asarray(mean, np.float32), "window_mean"))
    graph.initializer.append(numpy_helper.from_array(np.asarray(deviation, np.float32), "window_deviation"))
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    _drop_unused_domains(model)
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return _serialize(model)


def _beside(graph: onnx.GraphProto, lookups: Sequence[Lookup]) -> list[onnx.NodeProto]:
    """Makes inputs of the lookups; the nodes that lay them beside the window, as the bare graph took it."""
    if not lookups:
        return []
    window = graph.input[0].type.tensor_type.shape.dim
    window[2].dim_value -= sum(len(one.columns) for one in lookups)
    shape = np.array([1, window[1].dim_value, 1], np.int64)
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "lookup_axis"))
    graph.initializer.append(numpy_helper.from_array(shape, "lookup_rows"))
    nodes, parts = [], [INPUT]
    for one in lookups:
        row, rows = f"row.{one.name}", f"rows.{one.name}"
        graph.input.append(helper.make_tensor_value_info(one.name, TensorProto.FLOAT, ["batch", len(one.columns)]))
        nodes.append(helper.make_node("Unsqueeze", [one.name, "lookup_axis"], [row], name=row))
        nodes.append(helper.make_node("Expand", [row, "lookup_rows"], [rows], name=rows))
        parts.append(rows)
    return [*nodes, helper.make_node("Concat", parts, [_JOINED], name="join", axis=2)]


def _finish(model: onnx.ModelProto, window: WindowSpec, classes: Sequence[str]) -> onnx.ModelProto:
    """The exported graph in our words: names, shapes and versions checked, the exporter's notes removed."""
    taken, given = specs(window, classes)
    for what, spec in ((model.graph.input, taken), (model.graph.output, given)):
        if len(what) != 1 or what[0].name != spec.name:
            raise ExportError(f"the graph should have the one tensor {spec.name!r}, it has {[v.name for v in what]}")
        shape: list[str | int | None] = ["batch", *spec.shape[1:]]
        what[0].CopyFrom(helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, shape))
    del model.graph.value_info[:]
    onnx.compose.add_prefix(
        model, _NETWORK, rename_inputs=False, rename_outputs=False, rename_functions=False, inplace=True
    )
    _forget_notes(model)
    _drop_unused_domains(model)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "falaj", ""
    onnx.checker.check_model(model, full_check=True)
    return model


def _serialize(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _forget_notes(model: onnx.ModelProto) -> None:
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Exporters and quantizers declare domains no node uses; a runtime without them would refuse the file."""
    used = {"" if node.domain == "ai.onnx" else node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    if len({entry.domain for entry in kept}) != len(used):
        raise ExportError(f"the graph uses domains it does not declare: {sorted(used)}")
    versions = {entry.domain: entry.version for entry in kept}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what is not installed and of their own future; neither is news to anyone here."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
