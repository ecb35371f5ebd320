"""The command line's way to the core: its HTTP API on a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.errors import Trouble
from sync import codec

PATIENCE = 60.0  # seconds for one answer


class CoreAway(Trouble):
    """Nobody answers on the core's socket."""


class Refused(Trouble):
    """The core answered no; `code` is stable."""

    def __init__(self, code: str, text: str, hint: str) -> None:
        super().__init__(f"{text}\n  {hint}" if hint else text)
        self.code, self.hint = code, hint


class Api:
    """Calls the core at `socket_path`; raises CoreAway or Refused."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def get(self, path: str) -> Any:
        """The JSON document at `/v1/...`."""
        return self._call("GET", path, None)

    def order(self, order: object) -> dict[str, Any]:
        """Hands in an order; the result, once it is committed."""
        answer = self._call("POST", "/v1/orders", codec.encode(order))
        return dict(answer.get("result", answer))

    def wait_for_job(
        self, job: int, watch: Callable[[str, float], None], pause: Callable[[float], None] = time.sleep
    ) -> dict[str, Any]:
        """Follows a job to its end, telling `watch` (stage, 0 to 1); its result, or Refused with its error."""
        while True:
            found = self.get(f"/v1/jobs/{job}")
            watch(found["stage"], found["done"])
            if found["finished"] is not None:
                break
            pause(0.15)
        if found["state"] == "failed":
            raise Refused("job-failed", f"{found['kind']} of {found['subject']}: {found['error']}", found["hint"])
        return dict(found["result"])

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        connection = UnixConnection(self._path)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or error
            raise CoreAway(
                f"no core answers at {self._path} ({why}): start it with `falaj core run`, or give its --dir"
            ) from error
        finally:
            connection.close()
        try:
            document = json.loads(content)
        except ValueError as error:
            raise CoreAway(f"the core answered {response.status} with something that is not JSON") from error
        if response.status != 200:
            raise Refused(document.get("code", ""), document.get("error", "refused"), document.get("hint", ""))
        return document


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))
