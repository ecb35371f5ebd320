"""What the first set-up has to do on this machine: pure decisions over gathered facts.

Standard library only and readable by any Python from 3.7 on, since it is what tells a user that theirs is
too old. `appliance.bootstrap` gathers the facts and carries the steps out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DEMO_WHEEL = ("seglearn==1.2.5", "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd")
GET_MOSQUITTO = ("apt-get", "install", "-y", "--no-install-recommends", "mosquitto")

# Estimates in MB to fetch, for the words before a download; nothing depends on them.
SIZES = {
    "edge": 45,
    "core": 130,
    "torch-cpu": 190,
    "torch-cuda": 2800,
    "dev": 40,
    "mosquitto": 1,
    "demo-data": 12,
}


class Refused(Exception):
    """The set-up cannot go on; the message says why and what to do (exit codes: `appliance.bootstrap`)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Facts:
    """What the set-up knows of this machine and this checkout."""

    python: tuple[int, int]
    bits: int
    system: str
    machine: str
    glibc: bool
    has_venv: bool  # the system's python can make virtual environments
    root: bool
    ci: bool
    tty: bool
    sudo: bool
    apt: bool
    mosquitto: str | None  # version, or None
    torch_index: str | None
    torch_here: bool  # installed in .venv, or a CPU wheel lies in a folder that pip looks into
    venv: bool  # .venv works, for this python
    digest: str  # of all that decides what gets installed
    stamp: Mapping[str, object]  # what the last finished set-up wrote, or empty
    demo_data: bool  # the pinned wheel lies in the cache, whole


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    dev: bool = False
    demo: bool = False


@dataclass(frozen=True)
class Step:
    """One thing to do: `kind` names the action, `says` is what the user reads, `megabytes` an estimate."""

    kind: str
    says: str
    megabytes: int = 0


def refusal(facts: Facts) -> Refused | None:
    """Why this machine cannot run Falaj at all, or None."""
    if facts.python < (3, 11):
        found = ".".join(map(str, facts.python))
        return Refused(f"Python 3.11 or newer is needed, this is {found}. Try: make PYTHON=python3.11 demo", 2)
    if facts.system != "Linux" or facts.bits != 64:
        return Refused(f"64-bit Linux is needed, this is {facts.bits}-bit {facts.system} {facts.machine}.", 2)
    if not facts.glibc:
        return Refused(
            "A distribution with glibc is needed (Debian, Ubuntu, Fedora, ...): PyTorch and ONNX Runtime "
            "publish no builds for musl. On Alpine, run Falaj in a Debian container.",
            2,
        )
    if not facts.venv and not facts.has_venv:
        return Refused("Python's venv module is missing. Do: sudo apt-get install python3-venv", 2)
    return None


def plan(facts: Facts, wish: Wish) -> tuple[Step, ...]:
    """The steps still to do, in order; empty when all is in place. Raises Refused."""
    refused = refusal(facts)
    if refused is not None:
        raise refused
    steps = [*_mosquitto_steps(facts)]
    if not stamped(facts, wish):
        if not facts.venv:
            steps.append(Step("venv", "make the virtual environment .venv"))
        steps.append(Step("packages", _packages_words(facts, wish), _packages_size(facts, wish)))
    if wish.demo and not facts.demo_data:
        steps.append(Step("demo-data", f"fetch the demo's data ({DEMO_WHEEL[0]}, never installed)", SIZES["demo-data"]))
    return tuple(steps)


def must_ask(facts: Facts) -> bool:
    """Whether a person has to agree before sudo: not for root, not in CI."""
    return not facts.root and not facts.ci


def stamped(facts: Facts, wish: Wish) -> bool:
    """Whether a finished set-up already installed what is wished, from the same inputs."""
    return facts.venv and facts.stamp.get("digest") == facts.digest and (bool(facts.stamp.get("dev")) or not wish.dev)


def _mosquitto_steps(facts: Facts) -> tuple[Step, ...]:
    version = facts.mosquitto
    if version is not None:
        if int(version.split(".")[0]) < 2:
            raise Refused(f"Mosquitto {version} is too old, 2.0 or newer is needed: upgrade the package.", 3)
        return ()
    command = " ".join(GET_MOSQUITTO)
    if not facts.apt:
        raise Refused(
            "Mosquitto 2.0 or newer is missing. Install the server with your distribution's package manager "
            "(the package is called mosquitto), then run this again.",
            3,
        )
    if not facts.root and not (facts.sudo and (facts.tty or facts.ci)):
        raise Refused(f"Mosquitto is missing and cannot be installed from here. Do: sudo {command}", 3)
    as_whom = "" if facts.root else "sudo "
    says = f"install the MQTT broker from the distribution ({as_whom}{command})"
    return (Step("mosquitto", says, SIZES["mosquitto"]),)


def fetches_cuda(facts: Facts) -> bool:
    """Whether pip would take PyTorch's CUDA build: the default of the public index for x86-64 Linux."""
    return facts.machine in ("x86_64", "AMD64") and not facts.torch_index and not facts.torch_here


def _packages_size(facts: Facts, wish: Wish) -> int:
    torch = 0 if facts.torch_here else SIZES["torch-cuda" if fetches_cuda(facts) else "torch-cpu"]
    return SIZES["edge"] + SIZES["core"] + torch + (SIZES["dev"] if wish.dev else 0)


def _packages_words(facts: Facts, wish: Wish) -> str:
    words = f"install Falaj with {'its tests and checkers' if wish.dev else 'the core'} (pip)"
    if facts.torch_here:
        return words
    if not fetches_cuda(facts):
        return f"{words}; PyTorch {'from ' + facts.torch_index if facts.torch_index else 'CPU build'}"
    return (
        f"{words}; PyTorch comes as the CUDA build, about {SIZES['torch-cuda']} MB of it. "
        f"No NVIDIA GPU? Stop (Ctrl-C) and start again with TORCH_INDEX={CPU_INDEX} ({SIZES['torch-cpu']} MB)"
    )


def diagnose(log: str) -> str:
    """What the end of pip's output means, in words a user can act on."""
    unreachable = r"NewConnectionError|NameResolution|name resolution|Max retries|ConnectTimeout|unreachable"
    if re.search(unreachable, log) or ("setuptools" in log and "(from versions: none)" in log):
        return "the package index cannot be reached. The first set-up needs the network; check it (or a proxy)."
    if "No space left on device" in log:
        return "the disk is full. A full installation takes about 2 GB (7 GB with CUDA)."
    if "DO NOT MATCH THE HASHES" in log:
        return "a download is not the file it should be (hash mismatch). Nothing of it was kept; try again."
    if "No matching distribution" in log:
        return "the package index has no build for this Python and machine; see the log."
    return "pip failed; the log says why."


def digest_of(parts: Mapping[str, bytes], python: str) -> str:
    """The digest of all that decides what gets installed: file contents by name, and Python's version."""
    whole = hashlib.sha256(python.encode())
    for name in sorted(parts):
        whole.update(name.encode() + b"\0" + hashlib.sha256(parts[name]).digest())
    return whole.hexdigest()
