"""What strangers say, on an operator's terminal: read, never obeyed."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli import screens, verdicts
from appliance.cli.options import progress_line, show
from appliance.screen import visible, visible_lines

HOSTILE = "\x1b]0;all is well\x07\x1b[2J\r\n1970-01-01 00:00:00  info    core  forged\x9b31m\u202e"
EVENT = {"model": "m", "ts": 0.0, "severity": "notice", "source": "box-1", "code": "x", "text": HOSTILE}
SIDE = {"number": 1, "accuracy": None, "answers": 1, "errors": 0, "p99_ms": 0}
WHY = {
    "device": "box-1", "model": "m", "new": SIDE, "old": None, "phase": "trial", "ts": 0.0, "criterion": HOSTILE,
    "text": HOSTILE, "log_harm": None, "log_safe": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(screens.event_lines([EVENT]), id="events"),
        pytest.param([screens.rejection({"origin": HOSTILE, "row": 1, "text": HOSTILE})], id="rows turned away"),
        pytest.param(verdicts.why_lines(WHY), id="why cards"),
    ],
)
def test_no_word_of_a_device_moves_the_cursor_or_begins_a_line(told: list[str]) -> None:
    @click.command()
    def command() -> None:
        show(False, {}, told)

    lines = CliRunner().invoke(command).output.removesuffix("\n").split("\n")
    assert len(lines) == len(told) and all(line.isprintable() for line in lines), lines
    assert any("all is well" in line for line in lines), "what was said is still there to read"


def test_a_text_of_ours_keeps_its_lines_and_json_says_all_of_it() -> None:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        show(as_json, {"text": HOSTILE}, f"first\n  then {HOSTILE}")

    told = CliRunner().invoke(command).output
    assert told.startswith("first\n  then ") and "\x1b" not in told and "\r" not in told and "\x9b" not in told
    assert json.loads(CliRunner().invoke(command, ["--json"]).output) == {"text": HOSTILE}


def test_progress_is_one_line_whatever_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress_line(as_json=False)(HOSTILE)
    told = capsys.readouterr().err
    assert told.startswith("\r\x1b[K") and told.removeprefix("\r\x1b[K").isprintable()


@given(st.text())
def test_every_text_becomes_visible_and_nothing_else_changes(text: str) -> None:
    assert visible(text).isprintable() and visible(visible(text)) == visible(text)
    assert not text.isprintable() or visible(text) == text
    assert visible_lines(text).count("\n") == text.count("\n")
