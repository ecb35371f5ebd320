"""The lines that `falaj edge try` prints to be copied: for any POSIX shell, each complete in itself. Pure."""

from __future__ import annotations

import json
import shlex
from math import prod
from pathlib import Path
from typing import Any, TypedDict

from appliance.first_hour.measuring import Measured
from appliance.first_hour.planning import DEVICE, INSTANT, Tryout, default_channels
from sync.bindings import ENTITY, Binding
from sync.features import TensorSpec

SHORT = 32  # numbers that are written out; more are left to Python
SENSOR = "sensor-1"
_TIME = "<time>"  # where the time of a reading goes
SPEED = 50.0  # readings a second of the example, where nobody said
_VALUES = {"BOOL": False, "BYTES": "a", "UINT8": 128, "FP16": 0.1, "FP32": 0.1, "FP64": 0.1}  # else 0


class _Tensor(TypedDict):
    name: str
    datatype: str
    shape: list[int]


def curl(tryout: Tryout, port: int) -> str:
    """Asks for a prediction over HTTP."""
    address = f"http://127.0.0.1:{port}/v2/models/{tryout.manifest.model}/infer"
    measured = tryout.measured
    tensors = [(_tensor(spec, measured), _VALUES.get(spec.datatype, 0)) for spec in measured.inputs]
    if sum(prod(shape) for shape in measured.asked.values()) <= SHORT:
        inputs = [{**tensor, "data": [value] * prod(tensor["shape"])} for tensor, value in tensors]
        return f"curl -s {address} -d {shlex.quote(json.dumps({'inputs': inputs}))}"
    parts = ", ".join(
        f"dict({json.dumps(tensor)}, data=[{_literal(value)}] * {prod(tensor['shape'])})" for tensor, value in tensors
    )
    program = f'import json; print(json.dumps({{"inputs": [{parts}]}}))'
    return f"python3 -c {shlex.quote(program)} | curl -s {address} -d @-"


def listen(tryout: Tryout, port: int, password: Path) -> str:
    """Prints predictions, and what could not be read, as they come."""
    output = tryout.manifest.bindings[0].output.replace(ENTITY, "+")
    return f"mosquitto_sub {_broker(port, password)} -t {shlex.quote(output)} -t {shlex.quote(output + '/error')} -v"


def publish(tryout: Tryout, port: int, password: Path) -> str:
    """Publishes one window's readings, as a sensor would."""
    binding, window = tryout.manifest.bindings[0], tryout.manifest.window
    if window is None:
        raise RuntimeError("a binding has a window")
    to = f"mosquitto_pub {_broker(port, password)} -q 1 -t {shlex.quote(binding.topic.replace(ENTITY, SENSOR))}"
    if binding.format == "float32":
        count = window.size * len(window.channels)
        program = f'import struct, sys; sys.stdout.buffer.write(struct.pack("<{count}f", *[0.1] * {count}))'
        line = f"python3 -c {shlex.quote(program)} | {to} -s"
        return f"for n in 1 2; do {line}; done" if tryout.learns else line
    period = 1 / SPEED if window.period <= INSTANT else window.period
    reading, more = _reading(binding, window.channels), f"; time.sleep({period:g})" * (not binding.timed())
    program = f"import json, time; now = time.time()\nfor i in range({window.size}): print({reading}, flush=True){more}"
    return f"python3 -c {shlex.quote(program.replace(_TIME, f'now + i * {period:g}'))} | {to} -l"


def _reading(binding: Binding, channels: tuple[str, ...]) -> str:
    """What Python prints of one reading."""
    if binding.format == "scalar":
        return "0.1"
    if binding.format in ("rows", "csv"):
        row = f"[{_TIME}] * {int(binding.timed())} + [0.1] * {len(channels)}"
        return f"json.dumps({row})" if binding.format == "rows" else f'*{row}, sep=","'
    if channels == default_channels(len(channels)) and len(channels) > SHORT and binding.timed() and not binding.fields:
        numbers = f'**{{f"c{{n}}": 0.1 for n in range(1, {len(channels) + 1})}}'
        return f'json.dumps({{"{binding.time_field}": {_TIME}, {numbers}}})'
    reading: dict[str, Any] = {}
    for name in (binding.time_field, *channels) if binding.timed() else channels:
        *levels, last = binding.fields[name].split(".") if name in binding.fields else (name,)
        place = reading
        for level in levels:
            place = place.setdefault(level, {})
        place[last] = _TIME if name == binding.time_field else 0.1
    text = json.dumps(reading)
    return f"json.dumps({text})".replace(json.dumps(_TIME), _TIME)


def ask(tryout: Tryout, port: int, password: Path) -> str:
    """Asks for a prediction over MQTT, with the numbers of one row."""
    count = prod(tryout.measured.asked[tryout.measured.inputs[0].name][1:])
    program = f'import json; print(json.dumps({{"id": 1, "data": [0.1] * {count}}}))'
    local = f"falaj/local/{DEVICE}"
    return (
        f"mosquitto_rr {_broker(port, password)} -t {local}/infer/{tryout.manifest.model} -e {local}/reply/me "
        f'-m "$(python3 -c {shlex.quote(program)})"'
    )


def _broker(port: int, password: Path) -> str:
    return f'-p {port} -u app -P "$(cat {shlex.quote(str(password))})"'


def _literal(value: object) -> str:
    """Python for it, without the quotes that the shell knows."""
    return repr(value) if isinstance(value, bool) else json.dumps(value)


def _tensor(spec: TensorSpec, measured: Measured) -> _Tensor:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(measured.asked[spec.name])}
