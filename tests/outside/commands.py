"""The commands of a page, found and run as they are written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRIES = 3  # a reader whose machine is so busy that a second is not enough runs the commands again


def blocks(page: str, containing: str) -> list[str]:
    """The shell blocks of a page that contain a word."""
    found = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [block for block in found if containing in block]


def curls(page: str) -> list[str]:
    return [block for block in blocks(page, "curl") if "unix-socket" not in block]


def run(script: str, home: Path) -> list[Any]:
    """The JSON documents that a script's curl commands print."""
    done = subprocess.run(["bash", "-euc", script], cwd=home, capture_output=True, text=True, check=True, timeout=60)
    documents, rest = [], done.stdout.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    return documents


def first_line(script: str, home: Path) -> tuple[str, str]:
    """Topic and payload that the script's subscriber prints first, empty if nothing comes for a while."""
    patient = f"{script}\nsleep 3; kill %1\nwait\n"
    with subprocess.Popen(
        ["bash", "-c", f"set -m\n{patient}"], cwd=home, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            topic, _, payload = process.stdout.readline().partition(" ")
        finally:
            for line in subprocess.run(
                ["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=True
            ).stdout.split():
                os.kill(int(line), signal.SIGTERM)
    return topic, payload


def first_told(script: str, home: Path) -> tuple[str, str]:
    """The same, as a patient reader sees it."""
    for _ in range(TRIES):
        topic, payload = first_line(script, home)
        if topic:
            break
    return topic, payload
