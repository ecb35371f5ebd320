"""Attacks on who may sign which release: targets, delegations, and the names of paths and roles.

How a case begins and ends: `tests.edge.tuf_cases`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from edge.trust import Incomplete
from sync.errors import Untrusted
from tests.edge.tuf_cases import (
    MODEL,
    NOT_SIGNED,
    ROLE,
    SIGNED_BY,
    Case,
    Cases,
    Files,
    Repository,
    Scene,
    attempt,
    digest_of,
    key,
)
from tests.sync.manifests import manifest

ELSEWHERE = "not among the signed|not the one that was signed|not the one of this snapshot"  # a kept file is stale

CASES = Cases()
case = CASES.case


# --- targets, delegations, paths ---


@case(Untrusted, NOT_SIGNED)
def _release_was_taken_back(repo: Repository, old: Files) -> int:
    del repo.role.targets[f"{MODEL}/2/manifest"]
    repo.role.version += 1
    repo.publish()
    return 2


@case(Untrusted, NOT_SIGNED)
def _release_is_signed_with_another_digest(repo: Repository, old: Files) -> None:
    path = f"{MODEL}/3/manifest"
    repo.role.targets[path] = TargetFile.from_data(path, manifest(3) + b" ", ["sha256"])
    repo.role.version += 1
    repo.publish()


@case(Untrusted, NOT_SIGNED)
def _release_is_signed_with_another_kind_of_digest(repo: Repository, old: Files) -> None:
    path = f"{MODEL}/3/manifest"
    repo.role.targets[path] = TargetFile.from_data(path, manifest(3), ["sha512"])
    repo.role.version += 1
    repo.publish()


@case(Incomplete, "has not arrived")
def _manifest_has_not_arrived(repo: Repository, old: Files) -> None:
    del repo.files[f"{digest_of(3)}.manifest"]


@case(Untrusted, "not the one that was signed")
def _manifest_is_another(repo: Repository, old: Files) -> None:
    repo.files[f"{digest_of(3)}.manifest"] = manifest(2)


@case(Untrusted, "not the one that was signed")
def _manifest_has_a_byte_more(repo: Repository, old: Files) -> None:
    repo.files[f"{digest_of(3)}.manifest"] += b" "


@case(Untrusted, "signed by 1/2|signed by 0/2")
def _a_threshold_of_two_is_met_by_one(repo: Repository, old: Files) -> None:
    delegations = repo.targets.delegations
    assert delegations is not None and delegations.roles is not None
    delegations.keys[key("second").public_key.keyid] = key("second").public_key
    delegations.roles[ROLE] = DelegatedRole(
        ROLE, [key("owner").public_key.keyid, key("second").public_key.keyid], 2, True, [f"{MODEL}/*/*"]
    )
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, "1/2 different keys")
def _a_threshold_of_two_is_met_by_one_key_under_two_ids(repo: Repository, old: Files) -> None:
    delegations = repo.targets.delegations
    assert delegations is not None and delegations.roles is not None
    again = copy.copy(key("owner").public_key)
    again.keyid = "again"
    delegations.keys["again"] = again
    delegations.roles[ROLE] = DelegatedRole(ROLE, [key("owner").public_key.keyid, "again"], 2, True, [f"{MODEL}/*/*"])
    repo.targets.version += 1
    repo.publish()
    document = repo.read(ROLE)
    document["signatures"].append(document["signatures"][0] | {"keyid": "again"})
    repo.put(ROLE, document)


def change_targets(repo: Repository, change: Callable[[dict[str, Any]], None]) -> None:
    """The targets with delegations that tuf's own classes would not write, signed by the owner all the same."""
    repo.targets.version += 1
    repo.publish()
    document = repo.read("targets")
    change(document["signed"])
    canonical = encode_canonical(document["signed"])
    assert canonical is not None
    document["signatures"] = [key("owner").sign(canonical.encode()).to_dict()]
    repo.put("targets", document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keyids", ["a" * 64]),
        ("keyids", []),
        ("keyids", [key("owner").public_key.keyid] * 2),
        ("threshold", 0),
        ("threshold", 2),
        ("threshold", -1),
        ("threshold", "1"),
        ("name", "timestamp"),
        ("name", ""),
        ("paths", []),
        ("paths", [f"{MODEL}/*"]),
        ("paths", ["*"]),
        ("paths", ["MOTION/*/*"]),
        ("paths", [f"/{MODEL}/*/*"]),
        ("paths", [f"{MODEL}%2f*%2f*"]),
        ("paths", ["../motion/*/*"]),
        ("paths", ["m\u043etion/*/*"]),
        ("paths", [f"{MODEL}/[12]/*"]),
        ("path_hash_prefixes", ["00"]),
    ],
    ids=lambda value: str(value).replace(key("owner").public_key.keyid, "own").strip("[]'\"")[:12] or "none",
)
def test_a_delegation_that_does_not_hold(scene: Scene, field: str, value: Any) -> None:
    def attack(repo: Repository, old: Files) -> None:
        change_targets(repo, lambda signed: signed["delegations"]["roles"][0].update({field: value}))

    attempt(Case("", attack, Untrusted, ""), scene)


@pytest.mark.parametrize(
    "change",
    [{"keytype": "ecdsa"}, {"keytype": "rsa"}, {"keytype": "dance"}, {"scheme": "rsassa-pss-sha256"},
     {"keyval": {"public": "00" * 32}}, {"keyval": {"public": "zz"}}, {"keyval": {"public": 5}}, {"keyval": {}}],
    ids=str,
)  # fmt: skip
def test_a_key_that_is_not_what_it_says(scene: Scene, change: dict[str, Any]) -> None:
    def attack(repo: Repository, old: Files) -> None:
        keyid = key("owner").public_key.keyid
        change_targets(repo, lambda signed: signed["delegations"]["keys"][keyid].update(change))

    attempt(Case("", attack, Untrusted, ""), scene)


@pytest.mark.parametrize(
    "path",
    ["../motion/3/manifest", "motion/../motion/3/manifest", "motion//3/manifest", "/motion/3/manifest",
     "motion%2f3%2fmanifest", "motion/3/manifest/", "motion/3/manifest\x00", "motion/3/manifest ", "motion/03/manifest",
     "MOTION/3/manifest", "m\u043etion/3/manifest", "motion/\uff13/manifest", "motion\\3\\manifest", "*/*/*"],
)  # fmt: skip
def test_a_name_that_only_looks_like_the_release(scene: Scene, path: str) -> None:
    def attack(repo: Repository, old: Files) -> None:
        repo.role.targets = {path: TargetFile.from_data(path, manifest(3), ["sha256"])}
        repo.role.version += 1
        repo.publish()

    attempt(Case("", attack, Untrusted, NOT_SIGNED), scene)


def move(repo: Repository, role: str) -> None:
    """Release 3 is signed by another role than its model's."""
    repo.signed[role].targets |= {f"{MODEL}/3/manifest": repo.role.targets.pop(f"{MODEL}/3/manifest")}
    repo.role.version += 1
    repo.signed[role].version += 1


@case(Untrusted, NOT_SIGNED, heals=False)
def _another_models_role_signs_the_release(repo: Repository, old: Files) -> None:
    repo.delegate("model.other", "owner", ["other/*/*"], terminating=True)
    move(repo, "model.other")
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, ELSEWHERE, heals=False)
def _a_role_in_front_signs_the_release(repo: Repository, old: Files) -> None:
    """A role that may sign everything is no role of this model: a release is its own role's, or nobody's."""
    repo.delegate("auto", "auto", ["*/*/*"])
    move(repo, "auto")
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, NOT_SIGNED, heals=False)
def _a_role_behind_a_terminating_one_signs_the_release(repo: Repository, old: Files) -> None:
    delegations = repo.targets.delegations
    assert delegations is not None and delegations.roles is not None
    repo.delegate("late", "owner", ["*/*/*"])
    delegations = repo.targets.delegations
    assert delegations is not None and delegations.roles is not None
    delegations.roles = {ROLE: delegations.roles[ROLE], "late": delegations.roles["late"]}
    move(repo, "late")
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, "not the one that was signed", heals=False)
def _a_role_below_the_models_signs_the_release(repo: Repository, old: Files) -> None:
    repo.delegate("below", "owner", [f"{MODEL}/*/*"], by=ROLE)
    move(repo, "below")
    repo.publish()


@case(Untrusted, ELSEWHERE)
def _the_targets_sign_the_release_themselves(repo: Repository, old: Files) -> None:
    move(repo, "targets")
    repo.publish()


@case(Untrusted, "record|not among the signed", heals=False)
def _the_models_role_is_delegated_by_another_than_the_targets(repo: Repository, old: Files) -> None:
    delegations = repo.targets.delegations
    assert delegations is not None
    repo.targets.delegations = Delegations(delegations.keys, {})
    middle = repo.delegate("middle", "middle", ["*/*/*"])
    middle.delegations = delegations
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, NOT_SIGNED, heals=False)
def _delegations_run_in_a_circle(repo: Repository, old: Files) -> None:
    repo.delegate("one", "owner", ["*/*/*"], by=ROLE)
    repo.delegate("two", "owner", ["*/*/*"], by="one")
    repo.delegate(ROLE, "owner", ["*/*/*"], by="two")
    repo.role.targets.clear()
    repo.role.version += 1
    repo.publish()


@case(Untrusted, ELSEWHERE, heals=False)
def _delegations_are_more_than_anyone_follows(repo: Repository, old: Files) -> None:
    for i in range(40):
        repo.delegate(f"r{i}", "owner", ["*/*/*"])
    repo.targets.version += 1
    repo.publish()


@case(Untrusted, SIGNED_BY, heals=False)
def _a_role_in_front_is_not_signed_by_its_key(repo: Repository, old: Files) -> None:
    """What has to be read to know who decides must hold, also where it decides nothing."""
    repo.delegate("auto", "auto", ["*/*/*"])
    repo.sign_with("auto", "stranger")
    repo.targets.version += 1
    repo.publish()


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role", "../../../role", "\u00e9", "a b", "%2e%2e%2frole"])
def test_a_role_with_an_odd_name_stays_in_its_folder(scene: Scene, tmp_path: Path, role: str) -> None:
    repo, device = scene.repo, scene.device
    repo.delegate(role, "owner", ["*/*/*"])
    repo.targets.version += 1
    repo.publish()
    before = {path for path in tmp_path.rglob("*") if "trust" not in path.parts}
    assert device.accept(repo.files, 3).manifest.number == 3
    assert {path for path in tmp_path.rglob("*") if "trust" not in path.parts} == before
    assert all(path.is_file() and path.name.endswith(".json") for path in device.folder.iterdir() if not path.is_dir())


def test_a_role_that_was_delegated_anew_is_verified_by_its_new_key(scene: Scene) -> None:
    repo, device = scene.repo, scene.device
    repo.delegate(ROLE, "second", [f"{MODEL}/*/*"], terminating=True)
    repo.sign_with(ROLE, "owner")
    repo.targets.version += 1
    repo.publish()
    with pytest.raises(Untrusted, match=SIGNED_BY):
        device.accept(repo.files, 2)  # release 2 lies in the folder, signed by the key that was taken away
    repo.sign_with(ROLE, "second")
    repo.publish()
    assert device.accept(repo.files, 3).manifest.number == 3


def test_what_the_snapshot_lists_of_another_model_may_not_go_back_either(scene: Scene) -> None:
    """The mark counts for every role it knows, not only for the one that is looked into."""
    repo, device = scene.repo, scene.device
    repo.delegate("model.other", "owner", ["other/*/*"], terminating=True)
    repo.targets.version += 1
    repo.publish()
    device.mark["model.other"] = 2
    device.lose_folder()
    with pytest.raises(Untrusted, match=r"model\.other version 1 is older than 2"):
        device.accept(repo.files, 3)
    del repo.snapshot.meta["model.other.json"]
    repo.snapshot.version += 1
    repo.point()
    device.lose_folder()
    with pytest.raises(Untrusted, match=r"model\.other version 0 is older than 2"):
        device.accept(repo.files, 3)


@pytest.mark.parametrize(("case", "lost"), CASES.params())
def test_case(scene: Scene, case: Case, lost: bool) -> None:
    attempt(case, scene, lost)
