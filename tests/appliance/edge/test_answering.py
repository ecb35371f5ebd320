"""What a device tells when it is asked: over the line as it was signed, beside it to whoever has its folder anyway; and
a support bundle in which no reading and no key ever is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from appliance.edge import support
from appliance.edge.answering import Answering, Asked
from appliance.edge.log_tail import LogTail
from appliance.edge.rooms import open_house, open_rooms
from appliance.edge.state import EdgeFolder
from appliance.keys import TenantKeys
from appliance.settings import EdgeSettings, Network
from edge.agent import Identity
from edge.agent.ports import Outside
from edge.budget import DAY
from edge.disclosing import MOST
from edge.http.wire import Request
from edge.serving import Answer, Serving
from edge.states import Answered, Deployment, Phase
from sync import answers, codec, roles
from sync.answers import Predictions, Support
from sync.commands import AskPredictions, AskSupport
from sync.durable import write_private
from sync.golden import Arrays
from sync.manifest import Uplink
from sync.messages import Assignment, Prediction
from sync.names import DeviceId, Digest
from sync.remembered import Basis, pack
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL, TENANT
from tests.waiting import at_once

SEQ = 7
DEVICE, START = DeviceId("box-1"), 1_790_000_000.0
BOX, SIGNING = X25519PrivateKey.generate(), roles.new_signing_key()
KEY = base64.b64encode(BOX.public_key().public_bytes_raw()).decode()
READING = 61.72839455
WHOLE = AskPredictions(START - 1e6, START + 1e6, inputs=True)


class Box:
    """One device without a walker, with a release whose owner signed `uplink`."""

    def __init__(self, root: Path, uplink: Uplink) -> None:
        self.now, self.folder, self.log = START, EdgeFolder(root), LogTail()
        own = Identity(TENANT, DEVICE, 1, b"", SIGNING, b"")
        self.rooms = open_rooms(
            self.folder, own, TenantKeys(TENANT, bytes(32)), lambda: self.now, lambda *_: None, lambda *_: None
        )
        self.house = open_house(self.folder, own, Serving(), "boot-1", Outside(), self.rooms)
        slot = graphs.slot(1, of=replace(graphs.manifest(1), uplink=uplink))
        keyed = replace(slot, keys={Digest("e" * 64): "d3JhcHBlZC1rZXk="})
        self.house.deployments[MODEL] = Deployment(MODEL, Phase.STEADY, START, serving=keyed)
        self.house.assignment = Assignment(TENANT, DEVICE, 1, 1, START, START + 1e6, {}, KEY)
        self.answering = Answering(
            self.house, self.rooms.predictions, self.rooms.budget, root, lambda: self.now, dict,
            EdgeSettings(network=Network(listen="0.0.0.0", certificate="c", key="k")), self.log.lines, at_once,
        )  # fmt: skip

    def close(self) -> None:
        self.rooms.close()
        self.house.outbox.close()
        self.house.journal.close()

    def predict(self, number: int, release: int = 1) -> None:
        odds = (0.5, 0.25, 0.25)
        said = Prediction(f"{number:032x}", MODEL, START + number, "ok", CLASSES[0], odds, CLASSES, "w1", release)
        window = np.full((graphs.SIZE, 2), READING, np.float32)
        self.rooms.predictions.remember(said, window, Basis("d" * 64))

    def over_the_line(self, ask: AskPredictions = WHOLE) -> Predictions:
        told = self.answering.answer(ask, SEQ, self.now)
        assert isinstance(told, Answered), told
        return opened(told.file)

    def beside(self, asked: Asked) -> tuple[int, bytes]:
        response = self.answering.serve(Request("POST", "/v1/ask", {}, codec.encode(asked)))
        return response.status, response.body


def opened(file: bytes) -> Predictions:
    keys: roles.Keys = [roles.signer(SIGNING).public_key]
    return answers.unseal(answers.read(file), Predictions, BOX.private_bytes_raw(), keys)


@pytest.fixture
def make(ram: Path) -> Iterator[Callable[[Uplink], Box]]:
    made: list[Box] = []

    def box(uplink: Uplink) -> Box:
        made.append(Box(ram / f"box-{len(made)}", uplink))
        return made[-1]

    yield box
    for one in made:
        one.close()


SILENT = [Uplink(), Uplink("labelled"), Uplink("sampled", share=1.0), Uplink(asked=True, daily_bytes=0)]


@pytest.mark.parametrize("uplink", SILENT, ids=["none", "labelled", "sampled", "no-bytes"])
def test_a_command_gets_no_input_that_its_owner_did_not_sign(make: Callable[[Uplink], Box], uplink: Uplink) -> None:
    box = make(uplink)
    box.predict(1)
    told = box.over_the_line()
    assert [one.prediction.value for one in told.predictions] == [CLASSES[0]] and told.withheld == (MODEL,)
    assert [(one.window, one.shape) for one in told.predictions] == [(b"", ())]


@pytest.mark.parametrize("uplink", [*SILENT, Uplink(asked=True)])
def test_what_a_program_asked_with_leaves_as_it_was_signed_and_so_does_what_may_repeat_it(
    make: Callable[[Uplink], Box], uplink: Uplink
) -> None:
    box, signed = make(uplink), uplink == Uplink(asked=True)
    asked: Arrays = {"a": np.full((1, 4), READING, np.float64), "b": np.array([["a reader's name"]], np.object_)}
    slot = box.house.deployments[MODEL].serving
    assert slot is not None
    box.rooms.recorder.record(asked, Answer({"again": asked["a"]}, slot))
    box.rooms.write_down()
    (one,) = box.over_the_line().predictions
    assert (one.has_inputs, bool(one.outputs)) == (signed, signed) and (one.inputs == pack(asked)) is signed
    status, file = box.beside(Asked(WHOLE, sealed=True))
    (one,) = opened(file).predictions
    assert status == 200 and one.inputs == pack(asked) and one.outputs == pack({"again": asked["a"]})
    status, plain = box.beside(Asked(WHOLE))
    assert status == 200 and not json.loads(plain)["predictions"][0]["inputs"], "without a seal nothing is shown"


def test_what_was_signed_leaves_within_the_days_bytes_also_over_restarts(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink(asked=True, daily_bytes=1100))
    for number in range(3):
        box.predict(number)
    box.predict(3, release=9)  # of a release that is not here any more, nobody knows what was signed
    first = box.over_the_line()
    spent = box.rooms.budget.spent(MODEL, int(START // DAY))
    assert [bool(one.window) for one in first.predictions] == [False, True, True, False] and 0 < spent <= 1100
    again = box.over_the_line()
    assert not any(one.window for one in again.predictions), "the bytes of the day are gone"
    box.now += DAY
    assert sum(bool(one.window) for one in box.over_the_line().predictions) == 2


def test_nothing_is_told_that_was_not_asked_for(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink(asked=True))
    for number in range(5):
        box.predict(number)
    told = box.over_the_line(AskPredictions(START + 1, START + 3, MODEL))
    assert [one.prediction.ts for one in told.predictions] == [START + 1, START + 2, START + 3]
    assert not any(one.window for one in told.predictions) and told.withheld == () and not told.more
    assert (told.oldest, told.newest) == (START, START + 4)
    assert box.over_the_line(AskPredictions(START + 50, START + 60)).predictions == ()
    assert box.rooms.budget.spent(MODEL, int(START // DAY)) == 0


def test_an_answer_says_which_question_it_is_to(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink())
    box.predict(1)
    told = box.over_the_line()
    assert (told.seq, told.device, told.made, told.since) == (SEQ, DEVICE, START, WHOLE.since)
    assert opened(box.beside(Asked(WHOLE, sealed=True))[1]).seq == 0, "the core never asked for that"


def test_of_too_many_the_newest_are_told(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink())
    for number in range(MOST + 3):
        box.predict(number)
    told = box.over_the_line()
    assert told.more and len(told.predictions) == MOST and told.predictions[-1].prediction.ts == START + MOST + 2


def test_before_the_tenants_key_came_nothing_leaves(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink(asked=True))
    box.house.assignment = None
    told = box.answering.answer(WHOLE, SEQ, box.now)
    assert isinstance(told, str) and "tenant's key" in told
    assert box.beside(Asked(WHOLE, sealed=True))[0] == 409


def test_a_person_beside_the_box_takes_all_along_sealed(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink())
    box.predict(1)
    status, file = box.beside(Asked(WHOLE, sealed=True))
    assert status == 200 and all(one.window for one in opened(file).predictions)
    assert box.rooms.budget.spent(MODEL, int(START // DAY)) == 0, "a line carried nothing"
    status, body = box.beside(Asked(WHOLE))
    plain = codec.decode(Predictions, body)
    assert status == 200 and not any(one.window for one in plain.predictions), "in the clear only what was said"


@pytest.mark.parametrize(("method", "body", "status"), [("GET", b"", 405), ("POST", b"{", 400), ("POST", b"{}", 400)])
def test_what_is_no_question_is_refused(make: Callable[[Uplink], Box], method: str, body: bytes, status: int) -> None:
    assert make(Uplink()).answering.serve(Request(method, "/v1/ask", {}, body)).status == status


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as packed:
        return {entry.name: packed.extractfile(entry).read() for entry in packed}  # type: ignore[union-attr]


def test_a_support_bundle_says_how_the_box_is_and_holds_no_reading_and_no_key(make: Callable[[Uplink], Box]) -> None:
    box = make(Uplink(asked=True))
    box.predict(1)
    secrets = {"identity/device.key": SIGNING, "kek": bytes(range(32)), "network.token": b"a-secret-token-of-ours",
               "broker/app.password": b"a-password-of-theirs"}  # fmt: skip
    for name, content in secrets.items():
        write_private(box.folder.root / name, content)
    box.house.events.report(START, "drift-alarm", "the inputs have changed", MODEL, "alarm")
    logger = logging.getLogger("falaj.test-bundle")
    logger.addHandler(box.log)
    logger.warning("the uplink went away")
    told = box.answering.answer(AskSupport(), SEQ, box.now)
    assert isinstance(told, Answered)
    keys: roles.Keys = [roles.signer(SIGNING).public_key]
    found = answers.unseal(answers.read(told.file), Support, BOX.private_bytes_raw(), keys)
    assert (found.seq, found.made) == (SEQ, START)
    entries = unpacked(found.archive)
    names = ("events.json", "files.json", "host.json", "journal.json", "log.txt", "settings.json", "status.json")
    assert sorted(entries) == [f"falaj-support/{name}" for name in names]
    everything = b"".join(entries.values())
    assert b"drift-alarm" in everything and b"the uplink went away" in everything and b'"onnxruntime"' in everything
    assert json.loads(entries["falaj-support/journal.json"])["deployments"][MODEL]["serving"] == 1
    assert "identity/device.key" in json.loads(entries["falaj-support/files.json"])
    needles = [*secrets.values(), str(READING).encode(), np.float32(READING).tobytes(), b"d3JhcHBlZC1rZXk=",
               str(float(np.float32(READING))).encode(), SIGNING.splitlines()[1]]  # fmt: skip
    assert [needle for needle in needles if needle in everything] == []
    (one,) = box.rooms.predictions.between(0, 2e9, None, 9).predictions
    assert np.float32(READING).tobytes() in one.window, "the same search finds it where it must be"


def test_the_same_box_gives_the_same_bundle_and_a_long_log_stays_small() -> None:
    lines = [f"line {n} " + "x" * 400 for n in range(5000)]
    first, second = (support.bundle({"host": {"b": 1, "a": 2}}, lines, START) for _ in range(2))
    assert first == second
    log = unpacked(first)["falaj-support/log.txt"]
    assert len(log) <= support.LOG_LIMIT and b"line 4999" in log and b"line 1 " not in log


def test_a_disk_that_is_sick_costs_the_answer_and_not_the_agent(make: Callable[[Uplink], Box]) -> None:
    """The walker's thread answers: what escapes there ends the agent."""
    box = make(Uplink())
    box.house.journal.close()
    status, body = box.beside(Asked(AskSupport()))
    assert status == 503 and b"the disk refuses" in body
    told = box.answering.answer(AskSupport(), SEQ, box.now)
    assert isinstance(told, str) and told.startswith("the disk refuses")
