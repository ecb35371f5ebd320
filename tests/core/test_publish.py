"""Trust from the owner's signature to a device's acceptance, by the real client, and what is refused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from core.release import checking, publish, signing
from core.release.metadata import Files
from edge import roots, trust
from sync import chunks, roles
from sync.errors import Untrusted
from sync.manifest import role_of
from sync.messages import ASSIGNMENT_TYPE, Ack
from sync.names import ModelName
from tests.core import people
from tests.core.world import DAY, MODEL
from tests.sync.manifests import manifest

OWNER, STRANGER = roles.signer(roles.new_signing_key()), roles.signer(roles.new_signing_key())
SNAPSHOT, TIMESTAMP = roles.signer(roles.new_signing_key()), roles.signer(roles.new_signing_key())
DIRECTOR_KEY = roles.new_signing_key()
DIRECTOR = roles.signer(DIRECTOR_KEY)
ONLINE = publish.OnlineSigners(SNAPSHOT, TIMESTAMP)
OTHER = ModelName("other")
ROLE = role_of(MODEL)


@pytest.fixture
def now() -> float:
    """tuf's client reads the machine's clock itself, so metadata must be signed about now."""
    import time

    return time.time()


def first(now: float) -> dict[str, bytes]:
    root, targets = people.begun(OWNER, SNAPSHOT.public_key, TIMESTAMP.public_key, DIRECTOR.public_key, now)
    files = {"1.root.json": root, "1.targets.json": targets}
    return files | publish.renew(files, ONLINE, now)


def approved(files: dict[str, bytes], now: float, number: int = 1, model: ModelName = MODEL) -> dict[str, bytes]:
    """What the steward keeps after one approval."""
    payload = manifest(number, model)
    drafts = people.approved(files, model, number, payload, OWNER, now)
    check(files, model, number, payload, drafts)
    fresh = {**files, f"{chunks.digest(payload)}.manifest": payload, **signing.as_files(drafts)}
    return fresh | publish.renew(fresh, ONLINE, now)


def check(files: Files, model: ModelName, number: int, payload: bytes, drafts: signing.Drafts) -> None:
    """What the steward asks of an approval that has all its signatures."""
    checking.check_approval(files, model, number, payload, drafts)
    signing.check_signatures(files, drafts)
    assert all(one.met for found in signing.tally(files, drafts).values() for one in found)


def accept(folder: Path, files: dict[str, bytes], number: int = 1, **floor: int) -> trust.Accepted:
    digest = chunks.digest(manifest(number))
    return trust.accept(folder, files["1.root.json"], files, floor, MODEL, number, digest, 0.0)


def edited(data: bytes, signer: Any, change: Any) -> bytes:
    metadata: Metadata[Targets] = Metadata.from_bytes(data)
    change(metadata.signed)
    metadata.signatures.clear()
    metadata.sign(signer)
    return metadata.to_bytes()


def test_what_the_owner_signed_the_device_accepts(tmp_path: Path, now: float) -> None:
    files = approved(first(now), now)
    found = accept(tmp_path, files)
    assert found.manifest.number == 1
    assert trust.verify(found.record, MODEL, 1) == found.manifest
    assert found.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "model.motion": 1}


def test_only_what_is_current_is_needed(tmp_path: Path, now: float) -> None:
    files = approved(approved(approved(first(now), now), now, 2), now, 1, OTHER)
    names = publish.current(files)
    assert names[-1] == "timestamp.json"
    assert "1.targets.json" not in names and "1.snapshot.json" not in names and "1.model.motion.json" not in names
    assert {"1.root.json", "3.targets.json", "4.snapshot.json", "2.model.motion.json", "1.model.other.json"} < {*names}
    assert accept(tmp_path, {n: files[n] for n in names}, 2).manifest.number == 2


def test_an_older_release_stays_acceptable(tmp_path: Path, now: float) -> None:
    files = approved(approved(first(now), now), now, 2)
    assert accept(tmp_path, files, 2).manifest.number == 2
    assert accept(tmp_path, files, 1).manifest.number == 1


def test_the_director_in_the_root_signs_assignments(now: float) -> None:
    keys = roots.director_keys(first(now)["1.root.json"])
    envelope = roles.sign(Ack(1, 1), ASSIGNMENT_TYPE, DIRECTOR_KEY)
    assert roles.verify(envelope, ASSIGNMENT_TYPE, Ack, keys) == Ack(1, 1)


def test_a_model_of_another_name_is_not_signed_by_this_role(tmp_path: Path, now: float) -> None:
    files = approved(first(now), now)
    with pytest.raises(Untrusted, match="not among the signed"):
        trust.accept(tmp_path, files["1.root.json"], files, {}, MODEL, 2, chunks.digest(manifest(2)), now)


def test_a_device_does_not_go_back_to_older_metadata(tmp_path: Path, now: float) -> None:
    old = approved(first(now), now)
    new = approved(old, now, 2)
    seen = accept(tmp_path / "one", new, 2).versions
    with pytest.raises(Untrusted):
        accept(tmp_path / "one", old, 1)
    with pytest.raises(Untrusted, match="seen before"):
        accept(tmp_path / "lost and made anew", old, 1, **seen)


def test_expired_metadata_is_no_verdict(tmp_path: Path, now: float) -> None:
    files = approved(first(now - 8 * DAY), now - 8 * DAY)
    with pytest.raises(trust.Incomplete, match="expired"):
        accept(tmp_path, files)
    renewed = files | publish.renew(files, ONLINE, now)
    assert accept(tmp_path, renewed).manifest.number == 1


def test_renewal_is_due_after_half_of_the_life(now: float) -> None:
    files = first(now)
    assert not publish.renewal_due({}, now)
    assert not publish.renewal_due(files, now + 3.4 * DAY)
    assert publish.renewal_due(files, now + 3.6 * DAY)


def test_a_renewal_counts_up_and_changes_nothing_else(now: float) -> None:
    files = approved(first(now), now)
    fresh = publish.renew(files, ONLINE, now + DAY)
    assert set(fresh) == {"timestamp.json"}, "the snapshot says the same and is fetched by nobody"
    both = files | fresh
    assert set(publish.current(both)) == set(publish.current(files))


def test_a_snapshot_is_signed_anew_before_it_ends_and_under_another_key(now: float) -> None:
    files = approved(first(now), now)
    late = now + (publish.SNAPSHOT_LIFE - publish.ONLINE_LIFE).total_seconds() + DAY
    other = publish.OnlineSigners(roles.signer(roles.new_signing_key()), TIMESTAMP)
    for fresh in (publish.renew(files, ONLINE, late), publish.renew(files, other, now + DAY)):
        assert set(fresh) == {"3.snapshot.json", "timestamp.json"}


def test_a_trust_that_does_not_hold_is_not_begun(now: float) -> None:
    online = (SNAPSHOT.public_key, TIMESTAMP.public_key, DIRECTOR.public_key)
    root, targets = people.begun(OWNER, *online, now)
    _, strange = people.begun(STRANGER, *online, now)

    def refused(text: str, root: bytes, targets: bytes) -> None:
        drafts = {"root": root, "targets": targets}
        with pytest.raises(Untrusted, match=text):
            begin(drafts)

    def begin(drafts: signing.Drafts) -> None:
        checking.check_change({}, drafts)
        signing.check_signatures({}, drafts)

    refused("nobody asked for that key", root, strange)
    refused("nobody asked for that key", edited(root, STRANGER, lambda r: None), targets)
    refused("something else", edited(root, OWNER, _next), targets)
    refused("something else", root, edited(targets, OWNER, _next))
    refused("not root", targets, targets)
    assert checking.check_change({}, {"root": root, "targets": targets}).profile == "single-owner"


def _next(signed: Any) -> None:
    signed.version += 1


def test_approvals_that_must_be_refused(now: float) -> None:
    files = approved(first(now), now)
    payload = manifest(2)
    good = people.approved(files, MODEL, 2, payload, OWNER, now)
    assert set(good) == {ROLE}, "the model is known: its role alone is signed"
    check(files, MODEL, 2, payload, good)

    def refused(text: str, payload: bytes, model: ModelName = MODEL, **drafts: bytes) -> None:
        named = {ROLE if name == "role" else name: data for name, data in drafts.items()}
        with pytest.raises(Untrusted, match=text):
            check(files, model, 2, payload, named)

    refused("nobody asked for that key", payload, role=edited(good[ROLE], STRANGER, lambda r: None))
    refused("something else", payload, role=edited(good[ROLE], OWNER, _next))
    refused("something else", payload, role=files["1.model.motion.json"])
    refused("something else", manifest(3), role=good[ROLE])
    refused("something else", payload, OTHER, role=good[ROLE])
    refused("something else", payload, role=good[ROLE], targets=edited(files["2.targets.json"], OWNER, _next))
    refused("something else", payload, role=files["2.targets.json"])
    refused("not targets", payload, role=files["1.root.json"])


def test_a_new_model_needs_targets_that_delegate_to_it(now: float) -> None:
    files = approved(first(now), now)
    payload = manifest(1, OTHER)
    drafts = people.approved(files, OTHER, 1, payload, OWNER, now)
    role = {role_of(OTHER): drafts[role_of(OTHER)]}
    with pytest.raises(Untrusted, match="something else"):
        check(files, OTHER, 1, payload, role)
    with pytest.raises(Untrusted, match="nobody asked for that key"):
        check(files, OTHER, 1, payload, role | {"targets": edited(drafts["targets"], STRANGER, lambda t: None)})
    check(files, OTHER, 1, payload, drafts)


def test_before_trust_nothing_can_be_approved(now: float) -> None:
    with pytest.raises(Untrusted, match="falaj trust init"):
        people.approved({}, MODEL, 1, manifest(), OWNER, now)


def test_the_file_of_a_manifest_bears_its_digest(now: float) -> None:
    payload = manifest()
    assert approved(first(now), now)[f"{chunks.digest(payload)}.manifest"] == payload


@pytest.mark.parametrize("which", ["targets", "role"])
def test_the_owner_signs_nothing_on_top_of_what_somebody_else_wrote(now: float, which: str) -> None:
    """A hacked core hands the owner metadata with an extra of its own, hoping to have it signed along."""
    files = approved(first(now), now)
    name = "2.targets.json" if which == "targets" else f"1.model.{MODEL}.json"

    def slip_in(signed: Targets) -> None:
        signed.unrecognized_fields["x"] = 1

    unsigned = Metadata[Targets].from_bytes(files[name])
    slip_in(unsigned.signed)
    for forged in (edited(files[name], STRANGER, slip_in), unsigned.to_bytes()):
        with pytest.raises(Untrusted, match="nothing was signed"):
            people.approved(files | {name: forged}, MODEL, 2, manifest(2), OWNER, now)
