"""Attacks on the client: what was not signed, or is not what was signed, or is older than what was seen, never
becomes a release. What is merely lacking or expired is no verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, TargetFile, Targets

from core.release import publish
from edge import roots, trust
from edge.trust import Accepted, Incomplete, Record
from sync import codec, roles
from sync.errors import Malformed, SyncError, Untrusted
from sync.manifest import Manifest, terms_of
from sync.messages import ASSIGNMENT_TYPE, Assignment
from sync.names import Digest, ModelName
from tests.edge.world import DAY, DEVICE, MODEL, NOW, Core, Shipped, new_identity

OTHER = ModelName("other")
NO_FLOOR: MappingProxyType[str, int] = MappingProxyType({})


@dataclass
class Client:
    """tuf's folder of one device, and the mark its journal would keep."""

    folder: Path
    root: bytes
    floor: dict[str, int]

    def accept(self, files: dict[str, bytes], shipped: Shipped, **changes: object) -> Accepted:
        wanted = {"model": MODEL, "number": shipped.number, "digest": shipped.digest, "now": 0.0} | changes
        accepted = trust.accept(self.folder, self.root, files, self.floor, **wanted)  # type: ignore[arg-type]
        self.floor = {k: max(v, self.floor.get(k, 0)) for k, v in accepted.versions.items()}
        return accepted

    def lose_folder(self) -> None:
        shutil.rmtree(self.folder)


@pytest.fixture
def client(core: Core, tmp_path: Path) -> Client:
    return Client(tmp_path / "trust", core.root, {})


def signed_again(data: bytes, signer: Signer, change: dict[str, object] | None = None) -> bytes:
    """The same metadata, changed, under another signature."""
    document = json.loads(data)
    document["signed"] |= change or {}
    metadata: Metadata = Metadata.from_dict(document)
    metadata.signatures.clear()
    metadata.sign(signer)
    return metadata.to_bytes()


def test_a_signed_release_is_accepted_with_its_record(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    accepted = client.accept(core.files, shipped)
    assert accepted.manifest == codec.decode(Manifest, shipped.manifest, 1 << 20)
    assert accepted.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, f"model.{MODEL}": 1}
    assert trust.verify(accepted.record, MODEL, 1) == accepted.manifest


@pytest.mark.parametrize("lacking", ["timestamp.json", "2.snapshot.json", "2.targets.json", "1.model.motion.json"])
def test_a_file_that_has_not_arrived_is_no_verdict(core: Core, client: Client, lacking: str) -> None:
    shipped = core.ship(1)
    with pytest.raises(Incomplete):
        client.accept({k: v for k, v in core.files.items() if k != lacking}, shipped)
    assert client.accept(core.files, shipped).manifest.number == 1


def test_a_manifest_that_has_not_arrived_is_no_verdict(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    with pytest.raises(Incomplete, match="has not arrived"):
        client.accept({k: v for k, v in core.files.items() if not k.endswith(".manifest")}, shipped)


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "1.model.motion.json"])
def test_metadata_without_its_owners_signature_is_refused(core: Core, client: Client, name: str) -> None:
    shipped = core.ship(1)
    stranger = roles.signer(roles.new_signing_key())
    document = json.loads(core.files[name])
    document["signatures"] = []
    for forged in (signed_again(core.files[name], stranger), json.dumps(document).encode()):
        with pytest.raises(Untrusted):
            client.accept(core.files | {name: forged}, shipped)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff\xfe", b'{"signed":{"_type":"root"}}', b"[" * 5000])
def test_junk_for_metadata_is_refused(core: Core, client: Client, junk: bytes) -> None:
    shipped = core.ship(1)
    with pytest.raises(SyncError):
        client.accept(core.files | {"timestamp.json": junk}, shipped)


def test_an_online_key_cannot_sign_a_release(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    forged: Metadata[Targets] = Metadata.from_bytes(core.files["1.model.motion.json"])
    forged.signed.targets["motion/2/manifest"] = TargetFile.from_data("motion/2/manifest", b"{}", ["sha256"])
    forged.signatures.clear()
    forged.sign(core.online.snapshot)
    mine = forged.to_bytes()
    with pytest.raises(Untrusted):
        client.accept(core.files | {"1.model.motion.json": mine}, shipped)


def test_another_root_than_the_pinned_one_is_nobody(core: Core, tmp_path: Path) -> None:
    shipped = core.ship(1)
    with pytest.raises(Untrusted):
        Client(tmp_path / "trust", Core().root, {}).accept(core.files, shipped)


@pytest.mark.parametrize("lose_folder", [False, True], ids=["folder-kept", "folder-lost"])
@pytest.mark.parametrize("keep", ["timestamp", "snapshot", "everything"])
def test_replayed_metadata_is_refused(core: Core, client: Client, keep: str, lose_folder: bool) -> None:
    """A broker shows what was current once, signatures and all; the mark holds where tuf's folder is gone."""
    first = core.ship(1)
    old = dict(core.files)
    second = core.ship(2)
    client.accept(core.files, second)
    mark = dict(client.floor)
    if lose_folder:
        client.lose_folder()
    shown = dict(old) if keep == "everything" else dict(core.files)
    shown["timestamp.json"] = old["timestamp.json"]
    if keep == "snapshot":
        stale = json.loads(old["timestamp.json"])["signed"] | {"version": 99}
        shown["timestamp.json"] = signed_again(old["timestamp.json"], core.online.timestamp, stale)
    with pytest.raises(Untrusted):
        client.accept(shown, first)
    assert client.floor == mark


def test_older_targets_under_a_newer_snapshot_are_refused_after_the_folder_was_lost(core: Core, client: Client) -> None:
    """A stolen snapshot key may name old targets; the owner's newest, seen before, are remembered."""
    first = core.ship(1)
    old_role = core.files["1.model.motion.json"]
    second = core.ship(2)
    client.accept(core.files, second)
    client.lose_folder()
    shown = {k: v for k, v in core.files.items() if k != "2.model.motion.json"} | {"1.model.motion.json": old_role}
    shown |= publish.renew(shown, core.online, NOW)
    with pytest.raises(Untrusted, match=r"model\.motion version 1 is older than 2"):
        client.accept(shown, first)


def test_mixed_versions_of_two_snapshots_do_not_match(core: Core, client: Client) -> None:
    first = core.ship(1)
    old_role = core.files["1.model.motion.json"]
    core.ship(2)
    shown = dict(core.files) | {"2.model.motion.json": old_role}
    with pytest.raises(Untrusted):
        client.accept(shown, first)


def test_a_snapshot_that_the_timestamp_does_not_name_by_hash_is_refused(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    forged = signed_again(core.files["2.snapshot.json"], core.online.snapshot, {"x-more": "fields"})
    with pytest.raises(Untrusted):
        client.accept(core.files | {"2.snapshot.json": forged}, shipped)


def test_an_expired_timestamp_means_not_now(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    fresh = dict(core.files)
    core.renew(NOW - 30 * DAY)
    with pytest.raises(Incomplete, match="expired"):
        client.accept(core.files, shipped)
    core.renew(NOW)
    assert client.accept(core.files, shipped).manifest.number == 1
    with pytest.raises(Untrusted):
        client.accept(fresh, shipped)


def test_a_record_is_verified_offline_after_everything_expired(tmp_path: Path) -> None:
    core = Core(now=NOW - 3 * 365 * DAY)
    shipped = core.ship(1)
    role = core.files["1.model.motion.json"]
    record = Record(core.root, core.files["2.targets.json"], role, shipped.manifest)
    assert trust.verify(record, MODEL, 1).number == 1
    with pytest.raises(Incomplete, match="expired"):
        Client(tmp_path / "trust", core.root, {}).accept(core.files, shipped)


def test_a_record_of_what_the_core_signed_is_believed_by_every_later_agent() -> None:
    """Frozen: at each start a device works out anew on which terms a release is. An agent that does so otherwise than
    the one that accepted it would take all that a core signed by itself off at its first start."""
    kept = json.loads((Path(__file__).parent / "frozen" / "auto_record.json").read_text())
    record = Record(**{name: text.encode() for name, text in kept.items()})
    assert terms_of(record.manifest) == "9db0127d9582e06c1523a990925bc895c522928e433971ae16cb03995ac19f2a"
    assert trust.verify(record, MODEL, 2).lineage.snapshot == "s2"


def test_swapped_manifest_bytes_are_refused(core: Core, client: Client) -> None:
    first, second = core.ship(1), core.ship(2)
    name = f"{first.digest}.manifest"
    for swapped in (second.manifest, first.manifest + b" ", b""):
        with pytest.raises(Untrusted):
            client.accept(core.files | {name: swapped}, first)


@pytest.mark.parametrize(
    "claim",
    [{"number": 2}, {"model": OTHER}, {"digest": Digest("0" * 64)}],
    ids=["another-number", "another-model", "another-digest"],
)
def test_the_assignment_cannot_name_what_was_not_signed(core: Core, client: Client, claim: dict[str, object]) -> None:
    shipped = core.ship(1)
    with pytest.raises(Untrusted, match="not among the signed releases"):
        client.accept(core.files, shipped, **claim)


def test_a_manifest_signed_under_another_name_than_it_says_is_refused(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    core.approve(shipped, number=5)
    with pytest.raises(Untrusted, match="manifest says motion 1, signed as motion 5"):
        client.accept(core.files, shipped, number=5)
    core.approve(shipped, model=OTHER)
    with pytest.raises(Untrusted, match="manifest says motion 1, signed as other 1"):
        client.accept(core.files, shipped, model=OTHER)


def test_an_oversized_manifest_is_refused_even_if_it_is_signed(core: Core, client: Client) -> None:
    shipped = core.ship(1)
    huge = msgspec.structs.replace(
        codec.decode(Manifest, shipped.manifest, 1 << 20), number=2, classes=("c" * 300_000,)
    )
    big = Shipped(2, codec.encode(huge), {}, {})
    core.approve(big)
    with pytest.raises(Malformed, match="more than"):
        client.accept(core.files, big)


@pytest.mark.parametrize("part", ["root", "targets", "role", "manifest"])
def test_a_record_with_any_part_changed_is_refused(core: Core, client: Client, part: str) -> None:
    first = core.ship(1)
    record = client.accept(core.files, first).record
    stranger = Core()
    other = stranger.ship(1, (9.0, 9.0, 9.0))
    foreign = Record(
        stranger.root, stranger.files["2.targets.json"], stranger.files["1.model.motion.json"], other.manifest
    )
    for bad in (getattr(foreign, part), getattr(record, part)[:-2], b""):
        with pytest.raises(SyncError):
            trust.verify(msgspec.structs.replace(record, **{part: bad}), MODEL, 1)


@pytest.mark.parametrize("part", ["root", "targets", "role"])
@pytest.mark.parametrize("other", ["root", "timestamp", "snapshot", "targets"])
def test_a_record_with_metadata_of_another_kind_is_refused(core: Core, client: Client, part: str, other: str) -> None:
    record = client.accept(core.files, core.ship(1)).record
    data = (client.folder / f"{other}.json").read_bytes()
    if data != getattr(record, part):
        with pytest.raises(Untrusted):
            trust.verify(msgspec.structs.replace(record, **{part: data}), MODEL, 1)


def test_a_record_of_a_role_that_may_not_sign_this_path_is_refused(core: Core, client: Client) -> None:
    record = client.accept(core.files, core.ship(1)).record
    targets: Metadata[Targets] = Metadata.from_bytes(record.targets)
    assert targets.signed.delegations is not None and targets.signed.delegations.roles is not None
    targets.signed.delegations.roles[f"model.{MODEL}"].paths = ["other/*/*"]
    targets.sign(roles.signer(core.owner))
    with pytest.raises(Untrusted, match="may not sign motion/1/manifest"):
        trust.verify(msgspec.structs.replace(record, targets=targets.to_bytes()), MODEL, 1)


def test_a_mark_counts_every_role_it_was_given(core: Core, client: Client) -> None:
    """What is returned replaces the mark: roles that were not looked into stay in it."""
    core.ship(1, model=OTHER)
    client.floor = {f"model.{OTHER}": 1}
    accepted = client.accept(core.files, core.ship(2))
    assert accepted.versions[f"model.{OTHER}"] == 1 and accepted.versions[f"model.{MODEL}"] == 1


def test_the_director_comes_from_the_root_alone(core: Core) -> None:
    shipped = core.ship(1)
    envelope = core.assignment(core.order(shipped, new_identity(core.root)))
    (key,) = roots.director_keys(core.root)
    assert roles.verify(envelope, ASSIGNMENT_TYPE, Assignment, [key]).device == DEVICE
    assert key.keyid == roles.signer(core.director).public_key.keyid
    assert key.keyid not in {roles.signer(core.owner).public_key.keyid, core.online.timestamp.public_key.keyid}


@pytest.mark.parametrize("root", [b"", b"{}", b"null", b'{"signed":{}}'])
def test_a_root_that_names_no_director_is_malformed(root: bytes) -> None:
    with pytest.raises(Malformed, match="the root names no director"):
        roots.director_keys(root)


def test_only_what_is_lacked_and_ours_is_wanted() -> None:
    ours, theirs = Digest("a" * 64), Digest("b" * 64)
    index = ("1.root.json", "2.snapshot.json", f"{ours}.manifest", f"{theirs}.manifest", "timestamp.json")
    assert trust.wanted(index, {"1.root.json": b"", "timestamp.json": b""}, [ours]) == (
        "2.snapshot.json", f"{ours}.manifest", "timestamp.json",
    )  # fmt: skip
    assert trust.wanted((), {}, [ours]) == (f"{ours}.manifest", "timestamp.json")
