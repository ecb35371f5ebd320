"""Export: what torch says and what the graph says are the same, whatever exporter wrote it; and it says no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from core.release import export as ex
from core.release.graphs import open_session
from core.training.networks import build
from core.training.recipes import network_for
from sync.features import WindowSpec
from sync.manifest import Lookup, LookupColumn
from sync.names import LookupName

WINDOW = WindowSpec(32, 16, 0.02, ("x", "y"))
CLASSES = ("a", "b", "c")


@dataclass(frozen=True)
class Fitted:
    network: nn.Module
    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build(network_for("cnn1d", WINDOW, len(CLASSES))).eval()
    return Fitted(network, np.array([3.0, -7.0], np.float32), np.array([2.0, 0.5], np.float32))


@pytest.fixture(scope="module")
def bare(fitted: Fitted) -> bytes:
    return ex.export_bare(fitted.network, WINDOW, CLASSES)


def answers(model: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([ex.OUTPUT], {ex.INPUT: x})[0])


@pytest.mark.parametrize("exporter", [ex.export_dynamo, ex.export_legacy])
@pytest.mark.parametrize("batch", [1, 5])
def test_every_exporter_gives_what_torch_gives(fitted: Fitted, exporter: ex.Exporter, batch: int) -> None:
    model = ex.export_bare(fitted.network, WINDOW, CLASSES, (exporter,))
    whole = ex.assemble(model, fitted.mean, fitted.deviation, {})
    x = ex.generated_windows(fitted, WINDOW, batch, np.random.default_rng(1))
    given = answers(whole, x)
    np.testing.assert_allclose(given, ex.reference(fitted, x), atol=1e-5)
    np.testing.assert_allclose(given.sum(axis=1), 1.0, atol=1e-5)


def test_a_temperature_divides_the_scores_and_changes_no_class(fitted: Fitted, bare: bytes) -> None:
    plain, hot = (ex.assemble(bare, fitted.mean, fitted.deviation, {}, temperature=by) for by in (1.0, 2.5))
    x = ex.generated_windows(fitted, WINDOW, 50, np.random.default_rng(1))
    said, given = answers(plain, x), answers(hot, x)
    np.testing.assert_allclose(given, ex.reference(fitted, x, 2.5), atol=1e-5)
    np.testing.assert_array_equal(given.argmax(axis=1), said.argmax(axis=1))
    assert (given.max(axis=1) < said.max(axis=1)).all()
    assert [node.op_type for node in onnx.load_model_from_string(hot).graph.node][-2:] == ["Div", "Softmax"]


@pytest.mark.parametrize("exporter", [ex.export_dynamo, ex.export_legacy])
def test_a_lookup_may_bear_the_name_of_any_value_in_the_graph(fitted: Fitted, exporter: ex.Exporter) -> None:
    """What exporters call their values nobody can know who names a lookup."""
    bare = ex.export_bare(fitted.network, WINDOW, CLASSES, (exporter,))
    inner = {name for node in onnx.load_model_from_string(bare).graph.node for name in (node.name, *node.output)}
    parts = {part for name in inner for part in name.strip("/").lower().replace("_", "-").replace("/", ".").split(".")}
    ours = {"temperature", "lookup", "network", "row", "rows", "scores", "mean", "linear", "view", "centre", "join"}
    x = ex.generated_windows(fitted, WINDOW, 5, np.random.default_rng(1), beside=1)
    for name in sorted(ours | {part for part in parts - {ex.INPUT, ex.OUTPUT} if LookupName.shape.fullmatch(part)}):
        lookups = [Lookup(LookupName(name), (LookupColumn("y"),), 60.0)]
        session = open_session(ex.assemble(bare, fitted.mean, fitted.deviation, {}, lookups, 2.5))
        given = session.run([ex.OUTPUT], ex.feeds(session, x))[0]
        np.testing.assert_allclose(given, ex.reference(fitted, x, 2.5), atol=1e-5, err_msg=name)


def test_the_graph_has_the_promised_face(fitted: Fitted, bare: bytes) -> None:
    model = onnx.load_model_from_string(ex.assemble(bare, fitted.mean, fitted.deviation, {"release": "7"}))
    (taken,), (given,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["batch", 32, 2]
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 3]
    assert (taken.name, given.name) == ("window", "probabilities")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert model.ir_version == 10
    assert {p.key: p.value for p in model.metadata_props} == {"release": "7"}
    assert [s.shape for s in ex.specs(WINDOW, CLASSES)] == [(-1, 32, 2), (-1, 3)]


def test_the_graph_tells_nothing_of_where_it_was_made(fitted: Fitted, bare: bytes) -> None:
    whole = ex.assemble(bare, fitted.mean, fitted.deviation, {})
    for trace in (b"site-packages", b".py", b"torch", b"/home", b"stack"):
        assert trace not in whole


def test_a_failing_exporter_is_followed_by_the_next(fitted: Fitted) -> None:
    def broken(_network: nn.Module, _sample: torch.Tensor) -> onnx.ModelProto:
        raise RuntimeError("no rule for this operator")

    model = ex.export_bare(fitted.network, WINDOW, CLASSES, (broken, ex.export_legacy))
    assert onnx.load_model_from_string(model).graph.output[0].name == "probabilities"
    with pytest.raises(ex.ExportError, match="broken: no rule for this operator"):
        ex.export_bare(fitted.network, WINDOW, CLASSES, (broken,))


def test_a_graph_with_another_face_is_refused(fitted: Fitted) -> None:
    def renamed(network: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
        model = ex.export_legacy(network, sample)
        model.graph.input[0].name = "x"
        return model

    with pytest.raises(ex.ExportError, match="should have the one tensor 'window'"):
        ex.export_bare(fitted.network, WINDOW, CLASSES, (renamed,))


def test_the_short_way_is_the_long_way(fitted: Fitted, bare: bytes) -> None:
    whole = ex.assemble(ex.export_bare(fitted.network, WINDOW, CLASSES), fitted.mean, fitted.deviation, {"k": "v"})
    x = ex.generated_windows(fitted, WINDOW, 4, np.random.default_rng(2))
    np.testing.assert_array_equal(answers(whole, x), answers(ex.assemble(bare, fitted.mean, fitted.deviation, {}), x))
