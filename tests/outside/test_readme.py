"""The commands of the README and of docs/http.md, run as they are written: curl and Mosquitto's two programs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outside.commands import blocks, curls, first_told, run
from tests.outside.field import CLASSES, device

MOSQUITTO = ("mosquitto_pub", "mosquitto_sub")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if missing := [program for program in ("curl", *MOSQUITTO) if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; apt-get install curl mosquitto-clients")
    folder = tmp_path_factory.mktemp("reader")
    with device(folder):
        yield folder


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
    topic, document = first_told(script, home)
    prediction = json.loads(document)
    assert topic == f"watch/{who}/exercise"
    assert (prediction["quality"], prediction["release"]) == ("ok", 3) and prediction["value"] in CLASSES


@pytest.mark.broker
def test_what_cannot_be_read_is_told_on_the_error_topic(home: Path) -> None:
    (block,) = blocks("README.md", "mosquitto_pub")
    setting = block.splitlines()[0]
    script = f"""{setting}
mosquitto_sub $MQTT -t watch/me/exercise/error -v &
sleep 1
mosquitto_pub $MQTT -q 1 -t watch/me/imu -m 'no json'
"""
    topic, document = first_told(script, home)
    assert topic == "watch/me/exercise/error" and json.loads(document)["code"]
