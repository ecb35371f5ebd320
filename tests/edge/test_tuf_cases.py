"""Attacks on the files themselves: signatures, forms, bytes, and on what timestamp and snapshot say is current.

How a case begins and ends: `tests.edge.tuf_cases`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import MetaFile

from edge.trust import Expired, Incomplete
from sync.errors import SyncError, Untrusted
from tests.edge.tuf_cases import (
    MODEL,
    NOT_SIGNED,
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
    in_days,
    key,
)
from tests.sync.manifests import manifest

EVERY = ("timestamp", "snapshot", "targets", ROLE)
LISTED = ("targets", ROLE)

CASES = Cases()
case = CASES.case


# --- any metadata file: signatures, forms, bytes ---


@case(Incomplete, "has not arrived", *EVERY)
def _has_not_arrived(repo: Repository, old: Files, role: str) -> None:
    del repo.files[repo.name(role)]


@case(Untrusted, SIGNED_BY, *EVERY)
def _bears_no_signature(repo: Repository, old: Files, role: str) -> None:
    repo.put(role, repo.read(role) | {"signatures": []})


@case(Untrusted, SIGNED_BY, *EVERY)
def _is_signed_by_a_stranger(repo: Repository, old: Files, role: str) -> None:
    repo.sign_with(role, "stranger")
    repo.put(role, repo.write(role))


@case(Untrusted, SIGNED_BY, *EVERY)
def _is_signed_by_the_key_of_another_role(repo: Repository, old: Files, role: str) -> None:
    repo.sign_with(role, "timestamp" if role == "snapshot" else "snapshot")
    repo.put(role, repo.write(role))


@case(Untrusted, SIGNED_BY, *EVERY)
def _has_a_strangers_signature_under_the_right_key_id(repo: Repository, old: Files, role: str) -> None:
    right = repo.read(role)["signatures"][0]["keyid"]
    repo.sign_with(role, "stranger")
    repo.put(role, repo.write(role))
    document = repo.read(role)
    document["signatures"][0]["keyid"] = right
    repo.put(role, document)


@case(Untrusted, SIGNED_BY, *EVERY)
def _was_changed_after_it_was_signed(repo: Repository, old: Files, role: str) -> None:
    document = repo.read(role)
    document["signed"]["expires"] = "2999-01-01T00:00:00Z"
    repo.put(role, document)


@case(Untrusted, "deserialize", *EVERY)
def _has_two_signatures_of_one_key_id(repo: Repository, old: Files, role: str) -> None:
    document = repo.read(role)
    document["signatures"] *= 2
    repo.put(role, document)


@case(Untrusted, "Expected|deserialize|mismatch", *EVERY)
def _is_the_metadata_of_another_role(repo: Repository, old: Files, role: str) -> None:
    other = "snapshot" if role == "timestamp" else "timestamp"
    repo.put(role, repo.files[repo.name(other)])


@case(Untrusted, "Expected", *EVERY)
def _is_the_root(repo: Repository, old: Files, role: str) -> None:
    repo.put(role, repo.files["1.root.json"])


@case(None, "", *EVERY)
def _has_fields_that_nobody_knows(repo: Repository, old: Files, role: str) -> None:
    repo.signed[role].unrecognized_fields["x-new"] = {"a": [1, None, True]}
    data = json.loads(repo.write(role)) | {"x-unsigned": 1.5}
    repo.put(role, data)


@case(None, "", *EVERY)
def _has_more_signatures_than_are_needed(repo: Repository, old: Files, role: str) -> None:
    repo.signers[role] = [key("stranger"), *repo.signers[role], key("another")]
    repo.put(role, repo.write(role))


@case(None, "", *EVERY)
def _has_its_signature_in_capitals(repo: Repository, old: Files, role: str) -> None:
    document = repo.read(role)
    document["signatures"][0]["sig"] = document["signatures"][0]["sig"].upper()
    repo.put(role, document)


def _malleable(signature: str) -> str:
    """The other number that stands for the same scalar: S + L, which a lax verifier would take as well."""
    order = 2**252 + 27742317777372353535851937790883648493
    raw = bytes.fromhex(signature)
    return (raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")).hex()


BENT: dict[str, Callable[[str], Any]] = {
    "of-a-scalar-beyond-the-order": _malleable,
    "cut-short": lambda sig: sig[:-2],
    "with-a-byte-more": lambda sig: f"{sig}00",
    "that-is-empty": lambda sig: "",
    "that-is-no-hex": lambda sig: "g" * 128,
    "that-is-a-number": lambda sig: 5,
    "that-is-a-list": lambda sig: [sig],
    "that-is-nothing": lambda sig: None,
}


@pytest.mark.parametrize("bend", BENT.values(), ids=BENT.keys())
@pytest.mark.parametrize("role", EVERY)
def test_a_signature(scene: Scene, role: str, bend: Callable[[str], Any]) -> None:
    def attack(repo: Repository, old: Files) -> None:
        document = repo.read(role)
        document["signatures"][0]["sig"] = bend(document["signatures"][0]["sig"])
        repo.put(role, document)

    attempt(Case("", attack, Untrusted, SIGNED_BY), scene)


JUNK: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut-short": lambda data: data[: len(data) // 2],
    "with-a-tail": lambda data: data + b"{}",
    "twice": lambda data: data * 2,
    "random": lambda data: bytes(i * 37 % 256 for i in range(600)),
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "with-a-byte-order-mark": lambda data: b"\xef\xbb\xbf" + data,
    "nested-without-end": lambda data: b"[" * 12_000,
    "an-empty-object": lambda data: b"{}",
    "null": lambda data: b"null",
    "a-number-without-end": lambda data: data.replace(b'"version":', b'"version":' + b"9" * 5000, 1),
    "a-version-below-one": lambda data: data.replace(b'"version":', b'"version": -', 1),
    "a-version-in-quotes": lambda data: data.replace(b'"spec_version":"1', b'"spec_version":1, "x":"1', 1),
    "another-major-specification": lambda data: data.replace(b'"spec_version":"1', b'"spec_version":"9', 1),
    "a-date-that-is-none": lambda data: data.replace(b'"expires":"20', b'"expires":"20-', 1),
    "a-lone-surrogate": lambda data: data.replace(b'"version"', b'"x":"\\ud800", "version"', 1),
    "a-number-that-is-no-integer": lambda data: data.replace(b'"version"', b'"x": 0.1, "version"', 1),
    "not-a-number": lambda data: data.replace(b'"version"', b'"x": NaN, "version"', 1),
    "signatures-that-are-none": lambda data: data.replace(b'"signatures":[', b'"signatures":5,"x":[', 1),
    "another-type": lambda data: data.replace(b'"_type":"', b'"_type":"x', 1),
}


@pytest.mark.parametrize("spoil", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("role", ["timestamp", ROLE])
def test_bytes_that_are(scene: Scene, role: str, spoil: Callable[[bytes], bytes]) -> None:
    def attack(repo: Repository, old: Files) -> None:
        before = repo.files[repo.name(role)]
        assert spoil(before) != before
        repo.put(role, spoil(before))

    attempt(Case("", attack, Untrusted, "trust files"), scene)


@case(Untrusted, "exceeding|expected length", *EVERY)
def _is_longer_than_allowed(repo: Repository, old: Files, role: str) -> None:
    repo.put(role, repo.files[repo.name(role)] + b" " * 5_000_001)


@case(None, "", *EVERY)
def _says_a_key_twice_and_the_signed_one_last(repo: Repository, old: Files, role: str) -> None:
    """A reader that takes the first would see another document; there is one parser here, and it takes the last."""
    data = repo.files[repo.name(role)].replace(b'"signed":{', b'"signed":{"version":99,"expires":"",', 1)
    repo.put(role, data)


@case(Untrusted, SIGNED_BY, *EVERY)
def _says_a_key_twice_and_the_signed_one_first(repo: Repository, old: Files, role: str) -> None:
    data = repo.files[repo.name(role)].replace(b'"spec_version"', b'"expires":"2999-01-01T00:00:00Z","spec_version"')
    repo.put(role, data)


@case(Expired, "expired", *EVERY)
def _has_expired(repo: Repository, old: Files, role: str) -> None:
    repo.signed[role].expires = in_days(-1)
    repo.put(role, repo.write(role))


@case(Untrusted, SIGNED_BY, *EVERY)
def _has_expired_and_is_forged(repo: Repository, old: Files, role: str) -> None:
    """Nobody may have a device wait for a renewal by what nobody signed."""
    repo.signed[role].expires = in_days(-1)
    repo.sign_with(role, "stranger")
    repo.put(role, repo.write(role))


# --- timestamp ---


@case(Untrusted, OLDER)
def _timestamp_is_rolled_back(repo: Repository, old: Files) -> None:
    repo.files["timestamp.json"] = old["timestamp.json"]


@case(Untrusted, OLDER)
def _everything_is_rolled_back(repo: Repository, old: Files) -> int:
    repo.files = dict(old)
    return 1


@case(Untrusted, OLDER)
def _timestamp_names_an_older_snapshot(repo: Repository, old: Files) -> int:
    repo.snapshot.version = 3
    repo.timestamp.snapshot_meta = MetaFile.from_data(3, old["3.snapshot.json"], ["sha256"])
    repo.write("timestamp")
    return 1


@case(Incomplete, "has not arrived", heals=False)
def _timestamp_names_a_snapshot_that_nobody_has(repo: Repository, old: Files) -> None:
    repo.timestamp.snapshot_meta = MetaFile(repo.snapshot.version + 7)
    repo.write("timestamp")


@case(None, lost=False)
def _timestamp_of_the_version_seen_says_something_else(repo: Repository, old: Files) -> int:
    """What was seen stands: the same number never means something new."""
    repo.timestamp.version -= 1
    repo.timestamp.snapshot_meta = MetaFile(100)
    repo.write("timestamp")
    return 2


@case(Untrusted, "beyond what any publisher counts to", heals=False)
def _timestamp_counts_beyond_what_can_be_kept(repo: Repository, old: Files) -> None:
    repo.timestamp.version = 2**63
    repo.write("timestamp")


@case(None)
def _timestamp_counts_to_the_last_number(repo: Repository, old: Files) -> None:
    repo.timestamp.version = 2**63 - 1
    repo.write("timestamp")


def frozen(repo: Repository) -> Files:
    """What was current when the device last looked: valid, unexpired, and not the newest."""
    seen = repo.fork()
    seen.role.version -= 1
    del seen.role.targets[f"{MODEL}/3/manifest"]
    seen.snapshot.version -= 2
    seen.timestamp.version -= 2
    seen.publish()
    return seen.files


@case(Untrusted, NOT_SIGNED)
def _time_stands_still_and_release_3_is_asked(repo: Repository, old: Files) -> None:
    repo.files = frozen(repo)


@case(None)
def _time_stands_still_and_release_2_is_asked(repo: Repository, old: Files) -> int:
    """Within its life nobody can tell that time stands still; what was accepted once stays acceptable."""
    repo.files = frozen(repo)
    return 2


# --- snapshot ---


@case(Untrusted, "hash|length")
def _snapshot_is_not_the_one_of_the_timestamp_by_hash(repo: Repository, old: Files) -> None:
    repo.snapshot.expires = in_days(6)
    repo.write("snapshot")


@case(Untrusted, "length|hash")
def _snapshot_is_not_as_long_as_the_timestamp_says(repo: Repository, old: Files) -> None:
    repo.timestamp.snapshot_meta.length = 10
    repo.timestamp.snapshot_meta.hashes = None
    repo.write("timestamp")


@case(Untrusted, "Expected snapshot version")
def _snapshot_says_another_version_than_its_name(repo: Repository, old: Files) -> None:
    name = repo.name("snapshot")
    repo.snapshot.version += 1
    repo.files[name] = repo.write("snapshot")
    repo.timestamp.snapshot_meta = MetaFile(repo.snapshot.version - 1)
    repo.write("timestamp")


@case(Untrusted, "missing info|does not contain|not part of", *LISTED)
def _is_no_longer_listed(repo: Repository, old: Files, role: str) -> None:
    del repo.snapshot.meta[f"{role}.json"]
    repo.point()


@case(Untrusted, "Expected|older than", *LISTED)
def _is_listed_in_an_older_version(repo: Repository, old: Files, role: str) -> int:
    repo.targets.version += 2
    repo.publish()
    repo.snapshot.meta[f"{role}.json"] = MetaFile(1 if role == "targets" else 2)
    repo.files |= {"1.targets.json": old["1.targets.json"], f"2.{ROLE}.json": old[f"2.{ROLE}.json"]}
    repo.point()
    return 1


@case(Incomplete, "has not arrived", *LISTED)
def _is_listed_in_a_version_that_nobody_has(repo: Repository, old: Files, role: str) -> None:
    repo.snapshot.meta[f"{role}.json"] = MetaFile(77)
    repo.point()


@case(Untrusted, "hash|length", *LISTED)
def _is_not_the_one_of_the_snapshot_by_hash(repo: Repository, old: Files, role: str) -> None:
    repo.listed = True
    repo.signed[role].version += 1
    repo.publish()
    repo.signed[role].expires = in_days(29)
    repo.write(role)


@case(Untrusted, "Expected .* v", *LISTED)
def _says_another_version_than_its_name(repo: Repository, old: Files, role: str) -> None:
    repo.signed[role].version += 1
    data = repo.write(role)
    repo.signed[role].version += 1
    repo.put(role, data)
    repo.signed[role].version += 1
    repo.list_roles()
    repo.files[repo.name(role)] = data


@case(Untrusted, "Expected .* v|older")
def _files_of_two_moments_are_mixed(repo: Repository, old: Files) -> None:
    repo.files[repo.name(ROLE)] = old[f"2.{ROLE}.json"]


@case(None)
def _roles_are_listed_by_hash_and_length(repo: Repository, old: Files) -> None:
    repo.listed = True
    repo.publish()


# --- laws ---


@settings(max_examples=60, deadline=None)
@given(role=st.sampled_from(EVERY), at=st.floats(0, 1), put=st.binary(min_size=1, max_size=3))
def test_no_bytes_make_another_release(begun: Scene, role: str, at: float, put: bytes) -> None:
    """Whatever a broker writes over whatever file: refused by name, or the very release that was signed."""
    files = dict(begun.repo.files)
    data = files[begun.repo.name(role)]
    start = int(at * len(data))
    files[begun.repo.name(role)] = data[:start] + put + data[start + len(put) :]
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder), begun.device.root, dict(begun.device.mark))
        with contextlib.suppress(SyncError):
            assert device.accept(files, 3).record.manifest == manifest(3)


@settings(max_examples=40, deadline=None)
@given(lost=st.sets(st.integers(0, 30)))
def test_whatever_is_lacking_is_waited_for(begun: Scene, lost: set[int]) -> None:
    names = sorted(begun.repo.files)
    files = {name: begun.repo.files[name] for i, name in enumerate(names) if i not in lost}
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder), begun.device.root, dict(begun.device.mark))
        with contextlib.suppress(Incomplete):
            assert device.accept(files, 3).manifest.number == 3
        assert device.accept(begun.repo.files, 3).manifest.number == 3


@pytest.mark.parametrize(("case", "lost"), CASES.params())
def test_case(scene: Scene, case: Case, lost: bool) -> None:
    attempt(case, scene, lost)
