"""What the core hands over as a device's answer is believed for what the device signed, and read without harm."""

from __future__ import annotations

import base64
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from appliance.api import Api
from appliance.cli import asking, telling
from appliance.cli.asking import Come, NotAnswered, believed
from appliance.errors import Trouble
from sync import answers, roles
from sync.answers import Predictions, Support
from sync.commands import AskPredictions
from sync.messages import Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.remembered import Remembered

TENANT, DEVICE, ASK = TenantId("acme"), DeviceId("press-1"), AskPredictions(10.0, 20.0)
BOX, SIGNING = X25519PrivateKey.generate(), roles.new_signing_key()
TITLE = "\x1b]0;all is well\x07"
ONE = Prediction("f" * 32, ModelName("motion"), 12.5, "ok", TITLE, (1.0,), (TITLE,), f"w1{TITLE}", 3)
TOLD = Predictions(
    TENANT, DEVICE, 1_790_000_000.0, "1", "a cpu", 10.0, 20.0, 1.0, 30.0, (Remembered(ONE, (), b"", TITLE),), seq=7
)


class Place:
    """Opens files with the tenant's key, as `appliance.core.opening.Opening` does with the core's folder."""

    def read(self, content: bytes, wanted: type[Any]) -> Any:
        keys: roles.Keys = [roles.signer(SIGNING).public_key]
        return answers.unseal(answers.read(content), wanted, BOX.private_bytes_raw(), keys)


class Core(Api):
    """Says of a question what it was told."""

    def __init__(self, question: dict[str, Any], file: bytes = b"") -> None:
        super().__init__(Path("nowhere"))
        self._told = {"question": question, "answer_base64": base64.b64encode(file).decode()}

    def get(self, path: str) -> Any:
        return self._told


def sealed(document: Predictions | Support) -> bytes:
    return answers.seal(document, SIGNING, BOX.public_key().public_bytes_raw(), bytes(32))


def read(come: Come) -> Predictions:
    return believed(Place(), come, Predictions)  # type: ignore[arg-type] - the one verb that is needed


def test_the_answer_to_this_question_is_read() -> None:
    assert read(Come(sealed(TOLD), DEVICE, 7, ASK)) == TOLD == read(Come(sealed(TOLD), DEVICE, 7))


@pytest.mark.parametrize(
    ("come", "code"),
    [
        (Come(sealed(replace(TOLD, seq=6)), DEVICE, 7, ASK), "untrusted"),
        (Come(sealed(replace(TOLD, device=DeviceId("press-2"))), DEVICE, 7, ASK), "untrusted"),
        (Come(sealed(TOLD), DEVICE, 7, AskPredictions(10.0, 21.0)), "untrusted"),
        (Come(sealed(Support(TENANT, DEVICE, 1.0, b"", 7)), DEVICE, 7, ASK), "malformed"),
        (Come(b"", DEVICE, 7, ASK), "malformed"),
    ],
    ids=["an-older-one", "of-another", "of-another-time", "of-another-kind", "none"],
)
def test_a_core_that_hands_over_another_is_found_out(come: Come, code: str) -> None:
    with pytest.raises(Trouble, match=f"refused-{code}: .* ask the device anew"):
        read(come)


def test_what_came_is_to_the_question_that_was_put() -> None:
    question = {"device": "press-1", "refused": "", "answered": None}
    assert asking._come(Core(question), 7) is None
    assert asking._come(Core({**question, "answered": 1.0}, b"x"), 7) == Come(b"x", "press-1", 7)


def test_no_word_of_a_device_reaches_the_terminal_as_it_is() -> None:
    with pytest.raises(NotAnswered) as refusal:
        asking._come(Core({"device": "press-1", "refused": f"not answered: {TITLE}", "answered": None}), 7)
    lines = [str(refusal.value), *telling.said(TOLD, UTC)]
    assert all(line.isprintable() for line in lines) and r"\x1b]0;all is well\x07" in lines[-1], lines
    assert "(as of 2026-09-21 14:13:20 UTC+00:00" in lines[1], lines
