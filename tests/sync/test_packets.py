"""Our packing of a PUBLISH's properties beside paho's own, which reads it too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sync.packets import properties


@given(
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.binary(max_size=300) | st.binary(min_size=65_535, max_size=65_535),
)
def test_the_bytes_are_those_that_paho_makes_and_reads(expiry: int | None, correlation: bytes | None) -> None:
    by_name = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry is not None:
        by_name.MessageExpiryInterval = expiry
    if correlation is not None:
        by_name.CorrelationData = correlation
    ours = properties(expiry, correlation)
    assert (b"\0" if ours is None else ours.pack()) == by_name.pack()  # type: ignore[no-untyped-call]


def test_a_message_without_properties_has_none() -> None:
    assert properties(None, None) is None
    assert str(properties(60, None)) == "05020000003c"
