"""A release that answers well ninety-nine times and then takes the agent's process down: in shadow, where nobody hears
it, and on trial. Real processes, and a model that the processor itself stops (SIGFPE) at that very call."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from edge.states import Phase, Proof
from sync.messages import Gates, Mode
from tests.edge import bad_graphs
from tests.edge.on_trial import GOOD, Field
from tests.edge.world import MODEL
from tests.faults.box import Box, place
from tests.faults.small_disk import SmallDisk
from tests.waiting import eventually

LONG = Gates(soak_answers=10_000)
CALLS = 100
QUESTION = {"inputs": [{"name": "window", "datatype": "FP32", "shape": [1, 1, 1], "data": [0.0]}]}


def under_way(folder: Path, mode: Mode, phase: Phase) -> Box:
    """A device with release 1 and such a release in this phase; what the hundredth call does, its proof never saw."""
    field = Field(folder)
    device = field.device()
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    deadly = bad_graphs.by_window(bad_graphs.crashes_on_call(CALLS))
    shipped = field.core.ship(2, bad_graphs.TABLE, says=GOOD, graph=deadly)
    field.core.assign(shipped, device.identity, mode=mode, gates=LONG)
    device.settle(4)
    assert device.state.phase is phase, device.state.reason
    one, two, three = free_ports(3)
    return place(device, SmallDisk(folder), folder, (one, two, three))


def ask(box: Box) -> int | None:
    """Which release answered; None where the process ended instead."""
    peer = http.client.HTTPConnection("127.0.0.1", box.http_port, timeout=10)
    try:
        peer.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(QUESTION))
        answer = peer.getresponse()
        said = json.loads(answer.read())
        assert answer.status == 200, said
        return int(said["parameters"]["release"])
    except (OSError, http.client.HTTPException):
        return None
    finally:
        peer.close()


def until_it_dies(box: Box) -> list[int]:
    """Who answered before."""
    answered: list[int] = []

    def died() -> bool:
        assert box.process is not None
        if (number := ask(box)) is not None:
            answered.append(number)
        return box.process.poll() is not None

    eventually(died, "the hundredth call", 60)
    assert box.process is not None and box.process.returncode == -signal.SIGFPE
    box.process = None
    return answered


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "phase", "who"), [("shadow", Phase.SHADOW, 1), ("live", Phase.PROBATION, 2)])
def test_it_is_given_up_at_its_third_start(tmp_path: Path, mode: Mode, phase: Phase, who: int) -> None:
    box = under_way(tmp_path, mode, phase)
    with box.ended():
        for _ in range(2):
            box.start(answering=False)
            answered = until_it_dies(box)
            assert set(answered) == {who} and len(answered) > CALLS // 2, "some calls are its golden vectors'"
        box.start(answering=False)
        box.until(lambda: ask(box) == 1, "the release before it")
        assert [ask(box) for _ in range(2 * CALLS)] == [1] * (2 * CALLS)
        (card,) = box.status()["why"]
        assert (card["phase"], card["criterion"]) == (phase.value, "crash-loop")
        assert "started 3 times" in card["text"]
