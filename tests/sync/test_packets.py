"""Our packing of a PUBLISH's properties beside paho's own, which reads it too."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import tomllib
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sync import packets
from sync.packets import Client, properties

ROOT = Path(__file__).resolve().parents[2]
OVERRIDDEN = sorted(name for name in vars(Client) if name.startswith("_") and not name.startswith("__"))


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


# --- what we take of paho that it does not promise ---


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_there_and_takes_what_it_took(name: str) -> None:
    """A method that paho has renamed is never called, and nobody would see that a packet has no bound any more."""
    theirs, ours = getattr(paho.Client, name, None), getattr(Client, name)
    assert callable(theirs), f"paho has no {name} any more: see sync/packets.py"
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_every_private_name_that_is_used_is_paho_s() -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    tree = ast.parse(Path(packets.__file__).read_text())
    used = {
        node.attr
        for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "Client"
        for node in ast.walk(one)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }  # fmt: skip
    assert len(OVERRIDDEN) >= 2 and used
    assert [name for name in sorted(used) if not hasattr(client, name)] == []
    assert "remaining_length" in client._in_packet


def test_paho_is_the_one_that_was_looked_at() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = (Requirement(one) for one in wanted if one.startswith("paho-mqtt"))
    assert bound.specifier.contains(importlib.metadata.version("paho-mqtt"))
    assert any(one.operator == "<" for one in bound.specifier), "overridden names may go with any minor version"
