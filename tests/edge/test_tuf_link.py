"""The cases of the public TUF client suites by their own names, told over the link: what is published are messages,
the device is the whole agent (`tests.edge.tuf_link`). `PUBLIC` says which case of ours stands for which of theirs; the
files are those of tuf-conformance, `test_updater_top_level_update.py` that of python-tuf.

Not told again: what only an HTTP client can do (requests are counted, files are kept in a cache), and how the very
first root comes, which here is pinned by the enrolment token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sync.errors import Untrusted
from tests.edge import test_tuf_cases, test_tuf_delegations, test_tuf_roots
from tests.edge.test_tuf_roots import BAD_ROOTS, CHAINS, RECOVERIES, ROLES, rekeyed, thief
from tests.edge.tuf_cases import NOT_SIGNED, Cases, Files, Repository
from tests.edge.tuf_link import Start, attempt, begin, joined

CASES = Cases()
case = CASES.case
Story = Callable[[Start, Path], None]


@case(None)
def _nothing_is_wrong(repo: Repository, old: Files) -> None:
    """What all the others spoil."""


@case(Untrusted, NOT_SIGNED)
def _release_that_nobody_signed_is_asked(repo: Repository, old: Files) -> int:
    return 4


@case(None, "", "?", "#", "/delegatedrole", "../delegatedrole")
def _is_the_name_of_a_role(repo: Repository, old: Files, role: str) -> None:
    repo.delegate(role, "owner", ["*/*/*"])
    repo.targets.version += 1
    repo.publish()


KNOWN = {
    told.name: told
    for module in (test_tuf_cases, test_tuf_delegations, test_tuf_roots)
    for told, _ in module.CASES.told
} | {told.name: told for told, _ in CASES.told}


def ours(name: str) -> Story:
    return partial(attempt, KNOWN[name])


def keys(name: str) -> Story:
    """A new root gives each role in turn these keys."""

    def story(start: Start, folder: Path) -> None:
        for role in ("timestamp", "snapshot", "targets"):
            attempt(rekeyed(role, *ROLES[name]), start, folder / role)

    return story


def chain(name: str) -> Story:
    """A device that enrolled with the first root of a chain follows it as far as it holds, and no further."""

    def story(start: Start, folder: Path) -> None:
        links, reached = CHAINS[name]
        repo = Repository.new()
        repo.trust("root", "root a")
        repo.write("root")
        repo.release(3)
        line = joined(folder, repo)
        for link in links:
            repo.trust("root", *(f"root {one}" for one in link.keys), threshold=link.threshold)
            repo.next_root(*(f"root {one}" for one in link.by))
        line.publish(repo.files)
        line.device.boot()
        line.hear(lambda: line.device.house.trust.root == repo.files[f"{len(links) + 1}.root.json"], 7)
        assert line.device.house.trust.root == repo.files[f"{reached}.root.json"]
        assert line.codes.count("refused-untrusted") == (reached <= len(links))
        if reached > len(links):
            line.order(3)
            assert line.takes_in(3), line.codes
        line.off()

    return story


def bad_root(name: str) -> Story:
    """It is told once, the root stays, and the one that does follow is taken afterwards."""

    def story(start: Start, folder: Path) -> None:
        repo, _, line = start.at(folder)
        good, root = repo.files["1.root.json"], BAD_ROOTS[name](repo.fork())
        line.publish({**repo.files, "2.root.json": root})
        line.device.boot()
        line.hear(lambda: "refused-untrusted" in line.codes)
        assert line.device.house.trust.root == good and line.codes.count("refused-untrusted") == 1
        repo.next_root()
        line.publish(repo.files)
        line.order(3)
        assert line.takes_in(3) and line.device.house.trust.root == repo.files["2.root.json"]
        line.off()

    return story


def recovery(name: str) -> Story:
    """A thief counts up, which is refused to be undone until a root takes the keys away."""

    def story(start: Start, folder: Path) -> None:
        counted, replaced = RECOVERIES[name]
        repo, _, line = start.at(folder)
        honest = repo.fork()
        thief(repo, *counted)
        line.publish(repo.files)
        line.order(3)
        line.device.boot()
        assert line.takes_in(3)
        line.order(3, mode="off")
        assert line.hear(lambda: line.admitted is None)
        honest.publish()
        honest.publish()  # a newer timestamp than the thief's, unless that is what was counted up
        line.publish(honest.files)
        line.order(3)
        assert line.hear(lambda: "refused-untrusted" in line.codes) and line.admitted is None
        for role in replaced:
            honest.trust(role, f"{role} after the theft")
        honest.next_root()
        honest.publish()
        line.publish(honest.files)
        assert line.takes_in(3) and max(line.mark.values()) < 2**62
        assert line.codes.count("refused-untrusted") == 1
        line.off()

    return story


PUBLIC: dict[str, Story] = {
    "test_basic.py::test_basic_init_and_refresh": ours("nothing-is-wrong"),
    "test_basic.py::test_implicit_refresh": ours("release-that-nobody-signed-is-asked"),
    "test_basic.py::test_timestamp_content_changes": ours("timestamp-of-the-version-seen-says-something-else"),
    "test_basic.py::test_timestamp_eq_versions_check": ours("timestamp-of-the-version-seen-says-something-else"),
    "test_basic.py::test_new_targets_hash_mismatch": ours("targets-is-not-the-one-of-the-snapshot-by-hash"),
    "test_basic.py::test_new_targets_version_mismatch": ours("targets-says-another-version-than-its-name"),
    "test_basic.py::test_custom_fields": ours("root-knows-fields-that-nobody-else-knows"),
    "test_expiration.py::test_root_expired": ours("last-root-has-expired"),
    "test_expiration.py::test_timestamp_expired": ours("timestamp-has-expired"),
    "test_expiration.py::test_snapshot_expired": ours("snapshot-has-expired"),
    "test_expiration.py::test_targets_expired": ours("targets-has-expired"),
    "test_rollback.py::test_new_timestamp_version_rollback": ours("timestamp-is-rolled-back"),
    "test_rollback.py::test_snapshot_rollback": ours("timestamp-names-an-older-snapshot"),
    "test_rollback.py::test_new_snapshot_version_mismatch": ours("snapshot-says-another-version-than-its-name"),
    "test_rollback.py::test_targets_rollback": ours("targets-is-listed-in-an-older-version"),
    "test_rollback.py::test_new_timestamp_fast_forward_recovery": recovery("timestamp"),
    "test_rollback.py::test_new_snapshot_fast_forward_recovery": recovery("snapshot"),
    "test_rollback.py::test_new_targets_fast_forward_recovery": recovery("targets"),
    "test_keys.py::test_root_has_keys_but_not_snapshot": ours("snapshot-is-signed-by-a-stranger"),
    "test_keys.py::test_wrong_hashing_algorithm": ours("root-knows-fields-that-nobody-else-knows"),
    "test_keys.py::test_snapshot_threshold": keys("needs-more-than-there-are"),
    "test_keys.py::test_duplicate_keys_root": ours("a-threshold-of-two-is-met-by-one-key-under-two-ids"),
    "test_file_download.py::test_client_downloads_expected_file": ours("nothing-is-wrong"),
    "test_file_download.py::test_repository_substitutes_target_file": ours("manifest-is-another"),
    "test_file_download.py::test_multiple_changes_to_target": ours("manifest-has-a-byte-more"),
    "test_updater_delegation_graphs.py::test_graph_traversal[cyclic-graph]": ours("delegations-run-in-a-circle"),
    "test_updater_delegation_graphs.py::test_graph_traversal[two-level-terminating-ignores-all-but-roles-descendants]":
        ours("a-role-behind-a-terminating-one-signs-the-release"),
    "test_quoting_issues.py::test_unusual_role_name[?]": ours("?-is-the-name-of-a-role"),
    "test_quoting_issues.py::test_unusual_role_name[#]": ours("#-is-the-name-of-a-role"),
    "test_quoting_issues.py::test_unusual_role_name[/delegatedrole]": ours("/delegatedrole-is-the-name-of-a-role"),
    "test_quoting_issues.py::test_unusual_role_name[../delegatedrole]": ours("../delegatedrole-is-the-name-of-a-role"),
} | {
    f"test_updater_key_rotations.py::test_root_rotation[{theirs}]": chain(name)
    for theirs, name in {
        "1-of-1-key-rotation": "one-key-follows-another",
        "1-of-1-key-rotation-unused-signatures": "with-signatures-nobody-asked-for",
        "3-of-5-sign-with-different-keycombos": "any-three-of-five",
        "3-of-5-one-key-rotated": "one-of-five-is-replaced",
        "3-of-5-one-key-rotated-with-intermediate-step": "one-of-five-is-replaced-in-two-steps",
        "3-of-5-all-keys-rotated-with-intermediate-step": "all-of-five-are-replaced",
        "2-of-3-threshold-decrease-to-1-of-3": "fewer-are-asked-from-now-on",
        "1-of-2-threshold-increase-to-2-of-2": "one-key-becomes-two",
        "1-of-1-key-rotation-fail-not-signed-with-old-key": "not-signed-by-the-old-key",
        "1-of-1-key-rotation-fail-not-signed-with-new-key": "not-signed-by-the-new-key",
        "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": "three-new-ones-have-not-signed",
        "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": "three-old-ones-have-not-signed",
        "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": "two-are-asked-and-one-has-signed",
        "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached": "fewer-are-asked-and-too-few-old-ones-signed",
    }.items()
} | {
    f"test_updater_key_rotations.py::test_non_root_rotations[{theirs}]": keys(name)
    for theirs, name in {
        "1-of-1-key-rotation": "is-given-another-key",
        "1-of-1-key-rotation-unused-signatures": "is-signed-by-more-than-is-asked",
        "1-of-1-key-rotation-fail-not-signed-with-new-key": "is-signed-by-the-old-key",
        "3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": "needs-three-of-five-and-one-is-a-stranger",
        "2-of-5-one-key-signature-mising-threshold-not-reached": "needs-three-of-five-and-has-two",
        "3-of-5-sign-first-combo": "needs-three-of-five-and-has-them",
        "3-of-5-sign-second-combo": "needs-three-of-five-and-has-others",
    }.items()
} | {
    f"test_updater_top_level_update.py::{theirs}": story
    for theirs, story in {
        "test_max_root_rotations": ours("fifty-roots-have-come-since"),
        "test_intermediate_root_incorrectly_signed": bad_root("unsigned"),
        "test_intermediate_root_expired": ours("root-between-has-expired"),
        "test_new_root_same_version": bad_root("the-same-again"),
        "test_new_root_nonconsecutive_version": bad_root("a-version-too-far"),
        "test_new_timestamp_unsigned": ours("timestamp-bears-no-signature"),
        "test_new_snapshot_unsigned": ours("snapshot-bears-no-signature"),
        "test_new_targets_unsigned": ours("targets-bears-no-signature"),
        "test_new_snapshot_hash_mismatch": ours("snapshot-is-not-the-one-of-the-timestamp-by-hash"),
        "test_compute_metafile_hashes_length": ours("roles-are-listed-by-hash-and-length"),
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return begin(tmp_path_factory.mktemp("link") / "device")


@pytest.mark.parametrize("story", PUBLIC.values(), ids=PUBLIC.keys())
def test_public_case_over_the_link(start: Start, tmp_path: Path, story: Story) -> None:
    story(start, tmp_path / "device")


def test_there_are_as_many_as_were_promised() -> None:
    assert len(PUBLIC) >= 45
