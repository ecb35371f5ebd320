"""A broker of the tests: a listener without TLS, and the store of a tenant's broker, line for line as the appliance
writes it. It is restarted, killed and wiped, and what it forgets by that is what a tenant's broker would."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from appliance.broker import Broker, BrokerFiles, local_config, uplink_config
from tests.waiting import eventually

STORE = ("persistence", "persistent_client_expiration", "autosave_interval")


def plain_config(folder: Path, port: int) -> str:
    """Whom it lets in is as an agent's own broker has it, what it keeps as a tenant's has it."""
    nowhere = Path("/nowhere")
    kept = _lines(uplink_config(folder, "127.0.0.1", port, BrokerFiles(nowhere, nowhere, nowhere, nowhere)), of=True)
    assert "persistence true" in kept
    return "\n".join([*_lines(local_config(folder, port), of=False), *kept]) + "\n"


def _lines(config: str, *, of: bool) -> list[str]:
    found = [line for line in config.splitlines() if not line.startswith("#")]
    return [line for line in found if line.startswith(STORE) is of]


def start(broker: Broker) -> None:
    broker.start((broker.folder / "mosquitto.conf").read_text())


def restart(broker: Broker) -> None:
    """It is asked to end, and writes its store on the way."""
    broker.stop()
    start(broker)


def kill(broker: Broker) -> None:
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not broker.alive(), "its end")


def wipe(broker: Broker) -> None:
    """Killed, and the store that it had is gone; there must have been one."""
    kill(broker)
    assert store(broker).exists(), "nothing would be wiped"
    shutil.rmtree(store(broker).parent)
    start(broker)


def save(broker: Broker) -> None:
    """As the steward has it after a release; returns when the store is written."""
    before = _written(broker)
    broker.persist()
    eventually(lambda: _written(broker) != before, "the store")


def store(broker: Broker) -> Path:
    return broker.folder / "store" / "mosquitto.db"


def _written(broker: Broker) -> tuple[int, int]:
    """Which file it is, and when it was written; mosquitto puts a new one in the old one's place."""
    try:
        found = store(broker).stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
