"""Is this machine fit for Falaj? Gathers facts about it, judges them, says what to do.

Theory. `gather` looks and changes nothing, `examine` is a pure function over what was seen, `run` is the
command. Nothing here imports a library it asks about: versions come from the metadata of what is installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from appliance.certificates import ends_of
from appliance.settings import owner_folder, state_folder

OUR_NAMES = ("appliance", "core", "edge", "sync")
EARLIEST = 1_767_225_600.0  # `edge.states.CLOCK_FLOOR`, which is not imported: this runs where numpy does not
LATEST = 4_102_444_800.0  # 2100-01-01 UTC
SOON = 7 * 86_400.0  # seconds
MIN_FREE_MB = 500
LOW_FREE_MB = 2_000

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: a stable code, how bad it is, what was found, and what to do about it (empty when ok)."""

    code: str
    level: Level
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen. `owners` maps each of our import names to the distributions that claim it."""

    python: tuple[int, int]
    bits: int
    libc: str  # such as "glibc 2.36"; empty when it is not glibc
    torch: str | None  # version as installed, None without the core
    cuda_packages: int  # NVIDIA runtime packages beside torch
    gpu: bool
    mosquitto: str | None
    owners: Mapping[str, frozenset[str]]
    now: float  # seconds since 1970, UTC
    free_mb: int
    disk: str  # the folder whose disk was measured
    open_keys: tuple[str, ...]  # keys that others than their owner may touch
    certificates: tuple[tuple[str, float], ...] = ()  # (file, end) of an agent's and a core's own


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Judges the facts; one finding for each question, in a fixed order."""
    return (
        _python(facts),
        _libc(facts),
        _torch(facts),
        _mosquitto(facts),
        _names(facts),
        _clock(facts),
        _disk(facts),
        _keys(facts),
        _certificates(facts),
    )


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the worst finding."""
    levels = {f.level for f in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def _python(facts: Facts) -> Finding:
    text = "Python {}.{}, {} bits".format(*facts.python, facts.bits)
    if facts.python < (3, 11) or facts.bits != 64:
        return Finding("python", "fail", text, "install a 64-bit Python 3.11 or newer, then run make demo again")
    return Finding("python", "ok", text)


def _libc(facts: Facts) -> Finding:
    if not facts.libc.startswith("glibc"):
        hint = "use a distribution with glibc: PyTorch and ONNX Runtime publish no builds for musl"
        return Finding("libc", "fail", "the C library is not glibc", hint)
    return Finding("libc", "ok", facts.libc)


def _torch(facts: Facts) -> Finding:
    if facts.torch is None:
        return Finding("torch", "ok", "no PyTorch: this installation serves, it does not train")
    if facts.gpu or "+cpu" in facts.torch or not facts.cuda_packages:
        where = "with a GPU" if facts.gpu else "on the CPU"
        return Finding("torch", "ok", f"PyTorch {facts.torch}, {where}")
    text = f"PyTorch {facts.torch} with {facts.cuda_packages} CUDA packages, but no NVIDIA GPU"
    hint = "it works, but costs gigabytes: for the CPU build see TORCH_INDEX in README.md"
    return Finding("torch", "warn", text, hint)


def _mosquitto(facts: Facts) -> Finding:
    hint = "sudo apt-get install mosquitto (2.0 or newer; needed by the core, and by edges without a broker)"
    if facts.mosquitto is None:
        return Finding("mosquitto", "fail", "Mosquitto was not found", hint)
    if int(facts.mosquitto.split(".")[0]) < 2:
        return Finding("mosquitto", "fail", f"Mosquitto {facts.mosquitto} is too old", hint)
    return Finding("mosquitto", "ok", f"Mosquitto {facts.mosquitto}")


def _names(facts: Facts) -> Finding:
    foreign = {n: sorted(facts.owners.get(n, frozenset()) - {"falaj"}) for n in OUR_NAMES}
    shared = [f"{name} ({', '.join(owners)})" for name, owners in foreign.items() if owners]
    if shared:
        hint = "another package overwrites ours: give Falaj a virtual environment of its own"
        return Finding("names", "fail", f"import names claimed by others too: {', '.join(shared)}", hint)
    missing = [n for n in OUR_NAMES if "falaj" not in facts.owners.get(n, frozenset())]
    if missing:
        return Finding("names", "warn", f"not installed as packages: {', '.join(missing)}", "run: pip install -e .")
    return Finding("names", "ok", f"import names are ours alone: {', '.join(OUR_NAMES)}")


def _clock(facts: Facts) -> Finding:
    if not EARLIEST <= facts.now <= LATEST:
        hint = "set the clock (timedatectl set-ntp true); until then a device serves but installs nothing"
        return Finding("clock", "fail", f"the clock says {int(facts.now)} seconds since 1970", hint)
    return Finding("clock", "ok", "the clock is set")


def _certificates(facts: Facts) -> Finding:
    ended = [path for path, ends in facts.certificates if ends <= facts.now]
    soon = [path for path, ends in facts.certificates if facts.now < ends < facts.now + SOON]
    if ended:
        hint = (
            "a device: `falaj device replace NAME` on its core, there `falaj edge enrol TOKEN --again`; a core: "
            "start it, it renews its own"
        )
        return Finding("certificate", "fail", f"ended: {', '.join(ended)}", hint)
    if soon:
        hint = "it should have been renewed: does the device reach its core? `falaj edge status` there; start the core"
        return Finding("certificate", "warn", f"ends within a week: {', '.join(soon)}", hint)
    count = len(facts.certificates)
    return Finding("certificate", "ok", f"{count} of this machine hold" if count else "none on this machine yet")


def _disk(facts: Facts) -> Finding:
    text = f"{facts.free_mb} MB free for {facts.disk}"
    hint = f"free some space: below {MIN_FREE_MB} MB releases are no longer installed"
    if facts.free_mb < MIN_FREE_MB:
        return Finding("disk", "fail", text, hint)
    if facts.free_mb < LOW_FREE_MB:
        return Finding("disk", "warn", text, hint)
    return Finding("disk", "ok", text)


def _keys(facts: Facts) -> Finding:
    if facts.open_keys:
        hint = f"chmod go= {' '.join(facts.open_keys)}"
        return Finding("key-files", "fail", f"keys that others may read: {', '.join(facts.open_keys)}", hint)
    return Finding("key-files", "ok", "no key is readable by others")


def gather(data: Path, key_folders: Iterable[Path], now: float) -> Facts:
    """Looks at this machine. `data` is where Falaj keeps its state, `key_folders` where keys lie."""
    torch, cuda = _torch_build()
    free, disk = _free_space(data)
    folders = tuple(key_folders)
    papers = [f for home in folders for f in (home / "identity" / "device.pem", *home.glob("tenants/*/pki/*.pem"))]
    return Facts(
        python=sys.version_info[:2],
        bits=struct.calcsize("P") * 8,
        libc=" ".join(platform.libc_ver()).strip(),
        torch=torch,
        cuda_packages=cuda,
        gpu=Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists(),
        mosquitto=mosquitto_version(),
        owners={
            name: frozenset(owners)
            for name, owners in importlib.metadata.packages_distributions().items()
            if name in OUR_NAMES
        },
        now=now,
        free_mb=free,
        disk=disk,
        open_keys=tuple(open_keys(folders)),
        certificates=ends_of([path for path in papers if path.name != "revoked.pem"]),
    )


def mosquitto_version() -> str | None:
    """The version of the broker on PATH or in /usr/sbin; None without one."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"mosquitto version (\d+(?:\.\d+)+)", told.stdout + told.stderr)
    return found.group(1) if found else None


def open_keys(folders: Iterable[Path]) -> list[str]:
    """Secrets below `folders` that the group or others may touch, and key folders they may write to, sorted."""
    found = []
    for path in (path for folder in folders for path in (folder, *folder.rglob("*"))):
        forbidden = 0o022 if path.is_dir() else 0o077
        if is_secret(path) and not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & forbidden:
            found.append(str(path))
    return sorted(found)


def is_secret(path: Path) -> bool:
    """Whether a path is a key by its name or place: `kek`, `*.key`, or a folder `keys` and what lies in it."""
    return path.name == "kek" or path.suffix == ".key" or "keys" in (path.name, path.parent.name)


def _torch_build() -> tuple[str | None, int]:
    names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    cuda = sum(name.startswith("nvidia-") for name in names)
    return (importlib.metadata.version("torch") if "torch" in names else None), cuda


def _free_space(data: Path) -> tuple[int, str]:
    """Free MB on the disk that holds, or would hold, `data`."""
    place = next(p for p in (data, *data.absolute().parents) if p.exists())
    return shutil.disk_usage(place).free // 1_000_000, str(data)


def run(as_json: bool, folders: Sequence[Path] = ()) -> int:
    """`falaj doctor`: prints the findings; 0 when nothing failed, 1 otherwise. `folders`: the state folders to look
    into, without any the default ones; the owner's keys are always looked at.
    """
    homes = [*(folders or (state_folder("core"), state_folder("edge"))), owner_folder()]
    findings = examine(gather(homes[0], [h for h in homes if h.is_dir()], time.time()))
    if as_json:
        click.echo(json.dumps({"worst": worst(findings), "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.level:<4}  {finding.code:<10} {finding.text}")
            if finding.hint:
                click.echo(f"      {'':<10} → {finding.hint}")
    return 1 if worst(findings) == "fail" else 0
