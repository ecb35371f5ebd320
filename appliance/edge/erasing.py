"""Erasing a device for good: first the few keys without which nothing else on its disk means anything, then the rest.

Keys are overwritten and synced before they are unlinked. A flash disk may keep old blocks all the same: where that
matters, the disk itself is to be discarded (`blkdiscard`) or was encrypted from the start.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from appliance.processes import hold
from sync.durable import sync_folder

KEYS = ("kek", "kek.pending", "device.key-wrapped", "enrol.token", "network.token")
HOLDS_KEYS = ("identity", "identity.new", "identity.old", "asking", "broker")  # folders of which every file is a secret


def erase(root: Path) -> int:
    """Erases an agent's folder; how many keys were destroyed. Raises FolderTaken while its agent runs."""
    with hold(root):
        secrets = [root / name for name in KEYS]
        secrets += [path for name in HOLDS_KEYS for path in sorted((root / name).rglob("*"))]
        destroyed = [_destroy(path) for path in secrets if path.is_file() and not path.is_symlink()]
        sync_folder(root)
        for path in list(root.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        sync_folder(root)
    return len(destroyed)


def _destroy(path: Path) -> Path:
    with path.open("r+b", buffering=0) as file:
        file.write(os.urandom(path.stat().st_size))
        os.fsync(file.fileno())
    path.unlink()
    return path
