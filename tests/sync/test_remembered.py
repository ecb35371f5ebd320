"""What is remembered of inputs: any array comes back as it was, and a window fills the input that nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sync import codec
from sync.arrays import DTYPES
from sync.errors import Malformed
from sync.features import TensorSpec
from sync.messages import Prediction
from sync.names import ModelName
from sync.remembered import Basis, Looked, Remembered, Tensor, given, of_window, pack, size, unpack, window_of

SAID = Prediction("9f", ModelName("press"), 1.0, "ok", 0.5, release=1)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMERIC = [dtype for dtype in DTYPES.values() if dtype.kind != "O"]
ANY = st.one_of(
    st.sampled_from(NUMERIC).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
    arrays.arrays(np.object_, SHAPES, elements=st.text(st.characters(codec="utf-8"), max_size=4)),
)


@drawn(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), ANY, max_size=3))
def test_whatever_a_graph_takes_comes_back_to_the_last_bit(inputs: dict[str, np.ndarray]) -> None:
    turned = {name: array.T for name, array in inputs.items()}  # not as it lies in memory
    one = codec.decode(Remembered, codec.encode(Remembered(SAID, (), b"", inputs=pack(turned))), 2**20)
    again = {name: unpack(name, tensor) for name, tensor in one.inputs.items()}
    assert again.keys() == turned.keys() and size(again) == size(inputs)
    for name, array in turned.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
        same = array.tolist() if array.dtype.kind == "O" else array.tobytes()
        assert (again[name].tolist() if array.dtype.kind == "O" else again[name].tobytes()) == same


def test_the_window_fills_the_input_that_neither_program_nor_table_did() -> None:
    window = np.arange(8, dtype=np.float32).reshape(4, 2)
    one = of_window(SAID, window, 3.0, Basis(lookups={"ages": Looked(1, np.ones(2, "<f4").tobytes())}))
    ages, laid = TensorSpec("ages", "FP32", (-1, 2)), window_of(one)
    assert laid is not None and laid.tolist() == window.tolist() and one.arrived == 3.0
    stacked = given(one, (TensorSpec("x", "FP32", (-1, 4, 2)), ages))
    flat = given(one, (TensorSpec("x", "FP32", (-1, 8)), ages))
    assert stacked["x"].tolist() == [window.tolist()] and flat["x"].tolist() == [window.ravel().tolist()]
    assert stacked["ages"].tolist() == flat["ages"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("tensor", [
    Tensor("FP32", (2, 2), bytes(12)), Tensor("FP32", (-1, 3), bytes(12)), Tensor("FP32", (2**70,), bytes(12)),
    Tensor("INT8", (1,) * 100, bytes(1)), Tensor("BYTES", (1,), b"\xc1"), Tensor("BYTES", (2,), b"\x91\xa1x"),
    Tensor("FP64", (1,), bytes(7)),
])  # fmt: skip
def test_what_is_no_array_is_refused(tensor: Tensor) -> None:
    with pytest.raises(Malformed, match="'x'"):
        unpack("x", tensor)
