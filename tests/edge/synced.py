"""Releases that ask for a table beside their window, and tables and configs as a core publishes them, for the tests of
lookups: `y` = the window's number + all columns of the entity's row."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import numpy as np
from onnx import helper, numpy_helper

from edge.agent import Identity
from sync import codec, golden, lookups, sealing
from sync.features import TensorSpec
from sync.lookups import Config, Table
from sync.manifest import Binding, Lineage, Lookup, LookupColumn, Manifest, Variable, Variant
from sync.names import Digest, LookupName
from sync.pieces import Piece
from tests.edge import graphs
from tests.edge.world import DEVICE, MODEL, NOW, PROFILE, TENANT, WINDOW, Core, Shipped, _seal

MACHINES = LookupName("machines")
HOUR = 3600.0
ACCEPTED = Lookup(MACHINES, (LookupColumn("age", 0.0, 100.0), LookupColumn("power", 0.0, 10.0)), HOUR)
LINE = Variable("line", "a")
BINDING = Binding("plant/{line}/{entity}/vib", "out/{line}/{entity}")


def adding(columns: int = 2) -> bytes:
    constants = [numpy_helper.from_array(np.array([-1], np.int64), name) for name in ("flat", "last")]
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["numbers"]),
        helper.make_node("ReduceSum", ["machines", "last"], ["sums"], keepdims=0),
        helper.make_node("Add", ["numbers", "sums"], ["y"]),
    ]
    inputs = [graphs.value("window", ["n", 1, 1]), graphs.value("machines", ["n", columns])]
    return graphs.finish(nodes, inputs, [graphs.value("y", ["n"])], constants)


CELL = Variable("cell", 7.0)  # a number, which a topic has as it is written
IN_CELLS = Binding("plant/{line}/{cell}/{entity}/vib", BINDING.output)


def manifest(number: int = 1, accepted: Lookup = ACCEPTED, binding: Binding = BINDING) -> Manifest:
    """With a variable for each word of the binding."""
    inputs = (TensorSpec("window", "FP32", (-1, 1, 1)), TensorSpec("machines", "FP32", (-1, len(accepted.columns))))
    return Manifest(
        TENANT, MODEL, number, NOW, (), graphs.manifest().golden, inputs, (TensorSpec("y", "FP32", (-1,)),), (),
        WINDOW, (binding,), PROFILE, Lineage("s", "v", "cnn1d", 7, {}, "the only one"), lookups=(accepted,),
        variables=tuple(one for one in (LINE, CELL) if f"{{{one.name}}}" in binding.topic),
    )  # fmt: skip


def ship(core: Core, number: int = 1, accepted: Lookup = ACCEPTED, binding: Binding = BINDING) -> Shipped:
    """One signed release that adds the columns of `machines`, on the broker."""
    columns = len(accepted.columns)
    questions = {"window": np.array([[[1.0]], [[2.0]]], np.float32), "machines": np.ones((2, columns), np.float32)}
    expected = golden.Expected(golden.pack({"y": np.array([1.0, 2.0], np.float32) + columns}), 1e-4)
    vectors = golden.encode(golden.Golden(golden.pack(questions), {"fp32": expected}))
    keys: dict[Digest, bytes] = {}
    sealed: dict[Digest, bytes] = {}
    blobs = [_seal(part, keys, sealed) for part in (adding(columns), vectors)]
    made = codec.builtins(manifest(number, accepted, binding)) | codec.builtins(
        {"variants": (Variant("fp32", (), blobs[0]),), "golden": blobs[1]}
    )
    shipped = Shipped(number, codec.encode(codec.typed(Manifest, made)), keys, sealed)
    core.approve(shipped)
    return shipped


@dataclass
class Shelf:
    """Tables and configs of one tenant on the broker, wrapped to one device."""

    core: Core
    identity: Identity
    keys: dict[Digest, bytes] = field(default_factory=dict)
    sealed: dict[Digest, bytes] = field(default_factory=dict)

    def piece(
        self, content: Table | Config | bytes, version: int = 1, as_of: float = NOW, *, sent: bool = True
    ) -> Piece:
        """As an assignment names it; `sent`: its chunks are on the broker too."""
        plain = content if isinstance(content, bytes) else lookups.encode(content)
        blob = _seal(plain, self.keys, self.sealed)
        public = sealing.public_half(self.identity.sealing_key)
        wrapped = sealing.wrap(self.keys[blob.sealed], public, sealing.wrap_context(TENANT, DEVICE, blob.sealed))
        if sent:
            self.core.publish_blob(Shipped(0, b"", self.keys, self.sealed), blob.sealed)
        return Piece(version, blob, base64.b64encode(wrapped).decode(), as_of)


def machines(**rows: tuple[float, ...]) -> Table:
    """The table with these rows; `_` in a key stands for `-`."""
    named = {key.replace("_", "-"): row for key, row in rows.items()}
    columns = ("age", "power") if all(len(row) == 2 for row in rows.values()) else ("age",)
    return lookups.table(MACHINES, columns, named, 0.0)
