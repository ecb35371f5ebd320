"""The same windows twice: what the kernel cuts, and how far anybody else's may differ."""

from __future__ import annotations

import numpy as np

from sync.features import WindowSpec
from sync.windows import cut
from tests.sync.oracle import Event, Expected


def kernel(spec: WindowSpec, events: list[Event]) -> list[Expected]:
    ts = np.array([t for t, _, _ in events], np.float64)
    rows = np.array([[x, y] for _, x, y in events], np.float32)
    return [Expected(window.end, window.complete, window.values) for window in cut(spec, ts, rows)]


def agree(found: list[Expected], wanted: list[Expected], period: float) -> None:
    """Whole numbers and holes are the same, floats to 1e-6 of themselves, times to a thousandth of a period."""
    assert [one.complete for one in found] == [one.complete for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.values[:, 0], other.values[:, 0])
        np.testing.assert_allclose(one.values[:, 1], other.values[:, 1], rtol=1e-6, atol=0)
        assert abs(one.end - other.end) <= 1e-3 * period
