"""The one onnxruntime: what loads, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edge.runtime import BadInput, RunFailed, Unloadable, cpu_flags, finite, load
from sync.features import TensorSpec
from tests.edge import graphs


def test_a_graph_tells_its_inputs_and_outputs_in_words_of_the_protocol() -> None:
    session = load(graphs.classifier())
    assert session.inputs == (TensorSpec("window", "FP32", (-1, graphs.SIZE, 2)),)
    assert session.outputs == (TensorSpec("probabilities", "FP32", (-1, 3)),)


def test_all_outputs_come_back_by_name() -> None:
    outputs = load(graphs.classifier()).run(graphs.windows(5))
    assert list(outputs) == ["probabilities"]
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorProto.INT64, np.int64), (TensorProto.UINT8, np.uint8), (TensorProto.BOOL, np.bool_),
     (TensorProto.DOUBLE, np.float64), (TensorProto.STRING, np.object_)],
)  # fmt: skip
def test_every_datatype_of_the_protocol_passes_through(kind: int, dtype: type) -> None:
    data = np.array(["a", "b"], np.object_) if dtype is np.object_ else np.array([0, 1], dtype)
    assert load(graphs.echo(kind)).run({"x": data})["y"].tolist() == data.tolist()


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"other": np.zeros((1, graphs.SIZE, 2), np.float32)},
        {"window": np.zeros((1, graphs.SIZE, 2), np.float64)},
        {"window": np.zeros((1, graphs.SIZE, 3), np.float32)},
        {"window": np.zeros((graphs.SIZE, 2), np.float32)},
        {"window": np.zeros((0, graphs.SIZE, 2), np.float32)},
        {**graphs.windows(1), "more": np.zeros(1, np.float32)},
    ],
)
def test_inputs_that_do_not_fit_are_refused_before_the_graph_runs(inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadInput):
        load(graphs.classifier()).run(inputs)


def test_a_graph_that_breaks_while_running_says_so() -> None:
    with pytest.raises(RunFailed, match="failed to run"):
        load(graphs.breaks_on_run()).run({"i": np.array([99], np.int64)})


@pytest.mark.parametrize("data", [b"", b"junk", graphs.classifier()[:40], graphs.echo(TensorProto.BFLOAT16)])
def test_what_is_no_servable_model_is_unloadable(data: bytes) -> None:
    with pytest.raises(Unloadable):
        load(data)


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_in_another_file_are_refused_though_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    (tmp_path / "weights.bin").write_bytes(np.arange(2, dtype="<f4").tobytes())
    monkeypatch.chdir(tmp_path)
    location = str(tmp_path / "weights.bin") if absolute else "weights.bin"
    with pytest.raises(Unloadable):
        load(graphs.external_data(location))


def test_finite_looks_at_floats_only() -> None:
    assert finite({"a": np.array([1.0]), "b": np.array([1]), "c": np.array(["x"], np.object_)})
    assert not finite({"a": np.array([1.0, np.nan])})
    assert not finite({"a": np.array([np.inf], np.float32)})


def test_cpu_flags_of_both_families(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n")
    (tmp_path / "arm").write_text("Features\t: fp asimd asimddp\n")
    (tmp_path / "none").write_text("processor : 0\n")
    assert "avx512_vnni" in cpu_flags(tmp_path / "x86")
    assert cpu_flags(tmp_path / "arm") == {"fp", "asimd", "asimddp"}
    assert cpu_flags(tmp_path / "none") == frozenset()
    assert cpu_flags(tmp_path / "absent") == frozenset()
