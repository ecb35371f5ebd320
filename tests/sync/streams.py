"""Streams of two channels as lines make them of sensors: jitter, holes, gaps, late rows, rows that come again."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from sync.features import WindowSpec
from tests.sync.oracle import Event

BASE = 1_700_000_000

specs = st.builds(
    lambda size, step, period, gap: WindowSpec(size, min(step, size), period, ("x", "y"), gap * period),
    st.integers(1, 8), st.integers(1, 8), st.sampled_from([1.0, 0.02, 60.0]), st.sampled_from([1.6, 3.5, 8.5]),
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn, period: float, longest: int = 40) -> list[Event]:
    """Events in the order of their arrival: `x` tells each apart, `y` is any float that a sensor may send."""
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 1, 2, 3, 6, 12]), min_size=10, max_size=longest))
    slots, events = round(BASE / period) + np.cumsum(steps), list[tuple[int, Event]]()
    for place, slot in enumerate(slots.tolist()):
        for again in range(1 + draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
            late = draw(st.sampled_from([0, 0, 0, 1, 2, 5])) + again
            jitter = draw(st.sampled_from([0.0, 0.0, 0.2, -0.2, 0.07]))
            value = draw(st.floats(-1e6, 1e6, width=32))
            events.append((place + late, (period * (slot + jitter), len(events) - 1000, value)))
    return [event for _, event in sorted(events, key=lambda one: one[0])]
