"""Attack 16: a folder with files that have no business there, links and devices in the place of files, names that lead
elsewhere, and words of somebody else. At the device and at the core."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from appliance.stick import Stick, StickFailed
from sync import carried, codec, roles
from sync.carried import Word
from sync.messages import Ack, Status, TrustIndex
from sync.names import DEFAULT_TENANT, DeviceId
from tests.journey.by_folder import FarBox, FarCore, far_tenant, round_trip

VICTIM, OTHER = DeviceId("far-1"), DeviceId("far-2")
SECRET = b"what lies outside of the folder"


@dataclass
class Field:
    core: FarCore
    box: FarBox
    good: Path  # as the core packed it
    stick: Path  # a copy for the attack
    outside: Path

    @property
    def place(self) -> Path:
        return self.stick / "falaj" / "1" / DEFAULT_TENANT

    def file(self, name: str) -> Path:
        return self.place / name

    def still_serves(self) -> None:
        """Nothing of the attack has stayed: the box answers, and an honest folder is taken in."""
        assert self.box.ask() == 1.0 and self.box.phase == "steady"
        assert not self.box.visit(self.good).refused


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> tuple[FarCore, FarBox, Path]:
    return far_tenant(tmp_path_factory.mktemp("far"), VICTIM)


@pytest.fixture
def field(tenant: tuple[FarCore, FarBox, Path], tmp_path: Path) -> Iterator[Field]:
    core, box, good = tenant
    stick, outside = tmp_path / "stick", tmp_path / "outside"
    shutil.copytree(good, stick)
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    found = Field(core, box, good, stick, outside)
    yield found
    assert (outside / "secret").read_bytes() == SECRET and [p.name for p in outside.iterdir()] == ["secret"]
    found.still_serves()


def a_link(field: Field, path: Path) -> None:
    path.symlink_to(field.outside / "secret")


def an_absolute_link_to_a_device(field: Field, path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_pipe(field: Field, path: Path) -> None:
    os.mkfifo(path)


def a_folder(field: Field, path: Path) -> None:
    path.mkdir()


def an_endless_file(field: Field, path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


SPOILT = [a_link, an_absolute_link_to_a_device, a_pipe, a_folder, an_endless_file]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("name", ["d/far-1/desired", "d/far-1/down", "trust/timestamp.json", "trust/index"])
def test_16_at_the_device_only_plain_files_of_their_size_are_read(
    field: Field, name: str, spoil: Callable[[Field, Path], None]
) -> None:
    before, happened = dict(field.box.house.deployments), list(field.box.house.events.recent)
    field.file(name).unlink()
    spoil(field, field.file(name))
    done = field.box.visit(field.stick)
    assert name in done.refused and name in done.lacking
    assert field.box.house.deployments == before
    assert list(field.box.house.events.recent) == happened, (
        "the command did not open it, so no walker saw it: its screen tells of it"
    )


@pytest.mark.parametrize("spoil", SPOILT)
def test_16_at_the_core_too(field: Field, spoil: Callable[[Field, Path], None]) -> None:
    field.box.visit(field.stick)
    field.file("d/far-1/up/0").unlink()
    spoil(field, field.file("d/far-1/up/0"))
    done = field.core.trip(field.stick)
    assert done.devices[VICTIM].bundles == 0


def test_16_a_folder_that_leads_elsewhere_is_not_written_to(field: Field) -> None:
    for name in ("d/far-1", "trust"):
        shutil.rmtree(field.file(name))
        field.file(name).symlink_to(field.outside)
    with pytest.raises(StickFailed, match="a link or no folder"):
        field.box.visit(field.stick)
    with pytest.raises(StickFailed, match="a link or no folder"):
        field.core.trip(field.stick, VICTIM)


def test_16_files_with_no_business_there_are_left_alone_and_told(field: Field) -> None:
    strange = [
        "d/Watch 1/up/0", "d/core@falaj/up/0", "d/far-1/.../x", "d/far-1/up/00",
        "d/far-1/up/1000", "d/far-1/up/-1", "d/far-1/reported", "d/far-1/autorun.inf", "blob/abc/0", "trust/a b",
        "blob/" + "a" * 64 + "/%2e%2e", "enrol/XYZ/request", "readme.txt",
    ]  # fmt: skip
    for name in strange:
        field.file(name).parent.mkdir(parents=True, exist_ok=True)
        field.file(name).write_bytes(b"x")
    stick = Stick(field.stick, DEFAULT_TENANT)
    found = stick.names()
    assert not set(strange) & set(found) and set(strange) <= set(stick.refused)
    assert field.box.visit(field.stick).refused.keys() <= set(strange)
    field.core.trip(field.stick)
    assert all(field.file(name).exists() for name in strange)


def test_16_an_index_cannot_send_the_device_anywhere(field: Field) -> None:
    """`..` passes for the name of a trust file on a broker; in a folder it would be another place."""
    index = codec.encode(TrustIndex(())).replace(b"[]", b'["..", ".", "1.root.json"]')
    field.file("trust/index").write_bytes(index)
    done = field.box.visit(field.stick)
    assert not done.refused and not {"trust/..", "trust/."} & set(done.lacking)
    before = field.box.codes().count("refused-malformed")
    field.file("trust/index").write_bytes(index.replace(b'".."', b'"../../../../../etc/passwd"'))
    done = field.box.visit(field.stick)
    assert field.box.codes().count("refused-malformed") == before + 1


def forged(words: list[Word], key: bytes, device: DeviceId = VICTIM) -> bytes:
    return carried.bundles(DEFAULT_TENANT, device, 1, 4e9, words, key)[0]


def test_16_an_acknowledgement_that_the_core_never_gave_deletes_nothing(field: Field) -> None:
    box = field.box
    box.house.events.report(box.house.time.at(box.clock), "test-word", "the core must hear this")
    waiting = box.house.outbox.pending()
    word = Word("ack/event", _raw(Ack(1, 10_000)))
    for told, key in enumerate((roles.new_signing_key(), box.house.identity.signing_key), start=1):
        field.file("d/far-1/down").write_bytes(forged([word], key))
        done = box.visit(field.stick)
        assert "no valid signature" in done.refused["d/far-1/down"]
        assert set(waiting) <= set(box.house.outbox.pending())
        assert box.codes().count("refused-untrusted") == told
    round_trip(field.core, box, field.good)
    assert "test-word" in field.core.codes(VICTIM)


def test_16_nobody_speaks_for_a_device_but_itself(field: Field) -> None:
    field.box.visit(field.stick)
    own = field.file("d/far-1/up/0").read_bytes()
    thief = roles.new_signing_key()
    first = own.index(b'"payload":"') + len(b'"payload":"')
    bent = own[:first] + (b"e" if own[first : first + 1] != b"e" else b"f") + own[first + 1 :]
    lies = {
        "another key": forged([_record(field)], thief),
        "another device": forged([_record(field)], field.box.house.identity.signing_key, OTHER),
        "what only the core says": forged([Word("desired", _raw({}))], field.box.house.identity.signing_key),
        "a bent byte": bent,
        "a byte that base64 does not have": own.replace(b'"payload":"', b'"payload":"!', 1),
    }
    before = (field.core.codes(), field.core.catalog.fleet.all_received(VICTIM, 1))
    for lie in lies.values():
        field.file("d/far-1/up/0").write_bytes(lie)
        told = field.core.trip(field.stick).devices[VICTIM]
        assert told.bundles == 0 and len(told.refused) == 1
    new = field.core.codes()[len(before[0]) :]
    refused = [code for code in new if code.startswith("refused-")]
    assert refused == ["refused-untrusted"] * 4 + ["refused-malformed"]
    assert field.core.catalog.fleet.all_received(VICTIM, 1) == before[1]


def test_16_words_of_a_device_that_is_none_of_ours_are_not_taken(field: Field) -> None:
    shutil.copytree(field.file("d/far-1"), field.file("d/far-2"))
    told = field.core.trip(field.stick).devices[OTHER]
    assert told.bundles == 0 and "no device far-2 is enrolled here" in told.refused[-1]


def test_16_an_old_folder_says_nothing_new(field: Field) -> None:
    """Every bundle and assignment of before, brought again: nothing falls, nothing is counted twice."""
    field.box.visit(field.stick)
    old = shutil.copytree(field.stick, field.stick.with_name("old"))
    field.core.trip(field.stick)
    round_trip(field.core, field.box, field.stick)
    report = field.core.catalog.fleet.device(VICTIM).report
    events = field.core.codes(VICTIM)
    field.core.catalog.fleet.put_status(VICTIM, Status("online", 1.0, "b", 1), field.core.now)
    field.core.trip(old)
    device = field.core.catalog.fleet.device(VICTIM)
    assert device.report.seq == report.seq and device.status == "online"
    assert field.core.codes(VICTIM) == events and not field.core.catalog.fleet.barred()


def _raw(document: object) -> msgspec.Raw:
    return msgspec.Raw(codec.encode(document))


def _record(field: Field) -> Word:
    """A record that would be the next."""
    n = field.core.catalog.fleet.received(VICTIM, 1, "event") + 1
    return Word("up/event", _raw({"epoch": 1, "n": n, "ts": 1.0, "boot": "b", "body": {}, "v": 1}))
