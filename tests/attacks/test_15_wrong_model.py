"""Attack 15: a good signature under the wrong model. Who chooses among signed releases (a hacked core) sends a device
one that its owner signed for another name, tenant, kind of device, agent or schema. Signed fields say what for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge.states import Phase
from sync import codec
from sync.features import TensorSpec
from sync.manifest import LIMIT, Manifest, Requires, all_labels, unfit
from sync.names import ModelName, TenantId
from tests.attacks.field import Field
from tests.edge.device import committed
from tests.edge.world import MODEL, Shipped

OTHER = ModelName("brake")


def sent(field: Field, shipped: Shipped, *codes: str, known: bool = False, **order: Any) -> None:
    """Assigned by the director, and refused: release 2 answers as before, and one alarm says why. `known`: it is what
    it says, so the device also remembers that it refused it."""
    device, journal = field.device, field.device.house.journal
    field.core.assign(shipped, device.identity, **order)
    device.settle(4, ask=0)
    assert device.answering == 2 and device.state.serving is not None and device.state.serving.release.number == 2
    assert [e.code for e in device.events() if e.severity == "alarm"] == list(codes)
    assert bool(journal.quarantined(MODEL)) == known
    if known:
        assert committed(device, 2) and device.state.phase is Phase.STEADY


@pytest.mark.parametrize(
    "lie",
    [{"model": OTHER}, {"number": 9}, {"tenant": TenantId("rival")}],
    ids=["name", "number", "tenant"],
)
def test_15_a_manifest_that_is_another_than_it_was_signed_as_is_refused(field: Field, lie: dict[str, Any]) -> None:
    sent(field, field.signed_as(field.core.ship(3), **lie), "refused-untrusted")


def test_15_a_release_of_another_model_does_not_pass_under_this_name(field: Field) -> None:
    """Signed, for the same tenant, by the role of its own model: that role has no word on this one."""
    sent(field, field.core.ship(3, model=OTHER), "refused-untrusted")


@pytest.mark.parametrize(
    "requires",
    [Requires(labels=("class=press",)), Requires(labels=("class=watch", "site=north")), Requires(agent="99.1")],
    ids=["class", "one of two labels", "agent"],
)
def test_15_a_release_for_other_devices_or_newer_agents_is_refused(field: Field, requires: Requires) -> None:
    field.device.house.box = replace(field.device.house.box, labels=frozenset({"class=watch"}))
    sent(field, field.signed_as(field.core.ship(3), requires=requires), "wrong-device", known=True)


def test_15_the_core_cannot_say_what_a_device_is(field: Field) -> None:
    """Labels are the device's own settings, and what it joined as; nothing in an assignment changes them."""
    wanted = field.signed_as(field.core.ship(3), requires=Requires(labels=("class=watch",)))
    sent(field, wanted, "wrong-device", known=True)
    field.device.house.box = replace(field.device.house.box, labels=frozenset({"class=watch"}))
    field.core.assign(wanted, field.device.identity, retry=1)
    field.device.settle(8, ask=0)
    assert committed(field.device, 3), "the same release, on a device that it was signed for"


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("j", "INT64", (-1,)),),
        (TensorSpec("i", "FP32", (-1,)),),
        (TensorSpec("i", "INT64", (-1, 4)),),
        (TensorSpec("i", "INT64", (-1,)), TensorSpec("more", "FP32", (-1,))),
    ],
    ids=["name", "type", "shape", "count"],
)
def test_15_a_graph_of_another_schema_than_its_manifest_is_refused(
    field: Field, inputs: tuple[TensorSpec, ...]
) -> None:
    sent(field, field.signed_as(field.core.ship(3), inputs=inputs), "schema-mismatch", known=True)


@pytest.mark.parametrize(
    ("requires", "agent", "fits"),
    [
        ("", "0", True),
        ("0.1", "0.1.0", True),
        ("0.1.1", "0.1", False),
        ("0.10", "0.9.9", False),
        ("1", "1.0.dev3", True),
        ("1", "unknown", False),
    ],
)
def test_15_versions_are_compared_as_numbers(requires: str, agent: str, fits: bool) -> None:
    assert (unfit(Requires(agent=requires), (), agent) == "") == fits


@pytest.mark.parametrize(
    ("own", "given", "wanted"),
    [
        ((), ("class=press", "spare"), {"class=press", "spare"}),
        (("class=watch",), ("class=press", "site=north"), {"class=watch", "site=north"}),
        (("press",), ("press", "presses=2"), {"press", "presses=2"}),
    ],
)
def test_15_what_a_device_joined_as_changes_nothing_that_it_says_itself(
    own: tuple[str, ...], given: tuple[str, ...], wanted: set[str]
) -> None:
    assert all_labels(own, given) == wanted


def test_15_what_a_release_requires_is_signed_and_read_back(field: Field) -> None:
    shipped = field.signed_as(field.core.ship(3), requires=Requires(("class=watch",), "0.1"))
    manifest = codec.decode(Manifest, shipped.manifest, LIMIT)
    assert manifest.requires == Requires(("class=watch",), "0.1")
    for text in ("new", "1.2.3.4", "1.", "-1"):
        with pytest.raises(ValueError, match="is no version"):
            Requires(agent=text)
