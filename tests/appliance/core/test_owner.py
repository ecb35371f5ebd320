"""The owner's signatures, made in the owner's process: what is signed is what was read, and the key stays a file."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from appliance.api import Api
from appliance.core import owner
from appliance.core.key_ring import NoReleaseKey
from appliance.errors import Trouble
from appliance.keys import KeyUnsafe
from core.orders import TrustInit, TrustKeys
from core.release import checking
from sync import codec, roles
from sync.durable import write_private
from sync.names import ModelName
from tests.edge import graphs

NOW = 1_800_000_000.0


class Core(Api):
    """A core in this process that answers what the owner asks, and remembers what it was handed."""

    def __init__(self, documents: dict[str, Any] | None = None) -> None:
        self.documents = {"/v1/trust": {"files": {}, "waiting": []}} | (documents or {})
        self.orders: list[object] = []
        self.keys = {name: roles.signer(roles.new_signing_key()) for name in ("director", "snapshot", "timestamp")}

    def get(self, path: str) -> Any:
        return self.documents[path]

    def order(self, order: object) -> dict[str, Any]:
        self.orders.append(order)
        if isinstance(order, TrustKeys):
            keys = {name: signer.public_key for name, signer in self.keys.items()}
            return {name: {"keyid": key.keyid, **key.to_dict()} for name, key in keys.items()}
        return {"root": "digest"}


def test_the_first_root_names_the_cores_online_keys_and_the_owners(tmp_path: Path) -> None:
    core = Core()
    result = owner.init(core, tmp_path / "keys", "me", NOW)
    handed = core.orders[-1]
    assert isinstance(handed, TrustInit)
    root = handed.root.encode()
    layout = checking.check_change({}, {"root": root, "targets": handed.targets.encode()})
    assert layout.online["director"].keyid == core.keys["director"].public_key.keyid
    signed = codec.decode(dict, root)["signed"]
    assert signed["roles"]["root"]["keyids"] == signed["roles"]["targets"]["keyids"] == [result["keyid"]]
    assert signed["roles"]["snapshot"]["keyids"] == [core.keys["snapshot"].public_key.keyid]
    assert result["profile"] == "single-owner"


def test_the_release_key_is_private_kept_and_never_handed_over(tmp_path: Path) -> None:
    core = Core()
    owner.init(core, tmp_path / "keys", "me", NOW)
    key = tmp_path / "keys" / "release.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    (tmp_path / "keys" / "root.json").unlink()  # a core that was made anew
    owner.init(core, tmp_path / "keys", "me", NOW)
    assert key.read_bytes() == before
    secret = before.decode().splitlines()[1]
    assert all(secret not in codec.encode(order).decode() for order in core.orders)


def test_without_a_key_nothing_is_signed_and_the_message_helps(tmp_path: Path) -> None:
    with pytest.raises(NoReleaseKey, match=r"no release key at .*: `falaj trust init` makes one, --keys names another"):
        owner.approve(Core(), tmp_path, ModelName("m"), 1, "me", NOW)


def test_a_key_that_others_may_read_does_not_sign(tmp_path: Path) -> None:
    write_private(tmp_path / "release.key", roles.new_signing_key())
    (tmp_path / "release.key").chmod(0o640)
    with pytest.raises(KeyUnsafe, match="chmod 600"):
        owner.approve(Core(), tmp_path, ModelName("m"), 1, "me", NOW)


def test_a_core_that_shows_another_release_gets_no_signature(tmp_path: Path, another_manifest: bytes) -> None:
    write_private(tmp_path / "release.key", roles.new_signing_key())
    core = Core({"/v1/releases/wanted/2": {"manifest_base64": base64.b64encode(another_manifest).decode()}})
    with pytest.raises(Trouble, match="the core sent the manifest of shown 7: nothing was signed"):
        owner.approve(core, tmp_path, ModelName("wanted"), 2, "me", NOW)
    assert core.orders == []


@pytest.fixture
def another_manifest() -> bytes:
    return codec.encode(graphs.manifest(7, model=ModelName("shown")))
