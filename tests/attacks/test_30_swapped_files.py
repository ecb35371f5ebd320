"""Attack 30: whoever can write the agent's files swaps a model, the record of its signature, or the note of which one
serves. Every load is verified against what was signed: the last good release answers, or none, declared."""

from __future__ import annotations

import sqlite3
from collections import Counter

import pytest
from msgspec.structs import replace

from edge.states import Deployment, Slot
from sync import codec
from tests.attacks.field import Field
from tests.edge.device import committed
from tests.edge.world import MODEL


def slot(field: Field, number: int) -> Slot:
    state = field.device.state
    found = next(s for s in (state.serving, *state.previous) if s is not None and s.release.number == number)
    return found


def sealed(field: Field, number: int) -> str:
    return slot(field, number).manifest.variants[0].blob.sealed


def rewrite(field: Field, deployment: Deployment) -> None:
    """Straight into the journal's file, as somebody with a database tool does."""
    with sqlite3.connect(field.device.folder / "journal.db") as db:
        done = db.execute("UPDATE deployment SET document = ? WHERE model = ?", (codec.encode(deployment), MODEL))
        assert done.rowcount == 1
    db.close()


def told(field: Field) -> Counter[str]:
    """Alarms since release 2 was committed, by code; ticking on adds none. There are two, once each: why the release
    was given up (with its why card), and `load-failed`, that it answers no more."""
    device = field.device
    found = Counter(event.code for event in device.events() if event.severity == "alarm")
    device.settle(20, ask=0)
    assert Counter(event.code for event in device.events() if event.severity == "alarm") == found, "told once"
    return found


@pytest.mark.parametrize("swap", ["other release", "flipped bit", "emptied", "gone"])
def test_30_a_model_file_swapped_under_the_agent_is_never_loaded(field: Field, swap: str) -> None:
    folder, device = field.device.folder / "artifacts", field.device
    path, other = folder / sealed(field, 2), (folder / sealed(field, 1)).read_bytes()
    good = path.read_bytes()
    swapped = {"other release": other, "flipped bit": bytes([good[0] ^ 1]) + good[1:], "emptied": b""}
    if swap == "gone":
        path.unlink()
    else:
        path.write_bytes(swapped[swap])
    assert device.answering == 2, "what runs, runs from memory"
    device.cut_power()
    device.boot(link=False)
    assert device.answering == 1, "the last good one, without a word from the core"
    assert told(field) == {"blob-rotten": 1, "load-failed": 1}


def test_30_the_pointer_to_what_serves_is_no_authority(field: Field) -> None:
    """The journal says that what serves is release 2; all it names, its keys and the manifest beside it are those of
    release 1, and fit together. The signed record says otherwise."""
    device, older = field.device, slot(field, 1)
    release = replace(older.release, number=2, manifest=slot(field, 2).release.manifest)
    lie = replace(older, release=release, manifest=replace(older.manifest, number=2))
    device.cut_power()
    rewrite(field, replace(device.state, serving=lie))
    device.boot(link=False)
    assert device.answering == 1 and device.state.serving is not None
    assert device.state.serving.release.number == 1
    assert told(field) == {"record-lost": 1, "load-failed": 1}, "the record that the owner signed is what counts"


def test_30_with_nothing_good_left_it_declares_that_there_is_no_model(field: Field) -> None:
    device = field.device
    for path in (device.folder / "artifacts").iterdir():
        path.write_bytes(b"not a model")
    device.cut_power()
    device.boot(link=False)
    assert device.answering is None and device.state.serving is None
    found = told(field)
    assert found["load-failed"] >= 1, found
    device.connect()
    device.settle(12, ask=0)
    assert committed(device, 2), "and it comes back by itself where it can fetch it again"
