"""The core published and is switched off. Twenty devices carry their orders out, over a broker that is killed and
started anew, at a time that the timestamp still covers; one joins only then. What a broker has lost the core
restores."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from appliance.core import owner
from appliance.core.project_file import read_project
from appliance.demo.recordings import write_csv
from core.orders import ApplyProject, Ingest, Train
from core.release import publish
from sync import topics
from sync.link import Publish
from sync.names import DEFAULT_TENANT, Digest, TrustFile
from tests.journey.fleet import Fleet
from tests.journey.made_up import recordings
from tests.journey.memory import Box
from tests.journey.tale import MODEL, PROJECT

pytestmark = [pytest.mark.broker, pytest.mark.slow]
AGENTS = 20
SUBJECTS = (1, 2, 3)
LATE = ("late-1", "late-2", "late-3")
LIFE = publish.ONLINE_LIFE.total_seconds()
DAY = 86_400.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Enrolled, ordered, published six and a half days ago; the core is off, and no device was ever on."""
    home = tmp_path_factory.mktemp("off")
    made = Fleet(home, behind=LIFE - DAY / 2)
    owner.init(made, home / "owner", "test", made.now)  # type: ignore[arg-type] - the API's two verbs
    names = [f"box-{n:02}" for n in range(AGENTS)] + list(LATE)
    for name in names:
        made.enrol(name)
    write_csv(recordings(SUBJECTS), home / "recordings")
    text = PROJECT.read_text().replace("epochs = 60", "epochs = 25")
    text = text.replace('canary = ["watch-1"]', f"canary = {names!r}".replace("'", '"'))
    (home / "falaj.toml").write_text(text)
    made.order(ApplyProject(project=read_project(home / "falaj.toml"), folder=str(home)))
    made.order(Ingest(source="watches"))
    roll_out(made, 1)
    switch_off(made)
    yield made
    made.end()


def roll_out(fleet: Fleet, number: int) -> None:
    fleet.order(Train(model=MODEL))
    owner.approve(fleet, fleet.home / "owner", MODEL, number, "test", fleet.now)  # type: ignore[arg-type]
    fleet.hub.run()
    fleet.published()


def switch_off(fleet: Fleet) -> None:
    fleet.link.cut()
    fleet.hub.run()  # what it has heard and not taken in yet
    fleet.steward.house.catalog.close()


def switch_all_off(fleet: Fleet, boxes: list[Box]) -> None:
    """Once what their sessions brought has been taken in."""
    for box in boxes:
        box.link.cut()
    fleet.hub.run()
    for box in boxes:
        box.kill()


def fulfilled(box: Box) -> bool:
    """It answers with release 1, verified at its load."""
    if box.serves() != 1:
        return False
    found = box.agent.house.deployments[MODEL]
    return found.validated is not None and found.validated.artifact == found.serving.release.artifact  # type: ignore[union-attr]


def regular(fleet: Fleet) -> list[Box]:
    return [fleet.boxes[f"box-{n:02}"] for n in range(AGENTS)]


def test_twenty_orders_are_carried_out_with_the_core_off_and_the_broker_killed(fleet: Fleet) -> None:
    boxes = regular(fleet)
    for box in boxes[:10]:
        fleet.switch_on(box)
    begun = lambda: any(b.phase() == "fetching" or fulfilled(b) for b in boxes[:10])  # noqa: E731
    fleet.live(boxes[:10], begun, "the first to begin")
    fleet.wires.kill()
    for box in boxes[10:]:
        fleet.switch_on(box)
    fleet.live(boxes, lambda: all(map(fulfilled, boxes)), "all twenty")
    assert len({b.agent.house.identity.signing_key for b in boxes}) == AGENTS
    print(f"{sum(map(fulfilled, boxes))} of {AGENTS} orders carried out, core off, broker killed in between")


def test_one_that_joins_only_then_comes_to_the_same(fleet: Fleet) -> None:
    fleet.wires.kill()
    late = fleet.boxes[LATE[0]]
    fleet.switch_on(late)
    fleet.live([*regular(fleet), late], lambda: fulfilled(late), "the late one")


def test_a_wiped_broker_is_filled_again_by_the_core_that_comes_back(fleet: Fleet) -> None:
    fleet.start_core()
    fleet.wires.kill(wiped=True)
    late = fleet.boxes[LATE[1]]
    fleet.switch_on(late)
    fleet.live([late], lambda: fulfilled(late), "the second late one", core=True)


def test_chunks_that_a_broker_lost_are_restored_from_what_a_device_misses(fleet: Fleet) -> None:
    """Nobody tells the core: it hears of them in `reported.missing` alone."""
    late, catalog = fleet.boxes[LATE[2]], fleet.steward.house.catalog
    blobs = [Digest(sealed) for sealed in catalog.releases.keys(MODEL, 1)]
    for digest in blobs:
        size = catalog.releases.blob_size(digest)
        assert size is not None
        for i in range(size.chunks):
            fleet.link.publish(Publish(topics.blob(DEFAULT_TENANT, digest, i), b"", retain=True))
    fleet.hub.run()
    fleet.published()
    fleet.switch_on(late)
    asked: set[str] = set()

    def done() -> bool:
        asked.update(d for d, download in late.agent.house.downloads.items() if download.missing)
        return fulfilled(late)

    fleet.live([late], done, "the third late one", core=True)
    assert asked & set(blobs), "it said what it missed"


def test_beyond_its_life_an_order_is_refused_and_serving_goes_on(fleet: Fleet) -> None:
    """The next release is ordered by a core whose clock is eight days behind the devices': the order itself has ended,
    so nobody looks at the timestamp."""
    boxes = regular(fleet)
    fleet.behind = LIFE + DAY
    fleet.now -= LIFE + DAY
    before = {b.name: place(b) for b in boxes}
    roll_out(fleet, 2)
    switch_off(fleet)
    refused = "refused-untrusted"
    fleet.live(boxes, lambda: all(refused in codes(b) for b in boxes), "every device to refuse it")
    for box in boxes:
        assert fulfilled(box) and place(box) == before[box.name]
        box.kill()
        fleet.switch_on(box)
        assert fulfilled(box), "a start needs no fresh timestamp either"


def test_beyond_the_timestamp_s_life_nothing_new_is_installed_and_serving_goes_on(fleet: Fleet) -> None:
    """The order of that release comes again, signed today; the broker keeps today's timestamp back, and hands out the
    one of eight days ago. With today's, every device takes the release in."""
    boxes = regular(fleet)
    soak(fleet, boxes)
    before = {b.name: place(b) for b in boxes}
    switch_all_off(fleet, boxes)
    fleet.start_core()  # its clock is eight days behind still
    old = timestamp(fleet)
    switch_off(fleet)
    fleet.behind, fleet.now = 0.0, time.time()
    fleet.start_core()
    today = timestamp(fleet)
    assert today != old
    hand_out(fleet, old)
    switch_off(fleet)
    for box in boxes:
        fleet.switch_on(box)
    refused = "trust-expired"
    fleet.live(boxes, lambda: all(refused in codes(b) for b in boxes), "every device to find it expired")
    for box in boxes:
        assert place(box) > before[box.name], "the order itself was taken in: it is the timestamp that does not hold"
        assert fulfilled(box) and box.phase() == "fetching"
        assert codes(box).count(refused) == 1, "told once, however often it is handed out"
    fleet.start_core()
    hand_out(fleet, today)
    fleet.live(boxes, lambda: all(admitted(b) for b in boxes), "every device to believe today's")


def soak(fleet: Fleet, boxes: list[Box]) -> None:
    """Release 1 answers as often as its trial asks, on each: it is committed."""
    for box in boxes:
        order, spec = box.agent.house.deployments[MODEL].order, box.serving.loaded(MODEL).slot.manifest.inputs[0]
        question = {spec.name: np.zeros([max(1, size) for size in spec.shape], np.float32)}
        for _ in range(order.gates.soak_answers):  # type: ignore[union-attr]
            box.serving.predict(MODEL, question)
    fleet.live(boxes, lambda: all(b.phase() == "steady" for b in boxes), "all to commit")


def admitted(box: Box) -> bool:
    """Release 2 was found among the signed ones."""
    candidate = box.agent.house.deployments[MODEL].candidate
    return box.serves() == 2 or (candidate is not None and candidate.release.number == 2)


def timestamp(fleet: Fleet) -> bytes:
    """The newest that the core signed."""
    return fleet.steward.house.catalog.releases.trust()["timestamp.json"]


def hand_out(fleet: Fleet, timestamp: bytes) -> None:
    """This one is retained on the broker, whatever the core said before."""
    fleet.link.publish(Publish(topics.trust(DEFAULT_TENANT, TrustFile("timestamp.json")), timestamp, retain=True))
    fleet.hub.run()
    fleet.published()


def place(box: Box) -> int:
    """The number of the newest assignment it took in."""
    return box.agent.house.journal.counter("desired_seq")


def codes(box: Box) -> list[str]:
    """What happened since it was switched on, whether the core has it or not."""
    return [event.code for _, event in box.agent.house.events.recent]
