"""A real agent counts every answer once: what /metrics showed when it was told to end lies in the outbox."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

from appliance.demo.fleet import free_ports
from edge.outbox import Outbox
from sync import codec
from sync.messages import METRICS, Record
from sync.performance import Interval, Tally
from tests.edge.device import new_device
from tests.edge.world import EPOCH, MODEL, Core
from tests.faults.box import Box, place
from tests.faults.small_disk import SmallDisk

ASKED = 20


def counted(box: Box) -> int:
    """The answers of release 1 by its own page."""
    connection = http.client.HTTPConnection("127.0.0.1", box.http_port, timeout=5)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf'falaj_answers_total{{model="{MODEL}",version="1"}} (\d+)', page)
    assert found is not None, page
    return int(found[1])


def told(box: Box) -> list[Interval]:
    """What waits for the core, read while no agent has the file."""
    outbox = Outbox(box.folder.outbox, EPOCH, "test")
    records = [codec.decode(Record, document) for kind, _, document in outbox.pending(1000) if kind == METRICS]
    outbox.close()
    return [codec.decode(Interval, bytes(record.body)) for record in records]


def test_every_answer_is_told_once_over_two_lives_of_an_agent(tmp_path: Path) -> None:
    one, two, three = free_ports(3)
    core = Core()
    device, shipped = new_device(core, tmp_path / "device").boot(), core.ship(1)
    device.commit(shipped)
    core.desire(core.assignment(core.order(shipped, device.identity), alarms=True))  # as a core of today says
    device.settle(1)
    assert device.house.outbox.alarms_apart
    (tmp_path / "disk").mkdir()
    answers = 0
    with place(device, SmallDisk(tmp_path / "disk"), tmp_path, (one, two, three)).ended() as box:
        for _ in range(2):
            box.start()
            for _ in range(ASKED):
                assert box.answer() == 1.0
            answers += counted(box)
            box.end()
        whole = Tally()
        for interval in told(box):
            assert (interval.model, interval.number) == (MODEL, 1)
            whole = whole.merge(interval.tally)
        assert whole.answers == answers == sum(whole.latency) and answers >= 2 * ASKED
