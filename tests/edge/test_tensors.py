"""Numbers on the wire: what JSON says is read alike whichever way is quicker."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.inference import tensors
from edge.runtime import BadInput

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**80), 2**80), st.booleans(), st.just("1.5")
)
MANY = 300  # numbers: more than are packed one by one


def read(data: list[object], count: int) -> bytes | str:
    try:
        return tensors.from_json("x", "FP32", (len(data),), data)[:count].tobytes()
    except BadInput as error:
        return str(error)


@given(st.lists(NUMBERS, min_size=1, max_size=40))
def test_few_numbers_are_read_as_many_are(data: list[object]) -> None:
    count = len(data)
    filled = data + [0.5] * (MANY - count)
    assert read(data, count) == read(filled, count) or float not in map(type, data)


def test_a_number_is_rounded_once_and_one_too_large_is_refused() -> None:
    few = [0.1, -0.0, 1e-46, 3.4028235677973366e38]
    assert read(few[:3], 3) == np.array(few[:3], np.float32).tobytes()
    assert isinstance(read(few, 4), str), "halfway beyond the largest there is"
    for data in ([1e39], [1.0, -1e300], [10**400], [True], ["1.0"], [[1.0], 2.0]):
        assert isinstance(read(data, 1), str), data
