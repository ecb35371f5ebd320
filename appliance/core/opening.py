"""Sealed files of devices, opened on the core by a person: with the tenant's key, which the core's processes do not
use for it, and the device's public key as the core knows it. And what was predicted, made again from its shelves.
"""

from __future__ import annotations

import base64
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from appliance.api import Api, Refused
from appliance.core.state import CoreFolder, open_keys, samples_key
from appliance.errors import Trouble
from sync import answers, codec, roles
from sync.answers import Predictions, Support
from sync.manifest import LIMIT, Manifest
from sync.names import ModelName

if TYPE_CHECKING:
    from core.release.replay import Replayed

_T = TypeVar("_T", Predictions, Support)


@dataclass(frozen=True)
class Opening:
    """The core in `folder`, which answers on `api`."""

    folder: CoreFolder
    api: Api

    def read(self, content: bytes, wanted: type[_T]) -> _T:
        """What is in a file; raises SyncError (its code says whether it was changed, or is somebody else's)."""
        found = answers.read(content)
        if found.tenant != self.folder.tenant:
            raise Trouble(f"the file is of tenant {found.tenant}, this core is of {self.folder.tenant}")
        rows = [row for row in self.api.get("/v1/devices")["devices"] if row["device"] == found.device]
        if not rows:
            raise Trouble(f"the file is of {found.device}, which never enrolled here")
        keys: roles.Keys = [roles.public_key_from_raw(base64.b64decode(row["signing_key"])) for row in rows]
        private = samples_key(self.folder, open_keys(self.folder))
        return answers.unseal(found, wanted, private, keys)

    def replay(self, document: Predictions) -> tuple[Replayed, ...]:
        """Every prediction of it, made again here, in order."""
        from core.release.registry import ArtifactStore
        from core.release.replay import Replay

        store = ArtifactStore(
            self.folder.artifacts, self.folder.tenant, open_keys(self.folder).object_key("artifact")
        )  # fmt: skip
        return tuple(Replay(self._manifest, store.get).all(document.predictions))

    def _manifest(self, model: ModelName, number: int) -> Manifest | None:
        try:
            found = self.api.get(f"/v1/releases/{model}/{number}")
        except Refused as error:
            if error.code == "not-found":
                return None
            raise
        return codec.decode(Manifest, base64.b64decode(found["manifest_base64"]), LIMIT)


def cpu() -> str:
    """The class of this machine's CPU, as devices say theirs."""
    from edge.runtime import cpu_flags
    from sync.remembered import cpu_class

    return cpu_class(platform.machine(), cpu_flags())
