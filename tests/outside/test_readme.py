"""The commands of the README and of docs/http.md, run as they are written: curl and Mosquitto's two programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outside.field import CLASSES, device

ROOT = Path(__file__).resolve().parents[2]
MOSQUITTO = ("mosquitto_pub", "mosquitto_sub")
ENOUGH_TRIES = 5  # the reader's own commands race: who publishes before the other listens runs them again


def blocks(page: str, containing: str) -> list[str]:
    """The shell blocks of a page that contain a word."""
    found = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [block for block in found if containing in block]


def curls(page: str) -> list[str]:
    return [block for block in blocks(page, "curl") if "unix-socket" not in block]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if missing := [program for program in ("curl", *MOSQUITTO) if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; apt-get install curl mosquitto-clients")
    folder = tmp_path_factory.mktemp("reader")
    with device(folder):
        yield folder


def run(script: str, home: Path) -> list[Any]:
    """The JSON documents that a script's curl commands print."""
    done = subprocess.run(["bash", "-euc", script], cwd=home, capture_output=True, text=True, check=True, timeout=60)
    documents, rest = [], done.stdout.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    return documents


@pytest.mark.broker
def test_the_readmes_curl_commands(home: Path) -> None:
    (block,) = curls("README.md")
    answer, metadata = run(block, home)
    assert answer["model_name"] == "exercise" and len(answer["outputs"][0]["data"]) == len(CLASSES)
    assert metadata["inputs"][0]["shape"] == [-1, 100, 6]


@pytest.mark.broker
def test_the_http_pages_curl_commands(home: Path) -> None:
    (block,) = curls("docs/http.md")
    metadata, answer, raw, status, why, said, labels = run(block, home)
    assert metadata["name"] == answer["model_name"] == raw["model_name"] == "exercise"
    assert raw["outputs"][0]["shape"] == [1, len(CLASSES)]
    assert status["device"] == "watch-1" and why == {"why": []}
    assert all(one["model"] == "exercise" for one in said["predictions"])
    assert labels == {"kept": 0, "unknown": ["9f2c"], "refused": []}


@pytest.mark.broker
@pytest.mark.parametrize("version", ["as written", "mqttv311", "mqttv5"])
def test_the_readmes_mosquitto_commands(home: Path, version: str) -> None:
    (block,) = blocks("README.md", "mosquitto_pub")
    who, script = "me", block
    if version != "as written":
        who, script = version, re.sub(r"(mosquitto_[ps]ub) ", rf"\1 -V {version} ", block)
        script = script.replace("watch/me/", f"watch/{who}/")
    for _ in range(ENOUGH_TRIES):
        topic, document = first_line(script, home)
        if topic:
            break
    prediction = json.loads(document)
    assert topic == f"watch/{who}/exercise"
    assert (prediction["quality"], prediction["release"]) == ("ok", 3) and prediction["value"] in CLASSES


@pytest.mark.broker
def test_what_cannot_be_read_is_told_on_the_error_topic(home: Path) -> None:
    (block,) = blocks("README.md", "mosquitto_pub")
    setting = block.splitlines()[0]
    script = f"""{setting}
mosquitto_sub $MQTT -t watch/me/exercise/error -v &
sleep 0.2
mosquitto_pub $MQTT -q 1 -t watch/me/imu -m 'no json'
"""
    for _ in range(ENOUGH_TRIES):
        topic, document = first_line(script, home)
        if topic:
            break
    assert topic == "watch/me/exercise/error" and json.loads(document)["code"]


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
