"""Fault 25: an integer kernel counts differently on this CPU. The golden vectors show it; the next signed variant is
fetched and proved, the float one last, and only a release without any that is fit is refused."""

from __future__ import annotations

from pathlib import Path

from edge.states import Phase, Proof, Prove
from tests.edge.device import Device, committed, honest_prover, serving_device
from tests.edge.power import Fuse, PowerCut
from tests.edge.world import MODEL, Core, Shipped, lookup

OFF = lookup(2.0, 2.75, 2.25, 0.0)  # what the integer kernel makes of it here


def precision(device: Device) -> str:
    assert device.state.serving is not None
    release, manifest = device.state.serving.release, device.state.serving.manifest
    return next(v.precision for v in manifest.variants if v.blob.plain == release.artifact)


def test_the_float_variant_takes_the_place_of_an_integer_one_that_counts_differently(device: Device) -> None:
    shipped = device.core.ship(2, int8=OFF)
    device.core.assign(shipped, device.identity)
    device.settle(10, ask=0)
    assert committed(device, 2) and precision(device) == "fp32"
    assert device.house.journal.quarantined(MODEL) == ()
    refused = next(event for event in device.events() if event.code == "variant-refused")
    assert refused.facts["criterion"] == "golden-mismatch" and "fp32 is tried" in refused.text
    report = device.reported().models[MODEL]
    assert report.validated is not None and report.serving is not None
    assert report.validated.artifact == report.serving.artifact
    device.cut_power()
    device.boot(link=False)
    assert committed(device, 2) and precision(device) == "fp32", "what was proved is what is loaded"


def test_an_integer_variant_that_counts_right_is_what_serves(device: Device) -> None:
    device.core.assign(device.core.ship(2, int8=lookup(2.0, 2.5, 2.25, 0.0)), device.identity)
    device.settle(8, ask=0)
    assert committed(device, 2)
    assert precision(device) == "int8-static" and "variant-refused" not in device.codes()


def test_a_variant_that_is_too_slow_here_gives_way_as_well(device: Device) -> None:
    def slow_integers(job: Prove) -> object:
        spent = 900.0 if job.request.precision == "int8-static" else 1.0
        return Proof(True, 0.0, spent, 1.0, cpu_ms=spent)

    device.prover = slow_integers  # type: ignore[assignment]
    device.core.assign(device.core.ship(2, int8=lookup(2.0, 2.5, 2.25, 0.0)), device.identity)
    device.settle(10, ask=0)
    assert committed(device, 2) and precision(device) == "fp32"


def test_a_release_without_a_variant_that_is_fit_is_refused(device: Device) -> None:
    shipped = device.core.ship(2, (2.0, 2.75, 2.25), golden_table=(2.0, 2.5, 2.25), int8=OFF)
    device.core.assign(shipped, device.identity)
    device.settle(10, ask=0)
    assert committed(device, 1)
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {shipped.digest}
    assert device.codes()[-3:] == ["variant-refused", "golden-mismatch", "returned"]


def test_a_new_attempt_begins_with_the_first_variant_again(device: Device) -> None:
    shipped = device.core.ship(2, (2.0, 2.75, 2.25), golden_table=(2.0, 2.5, 2.25), int8=lookup(2.0, 2.5, 2.25, 0.0))
    device.prover = lambda job: Proof(False, 1.0, 1.0, 1.0, "a bad day")
    device.core.assign(shipped, device.identity)
    device.settle(10, ask=0)
    assert committed(device, 1)
    device.prover = honest_prover
    device.core.assign(shipped, device.identity, retry=1)
    device.settle(10, ask=0)
    assert committed(device, 2) and precision(device) == "int8-static"


def test_a_power_cut_at_any_write_does_not_bring_the_refused_variant_back(ram: Path) -> None:
    core = Core()
    shipped = None
    for n in range(1, 40):
        fuse = Fuse()
        device = serving_device(core, ram / str(n))
        shipped = shipped or core.ship(2, int8=OFF)
        device.cut_power()
        device.journal_kind, device.artifacts_kind = fuse.journal(), fuse.artifacts()
        fuse.left = n
        try:
            _play(device, shipped)
        except PowerCut:
            device.cut_power()
            device.boot(link=False)
            assert device.state.phase is not Phase.NO_MODEL and device.answering in (1, 2)
            device.connect()
            device.settle(10, ask=0)
        assert committed(device, 2) and precision(device) == "fp32", f"cut at write {n}"
        device.cut_power()
        if not fuse.blown:
            break
    assert fuse.left is not None, "every write was cut once"


def _play(device: Device, shipped: Shipped) -> None:
    device.core.assign(shipped, device.identity)
    device.boot()
    device.settle(10, ask=0)
