"""The chain of roots: who follows whom, how a theft is recovered from, and how the director is replaced.

How a case begins and ends: `tests.edge.tuf_cases`.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge import roots
from edge.trust import Expired, Incomplete
from sync.errors import Malformed, Untrusted
from tests.edge.tuf_cases import (
    OLDER,
    ROLE,
    SIGNED_BY,
    Case,
    Cases,
    Device,
    Files,
    Repository,
    Scene,
    attempt,
    director,
    in_days,
    key,
)

CASES = Cases()
case = CASES.case


# --- root ---


@case(None)
def _root_after_the_next_is_there_without_the_next(repo: Repository, old: Files) -> None:
    """Nobody can tell that there is more: the chain ends where a link is missing."""
    repo.next_root()
    repo.next_root()
    del repo.files["2.root.json"]


@case(Untrusted, SIGNED_BY)
def _root_between_is_missing_and_the_keys_have_changed(repo: Repository, old: Files) -> None:
    repo.trust("timestamp", "timestamp 2")
    repo.next_root()
    repo.next_root()
    del repo.files["2.root.json"]
    repo.publish()


@case(Expired, "Final root.json is expired", heals=False)
def _last_root_has_expired(repo: Repository, old: Files) -> None:
    repo.root.expires = in_days(-1)
    repo.next_root()


@case(None)
def _root_between_has_expired(repo: Repository, old: Files) -> None:
    repo.root.expires = in_days(-1)
    repo.next_root()
    repo.root.expires = in_days(30)
    repo.next_root()


@case(None)
def _fifty_roots_have_come_since(repo: Repository, old: Files) -> None:
    for i in range(50):
        repo.trust("root", f"owner {i}")
        repo.next_root(f"owner {i}", f"owner {i - 1}" if i else "owner")


@case(None)
def _root_knows_fields_that_nobody_else_knows(repo: Repository, old: Files) -> None:
    repo.root.unrecognized_fields["x-new"] = "value"
    repo.root.roles["root"].unrecognized_fields["x-new"] = {"a": 1}
    repo.root.keys[key("owner").public_key.keyid].unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repo.next_root()


def foreign() -> bytes:
    other = Repository.new()
    other.trust("root", "stranger")
    other.next_root("stranger")
    return other.files["2.root.json"]


def said_version(repo: Repository, version: int) -> bytes:
    repo.root.version = version
    return repo.write("root")


BAD_ROOTS: dict[str, Callable[[Repository], bytes]] = {
    "of-another-repository": lambda repo: foreign(),
    "the-same-again": lambda repo: repo.files["1.root.json"],
    "a-version-too-far": lambda repo: said_version(repo, 3),
    "unsigned": lambda repo: json.dumps(json.loads(said_version(repo, 2)) | {"signatures": []}).encode(),
    "a-timestamp": lambda repo: repo.files["timestamp.json"],
    "the-targets": lambda repo: repo.files[repo.name("targets")],
    "too-long": lambda repo: said_version(repo, 2) + b" " * 512_000,
    "cut-short": lambda repo: said_version(repo, 2)[:-9],
    "empty": lambda repo: b"",
    "without-a-role": lambda repo: said_version(repo, 2).replace(b'"snapshot":', b'"snapshots":'),
}


@pytest.mark.parametrize("make", BAD_ROOTS.values(), ids=BAD_ROOTS.keys())
def test_a_root_that_does_not_follow(scene: Scene, make: Callable[[Repository], bytes]) -> None:
    """Refused with an order under way and without one, and the one that does follow is taken afterwards."""

    def attack(repo: Repository, old: Files) -> None:
        repo.files["2.root.json"] = make(repo.fork())
        with pytest.raises(Untrusted, match="the root after the trusted one"):
            scene.device.adopt(repo.files)

    attempt(Case("", attack, Untrusted, "trust files"), scene)


@dataclass(frozen=True)
class Signed:
    """One root: the keys it names for itself, how many of them are needed, and who signed it."""

    keys: str
    threshold: int
    by: str


CHAINS: dict[str, tuple[list[Signed], int]] = {  # the roots after one of key a; the version that is reached
    "one-key-follows-another": ([Signed("b", 1, "ab"), Signed("b", 1, "b")], 3),
    "with-signatures-nobody-asked-for": ([Signed("b", 1, "xaby"), Signed("b", 1, "xby")], 3),
    "not-signed-by-the-old-key": ([Signed("b", 1, "bx")], 1),
    "not-signed-by-the-new-key": ([Signed("b", 1, "ax")], 1),
    "one-key-becomes-two": ([Signed("ab", 2, "ab")], 2),
    "two-are-asked-and-one-has-signed": ([Signed("ab", 2, "a")], 1),
    "any-three-of-five": ([Signed("abcde", 3, "ace"), Signed("abcde", 3, "abd"), Signed("abcde", 3, "cde")], 4),
    "one-of-five-is-replaced": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "abe")], 3),
    "one-of-five-is-replaced-in-two-steps": (
        [Signed("abcde", 3, "ace"), Signed("abdef", 3, "acef"), Signed("abdef", 3, "aef")], 4,
    ),
    "all-of-five-are-replaced": ([Signed("abcde", 3, "ace"), Signed("fghij", 3, "acefgh")], 3),
    "three-new-ones-have-not-signed": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "ace")], 2),
    "three-old-ones-have-not-signed": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "aef")], 2),
    "fewer-are-asked-from-now-on": ([Signed("abc", 2, "ab"), Signed("abc", 1, "ab"), Signed("abc", 1, "c")], 4),
    "fewer-are-asked-and-too-few-old-ones-signed": ([Signed("abc", 2, "ab"), Signed("abc", 1, "a")], 2),
    "a-good-one-and-then-a-bad-one": ([Signed("b", 1, "ab"), Signed("c", 1, "ac")], 2),
    "a-key-comes-back": ([Signed("b", 1, "ab"), Signed("a", 1, "ba"), Signed("a", 1, "a")], 4),
    "a-key-that-was-taken-away-signs": ([Signed("b", 1, "ab"), Signed("a", 1, "a")], 2),
}  # fmt: skip


@pytest.mark.parametrize(("chain", "reached"), CHAINS.values(), ids=CHAINS.keys())
def test_a_chain_of_roots_in_which(tmp_path: Path, chain: list[Signed], reached: int) -> None:
    """tuf's client and the walk by roots alone come to the same verdict about every chain."""
    repo = Repository.new()
    repo.trust("root", "root a")
    repo.write("root")
    repo.release(3)
    first = repo.files["1.root.json"]
    for link in chain:
        repo.trust("root", *(f"root {name}" for name in link.keys), threshold=link.threshold)
        repo.next_root(*(f"root {name}" for name in link.by))
    whole = reached == len(chain) + 1
    newest = first
    with pytest.raises(Untrusted) if reached == 1 else contextlib.nullcontext():
        newest = roots.newer_root(first, repo.files)
    assert newest == repo.files[f"{reached}.root.json"]
    assert roots.next_root(newest) == f"{reached + 1}.root.json"
    device = Device(tmp_path / "trust", first)
    with contextlib.nullcontext() if whole else pytest.raises(Untrusted, match=SIGNED_BY):
        assert device.accept(repo.files, 3).record.root == newest
    assert (device.folder / "root.json").read_bytes() == newest
    if not whole:
        with pytest.raises(Untrusted, match="the root after the trusted one"):
            roots.newer_root(newest, repo.files)


ROLES: dict[str, tuple[str, int, str, bool]] = {
    "is-given-another-key": ("b", 1, "b", True),
    "is-signed-by-more-than-is-asked": ("b", 1, "xby", True),
    "is-signed-by-the-old-key": ("b", 1, "", False),
    "needs-three-of-five-and-has-them": ("abcde", 3, "ace", True),
    "needs-three-of-five-and-has-others": ("abcde", 3, "abe", True),
    "needs-three-of-five-and-has-two": ("abcde", 3, "ae", False),
    "needs-three-of-five-and-one-is-a-stranger": ("abcde", 3, "aex", False),
    "needs-more-than-there-are": ("ab", 3, "ab", False),
}


@pytest.mark.parametrize(("keys", "threshold", "by", "holds"), ROLES.values(), ids=ROLES.keys())
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_by_a_new_root(scene: Scene, role: str, keys: str, threshold: int, by: str, holds: bool) -> None:
    attempt(rekeyed(role, keys, threshold, by, holds), scene)


def rekeyed(role: str, keys: str, threshold: int, by: str, holds: bool) -> Case:
    """A root that gives `role` these keys, and metadata that `by` signed."""

    def attack(repo: Repository, old: Files) -> None:
        signers = [f"{role} {name}" for name in by] or [*({"targets": "owner"}.get(role, role),)]
        repo.trust(role, *(f"{role} {name}" for name in keys), threshold=threshold)
        repo.next_root()
        repo.sign_with(role, *signers)
        repo.signed["targets"].version += 1
        repo.publish()

    return Case("", attack, None if holds else Untrusted, SIGNED_BY, False)


def test_one_key_under_two_ids_does_not_make_two_owners(scene: Scene) -> None:
    """tuf's client counts key ids. The record counts keys, so what one owner signed twice is not installed."""
    repo, device = scene.repo, scene.device
    again = copy.copy(key("owner").public_key)
    again.keyid = "again"
    repo.root.add_key(again, "root")
    repo.root.roles["root"].threshold = 2
    repo.next_root()
    document = repo.read("root")
    document["signatures"].append(document["signatures"][0] | {"keyid": "again"})
    repo.files["2.root.json"] = json.dumps(document).encode()
    with pytest.raises(Untrusted, match="1/2 different keys"):
        device.accept(repo.files, 3)
    with pytest.raises(Untrusted, match="1/2 different keys"):
        roots.newer_root(device.root, repo.files)
    assert device.holds()


# --- recovery: a thief counted to the end, and the owner takes the keys away ---


def thief(repo: Repository, *roles: str) -> None:
    for role in roles:
        repo.signed[role].version = 2**62
    repo.publish()


RECOVERIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # what was counted up -> whose keys are replaced
    "timestamp": (("timestamp",), ("timestamp",)),
    "snapshot": (("snapshot",), ("snapshot", "timestamp")),
    "targets": (("targets",), ("snapshot",)),
    "role": ((ROLE,), ("snapshot",)),
    "everything": (("timestamp", "snapshot", "targets", ROLE), ("timestamp", "snapshot", "targets")),
}


@pytest.mark.parametrize("lose", [False, True], ids=["folder-kept", "folder-lost"])
@pytest.mark.parametrize("alone", [False, True], ids=["with-an-order", "by-the-root-alone"])
@pytest.mark.parametrize(("counted", "replaced"), RECOVERIES.values(), ids=RECOVERIES.keys())
def test_after_a_thief_counted_up(
    scene: Scene, counted: tuple[str, ...], replaced: tuple[str, ...], alone: bool, lose: bool
) -> None:
    device, honest = scene.device, scene.repo.fork()
    thief(scene.repo, *counted)
    device.accept(scene.repo.files, 3)
    honest.publish()
    honest.publish()  # a newer timestamp than the thief's, unless that is what was counted up
    if lose:
        device.lose_folder()
    with pytest.raises(Untrusted, match=OLDER):
        device.accept(honest.files, 3)  # without a new root there is no way back
    assert device.number == 3 and device.holds()
    for role in replaced:
        honest.trust(role, f"{role} after the theft")
    honest.next_root()
    honest.publish()
    if alone:
        device.adopt(honest.files)
        assert roots.newer_root(device.root, honest.files) == device.root == honest.files["2.root.json"]
    assert device.accept(honest.files, 3).manifest.number == 3
    assert max(device.mark.values()) < 2**62
    before = dict(device.mark)
    with pytest.raises(Untrusted):
        device.accept(scene.repo.files | {"2.root.json": honest.files["2.root.json"]}, 3)  # the thief again
    assert device.mark == before


def test_a_root_that_only_adds_a_key_lowers_no_mark(scene: Scene) -> None:
    device, honest = scene.device, scene.repo.fork()
    thief(scene.repo, "timestamp")
    device.accept(scene.repo.files, 3)
    mark = dict(device.mark)
    honest.trust("timestamp", "timestamp", "another")
    honest.next_root()
    honest.publish()
    device.adopt(honest.files)
    assert device.mark == mark | {"root": 2}
    device.lose_folder()
    with pytest.raises(Untrusted, match=r"timestamp version .* is older than"):
        device.accept(honest.files, 3)


def test_newer_roots_that_are_hidden_again_are_missed(scene: Scene) -> None:
    """After a power cut took tuf's folder, a broker may not bring back the keys that a later root took away."""
    repo, device = scene.repo, scene.device
    before = repo.fork()
    repo.trust("timestamp", "timestamp 2")
    repo.next_root()
    repo.publish()
    device.accept(repo.files, 3)
    device.lose_folder()
    before.timestamp.version = repo.timestamp.version + 1
    before.publish()
    with pytest.raises(Untrusted, match="root version 1 is older than 2"):
        device.accept(before.files, 3)
    device.adopt(repo.files)
    with pytest.raises(Untrusted, match=SIGNED_BY):
        device.accept(before.files, 3)


# --- the director's key ---


def test_the_director_is_replaced_by_the_root_alone(scene: Scene) -> None:
    repo, device = scene.repo, scene.device
    repo.root.unrecognized_fields["x-falaj-director"] = director("director 2")
    repo.next_root()
    (old,) = roots.director_keys(device.root)
    device.adopt({"2.root.json": repo.files["2.root.json"]})
    (new,) = roots.director_keys(device.root)
    assert (old.keyid, new.keyid) == tuple(key(name).public_key.keyid for name in ("director", "director 2"))
    assert device.holds()


def test_a_root_without_a_director_leaves_the_device_without_one(scene: Scene) -> None:
    """It stands in the chain all the same: to refuse it would be to refuse every root that comes after it."""
    repo, device = scene.repo, scene.device
    named = repo.root.unrecognized_fields.pop("x-falaj-director")
    repo.next_root()
    device.adopt(repo.files)
    with pytest.raises(Malformed, match="names no director"):
        roots.director_keys(device.root)
    assert device.accept(repo.files, 3).manifest.number == 3
    repo.root.unrecognized_fields["x-falaj-director"] = named
    repo.next_root()
    device.adopt(repo.files)
    assert len(roots.director_keys(device.root)) == 1


def test_an_expired_root_still_names_the_director(scene: Scene) -> None:
    repo, device = scene.repo, scene.device
    repo.root.unrecognized_fields["x-falaj-director"] = director("director 2")
    repo.root.expires = in_days(-1)
    repo.next_root()
    device.adopt(repo.files)
    assert [found.keyid for found in roots.director_keys(device.root)] == [key("director 2").public_key.keyid]
    with pytest.raises(Incomplete, match="expired"):
        device.accept(repo.files, 3)


def test_without_newer_roots_the_root_stays(scene: Scene) -> None:
    root, files = scene.device.root, scene.repo.files
    assert roots.newer_root(root, {}) is root
    assert roots.newer_root(root, files) is root
    assert roots.newer_root(root, {"3.root.json": b"junk", "02.root.json": b"junk"}) is root


@pytest.mark.parametrize("junk", [b"", b"{}", b"null", b"\xff"])
def test_a_root_that_is_none_leads_nowhere(scene: Scene, junk: bytes) -> None:
    with pytest.raises(Untrusted):
        roots.newer_root(junk, scene.repo.files)
    with pytest.raises(Untrusted):
        roots.next_root(junk)
    with pytest.raises(Untrusted):
        roots.settled(scene.device.mark, junk, scene.device.root)


@pytest.mark.parametrize(("case", "lost"), CASES.params())
def test_case(scene: Scene, case: Case, lost: bool) -> None:
    attempt(case, scene, lost)
