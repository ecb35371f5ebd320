"""A replayed prediction equals the served one: streams with disorder, gaps and tables, through real bindings into the
ring, out as a sealed file, and made again by the core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from appliance.cli.replay import DIFFERENT, exit_code, made_again
from core.release.replay import Outcome, Replay, Replayed
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.lookups import Lookups
from edge.predictions import Predictions
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from sync import answers, golden, lookups, roles
from sync.chunks import describe, digest
from sync.errors import Damaged
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Lookup, LookupColumn, Manifest, Variant
from sync.names import DeviceId, Digest, LookupName, ModelName
from sync.remembered import Remembered
from sync.reports import Release
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL, TENANT
from tests.edge.served_windows import BINDING, readings
from tests.sync.oracle import Event
from tests.sync.streams import specs, streams

DEVICE, NOW = DeviceId("press-1"), 1_790_000_000.0
MACHINES = LookupName("machines")
ACCEPTED = Lookup(MACHINES, (LookupColumn("age"), LookupColumn("power")), 3600.0, default=(0.5, 0.25))
BOX, SIGNING = X25519PrivateKey.generate(), roles.new_signing_key()
TOLERANCE = 1e-4


def network(spec: WindowSpec, seed: int, *, flat: bool = False) -> bytes:
    """Softmax of products of the window, which may come as one row of numbers, and of the table's row: every number of
    both has a say."""
    chance = np.random.default_rng(seed)
    parts = {"w": (spec.size * 2, 3), "v": (2, 3)}
    constants = [numpy_helper.from_array(chance.normal(size=shape).astype(np.float32), n) for n, shape in parts.items()]
    constants.append(numpy_helper.from_array(np.array([-1, spec.size * 2], np.int64), "flat"))
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["a"]),
        helper.make_node("MatMul", ["machines", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["bent"]),
        helper.make_node("Softmax", ["bent"], ["probabilities"]),
    ]
    window = ["n", spec.size * 2] if flat else ["n", spec.size, 2]
    inputs = [graphs.value("window", window), graphs.value("machines", ["n", 2])]
    return graphs.finish(nodes, inputs, [graphs.value("probabilities", ["n", 3])], constants)


class Field:
    """A device with bindings, tables and a ring, and what its core keeps of the releases it serves."""

    def __init__(self, folder: Path, spec: WindowSpec, *, flat: bool = False) -> None:
        self.flat = flat
        self.spec, self.shelf, self.manifests = spec, dict[Digest, bytes](), dict[int, Manifest]()
        self.lookups, self.serving = Lookups(lambda: NOW), Serving()
        self.ring = Predictions(folder / "p.db", TENANT, bytes(32), os.urandom, lambda: NOW, lambda code, text: None)
        self.bindings = Bindings(
            TENANT, DEVICE, self.serving, Buffers(folder / "b.db", TENANT, bytes(32)), lambda message: None,
            remember=self.ring.remember, lookups=self.lookups,
        )  # fmt: skip
        self.go_live(1)

    def go_live(self, number: int) -> None:
        model = network(self.spec, number, flat=self.flat)
        vectors = golden.encode(golden.Golden({}, {"fp32": golden.Expected({}, TOLERANCE)}))
        blobs = [describe(content, digest(content)) for content in (model, vectors)]
        self.shelf |= {digest(content): content for content in (model, vectors)}
        window = (-1, self.spec.size * 2) if self.flat else (-1, self.spec.size, 2)
        inputs = (TensorSpec("window", "FP32", window), TensorSpec("machines", "FP32", (-1, 2)))
        self.manifests[number] = replace(
            graphs.manifest(number, (BINDING,), CLASSES, self.spec), inputs=inputs, lookups=(ACCEPTED,),
            variants=(Variant("fp32", (), blobs[0]),), golden=blobs[1],
        )  # fmt: skip
        release = Release(number, Digest("d" * 64), blobs[0].plain)
        self.bindings.bind(self.manifests[number])
        self.serving.put(MODEL, Loaded(load(model), Slot(release, self.manifests[number], {})))

    def table(self, version: int, age: float) -> None:
        rows = {"w1": (age, age / 3)}
        self.lookups.put(lookups.table(MACHINES, ("age", "power"), rows, 0.0), NOW, None, (version, 0))

    def feel(self, entity: str, events: list[Event]) -> None:
        self.bindings.handle(f"site/{entity}/accel", readings(events), 0, lambda: None)

    def file(self) -> answers.Predictions:
        """All that is remembered, through a sealed file."""
        oldest, newest = self.ring.span()
        found = tuple(self.ring.between(-1e12, 1e12, None, 10_000).predictions)
        told = answers.Predictions(TENANT, DEVICE, NOW, "1", "a cpu", 0.0, 1.0, oldest, newest, found)
        sealed = answers.seal(told, SIGNING, BOX.public_key().public_bytes_raw(), os.urandom(32))
        keys: roles.Keys = [roles.signer(SIGNING).public_key]
        return answers.unseal(answers.read(sealed), answers.Predictions, BOX.private_bytes_raw(), keys)

    def again(self, one: Remembered) -> Replayed:
        def manifest(model: ModelName, number: int) -> Manifest | None:
            return self.manifests.get(number) if model == MODEL else None

        return Replay(manifest, self.content).again(one)

    def content(self, plain: Digest) -> bytes:
        if plain not in self.shelf:
            raise Damaged(f"artifact {plain[:12]}: no such file")
        return self.shelf[plain]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_was_served_is_made_again_to_the_last_bit(data: st.DataObject) -> None:
    spec = data.draw(specs)
    with TemporaryDirectory() as name:
        field = Field(Path(name), spec, flat=data.draw(st.booleans()))
        for number, entity in enumerate(("w1", "w2", "w1")):
            if data.draw(st.booleans()):
                field.table(number + 1, data.draw(st.floats(-9, 9, width=32)))
            else:
                field.table(number + 1, 1.5)
            for event in data.draw(streams(spec.period, 20)):
                field.feel(entity, [event])
            if data.draw(st.booleans()):
                field.go_live(number + 2)
        told = field.file()
        for one in told.predictions:
            found = field.again(one)
            assert (found.outcome, found.worst, found.again) == (Outcome.EQUAL, 0.0, one.prediction.value), found
            assert one.basis.artifact and one.basis.lookups[MACHINES].version > 0


@contextmanager
def felt(folder: Path) -> Iterator[Field]:
    """Ten windows of two entities, one of which the table knows."""
    made = Field(folder, WindowSpec(4, 4, 1.0, ("x", "y"), 1.5))
    made.table(3, 2.0)
    chance = np.random.default_rng(3)
    for entity in ("w1", "w9"):
        made.feel(entity, [(float(t), *map(float, chance.normal(size=2))) for t in range(20)])
    yield made
    made.ring.close()


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    with felt(tmp_path) as made:
        yield made


def test_what_a_table_gave_is_remembered_with_its_version_or_as_the_default(field: Field) -> None:
    told = field.file().predictions
    seen = {one.prediction.entity: one.basis.lookups[MACHINES] for one in told}
    assert seen["w1"].version == seen["w9"].version == 3
    assert np.frombuffer(seen["w1"].vector, "<f4").tolist() == pytest.approx([2.0, 2.0 / 3])
    assert np.frombuffer(seen["w9"].vector, "<f4").tolist() == [0.5, 0.25]


def test_a_prediction_that_was_never_said_is_found_out(field: Field) -> None:
    one = field.file().predictions[2]
    said, other = one.prediction, next(c for c in CLASSES if c != one.prediction.value)
    lies = [
        replace(one, prediction=replace(said, value=other)),
        replace(one, prediction=replace(said, probabilities=said.probabilities[::-1])),
        replace(one, prediction=replace(said, probabilities=(0.5, 0.5))),
        replace(one, window=bytes(len(one.window))),
        replace(one, window=one.window[4:]),
        replace(one, shape=(2, 2), window=one.window[:16]),
        replace(one, basis=replace(one.basis, lookups={})),
        replace(one, prediction=replace(said, probabilities=(float("nan"),) * 3)),
    ]
    field.go_live(2)
    lies.append(replace(one, prediction=replace(said, release=2), basis=replace(one.basis, artifact="")))
    assert [field.again(lie).outcome for lie in lies] == [Outcome.DIFFERENT] * len(lies)
    assert exit_code([field.again(one), field.again(lies[0])]) == DIFFERENT


def test_another_cpu_may_round_within_what_the_golden_vectors_allow(field: Field) -> None:
    one = field.file().predictions[0]
    said = one.prediction.probabilities
    near = tuple(p + d for p, d in zip(said, (4e-5, -4e-5, 0.0), strict=True))
    found = field.again(replace(one, prediction=replace(one.prediction, probabilities=near)))
    assert found.outcome is Outcome.CLOSE and 3e-5 < (found.worst or 0) < TOLERANCE and found.precision == "fp32"
    assert exit_code([found]) == 0


def test_what_cannot_be_made_again_says_why(field: Field) -> None:
    one = field.file().predictions[0]
    nobody = field.again(replace(one, prediction=replace(one.prediction, release=9)))
    stranger = field.again(replace(one, basis=replace(one.basis, artifact="e" * 64)))
    bare = field.again(replace(one, window=b"", shape=()))
    field.shelf.clear()
    gone = field.again(one)
    outcomes = [nobody.outcome, stranger.outcome, bare.outcome, gone.outcome]
    assert outcomes == [Outcome.NOT_HERE, Outcome.NOT_HERE, Outcome.NO_INPUTS, Outcome.NOT_HERE]
    assert "no release motion 9" in nobody.text and "no variant eeee" in stranger.text and "not whole" in gone.text
    assert exit_code([bare]) == DIFFERENT, "nothing could be made again: that is no proof of anything"


def test_what_no_graph_takes_is_different_and_says_why(field: Field) -> None:
    one = field.file().predictions[0]
    wide = field.again(replace(one, shape=(2**63, 2)))
    field.shelf[field.manifests[1].variants[0].blob.plain] = graphs.finish(
        [helper.make_node("Identity", ["window"], ["probabilities"])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in ("window", "machines")],
        [helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, None)], [],
    )  # fmt: skip
    refused = field.again(one)
    window, table = field.manifests[1].inputs
    field.manifests[1] = replace(field.manifests[1], inputs=(replace(window, datatype="INT8"), table))
    other = field.again(one)
    assert [found.outcome for found in (wide, refused, other)] == [Outcome.DIFFERENT] * 3
    assert "says nothing to its inputs" in refused.text and "'window' takes INT8" in other.text, (refused, other)


@pytest.mark.parametrize("value", ["x", "1.5", None])
def test_a_word_is_no_number(field: Field, value: str | None) -> None:
    one = field.file().predictions[0]
    field.manifests[1] = replace(field.manifests[1], classes=())
    found = field.again(replace(one, prediction=replace(one.prediction, value=value)))
    assert found.outcome is Outcome.DIFFERENT and f"gives a number, {value!r} is none" in found.text


def test_no_word_of_a_file_reaches_the_terminal_as_it_is(field: Field) -> None:
    told = field.file()
    one = told.predictions[0]
    bent = replace(one, prediction=replace(one.prediction, value="\x1b]0;OK\x07", classes=()))
    done = [replace(field.again(one), text="\x1b[2Jfine\n"), field.again(bent)]
    lines = made_again(replace(told, cpu="\x9b31m"), done, "another cpu")
    assert all(line.isprintable() for line in lines) and r"\x1b]0;OK\x07" in lines[2], lines


def test_of_a_ring_of_before_the_variant_is_told_by_the_manifest(field: Field) -> None:
    """Records that were written before variants were remembered: one variant is the one; of two nobody knows."""
    one = field.file().predictions[0]
    older = replace(one, basis=replace(one.basis, artifact=""))
    assert field.again(older).outcome is Outcome.EQUAL
    variants = field.manifests[1].variants
    field.manifests[1] = replace(field.manifests[1], variants=(*variants, *variants))
    assert field.again(older).text == "its variant is not known"


def test_a_person_reads_each_beside_what_it_is_now(field: Field) -> None:
    told = field.file()
    lie = replace(told.predictions[0], window=bytes(32))
    done = [field.again(one) for one in (*told.predictions[1:3], lie)]
    lines = made_again(told, done, "another cpu")
    assert lines[0].startswith("press-1, 3 predictions as of 2026-09-2")
    assert lines[0].endswith("; served on a cpu, made again on another cpu")
    assert lines[1].endswith("  equal") and ": now " in lines[3] and "fp32 allows 0.0001" in lines[3]
    assert lines[-1] == "1 different, 2 equal"
