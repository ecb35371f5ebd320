"""Fault 17: a device was away for thirty days; assignment, timestamp and certificate have ended. It serves all the
while, installs nothing, says why, and goes on after it has joined anew.

Here the agent is given what joining leaves behind; the command itself, with a real core, is in
`tests/appliance/edge/test_joining.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge.agent import renewing
from tests.edge.device import Device, committed, new_device
from tests.edge.world import DAY, EPOCH, NOW, Core, new_identity

ENDS = NOW + 20 * DAY


def test_it_serves_installs_nothing_and_goes_on_when_it_has_joined_anew(ram: Path) -> None:
    core = Core()
    device = new_device(core, ram)
    device.identity = replace(device.identity, begins=NOW - DAY, ends=ENDS, certificate="PEM")
    device.boot().commit(core.ship(1))
    second = core.ship(2)
    core.assign(second, device.identity)  # the device will never hear of it in time
    device.cut_power()

    device.now += 30 * DAY
    device.boot(link=False)
    device.settle(30, ask=0)
    assert committed(device, 1) and renewing.state(device.identity, device.now) == "ended"
    assert device.codes()[-1] == "certificate-ended"
    device.connect()  # had a broker let it in: what is retained there has ended too
    device.settle(10, ask=0)
    assert committed(device, 1) and "refused-untrusted" in device.codes()
    device.cut_power()

    joined = _joined_anew(core, device)
    assert committed(joined, 1), "the folder keeps what it has"
    order = core.order(second, joined.identity)
    core.now = joined.now
    core.renew(joined.now)  # as it does by schedule: what it signed a month ago says nothing of today
    core.publish_trust()
    core.desire(core.assignment(order, seq=1, epoch=EPOCH + 1))
    joined.settle(10, ask=0)
    assert committed(joined, 2)
    assert joined.house.journal.counter("epoch") == EPOCH + 1


def _joined_anew(core: Core, device: Device) -> Device:
    """As `falaj edge enrol --again` leaves it: another certificate and epoch; folder and sealing key are the same."""
    ends, signing = device.now + 365 * DAY, new_identity(core.root).signing_key
    fresh = replace(device.identity, epoch=EPOCH + 1, signing_key=signing, begins=device.now, ends=ends)
    return Device(core, device.folder, fresh, now=device.now).boot()
