"""What programs asked over HTTP and MQTT is made again by the core to the last bit, whatever its inputs are: random
graphs, datatypes and batches, through the ring and a sealed file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import NodeProto, TensorProto, helper, numpy_helper

from core.release.replay import LARGEST, Outcome, Replay, Replayed
from edge.bindings.requests import Requests
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request
from edge.inference import tensors
from edge.predictions import Predictions, Refusal
from edge.recording import ROOM, Recorder
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from sync import answers, codec, golden, topics
from sync.arrays import DTYPES, NAMES
from sync.chunks import describe, digest
from sync.features import Datatype
from sync.golden import Arrays
from sync.link import Message, Publish
from sync.manifest import Manifest, Variant
from sync.names import Digest
from sync.remembered import Remembered, Tensor, pack, unpack
from sync.reports import Release
from tests.appliance.test_replay import ACCEPTED, BOX, DEVICE, NOW, SIGNING, network
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL, TENANT

INFER, LENGTH = f"/v2/models/{MODEL}/infer", "inference-header-content-length"
REPLIES = topics.local_replies(DEVICE) + "/me"
KINDS: dict[Datatype, int] = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
WAYS = ("json", "binary", "mqtt")
WORDS = ("", "on", "off", "é", "a longer word ")


@dataclass(frozen=True)
class Shape:
    """A graph to be: the datatype and width of each input, all [n, width], and what it says: `classes` or a `number` of
    each row, or `echo`, its inputs as they are."""

    inputs: dict[str, tuple[Datatype, int]]
    says: str

    def graph(self, seed: int) -> bytes:
        chance = np.random.default_rng(seed)
        asked = [graphs.value(name, ["n", width], KINDS[kind]) for name, (kind, width) in self.inputs.items()]
        if self.says == "echo":
            nodes = [helper.make_node("Identity", [name], [f"{name} again"]) for name in self.inputs]
            told = [graphs.value(f"{name} again", ["n", w], KINDS[kind]) for name, (kind, w) in self.inputs.items()]
            return graphs.finish(nodes, asked, told)
        columns = len(CLASSES) if self.says == "classes" else 1
        nodes, constants, parts = list[NodeProto](), [], []
        for name, (_, width) in self.inputs.items():
            weights = (chance.normal(size=(width, columns)) / 100).astype(np.float32)
            constants.append(numpy_helper.from_array(weights, f"{name} weights"))
            nodes.append(helper.make_node("Cast", [name], [f"{name} float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("MatMul", [f"{name} float", f"{name} weights"], [f"{name} part"]))
            parts.append(f"{name} part")
        nodes.append(helper.make_node("Sum", parts, ["sum"]))
        nodes.append(helper.make_node("Softmax" if columns > 1 else "Tanh", ["sum"], ["said"]))
        return graphs.finish(nodes, asked, [graphs.value("said", ["n", columns])], constants)

    def rows(self, count: int, seed: int) -> Arrays:
        chance = np.random.default_rng(seed)
        return {name: some(kind, (count, width), chance) for name, (kind, width) in self.inputs.items()}


def some(kind: Datatype, shape: tuple[int, ...], chance: np.random.Generator) -> np.ndarray:
    dtype = DTYPES[kind]
    if dtype.kind == "O":
        return chance.choice(np.array(WORDS, np.object_), shape)
    if dtype.kind == "f":
        return chance.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return chance.integers(0, 2, shape).astype(np.bool_)
    limits = np.iinfo(dtype)
    return chance.integers(limits.min, limits.max, shape, dtype, endpoint=True)


class Desk:
    """A device that answers HTTP and MQTT with one release, remembers it, and what its core keeps of the release."""

    def __init__(self, folder: Path, model: bytes, classes: tuple[str, ...], of: Manifest | None = None) -> None:
        session = load(model)
        vectors = golden.encode(golden.Golden({}, {"fp32": golden.Expected({}, 1e-4)}))
        blobs = [describe(content, digest(content)) for content in (model, vectors)]
        self.shelf = {digest(content): content for content in (model, vectors)}
        self.manifest = replace(
            of or graphs.manifest(1, (), classes, None), inputs=session.inputs, outputs=session.outputs,
            variants=(Variant("fp32", (), blobs[0]),), golden=blobs[1],
        )  # fmt: skip
        serving, self.told = Serving(), list[Publish]()
        serving.put(MODEL, Loaded(session, Slot(Release(1, Digest("d" * 64), blobs[0].plain), self.manifest, {})))
        self.recorder = Recorder("b" * 20, lambda: NOW, lambda *_: None)
        self.ring = Predictions(folder / "p.db", TENANT, bytes(32), os.urandom, lambda: NOW, lambda code, text: None)
        self.pages = Pages(serving, Metrics(), dict, "1", record=self.recorder.record)
        self.requests = Requests(DEVICE, serving, self.told.append, lambda: NOW, self.recorder.record)

    def http(self, inputs: Arrays, *, binary: bool) -> str:
        """The id of the prediction."""
        described, tail = [], b""
        for name, array in inputs.items():
            one = {"name": name, "datatype": NAMES[array.dtype], "shape": array.shape}
            piece = tensors.to_binary(array)
            tail += piece if binary else b""
            more = {"parameters": {"binary_data_size": len(piece)}} if binary else {"data": tensors.to_json(array)}
            described.append(one | more)
        head = json.dumps({"inputs": described}).encode()
        return self.post(Request("POST", INFER, {LENGTH: str(len(head))} if binary else {}, head + tail))

    def post(self, request: Request) -> str:
        response = self.pages.handle(request)
        assert response.status == 200, response.body
        length = dict(response.headers).get("Inference-Header-Content-Length", len(response.body))
        return str(json.loads(response.body[: int(length)])["parameters"]["prediction"])

    def mqtt(self, inputs: Arrays) -> str:
        told = self.ask({
            "inputs": [
                {"name": n, "datatype": NAMES[a.dtype], "shape": a.shape, "data": tensors.to_json(a)}
                for n, a in inputs.items()
            ]
        })  # fmt: skip
        return str(told["parameters"]["prediction"])

    def ask(self, question: dict[str, object]) -> dict[str, dict[str, object]]:
        topic = f"{topics.local_requests(DEVICE)}/{MODEL}"
        message = Message(topic, json.dumps(question).encode(), response_topic=REPLIES)
        self.requests.handle(message, lambda: None)
        told: dict[str, dict[str, object]] = json.loads(self.told.pop().payload)
        assert "error" not in told, told
        return told

    def file(self) -> Sequence[Remembered]:
        """All that is remembered, through a sealed file."""
        self.ring.remember_all(self.recorder.drain())
        found = tuple(self.ring.between(-1e12, 1e12, None, 10_000).predictions)
        told = answers.Predictions(TENANT, DEVICE, NOW, "1", "a cpu", 0.0, 1.0, *self.ring.span(), found)
        sealed = answers.seal(told, SIGNING, BOX.public_key().public_bytes_raw(), os.urandom(32))
        return answers.unseal(answers.read(sealed), answers.Predictions, BOX.private_bytes_raw(), KEYS).predictions

    def again(self, found: Sequence[Remembered]) -> list[Replayed]:
        return Replay(lambda model, number: self.manifest, self.shelf.__getitem__).all(found)


KEYS = [answers.roles.signer(SIGNING).public_key]
NUMERIC = st.sampled_from([kind for kind in KINDS if kind != "BYTES"])
WIDTH = st.integers(1, 9)
LETTERS = ("a", "b", "c")


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    says = draw(st.sampled_from(["classes", "number", "echo"]))
    kinds = st.sampled_from(list(KINDS)) if says == "echo" else NUMERIC
    count = draw(st.integers(1, 3))
    return Shape({name: (draw(kinds), draw(WIDTH)) for name in LETTERS[:count]}, says)


@settings(max_examples=40, deadline=None)
@given(shapes(), st.lists(st.tuples(st.sampled_from(WAYS), st.integers(1, 4)), max_size=4), st.data())
def test_whatever_a_program_asked_is_made_again_to_the_last_bit(
    shape: Shape, asked: list[tuple[str, int]], data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    with TemporaryDirectory() as name:
        desk = Desk(Path(name), shape.graph(seed), CLASSES if shape.says == "classes" else ())
        expected: dict[str, Arrays] = {}
        for number, (way, rows) in enumerate(asked):
            inputs = shape.rows(rows, seed + number)
            said = desk.mqtt(inputs) if way == "mqtt" else desk.http(inputs, binary=way == "binary")
            for row in range(rows):
                own = {name: array[row : row + 1] for name, array in inputs.items()}
                expected[said if rows == 1 else f"{said}-{row}"] = own
        found = desk.file()
        assert {one.prediction.id for one in found} == expected.keys()
        for one, again in zip(found, desk.again(found), strict=True):
            assert (again.outcome, again.worst) == (Outcome.EQUAL, 0.0), again
            if not one.window:
                assert one.inputs == pack(expected[one.prediction.id])
            if shape.says == "echo" and one.prediction.value is None:
                echo = {f"{name} again": array for name, array in expected[one.prediction.id].items()}
                assert one.outputs == pack(echo)
        for one in desk.again(found):  # each for itself as well: its rows do not depend on one another
            alone = next(each for each in found if each.prediction.id == one.prediction)
            assert desk.again([alone])[0].outcome is Outcome.EQUAL
        desk.ring.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Its graph takes a scale from all rows it is given: none of them stands alone."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=1),
        helper.make_node("Div", ["x", "largest"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["odds"]),
    ]
    made = Desk(
        tmp_path, graphs.finish(nodes, [graphs.value("x", ["n", 3])], [graphs.value("odds", ["n", 3])]), CLASSES
    )
    yield made
    made.ring.close()


def test_rows_that_depend_on_one_another_are_made_again_together_or_accuse_nobody(desk: Desk) -> None:
    rows = np.array([[1.0, 2.0, 3.0], [2.0, 8.0, 1.0], [4.0, 0.5, 0.25]], np.float32)
    number = desk.http({"x": rows}, binary=False)
    found = desk.file()
    assert [one.outcome for one in desk.again(found)] == [Outcome.EQUAL] * 3
    (alone,) = desk.again([found[0]])
    assert (alone.prediction, alone.outcome) == (f"{number}-0", Outcome.NO_INPUTS)
    assert "one of 3 rows" in alone.text and "not all of them are here" in alone.text
    lie = replace(found[1], prediction=replace(found[1].prediction, probabilities=(0.2, 0.3, 0.5)))
    assert desk.again([found[0], lie, found[2]])[1].outcome is Outcome.DIFFERENT, "with all of them here it is proof"


def test_of_more_rows_than_are_remembered_those_that_are_come_out_equal(tmp_path: Path) -> None:
    shape = Shape({"a": ("FP32", 7), "b": ("INT64", 2)}, "classes")
    desk = Desk(tmp_path, shape.graph(3), CLASSES)
    desk.http(shape.rows(ROOM + 9, 3), binary=True)
    found = desk.file()
    assert len(found) == ROOM and {one.outcome for one in desk.again(found)} == {Outcome.EQUAL}
    desk.ring.close()


def test_a_model_with_windows_and_tables_that_is_asked_directly_is_made_again(tmp_path: Path) -> None:
    spec = graphs.WINDOW
    manifest = replace(graphs.manifest(1, (), CLASSES, spec), lookups=(ACCEPTED,))
    desk = Desk(tmp_path, network(spec, 5), CLASSES, manifest)
    chance = np.random.default_rng(5)
    window = chance.normal(size=(2, spec.size, 2)).astype(np.float32)
    number = desk.mqtt({"window": window, "machines": chance.normal(size=(2, 2)).astype(np.float32)})
    short = desk.ask({"data": {"window": window[0].ravel().tolist(), "machines": [1.5, 2.5]}})
    found = desk.file()
    assert [one.prediction.id for one in found] == [f"{number}-0", f"{number}-1", short["prediction"]["id"]]
    assert all(one.inputs.keys() == {"window", "machines"} and not one.window for one in found)
    assert [one.outcome for one in desk.again(found)] == [Outcome.EQUAL] * 3
    assert desk.ring.label(f"{number}-1", CLASSES[0]) is None, "it is labelled like any other"
    desk.ring.close()


def test_inputs_without_rows_in_common_are_one_prediction(tmp_path: Path) -> None:
    image, scale = ("image", ["h", "w"], TensorProto.UINT8), ("scale", ["k"], TensorProto.FLOAT)
    nodes = [helper.make_node("Identity", [name], [f"{name} again"]) for name in ("image", "scale")]
    asked, told = ([graphs.value(n + again, s, k) for n, s, k in (image, scale)] for again in ("", " again"))
    desk = Desk(tmp_path, graphs.finish(nodes, asked, told), ())
    inputs: Arrays = {"image": np.arange(12, dtype=np.uint8).reshape(3, 4), "scale": np.ones(2, np.float32)}
    number = desk.http(inputs, binary=True)
    (one,) = desk.file()
    assert (one.prediction.id, one.inputs) == (number, pack(inputs))
    assert [found.outcome for found in desk.again([one])] == [Outcome.EQUAL]
    desk.ring.close()


def test_a_picture_as_a_whole_body_is_made_again(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["brightness"], keepdims=0),
    ]
    asked = [graphs.value("image", [1, "h", 8, 3], TensorProto.UINT8)]
    desk = Desk(tmp_path, graphs.finish(nodes, asked, [graphs.value("brightness", [])]), ())
    picture = np.random.default_rng(2).integers(0, 255, (1, 6, 8, 3), np.uint8)
    number = desk.post(Request("POST", INFER, {LENGTH: "0"}, picture.tobytes()))
    (one,) = desk.file()
    assert (one.prediction.id, one.inputs) == (number, pack({"image": picture}))
    (again,) = desk.again([one])
    assert (again.outcome, again.again) == (Outcome.EQUAL, one.prediction.value)
    desk.ring.close()


def test_an_answer_that_is_no_class_takes_no_label_and_a_changed_one_is_found_out(tmp_path: Path) -> None:
    shape = Shape({"a": ("FP64", 3), "b": ("BYTES", 2)}, "echo")
    desk = Desk(tmp_path, shape.graph(1), ())
    number = desk.http(shape.rows(1, 1), binary=True)
    (one,) = desk.file()
    assert (one.prediction.id, one.prediction.value) == (number, None)
    assert desk.ring.label(number, "on") is Refusal.UNKNOWN_LABEL and desk.ring.report(MODEL, 1) is None
    numbers = unpack("a", one.outputs["a again"])
    near, far = (one.outputs | pack({"a again": numbers + off}) for off in (1e-6, 1.0))
    words = one.outputs | {"b again": Tensor("BYTES", (1, 2), pack({"x": np.array(["x", "y"], np.object_)})["x"].data)}
    torn = one.outputs | {"a again": Tensor("FP64", (1, 4), one.outputs["a again"].data)}
    lies = [replace(one, outputs=outputs) for outputs in (near, far, words, torn, {"other": one.outputs["a again"]})]
    assert [found.outcome for found in desk.again(lies)] == [Outcome.CLOSE, *[Outcome.DIFFERENT] * 4]
    desk.ring.close()


def test_what_a_file_makes_up_of_rows_and_inputs_is_refused(desk: Desk) -> None:
    desk.http({"x": np.ones((2, 3), np.float32)}, binary=False)
    one, other = desk.file()
    many = replace(one.basis, rows=LARGEST)
    bent = [
        replace(one, basis=replace(one.basis, row=7)), replace(one, basis=replace(one.basis, row=-1, rows=2**62)),
        replace(one, window=b"", shape=(), inputs={"x": Tensor("INT64", (1, 3), bytes(24))}),
        replace(one, window=b"", shape=(), inputs={"x": Tensor("FP32", (1, 2**62), bytes(12))}),
        replace(one, window=b"", shape=(), inputs={"x": Tensor("FP32", (-1, 3), bytes(12))}),
        replace(one, window=b"", shape=(), inputs={"x": Tensor("BYTES", (1, 3), b"\xc1")}),
        replace(one, window=b"", shape=(), inputs={"y": Tensor("FP32", (1, 3), bytes(12))}),
    ]  # fmt: skip
    assert {found.outcome for found in desk.again(bent)} == {Outcome.DIFFERENT}
    found = desk.again([replace(one, basis=many)])[0]
    assert found.outcome is Outcome.NO_INPUTS and "more than are made again" in found.text
    wide = replace(other, window=b"", shape=(), inputs={"x": Tensor("FP32", (1, 1), bytes(4))})
    assert desk.again([one, wide])[0].outcome is Outcome.DIFFERENT


def test_a_record_of_an_earlier_version_is_read_and_made_again(desk: Desk) -> None:
    """Without the fields that came later, as it lies on disk and in saved files."""
    desk.http({"x": np.ones((1, 3), np.float32)}, binary=False)
    (one,) = desk.file()
    plain = codec.builtins(one)
    for name in ("inputs", "outputs"):
        del plain[name]
    for name in ("row", "rows"):
        del plain["basis"][name]
    before = codec.decode(Remembered, json.dumps(plain).encode())
    assert before == one and desk.again([before])[0].outcome is Outcome.EQUAL
