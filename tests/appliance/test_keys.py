"""Keys on disk: what is made, what is refused, and that nothing opens with another's key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_csr

from appliance import keys
from appliance.keys import KeyUnsafe, TenantKeys, tenant_keys
from core.fleet import enrolment
from core.steward import Keys
from edge.agent import Identity
from sync.errors import Damaged, SyncError
from sync.names import DeviceId, TenantId

TENANT = TenantId("acme")


def opened(folder: Path, tenant: TenantId = TENANT) -> TenantKeys:
    return tenant_keys(folder / "kek", folder / "tenant.key", tenant)


def test_the_first_start_makes_both_files_and_the_second_reads_the_same_key(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}
    assert opened(tmp_path).derive("catalog") == first.derive("catalog")
    assert first.derive("catalog") not in (tmp_path / "tenant.key").read_bytes()


def test_each_purpose_tenant_and_core_has_a_key_of_its_own(tmp_path: Path) -> None:
    here = opened(tmp_path / "a")
    there = opened(tmp_path / "b")
    made = [here.derive("catalog"), here.derive("secrets"), there.derive("catalog"), here.object_key("catalog")("x")]
    assert len(set(made)) == 4
    assert {len(key) for key in made} == {32}
    assert TenantKeys(TenantId("other"), here._key).derive("catalog") != here.derive("catalog")


@pytest.mark.parametrize("name", ["kek", "tenant.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_refused_with_the_command_that_helps(
    tmp_path: Path, name: str, mode: int
) -> None:
    opened(tmp_path)
    (tmp_path / name).chmod(mode)
    with pytest.raises(KeyUnsafe, match=f"{name} can be read by others: run `chmod 600"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["kek", "tenant.key"])
def test_half_a_pair_is_never_completed_by_a_new_key(tmp_path: Path, name: str) -> None:
    opened(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(KeyUnsafe, match=f"{name} is missing: restore it from the backup"):
        opened(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"salt":"?","wrapped":""}', b'{"salt":"","wrapped":"","n":3}'])
def test_a_damaged_key_file_is_named_with_what_to_do(tmp_path: Path, damage: bytes) -> None:
    opened(tmp_path)
    (tmp_path / "tenant.key").write_bytes(damage)
    with pytest.raises(KeyUnsafe, match=r"tenant.key does not open with .*: restore the pair from one backup"):
        opened(tmp_path)


def test_a_wrong_kek_and_another_tenant_do_not_open_it(tmp_path: Path) -> None:
    opened(tmp_path / "a")
    opened(tmp_path / "b")
    with pytest.raises(KeyUnsafe, match=r"does not open with .*: restore the pair from one backup"):
        tenant_keys(tmp_path / "b" / "kek", tmp_path / "a" / "tenant.key", TENANT)
    with pytest.raises(KeyUnsafe, match="does not open"):
        opened(tmp_path / "a", TenantId("other"))


def test_wrapping_goes_there_and_back_and_notices_a_changed_byte(tmp_path: Path) -> None:
    own = opened(tmp_path)
    wrapped = own.wrap(b"data key")
    assert own.unwrap(wrapped) == b"data key"
    assert own.wrap(b"data key") != wrapped, "a fresh nonce each time"
    with pytest.raises(Damaged):
        own.unwrap(wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def test_a_secret_belongs_to_its_files_name(tmp_path: Path) -> None:
    own = opened(tmp_path)
    own.keep_secret(tmp_path / "director", b"secret")
    assert own.read_secret(tmp_path / "director") == b"secret"
    assert b"secret" not in (tmp_path / "director").read_bytes()
    (tmp_path / "director").rename(tmp_path / "snapshot")
    with pytest.raises(SyncError):
        own.read_secret(tmp_path / "snapshot")


def test_a_devices_request_is_signed_by_the_key_it_will_use(tmp_path: Path) -> None:
    made = keys.new_device_keys("dev-1")
    request = load_pem_x509_csr(made.csr)
    assert request.is_signature_valid
    assert request.public_key() == load_pem_private_key(made.signing, None).public_key()
    assert len(made.sealing) == len(made.sealing_public) == 32
    assert keys.new_device_keys("dev-1").signing != made.signing


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_first_start_that_was_cut_between_its_files_is_gone_on_with(tmp_path: Path, cut: str) -> None:
    """Half a pair says "restore it from the backup": true for a loss, a dead end where there never was a pair."""
    made = opened(tmp_path)
    (tmp_path / "kek").rename(tmp_path / "kek.pending")
    if cut == "before":
        (tmp_path / "tenant.key").unlink()
    again = opened(tmp_path)
    assert (again.derive("catalog") == made.derive("catalog")) is (cut == "after")
    assert {p.name for p in tmp_path.iterdir()} == {"kek", "tenant.key"}


def test_a_secret_that_is_damaged_is_named(tmp_path: Path) -> None:
    made, path = opened(tmp_path), tmp_path / "keys" / "snapshot"
    made.keep_secret(path, b"a secret")
    sealed = path.read_bytes()
    path.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(Damaged, match=r"keys/snapshot does not open .*: put it back from the backup"):
        made.read_secret(path)


def test_what_is_printed_of_whoever_holds_a_key_shows_no_key(tmp_path: Path) -> None:
    """A log line, a traceback with values, a failed assertion: none of them may carry one away."""
    made, pair = keys.new_device_keys("dev-1"), enrolment.create_authority(TenantId("acme"), 1.8e9)
    raw = b"\x01secret-of-32-bytes-that-is-raw!"
    identity = Identity(TenantId("acme"), DeviceId("dev-1"), 1, b"{}", made.signing, raw)
    online = Keys(made.signing, made.signing, made.signing, raw)
    for holder in (made, pair, identity, online, TenantKeys(TenantId("acme"), raw)):
        shown = f"{holder!r} {holder}"
        assert "PRIVATE KEY" not in shown and "secret-of-32" not in shown, type(holder)
