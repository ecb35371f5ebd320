"""What a fetch that waits costs: next to nothing, for as long as it waits; and an obstacle is met ever less often."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.agent import loading, patience
from edge.agent.fetching import RETRY, UNCHANGED
from edge.agent.patience import FIRST, LONGEST, Patience
from edge.states import Failure, FailureClass, LinkChanged, Listen, Phase, Proof, Prove
from sync import chunks, sealing, topics
from sync.errors import Damaged
from sync.manifest import Profile
from sync.names import TrustFile
from tests.edge.device import Device, committed, new_device
from tests.edge.world import DAY, DEVICE, TENANT, Core, Shipped

TICK = 0.25


class Patient(Device):
    """A device that counts what it asks the broker for."""

    asked: list[str]

    def listen(self, action: Listen) -> None:
        self.asked += [pattern for pattern in action.patterns if "/trust/" in pattern]
        super().listen(action)

    def wait(self, seconds: float, step: float = TICK) -> None:
        """Lets time pass as the agent's process does."""
        for _ in range(int(seconds / step)):
            self.now += step
            self.carry_out(self.agent.tick(self.now))
            self.core.hub.run()

    def reads(self, seconds: float, step: float = TICK) -> bool:
        """Whether it reads the files that it has in this time; its folder is taken away for that."""
        shutil.rmtree(self.house.trust.folder, ignore_errors=True)
        self.wait(seconds, step)
        return self.house.trust.folder.exists()


@pytest.fixture
def patient(core: Core, ram: Path) -> Patient:
    """Release 1 serves, release 2 is on the broker."""
    made = new_device(core, ram)
    device = Patient(core, ram, made.identity)
    device.asked = []
    device.boot().commit(core.ship(1))
    device.acknowledge(999)
    device.asked.clear()
    return device


@pytest.fixture
def second(core: Core, patient: Patient) -> Shipped:
    return core.ship(2)


def withhold(core: Core, device: Patient, shipped: Shipped) -> str:
    """The broker does not have the file that lists the newest release; the device is told to fetch it."""
    name = next(n for n in sorted(core.files, reverse=True) if n.endswith(".model.motion.json"))
    topic = topics.trust(TENANT, TrustFile(name))
    device.house.trust.files.pop(name, None)
    core.hub.retained.pop(topic)
    core.hub.run()
    device.house.trust.files.pop(name, None)
    core.assign(shipped, device.identity)
    core.hub.run()
    return topic


def test_a_file_that_does_not_come_is_asked_for_now_and_then_and_nothing_is_read(
    core: Core, patient: Patient, second: Shipped
) -> None:
    topic = withhold(core, patient, second)
    patient.wait(2 * RETRY)
    patient.asked.clear()
    assert not patient.reads(6 * RETRY), "the same files say the same"
    assert patient.asked.count(topic) <= 7 and len(patient.asked) <= 7, "each lacking name once every RETRY"
    assert patient.state.phase is Phase.FETCHING and "has not arrived" in patient.state.reason
    core.publish_trust()
    patient.settle(8, ask=0)
    assert committed(patient, 2)


def test_a_name_that_an_index_invents_is_not_waited_for(core: Core, patient: Patient, second: Shipped) -> None:
    core.files["9.made-up.json"] = b"{}"
    core.publish_trust()
    core.hub.retained.pop(topics.trust(TENANT, TrustFile("9.made-up.json")))
    core.hub.run()
    patient.house.trust.files.pop("9.made-up.json", None)
    core.assign(second, patient.identity)
    patient.settle(int(RETRY) + 8, ask=0)
    assert committed(patient, 2)


def test_files_whose_time_is_over_are_read_every_few_minutes_and_new_ones_at_once(
    core: Core, patient: Patient, second: Shipped
) -> None:
    core.renew(core.now - 30 * DAY)
    core.publish_trust()
    core.assign(second, patient.identity)
    patient.settle(3)
    assert patient.state.phase is Phase.FETCHING and patient.codes().count("trust-expired") == 1
    patient.asked.clear()
    assert not patient.reads(UNCHANGED / 2) and patient.asked == []
    assert patient.reads(UNCHANGED), "the clock may have been set right"
    assert patient.codes().count("trust-expired") == 1
    core.renew()
    core.publish_trust()
    patient.settle(8, ask=0)
    assert committed(patient, 2)


def test_while_the_line_is_down_nothing_is_asked_for_or_read(core: Core, patient: Patient, second: Shipped) -> None:
    topic = withhold(core, patient, second)
    patient.core.hub._clients.pop(DEVICE)
    patient.carry_out(patient.agent.handle(LinkChanged(False), patient.now))
    patient.asked.clear()
    assert not patient.reads(10 * RETRY) and patient.asked == []
    core.publish_trust()
    patient.connect()
    assert topic in patient.asked, "a new session is asked at once"
    patient.settle(8, ask=0)
    assert committed(patient, 2)


def test_an_obstacle_that_lasts_costs_ever_fewer_proofs_and_one_event(
    core: Core, patient: Patient, second: Shipped
) -> None:
    """Half a day without room: some twenty proofs, not thousands, and the report says why it waits."""
    proofs: list[Prove] = []

    def crowded(job: Prove) -> Proof | Failure:
        proofs.append(job)
        return Failure(FailureClass.ENVIRONMENT, "no-room", "it takes 9 MiB, there are 8")

    patient.prover = crowded
    core.assign(second, patient.identity)
    for _ in range(720):
        patient.now += 59.0
        patient.settle(1)
    assert 10 < len(proofs) < 25 and patient.codes().count("no-room") == 1
    assert patient.state.phase is Phase.STAGED and patient.state.reason == "it takes 9 MiB, there are 8"
    before = len(proofs)
    core.assign(second, patient.identity)
    patient.settle(2)
    assert len(proofs) == before + 1, "a newer assignment may have made room"
    assert patient.codes().count("no-room") == 1


def test_a_signed_release_that_unpacks_to_more_than_its_profile_is_not_unpacked(patient: Patient) -> None:
    """Zeros of a hundred MiB lie in a hundred KiB; the agent's own process must not hold them."""
    serving = patient.state.serving
    assert serving is not None
    plain, key = bytes(loading.LEAST_MB + 1 << 20), bytes(range(32))
    name = chunks.digest(plain)
    blob = chunks.describe(sealing.seal(plain, key, TENANT, name, pack=True), name)
    for index, piece in enumerate(chunks.split(sealing.seal(plain, key, TENANT, name, pack=True))):
        patient.house.artifacts.put(blob, index, piece)
    patient.house.artifacts.finish(blob)
    context = sealing.wrap_context(TENANT, DEVICE, blob.sealed)
    wrapped = sealing.wrap(key, sealing.public_half(patient.identity.sealing_key), context)
    small = replace(serving.manifest, golden=blob, profile=Profile(rss_mb=1))
    keys = {**serving.keys, blob.sealed: base64.b64encode(wrapped).decode()}
    with pytest.raises(Damaged, match="are allowed"):
        loading.open_slot(patient.house, replace(serving, manifest=small, keys=keys))


def test_another_obstacle_is_news_and_is_met_with_short_pauses() -> None:
    waits = Patience()
    assert waits.put_off("m", "no-room", 0.0) and waits.holds("m", FIRST - 1) and not waits.holds("m", FIRST)
    assert not waits.put_off("m", "no-room", 0.0) and waits.holds("m", 2 * FIRST - 1)
    for _ in range(20):
        assert not waits.put_off("m", "no-room", 0.0)
    assert waits.holds("m", LONGEST - 1) and not waits.holds("m", LONGEST)
    assert waits.put_off("m", "disk-refused", 0.0) and not waits.holds("m", FIRST)
    waits.until("m", 9.0)
    assert waits.holds("m", 8.0) and not waits.put_off("m", "disk-refused", 0.0), "to wait is no obstacle"
    waits.drop("m")
    assert not waits.holds("m", 0.0) and waits.put_off("m", "disk-refused", 0.0)
    later = FIRST + LONGEST
    assert not waits.put_off("m", "disk-refused", later) and waits.times("m") == 2
    later += 2 * FIRST + LONGEST + 1
    assert waits.put_off("m", "disk-refused", later) and waits.times("m") == 1, "met again after long"
    assert waits.put_off("m/2", "no-memory", later) and waits.put_off("m/3", "no-memory", later)
    waits.rest("m/3", later + 99.0)
    waits.hurry()
    assert waits.holds("m/3", later + 98.0) and not waits.holds("m/2", later), "what rests is not hurried"
    waits.only("m/", {"m/3"})
    assert [waits.times(name) for name in ("m", "m/2", "m/3")] == [1, 0, 1]
    assert patience.FIRST == RETRY
