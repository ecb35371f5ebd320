"""The certificate is asked for in time, taken from the assignment alone, and its end stops nothing that runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance import certificates
from edge.agent import renewing
from edge.agent.ports import Outside
from edge.states import CLOCK_FLOOR, Action, Install
from sync import codec, roles
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.messages import CSR, Record
from tests.edge.device import Device, committed, new_device
from tests.edge.world import DAY, DEVICE, EPOCH, NOW, TENANT, Core


class Papers(Device):
    """A device that keeps what it is told to install instead of checking it."""

    def carry_out(self, actions: list[Action]) -> None:
        self.came = [*getattr(self, "came", []), *(a.certificate for a in actions if isinstance(a, Install))]
        super().carry_out([a for a in actions if not isinstance(a, Install)])

    def requests(self) -> list[bytes]:
        pending = self.house.outbox.pending(100)
        return [bytes(codec.decode(Record, document).body) for kind, _, document in pending if kind == CSR]


def start(tmp_path: Path, *, left: float, life: float = 90 * DAY) -> Papers:
    """A device whose certificate ends in `left` seconds."""
    core = Core()
    made = new_device(core, tmp_path / "device")
    own = replace(made.identity, certificate="the first", begins=NOW + left - life, ends=NOW + left)
    device = Papers(core, made.folder, own)
    device.boot()
    device.house.outside = Outside(csr=lambda: certificates.request(DEVICE, own.signing_key))
    return device


@pytest.fixture
def due(tmp_path: Path) -> Papers:
    return start(tmp_path, left=29 * DAY)


def test_a_certificate_is_asked_for_when_a_third_is_left(tmp_path: Path) -> None:
    device = start(tmp_path, left=31 * DAY).settle()
    assert device.requests() == []
    device.now += 2 * DAY
    (envelope,) = device.settle().requests()
    asked = roles.verify(envelope, RENEWAL_TYPE, RenewalRequest, [roles.signer(device.identity.signing_key).public_key])
    assert (asked.tenant, asked.device, asked.epoch) == (TENANT, DEVICE, EPOCH)


def test_it_is_asked_once_and_again_after_hours_when_the_core_has_it(due: Papers) -> None:
    due.settle(5)
    assert len(due.requests()) == 1
    due.house.outbox.acknowledged(CSR, EPOCH, 1)
    assert due.settle().requests() == []
    due.now += renewing.AGAIN
    assert len(due.settle().requests()) == 1


def test_a_power_cut_neither_loses_nor_doubles_the_request(due: Papers) -> None:
    due.settle()
    due.cut_power()
    due.boot()
    due.house.outside = Outside(csr=lambda: certificates.request(DEVICE, due.identity.signing_key))
    assert len(due.settle().requests()) == 1


def test_the_answer_of_the_director_is_handed_over_once(due: Papers) -> None:
    due.core.desire(due.core.assignment(certificate="the next"))
    due.settle()
    assert due.came == ["the next"]
    renewing.installed(due.house, replace(due.identity, certificate="the next", ends=NOW + 365 * DAY), due.now)
    due.core.desire(due.core.assignment(certificate="the next"))
    due.settle()
    assert due.came == ["the next"] and "certificate-installed" in due.codes()


def test_one_that_the_disk_refused_is_tried_again_and_a_wrong_one_is_not(due: Papers) -> None:
    """The core answers every request with the same certificate: without another try the device would be cut off in the
    end, for a disk that was full one day."""
    due.core.desire(due.core.assignment(certificate="the next"))
    due.settle()
    renewing.refused(due.house, "No space left on device", due.now, again=True)
    assert due.settle(5).came == ["the next"]  # type: ignore[attr-defined]
    due.now += renewing.AGAIN
    assert due.settle(5).came == ["the next"] * 2  # type: ignore[attr-defined]
    renewing.refused(due.house, "it is for another key", due.now)
    due.now += renewing.AGAIN
    assert due.settle(5).came == ["the next"] * 2  # type: ignore[attr-defined]
    due.core.desire(due.core.assignment(certificate="another"))
    assert due.settle(5).came[-1] == "another"  # type: ignore[attr-defined]


def test_it_is_handed_over_again_after_a_cut_before_it_was_kept(due: Papers) -> None:
    due.core.desire(due.core.assignment(certificate="the next"))
    due.settle()
    due.cut_power()
    due.came.clear()
    due.boot()
    assert due.settle().came == ["the next"]  # type: ignore[attr-defined]


def test_nobody_but_the_director_answers(due: Papers) -> None:
    due.core.desire(due.core.assignment(certificate="evil", by=roles.new_signing_key()))
    assert due.settle().came == []  # type: ignore[attr-defined]


def test_an_ended_certificate_is_told_once_and_serving_goes_on(tmp_path: Path) -> None:
    device = start(tmp_path, left=DAY)
    shipped = device.core.ship(1)
    device.core.assign(shipped, device.identity)
    device.settle(20, ask=0)
    assert committed(device, 1)
    device.now += 3 * DAY
    device.settle(3, ask=0)
    assert device.codes().count("certificate-ended") == 1
    assert device.answering == 1
    text = renewing.words(device.identity, device.now)
    assert "falaj device replace press-1" in text and "falaj edge enrol TOKEN --again" in text


def test_without_a_clock_nothing_is_said_of_certificates(tmp_path: Path) -> None:
    device = start(tmp_path, left=DAY)
    device.now = CLOCK_FLOOR - 40 * 365 * DAY
    device.settle()
    assert device.requests() == [] and "certificate-ended" not in device.codes()


def test_how_a_certificate_stands(due: Papers) -> None:
    own = due.identity
    states = [renewing.state(own, now) for now in (own.begins, own.ends - 31 * DAY, own.ends - 1, own.ends)]
    assert states == ["valid", "valid", "ends-soon", "ended"]
    assert "not known" in renewing.words(replace(own, ends=float("inf")), NOW)
    assert "valid until" in renewing.words(own, NOW)
    renewing.refused(due.house, "for another key", NOW)
    assert due.codes()[-1] == "certificate-refused"
