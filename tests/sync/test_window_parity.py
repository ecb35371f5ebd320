"""The window kernel against an oracle that shares no code with it: SQL over the same events, in DuckDB."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.features import WindowSpec
from tests.sync import oracle
from tests.sync.parity import agree, kernel
from tests.sync.streams import specs, streams


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_kernel_and_sql_cut_the_same_windows(data: st.DataObject) -> None:
    spec = data.draw(specs)
    events = data.draw(streams(spec.period))
    agree(kernel(spec, events), oracle.windows(spec, events), spec.period)


SPEC = WindowSpec(3, 2, 1.0, ("x", "y"), 4.0)


def test_the_oracle_by_hand() -> None:
    """A hole filled late, a repetition with another value, and a gap: rows that a person can follow."""
    times = [100.0, 102.0, 101.0, 101.0, 103.0, 104.0, 110.0, 103.5, 111.0, 112.0]
    found = oracle.windows(SPEC, [(t, n, n / 4) for n, t in enumerate(times)])
    assert [(one.end, one.complete) for one in found] == [(102.0, False), (104.0, True), (112.0, True)]
    np.testing.assert_array_equal(found[0].values[:, 0], [0, np.nan, 1])
    np.testing.assert_array_equal(found[1].values[:, 0], [1, 4, 5])
    np.testing.assert_array_equal(found[2].values, [[6, 1.5], [8, 2.0], [9, 2.25]])
