"""`falaj edge bench`: figures from children that are limited, a table, and advice that follows from them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.cli.edge_bench import advice, given_shape, model_files, short_names, table, thread_counts
from appliance.errors import Trouble
from appliance.first_hour.measuring import (
    Measured,
    Unmeasured,
    Wish,
    example,
    fixed_rows,
    measure,
    measure_here,
    shape_of,
)
from edge.proving import Ended, Overdue
from sync.errors import Malformed
from sync.features import TensorSpec
from tests.appliance.running import falaj
from tests.edge import graphs

CLOCK = time.perf_counter
INPUT = (TensorSpec("window", "FP32", (-1, 4, 2)),)


def figure(threads: int = 1, rows: int = 1, p50: float = 1.0, speed: float = 1000.0) -> Measured:
    return Measured(threads, rows, 100, 5.0, 12.0, p50, 2 * p50, speed, INPUT, INPUT, {}, {})


def fixed(rows: int = 1) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return graphs.finish([node], [graphs.value("x", [rows, 2])], [graphs.value("y", [rows, 2])])


def open_shape() -> bytes:
    node = helper.make_node("Identity", ["image"], ["y"])
    return graphs.finish([node], [graphs.value("image", ["n", 3, "h", "w"])], [graphs.value("y", ["n", 3, "h", "w"])])


# --- measuring --------------------------------------------------------------------------------------------------


def test_a_child_measures_what_the_graph_says_and_does() -> None:
    found = measure(Wish(graphs.classifier(), threads=1, rows=8, seconds=0.02))
    assert found.inputs == INPUT and found.asked == {"window": (8, 4, 2)}
    assert found.answered == {"probabilities": (8, 3)}
    assert found.runs >= 5 and 0 < found.p50_ms <= found.p99_ms
    assert found.load_ms > 0 and found.rss_mb > 0 and found.rows_per_s > 0
    assert fixed_rows(found) is None


def test_memory_is_what_the_model_adds() -> None:
    """64 MiB that the graph makes when it is run stand beyond what loading the library takes."""
    shape = numpy_helper.from_array(np.array([16 << 20], np.int64), "shape")
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["big"]), helper.make_node("ReduceSum", ["big"], ["s"]),
             helper.make_node("Add", ["x", "s"], ["y"])]  # fmt: skip
    large = graphs.finish(nodes, [graphs.value("x", ["n"])], [graphs.value("y", ["n"])], [shape])
    small, big = (measure(Wish(model)) for model in (graphs.echo(TensorProto.FLOAT), large))
    assert 50 < big.rss_mb - small.rss_mb < 200


def test_a_graph_of_fixed_rows_is_asked_as_it_wants() -> None:
    found = measure_here(Wish(fixed(2), rows=64), CLOCK)
    assert (found.rows, found.asked, fixed_rows(found)) == (2, {"x": (2, 2)}, 2)


def test_what_a_graph_leaves_open_can_be_said() -> None:
    assert measure_here(Wish(open_shape()), CLOCK).asked == {"image": (1, 3, 1, 1)}
    for name in ("", "image"):
        assert measure_here(Wish(open_shape(), rows=4, shapes={name: (1, 3, 8, 9)}), CLOCK).asked == {
            "image": (4, 3, 8, 9)
        }
    with pytest.raises(Malformed, match=r"takes \[-1, 3, -1, -1\]"):
        measure_here(Wish(open_shape(), shapes={"": (1, 4, 8, 9)}), CLOCK)
    with pytest.raises(Malformed, match="no input 'x'; inputs are image"):
        measure_here(Wish(open_shape(), shapes={"x": (1,)}), CLOCK)


@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64", "UINT8", "INT64", "BOOL", "BYTES"])
def test_every_kind_of_input_has_an_example(kind: str) -> None:
    spec = TensorSpec("x", kind, (-1, 3))  # type: ignore[arg-type]
    array = example(spec, shape_of(spec, 2, {}), np.random.default_rng(1))
    assert array.shape == (2, 3)
    assert kind != "INT64" or not array.any()  # it may be an index


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(3, b"", b"it says why\n"), "it says why"),
        (Ended(-signal.SIGSEGV, b"", b""), r"crashed \(SIGSEGV\) when it was run"),
        (Ended(-signal.SIGKILL, b"", b""), "killed by the system, perhaps for want of memory"),
        (Ended(-signal.SIGXCPU, b"", b""), "used up its processor time"),
        (Ended(9, b"", b""), "ended its process with 9"),
    ],
)
def test_a_child_that_ends_otherwise_is_one_sentence(ended: Ended, words: str) -> None:
    with pytest.raises(Unmeasured, match=words):
        measure(Wish(b""), lambda request, deadline: ended)


def test_a_model_that_never_answers_or_cannot_be_started_is_one_sentence() -> None:
    def late(request: bytes, deadline: float) -> Ended:
        raise Overdue("late")

    def refused(request: bytes, deadline: float) -> Ended:
        raise OSError("no memory")

    with pytest.raises(Unmeasured, match="no answer after 61 s"):
        measure(Wish(b"", seconds=1.0), late)
    with pytest.raises(Unmeasured, match="free some memory"):
        measure(Wish(b""), refused)


@pytest.mark.slow
def test_a_real_graph_that_never_ends_is_stopped() -> None:
    with pytest.raises(Unmeasured, match=r"no answer after|processor time"):
        measure(Wish(graphs.endless_loop()))


# --- what is printed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_threads_double_up_to_all_cores(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ([("a", figure())], "a takes 1 ms an answer (p99 2), 12 MiB; one thread is enough."),
        ([("a", figure()), ("a", figure(2, 1, 0.5))], "2 threads would answer 2.0 times as fast"),
        ([("a", figure()), ("a", figure(2, 1, 0.9))], "one thread is enough."),
        ([("a", figure()), ("a", figure(1, 64, 8.0, 8000.0))], "64 rows asked at once give 8 times the rows a second."),
        ([("a", figure()), ("b", figure(p50=0.5))], "b is 2.0 times as fast as a: 0.5 ms"),
        ([("a", figure()), ("b", figure(p50=0.95))], "a is as fast: take the one that is right more often"),
    ],
)
def test_advice_follows_from_the_figures(figures: list[tuple[str, Measured]], said: str) -> None:
    assert said in advice(figures)


def test_the_table_has_a_line_for_each_measurement() -> None:
    lines = table([("short", figure()), ("a longer name", figure(2, 64, 0.1234, 123_456.0))])
    assert len({len(line) for line in lines}) == 1
    assert "0.123" in lines[2] and "123,456" in lines[2]


def test_files_and_folders_are_found_or_named(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in model_files(tmp_path)] == ["a.onnx", "b.onnx"]
    assert model_files(tmp_path / "c.txt") == [tmp_path / "c.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Trouble, match=r"no \.onnx file"):
        model_files(tmp_path / "empty")
    with pytest.raises(Trouble, match="give an ONNX file, or a folder"):
        model_files(tmp_path / "none.onnx")
    assert short_names([Path("a/m.onnx"), Path("b/m.onnx"), Path("n.onnx")]) == ["a/m.onnx", "b/m.onnx", "n.onnx"]
    assert given_shape("x:0=1,3") == ("x:0", (1, 3)) and given_shape("1,3") == ("", (1, 3))


def test_the_command_compares_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("fp32.onnx", "int8.onnx"):
        (tmp_path / name).write_bytes(fixed())
    done = falaj("edge", "bench", str(tmp_path), "--seconds", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = [(one["model"], one["threads"], one["rows"]) for one in document["measured"]]
    counts = thread_counts(document["board"]["cores"])
    assert found == [(name, threads, 1) for name in ("fp32.onnx", "int8.onnx") for threads in counts]
    assert document["advice"].startswith("advice: ")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["no.onnx"], 1, "Error: no.onnx: onnxruntime"),
        (["none.onnx"], 1, "Error: there is no none.onnx"),
        (["no.onnx", "--input-shape", "1,b"], 2, "'1,b' is no shape like"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.onnx").write_bytes(b"hello")
    done = falaj("edge", "bench", *words)
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr
