"""The support bundle: what a person needs who cannot stand beside the box, as a .tar.gz. Pure but for `host`.

In it are versions, facts of the host, settings, status with its why cards, what the journal counts, the last events and
log lines, and names and sizes of files. No reading, no prediction, no key and no password: nothing here opens a file of
the agent's but to ask its size.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import platform
import shutil
import sqlite3
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("falaj", "onnxruntime", "numpy", "paho-mqtt", "cryptography", "tuf", "msgspec")
MOST_FILES = 500  # of the agent's folder that are named
LOG_LIMIT = 64 * 1024  # bytes of log lines, the newest: the whole bundle fits one answer


def host(folder: Path, cpu: str) -> dict[str, Any]:
    """Facts of this machine that have a bearing on the agent. `cpu` is its class."""
    disk = shutil.disk_usage(folder)
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "disk_free_mb": disk.free >> 20,
        "disk_mb": disk.total >> 20,
    }


def files(folder: Path) -> dict[str, int]:
    """Name and size (bytes) of what lies in the agent's folder; -1 of what went away meanwhile."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _size(path) for path in found[:MOST_FILES]}


def bundle(documents: Mapping[str, Any], log: Sequence[str], made: float) -> bytes:
    """The archive: each document as `NAME.json`, and `log.txt`; the same content always gives the same bytes."""
    entries = {f"{name}.json": json.dumps(plain, indent=2, sort_keys=True, default=str).encode() + b"\n"
               for name, plain in documents.items()}  # fmt: skip
    entries["log.txt"] = "\n".join((*log, "")).encode(errors="replace")[-LOG_LIMIT:]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for name, content in sorted(entries.items()):
            entry = tarfile.TarInfo(f"falaj-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(made), 0o600
            packed.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=int(made))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
