"""A person's key folder as it is found: keys that are none, media that cannot be written, files that were changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from appliance.core.key_ring import KeyRing
from appliance.errors import Trouble
from appliance.keys import KeyUnsafe
from core.fleet import enrolment
from core.release import metadata, signing
from sync import roles
from sync.durable import write_private
from sync.errors import Untrusted
from sync.names import ModelName, TenantId
from tests.core import people

NOW = 1_800_000_000.0
MODEL = ModelName("motion")


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    ring = KeyRing(tmp_path / "keys")
    ring.make("amal")
    return ring


def begun(ring: KeyRing) -> dict[str, bytes]:
    """The files of a tenant that this key began."""
    (mine,) = ring.signers()
    online = [roles.signer(roles.new_signing_key()).public_key for _ in range(3)]
    layout = people.single(mine, *online)
    drafts = signing.beginning(layout, metadata.later(NOW, signing.LIFE))
    return signing.as_files(signing.sign({}, drafts, [mine]))


def released(ring: KeyRing, files: dict[str, bytes], number: int) -> dict[str, bytes]:
    drafts = signing.approval(files, MODEL, number, b"manifest %d" % number, metadata.later(NOW, signing.LIFE))
    return files | signing.as_files(signing.sign(files, drafts, ring.signers()))


def _passphrase() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", _passphrase(), enrolment.create_authority(TenantId("acme"), NOW).key],
    ids=["empty", "junk", "with a passphrase", "another kind"],
)
def test_a_file_that_is_no_key_is_named_and_nothing_of_it_is_shown(ring: KeyRing, content: bytes) -> None:
    write_private(ring.folder / "other.key", content)
    with pytest.raises(
        Trouble, match=r"other\.key is no key that falaj can sign with .* without a passphrase"
    ) as found:
        ring.signers()
    assert "PRIVATE" not in str(found.value)
    with pytest.raises(Trouble, match="no key that falaj can sign with"):
        ring.make("other")


def test_a_key_that_others_may_read_is_not_given_away_either(ring: KeyRing) -> None:
    (ring.folder / "amal.key").chmod(0o640)
    with pytest.raises(KeyUnsafe, match="chmod 600"):
        ring.make("amal")


def test_what_was_seen_is_remembered_and_nothing_older_is_extended(ring: KeyRing) -> None:
    files = begun(ring)
    ring.check(files)
    one = released(ring, files, 1)
    two = released(ring, one, 2)
    ring.check(two)
    ring.check(two)
    for older in (one, files):
        with pytest.raises(Untrusted, match="your keys have seen"):
            ring.check(older)
    with pytest.raises(Untrusted, match="never signed"):  # an old one under the name of a new one
        ring.check(two | {"2.model.motion.json": one["1.model.motion.json"]})


def test_what_came_in_force_counts_before_it_was_seen(ring: KeyRing) -> None:
    files = begun(ring)
    ring.check(files)
    drafts = signing.approval(files, MODEL, 1, b"m", metadata.later(NOW, signing.LIFE))
    ring.in_force(drafts)
    with pytest.raises(Untrusted, match="your keys have seen 1"):
        ring.check(files)


def test_a_memory_that_cannot_be_read_is_named(ring: KeyRing) -> None:
    files = begun(ring)
    ring.check(files)
    write_private(ring.folder / "seen.json", b"{")
    with pytest.raises(Trouble, match=r"seen\.json cannot be read"):
        ring.check(files)
    (ring.folder / "seen.json").unlink()
    write_private(ring.folder / "root.json", b"{")
    with pytest.raises(Trouble, match=r"root\.json cannot be read"):
        ring.check(files)


def test_all_that_is_written_is_private(ring: KeyRing) -> None:
    ring.check(begun(ring))
    assert {path.stat().st_mode & 0o777 for path in ring.folder.iterdir()} == {0o600}
    assert ring.folder.stat().st_mode & 0o777 == 0o700


def test_keys_on_a_medium_that_cannot_be_written(ring: KeyRing) -> None:
    """What was seen could not be remembered: said in words, before anything is signed."""
    for name in ("root.json", "badr.key"):
        (ring.folder / f"{name}.tmp").mkdir()  # the disk refuses the file, also where root runs the tests
    with pytest.raises(Trouble, match=r"root\.json cannot be written .*: what keys have signed is remembered beside"):
        ring.check(begun(ring))
    with pytest.raises(Trouble, match="make the folder writable"):
        ring.make("badr")
