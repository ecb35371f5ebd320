"""The one client that asks all HTTP servers: wrk, keep-alive, one request under way a connection.

A client in Python costs as much a request as a quick server does, and then measures itself; wrk does not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
for name, value in string.gmatch("{headers}", "([^:;]+): ([^;]+);") do wrk.headers[name] = value end
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
function done(summary, latency, requests)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout
  io.write(string.format('\\n{{"answers": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "wrong": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, wrong))
end
"""


class NoClient(RuntimeError):
    """wrk is not installed, or could not ask."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a round of one server, model and number of connections saw; seconds."""

    answers: int
    seconds: float
    p50: float
    p99: float
    wrong: int = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def load_test(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Sends an HTTP request with a body for `seconds`, after a quarter as much of warming up that does not count.
    Raises NoClient."""
    program = shutil.which("wrk")
    if program is None:
        raise NoClient("the load comes from wrk, which is not here: apt-get install wrk")
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = "".join(f"{line};" for line in lines if line.lower().startswith("inference-header"))
    url = f"http://127.0.0.1:{port}{first.split()[1]}"
    with tempfile.TemporaryDirectory() as home:
        payload, script = Path(home) / "body", Path(home) / "ask.lua"
        payload.write_bytes(body)
        script.write_text(_SCRIPT.format(headers=headers, body=payload))
        for duration in (seconds / 4, seconds):
            told = _run([program, "-t1", f"-c{connections}", f"-d{max(1, round(duration))}s", "-s", str(script), url])
    return Load(**json.loads(told.splitlines()[-1]))


def _run(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NoClient(f"wrk could not ask: {ended.stderr.strip() or ended.stdout.strip()}")
    return ended.stdout
