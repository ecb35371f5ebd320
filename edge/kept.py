"""What a room remembers of each model between two starts: one small sealed file a model, replaced whole.

A file that cannot be read is the same as none, and reported; a disk that refuses costs what was to be kept, never
whoever keeps it. Every file is bound to tenant, purpose and model, so that none can be passed for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from sync.durable import make_folder, write_private
from sync.errors import SyncError
from sync.names import ModelName, TenantId
from sync.sealing import NONCE_BYTES, seal_small, unseal_small

Report = Callable[[str, str], None]  # (stable code, text)


class Kept:
    """The files of one purpose in `folder`, which is made if it is not there. One caller at a time for a model.

    `key` is 32 bytes of this purpose alone, `nonces` gives that many fresh random bytes. `report` hears of what was
    lost (`<purpose>-state-lost`) and, once until it works again, of a disk that refuses (`disk-refused`).
    """

    def __init__(
        self,
        folder: Path,
        tenant: TenantId,
        key: bytes,
        purpose: str,
        nonces: Callable[[int], bytes],
        report: Report,
    ) -> None:
        self._folder, self._tenant, self._key, self._purpose, self._nonces = folder, tenant, key, purpose, nonces
        self._refused = False
        self.report = report
        with contextlib.suppress(OSError):  # a disk that refuses: `save` makes it, or says why not
            make_folder(self._folder)

    def load(self, model: ModelName) -> bytes | None:
        """What was saved last; None where nothing was, or where it cannot be read, which is reported."""
        try:
            return unseal_small((self._folder / model).read_bytes(), self._key, self._aad(model))
        except FileNotFoundError:
            return None
        except (SyncError, OSError, ValueError) as error:
            self.lost(model, error)
            return None

    def save(self, model: ModelName, content: bytes) -> None:
        """Replaces what was saved; a reader finds the old content or the new, never a part, after a power
        cut too. Takes as long as the disk does."""
        sealed = seal_small(content, self._key, self._aad(model), self._nonces(NONCE_BYTES))
        try:
            write_private(self._folder / model, sealed)  # no model's name has a dot, as the half of one has
        except OSError as error:
            if not self._refused:
                text = f"the {self._purpose} of {model} is not kept: {error.strerror}; check the disk"
                self.report("disk-refused", text)
            self._refused = True
        else:
            self._refused = False

    def remove(self, model: ModelName) -> None:
        """Nothing is kept of this model any more."""
        try:
            (self._folder / model).unlink(missing_ok=True)
        except OSError as error:
            self.report("disk-refused", f"the {self._purpose} of {model} is not removed: {error.strerror}")

    def lost(self, model: ModelName, error: Exception) -> None:
        """Reports content that opened and yet says nothing to its reader."""
        self.report(f"{self._purpose}-state-lost", f"the {self._purpose} of {model} begins anew: {error}")

    def _aad(self, model: ModelName) -> bytes:
        return f"falaj/1 {self._purpose} {self._tenant} {model}".encode()
