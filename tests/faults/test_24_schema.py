"""Fault 24: a column is renamed under a running device. Nothing is predicted from what is left, and it is told; when
the name is right again, so are the predictions."""

from __future__ import annotations

import json

from tests.edge.bound import Box


def reading(ts: float, *names: str) -> bytes:
    return json.dumps({"ts": ts} | dict.fromkeys(names, 1.0)).encode()


def test_a_renamed_column_is_refused_and_named_and_comes_back(local: Box) -> None:
    for ts in range(4):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    assert len(local.predictions()) == 1
    for ts in range(4, 14):
        local.send(float(ts), payload=reading(ts, "x", "vertical"))
    assert len(local.predictions()) == 1, "no window is filled up with what is not there"
    assert len(local.errors()) == 10 and all("'y'" in error["text"] for error in local.errors())
    for ts in range(14, 22):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    after = local.predictions()[1:]
    assert after and all(p.quality in ("ok", "warming") for p in after)
    assert after[-1].quality == "ok"


def test_a_message_is_taken_whole_or_not_at_all(local: Box) -> None:
    batch = [{"ts": 0.0, "x": 1.0, "y": 1.0}, {"ts": 1.0, "x": 1.0, "vertical": 1.0}]
    local.send(0.0, payload=json.dumps(batch).encode())
    for ts in range(2, 5):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    assert len(local.errors()) == 1
    assert [p.quality for p in local.predictions()] != ["ok"], "the first half of the batch is in no window"
