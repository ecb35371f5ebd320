"""Delivery as the agent does it: the variant its CPU favours and no other, nothing that the broker does not take."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.artifacts import Artifacts
from edge.states import LinkChanged, Phase
from sync import codec, topics
from sync.manifest import LIMIT, Blob, Manifest, Variant
from sync.messages import EVENT
from sync.names import Digest, Kind
from tests.edge.device import Device, new_device, serving_device
from tests.edge.world import MODEL, TENANT, Core, Shipped, new_identity, table_of

FAST = "avx512vnni"


def two_variants(core: Core) -> tuple[Shipped, Shipped]:
    """Release 2 with a variant for any CPU and one for a fast CPU; and the release that gave the second."""
    plain, fast = core.ship(2), core.ship(3, (*table_of(2), 9.0))
    first, second = (codec.decode(Manifest, s.manifest, LIMIT) for s in (plain, fast))
    both = (Variant("fp32", (FAST,), second.variants[0].blob), first.variants[0])
    manifest = codec.encode(replace(first, number=4, variants=both))
    shipped = Shipped(4, manifest, plain.keys | fast.keys, plain.sealed | fast.sealed)
    core.approve(shipped)
    return shipped, fast


@pytest.mark.parametrize("flags", [frozenset[str](), frozenset({FAST})], ids=["any", "fast"])
def test_only_the_variant_that_the_cpu_favours_is_fetched(tmp_path: Path, flags: frozenset[str]) -> None:
    core = Core()
    device = dataclasses.replace(new_device(core, tmp_path / "device"), flags=flags)
    shipped, _ = two_variants(core)
    variants = {v.needs: v.blob.sealed for v in codec.decode(Manifest, shipped.manifest, LIMIT).variants}
    asked: set[str] = set()
    listen = device.listen

    def watching(action: object) -> None:
        asked.update(p.split("/")[4] for p in action.patterns if topics.is_chunk(p))  # type: ignore[attr-defined]
        listen(action)  # type: ignore[arg-type]

    device.listen = watching  # type: ignore[method-assign,assignment]
    device.boot()
    core.assign(shipped, device.identity)
    device.settle(8)
    mine, other = (variants[(FAST,)], variants[()]) if flags else (variants[()], variants[(FAST,)])
    assert mine in asked and other not in asked
    assert mine in device.house.artifacts.have() and other not in device.house.artifacts.have()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return serving_device(Core(), tmp_path / "device")


def limited(device: Device, limit: int) -> None:
    device.carry_out(device.agent.handle(LinkChanged(False), device.now))
    device.carry_out(device.agent.handle(LinkChanged(True, session=7, limit=limit), device.now))
    device.core.hub.run()


def test_a_record_larger_than_the_broker_takes_is_put_aside_and_those_behind_it_go(device: Device) -> None:
    sent: list[str] = []
    publish = device.link.publish

    def watching(message: object) -> None:
        sent.append(message.topic)  # type: ignore[attr-defined]
        assert len(message.payload) < 4096  # type: ignore[attr-defined]
        publish(message)  # type: ignore[arg-type]

    device.link.publish = watching  # type: ignore[method-assign,assignment]
    assert device.house.outbox.add(Kind("metrics"), {"text": "x" * 6000}, device.now)
    assert device.house.outbox.add(Kind("metrics"), {"text": "small"}, device.now)
    limited(device, 4096)
    device.settle(3)
    assert [(kind, n) for kind, n, _, _ in device.house.outbox.quarantined()] == [("metrics", 1)]
    assert "record-poisoned" in device.codes() and device.answering == 1
    assert sent.count(topics.up(TENANT, device.identity.device, Kind("metrics"))) == 2, "a gap and the one behind it"


def test_a_report_larger_than_the_broker_takes_is_told_once_a_session(device: Device) -> None:
    limited(device, 1024)
    for _ in range(3):
        device.house.dirty = True
        device.settle(2)
    assert device.codes().count("report-too-large") == 1 and device.house.outbox.waiting(EVENT)
    assert device.state.model == MODEL and device.answering == 1


class Counting(Artifacts):
    """Counts how often each blob is read and opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.openings = Counter[Digest]()

    def opened(self, blob: Blob, unseal: Callable[[BufferedIOBase], bytes]) -> bytes:
        self.openings[blob.sealed] += 1
        return super().opened(blob, unseal)


def test_what_came_is_opened_once_on_its_way_to_the_child(tmp_path: Path) -> None:
    core = Core()
    shipped = core.ship(1)
    device = Device(core, tmp_path, new_identity(core.root), prover=lambda job: None, artifacts_kind=Counting).boot()
    core.assign(shipped, device.identity)
    device.settle(3)
    assert device.state.phase is Phase.PROVING
    assert isinstance(device.house.artifacts, Counting)
    assert device.house.artifacts.openings == dict.fromkeys(shipped.sealed, 1)
