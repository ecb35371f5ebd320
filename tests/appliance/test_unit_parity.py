"""Sensor's units into the model's: what is trained on from files is, bit by bit, what is served from any payload."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.features.views import build, view_hash
from core.project import Column, Contract, Model, ModelGates, Rollout, Source, View
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.serving import Serving
from sync import codec
from sync.bindings import Binding
from sync.features import Unit, WindowSpec
from sync.link import Publish
from sync.messages import Prediction
from sync.names import DeviceId
from tests.edge import graphs
from tests.edge.served_windows import loaded, manifest

SPEC = WindowSpec(4, 2, 1.0, ("x", "y"), 2.0)
UNITS = {"x": Unit(9.80665 / 16384, -0.25), "y": Unit(0.1, 273.15)}
VIEW = View(source="raw", entity="who", label="what", window=SPEC, units=UNITS)
MODEL = Model(view="v", fit=(0.0, 0.5), gate=(0.5, 1.0), gates=ModelGates(min_accuracy=0.5), rollout=Rollout(canary=()))
START = 1_000_000.0
RAW = st.floats(-40_000, 40_000)  # of 64 bits: a sensor's text has more digits than a model's number


def trained(raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The windows of the first stretch, as the core cuts them from a file in the sensor's units."""
    rows = [*raw.tolist()] * 2
    table = pa.table(
        {
            "ts": np.concatenate((START + np.arange(len(raw)), START + np.arange(len(raw)))),
            "x": [x for x, _ in rows],
            "y": [y for _, y in rows],
            "who": ["w1"] * len(raw) + ["w2"] * len(raw),
            "what": ["rest"] * len(raw) + ["run"] * len(raw),
        }
    )
    found = build(VIEW, "hash", "snapshot", table, MODEL, "ts").fit
    return found.x[found.entity == "w1"]


def served(raw: npt.NDArray[np.float64], payload: bytes, binding: Binding) -> npt.NDArray[np.float32]:
    """The windows that reach the graph when a sensor sends the same numbers in one message."""
    said: list[Prediction] = []

    def publish(message: Publish) -> None:
        said.append(codec.decode(Prediction, message.payload))

    with TemporaryDirectory() as folder:
        serving = Serving()
        serving.put(graphs.MODEL, loaded(SPEC))
        buffers = Buffers(Path(folder) / "b.db", graphs.TENANT, bytes(32))
        arrival = START + len(raw) - 1
        bindings = Bindings(graphs.TENANT, DeviceId("box-1"), serving, buffers, publish, lambda: arrival)
        bindings.bind(replace(manifest(SPEC), bindings=(binding,)))
        bindings.handle("site/w1/accel", payload, 0, lambda: None)
        buffers.close()
    assert all(one.quality == "ok" for one in said)
    return np.array([one.probabilities for one in said], np.float32).reshape(-1, SPEC.size, 2)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(RAW, RAW), min_size=16, max_size=40))
def test_training_and_serving_use_one_line_of_code(taken: list[tuple[float, float]]) -> None:
    raw = np.array(taken, np.float64)
    fit = trained(raw)
    assert len(fit) >= 2
    at = START + np.arange(len(raw))
    payloads = {
        "json": orjson.dumps([{"ts": t, "x": x, "y": y} for t, (x, y) in zip(at.tolist(), raw.tolist(), strict=True)]),
        "csv": "\n".join(f"{t!r},{x!r},{y!r}" for t, (x, y) in zip(at.tolist(), raw.tolist(), strict=True)).encode(),
        "float32": raw.astype("<f4").tobytes(),
    }
    for form, payload in payloads.items():
        binding = Binding("site/{entity}/accel", "site/{entity}/motion", format=form, units=UNITS)  # type: ignore[arg-type]
        found = served(raw, payload, binding)
        assert found[: len(fit)].tobytes() == fit.tobytes(), form


def test_units_are_part_of_a_views_identity_and_views_without_keep_theirs() -> None:
    source = Source(kind="files", path="*.csv", contract="raw", time="ts")
    contract = Contract(columns={"ts": Column(type="float64")})
    plain = replace(VIEW, units={})
    assert view_hash(VIEW, source, contract) != view_hash(plain, source, contract)
    assert view_hash(VIEW, source, contract) != view_hash(replace(VIEW, units={"x": Unit(2.0)}), source, contract)
    before = "65564fd2fc33d8e812539a86e1cc2837c786964bba4782d87cce206be0dce314"  # when no view had units
    assert view_hash(plain, source, contract) == before


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": float("inf")}, {"offset": float("nan")}])
def test_a_unit_that_loses_the_number_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="units: "):
        Unit(**wrong)
