"""New roots reach the agent by the link alone: the director's key changes with them, durably."""

from __future__ import annotations

from tuf.api.metadata import Metadata, Root

from edge import roots
from sync import roles, topics
from sync.link import Message
from sync.names import TrustFile
from sync.roles import DIRECTOR_FIELD
from tests.edge.device import Device, committed
from tests.edge.world import MODEL, TENANT, Core


def next_root(core: Core, *, director: bytes | None = None, signer: bytes | None = None) -> TrustFile:
    """Signs the root that follows the newest, perhaps with another director; it is published by whoever calls."""
    newest = max((n for n in core.files if n.endswith(".root.json")), key=lambda n: int(n.split(".")[0]))
    root: Metadata[Root] = Metadata.from_bytes(core.files[newest])
    root.signed.version += 1
    if director is not None:
        key = roles.signer(director).public_key
        root.signed.unrecognized_fields[DIRECTOR_FIELD] = {key.keyid: key.to_dict()}
        core.director = director
    root.signatures.clear()
    root.sign(roles.signer(signer or core.owner))
    name = TrustFile(f"{root.signed.version}.root.json")
    core.files[name] = root.to_bytes()
    return name


def publish(core: Core, name: TrustFile) -> None:
    core.retain(topics.trust(TENANT, name), core.files[name])


def test_a_lost_director_is_replaced_without_an_order_of_its_own(core: Core, device: Device) -> None:
    before = device.house.journal.counter("desired_seq")
    publish(core, next_root(core, director=roles.new_signing_key()))
    device.settle(2, ask=0)
    assert committed(device, 1) and device.house.assignment is None
    assert "director-replaced" in [event.code for event in device.events()]
    core.seq = 0  # the new director counts from anywhere
    core.assign(core.ship(2), device.identity)
    device.settle(9, ask=0)
    assert committed(device, 2)
    assert device.house.journal.counter("desired_seq") == 1 <= before


def test_the_new_directors_order_may_come_before_the_root(core: Core, device: Device) -> None:
    shipped = core.ship(2)
    name = next_root(core, director=roles.new_signing_key())
    core.assign(shipped, device.identity)
    device.settle(2, ask=0)
    assert committed(device, 1) and "refused-untrusted" in [event.code for event in device.events()]
    publish(core, name)
    device.settle(9, ask=0)
    assert committed(device, 2)


def test_the_old_director_is_nobody_after_a_restart_either(core: Core, device: Device) -> None:
    old = core.director
    publish(core, next_root(core, director=roles.new_signing_key()))
    device.settle(2, ask=0)
    device.cut_power()
    device.boot(link=False)
    assert device.house.trust.root == core.files["2.root.json"]
    order = core.order(core.ship(2), device.identity)
    replay = core.assignment(order, seq=99, by=old)
    device.carry_out(
        device.agent.handle(Message(topics.desired(TENANT, device.identity.device), replay, 1), device.now)
    )
    device.settle(2, ask=0)
    assert device.house.assignment is None and committed(device, 1)


def test_a_root_of_a_stranger_changes_nothing_and_the_right_one_is_still_heard(core: Core, device: Device) -> None:
    name = next_root(core, signer=roles.new_signing_key())
    publish(core, name)
    device.settle(2, ask=0)
    assert device.house.trust.root == core.root and device.house.journal.root() is None
    assert "refused-untrusted" in [event.code for event in device.events()]
    del core.files[name]
    publish(core, next_root(core))
    device.settle(2, ask=0)
    assert device.house.trust.root == core.files["2.root.json"] == device.house.journal.root()


def test_roots_are_followed_one_after_the_other_while_the_director_stays(core: Core, device: Device) -> None:
    for _ in range(3):
        publish(core, next_root(core))
        device.settle(1, ask=0)
    assert device.house.journal.high_water()["root"] == 4
    assert device.house.assignment is not None and committed(device, 1)
    core.assign(core.ship(2), device.identity)
    device.settle(9, ask=0)
    assert committed(device, 2)


def test_a_device_that_was_away_finds_all_roots_at_once(core: Core, device: Device) -> None:
    device.cut_power()
    for director in (roles.new_signing_key(), roles.new_signing_key()):
        publish(core, next_root(core, director=director))
    core.assign(core.ship(2), device.identity)
    device.boot().settle(12, ask=0)
    assert committed(device, 2)
    assert roots.next_root(device.house.trust.root) == "4.root.json"
    assert device.house.deployments[MODEL].serving is not None


def test_a_mark_that_a_thief_counted_up_is_settled_by_the_root_alone(core: Core, device: Device) -> None:
    device.house.journal.accept(MODEL, 1, device.house.journal.record(MODEL, 1), {"timestamp": 2**62})
    root: Metadata[Root] = Metadata.from_bytes(core.files["1.root.json"])
    online = roles.signer(roles.new_signing_key())
    root.signed.roles["timestamp"].keyids.clear()
    root.signed.add_key(online.public_key, "timestamp")
    root.signed.version = 2
    root.signatures.clear()
    root.sign(roles.signer(core.owner))
    core.files["2.root.json"] = root.to_bytes()
    core.online = type(core.online)(core.online.snapshot, online)
    publish(core, TrustFile("2.root.json"))
    device.settle(2, ask=0)
    assert "timestamp" not in device.house.journal.high_water()
    core.assign(core.ship(2), device.identity)
    device.settle(9, ask=0)
    assert committed(device, 2)


def test_a_root_that_comes_with_the_files_of_an_order_ends_that_order(core: Core, device: Device) -> None:
    """tuf's folder may know a root that the journal lost: the director it replaces decides no more."""
    shipped = core.ship(2)
    core.assign(shipped, device.identity)
    name = next_root(core, director=roles.new_signing_key())
    (device.folder / "trust" / "root_history" / name).write_bytes(core.files[name])
    device.settle(9, ask=0)
    assert device.house.journal.root() == core.files[name] and device.house.assignment is None
    assert device.state.serving is not None and device.state.serving.release.number == 1
    core.assign(shipped, device.identity)
    device.settle(12, ask=0)
    assert committed(device, 2)
