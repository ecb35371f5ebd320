"""Machine settings (`core.toml`, `edge.toml`) and the project file: text to frozen types, nothing guessed.

An unknown key is refused with its place and the nearest known key. Every machine setting can be overridden by the
environment: `FALAJ_CORE__PORTS__UPLINK=8884` is `[ports] uplink = 8884` of core.toml.
"""

from __future__ import annotations

import difflib
import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from appliance.errors import Trouble
from sync.names import DEFAULT_TENANT, BadName, Name, TenantId

log = logging.getLogger("falaj")

T = TypeVar("T")
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class BadSettings(Trouble):
    """A file that cannot be used; the message names the place and what to write instead."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Ports(_Part, frozen=True, kw_only=True):
    """TCP ports of the core: the tenant's broker, the enrolment listener (both on `listen`), the console
    (loopback only)."""

    uplink: Port = 8883
    enrol: Port = 8443
    console: Port = 8080

    def __post_init__(self) -> None:
        if len({self.uplink, self.enrol, self.console}) < 3:
            raise ValueError("uplink, enrol and console need three different ports")


class BrokerLimits(_Part, frozen=True, kw_only=True):
    """`[broker]` of core.toml: bytes of sealed blobs that the tenant's broker may keep; it keeps them in memory."""

    retained_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 1 << 30


class CoreSettings(_Part, frozen=True, kw_only=True):
    """`core.toml`. `host` is the name or address devices use; `listen` the address the core binds."""

    tenant: TenantId = DEFAULT_TENANT
    host: str = "127.0.0.1"
    listen: str = "127.0.0.1"
    certificate_days: Annotated[int, msgspec.Meta(ge=1, le=825)] = 365  # of devices; renewed when a third is left
    ports: Ports = Ports()
    broker: BrokerLimits = BrokerLimits()


class LocalBroker(_Part, frozen=True, kw_only=True):
    """The broker applications talk to. `managed`: the agent starts a Mosquitto of its own on loopback; else a
    site's broker at host and port, with the password in a file."""

    managed: bool = True
    host: str = "127.0.0.1"
    port: Port = 1883
    user: str = "falaj"
    password_file: str | None = None


class Network(_Part, frozen=True, kw_only=True):
    """`[network]`: predictions over HTTP for other machines, never without TLS (`certificate` and `key`, PEM) and a
    token, which is in `token_file`, made at the first start. Paths are relative to the agent's folder."""

    listen: str
    certificate: str
    key: str
    port: Port = 8444
    token_file: str = ""


class Uplink(_Part, frozen=True, kw_only=True):
    """`[uplink]`: what the site lets its line carry down of releases and tables; 0: no limit. The rest waits for the
    next day (of UTC); alarms and reports go at once. A release of which one chunk (96 KiB) exceeds it never comes."""

    daily_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    bytes_per_second: Annotated[int, msgspec.Meta(ge=0)] = 0


class EdgeSettings(_Part, frozen=True, kw_only=True):
    """`edge.toml`. The Open Inference Protocol is served on `http_port` of loopback, or instead on the Unix socket
    `http_socket`; for other machines there is `network` besides."""

    http_port: Port = 8000
    http_socket: str = ""
    network: Network | None = None
    local_broker: LocalBroker = LocalBroker()
    uplink: Uplink = Uplink()
    labels: tuple[str, ...] = ()  # what this box is, as `class=press`: a release may be signed for such boxes alone
    models_mb: Annotated[int, msgspec.Meta(ge=1)] = 768  # MiB for all models together, as their proofs measured them


# Keys that the files of machines which were updated may still have.
RETIRED: dict[type, frozenset[str]] = {EdgeSettings: frozenset({"threads"})}


def load(kind: type[T], path: Path, prefix: str, environment: Mapping[str, str] = os.environ) -> T:
    """Settings of one machine file (defaults if it is not there), with the environment's overrides. A key that is
    retired is passed over with a warning: whatever was updated must start."""
    fields = read_toml(path) if path.exists() else {}
    names = sorted(name for name in environment if name.startswith(prefix))
    for name in names:
        _override(fields, name, name.removeprefix(prefix).lower().split("__"), environment[name])
    for key in fields.keys() & RETIRED.get(kind, frozenset()):
        del fields[key]
        log.warning("%s: %r means nothing any more; remove it", path.name, key)
    return convert(kind, fields, ", ".join((str(path), *names)))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises BadSettings with the line."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from error


def convert(kind: type[T], fields: dict[str, Any], origin: str) -> T:
    """The typed settings; raises BadSettings naming the place and, for an unknown key, the nearest known one."""
    unknown = _unknown_key(msgspec.inspect.type_info(kind), fields, "")
    if unknown is not None:
        raise BadSettings(f"{origin}: {unknown}")
    wrong = _wrong_value(kind, fields, "")
    if wrong is not None:
        raise BadSettings(f"{origin}: {wrong}")
    return msgspec.convert(fields, kind, dec_hook=_named)


def state_folder(role: str, given: Path | None = None) -> Path:
    """Where a node keeps its state: given, else systemd's STATE_DIRECTORY, else the XDG state folder."""
    if given is not None:
        return given.resolve()
    if "STATE_DIRECTORY" in os.environ:
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "falaj" / role


def owner_folder() -> Path:
    """Where the person at the command line keeps release keys: never below a node's state."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(os.environ.get("FALAJ_OWNER_KEYS") or Path(base) / "falaj" / "keys")


def _override(fields: dict[str, Any], name: str, path: list[str], text: str) -> None:
    for part in path[:-1]:
        inner = fields.setdefault(part, {})
        if not isinstance(inner, dict):
            raise BadSettings(f"{name}: {part!r} is a value, not a table")
        fields = inner
    try:
        fields[path[-1]] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        fields[path[-1]] = text


def _named(wanted: type, value: object) -> Any:
    if issubclass(wanted, Name):
        return wanted(value)  # type: ignore[arg-type]
    # The code's fault and nobody's file: msgspec would tell a TypeError or ValueError as a wrong value of the user's.
    raise RuntimeError(f"settings are plain values, tables and names, no {wanted.__name__}")


def _unknown_key(info: Any, value: object, place: str) -> str | None:
    """A key the type does not have, with its place and what was meant; also where the type itself would ignore it
    (documents of the protocol tolerate unknown fields, files that people write do not)."""
    struct = _struct_of(info)
    inner: list[tuple[Any, object, str]] = []
    if struct is not None and isinstance(value, dict):
        known = {field.encode_name: field.type for field in struct.fields}
        for key, item in value.items():
            if key not in known:
                return _complaint(key, place, list(known))
            inner.append((known[key], item, f"{place}.{key}"))
    elif isinstance(info, msgspec.inspect.DictType) and isinstance(value, dict):
        inner = [(info.value_type, item, f"{place}.{key}") for key, item in value.items()]
    elif isinstance(value, list):
        item_type = getattr(info, "item_type", None)
        inner = [(item_type, item, f"{place}.{i}") for i, item in enumerate(value)]
    return next(filter(None, (_unknown_key(*part) for part in inner)), None)


def _complaint(key: str, place: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    where = f" in [{place.lstrip('.')}]" if place else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    return f"unknown key {key!r}{where}; {hint}"


def _wrong_value(kind: Any, value: object, place: str) -> str | None:
    """What is wrong with a value, said at the innermost place: the converter itself writes `[...]` for any name that
    a person chose, and lets such names pass as plain text."""
    if isinstance(value, dict):
        for key, inner, item in _parts(kind, value):
            there = f"{place}.{key}" if place else key
            wrong = _wrong_name(kind, key) or _wrong_value(inner, item, there)
            if wrong is not None:
                return wrong if " - at `" in wrong else f"{wrong} - at `{there}`"
    try:
        msgspec.convert(value, kind, dec_hook=_named)
    except msgspec.ValidationError as error:
        reason, _, inner_place = str(error).partition(" - at `$")
        where = (place + inner_place.rstrip("`")).lstrip(".")
        allowed = f"; known are: {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal else ""
        return reason.replace("Object", "table") + allowed + (f" - at `{where}`" if where else "")
    return None


def _parts(kind: Any, value: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The values of a table with the type each must have; none where the type is no table."""
    if get_origin(kind) is dict:
        return [(key, get_args(kind)[1], item) for key, item in value.items()]
    types = [kind, *get_args(kind)] if get_origin(kind) in (Union, UnionType) else [kind]
    for struct in types:
        if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
            known = {field.name: field.type for field in msgspec.structs.fields(struct)}
            return [(key, known[key], item) for key, item in value.items() if key in known]
    return []


def _wrong_name(kind: Any, key: str) -> str | None:
    """A table's name that must be one of ours (`[models.NAME]`) and is none."""
    if get_origin(kind) is dict and issubclass(get_args(kind)[0], Name):
        try:
            get_args(kind)[0](key)
        except BadName as error:
            return str(error)
    return None


def _struct_of(info: Any) -> Any:
    if isinstance(info, msgspec.inspect.StructType):
        return info
    for option in getattr(info, "types", ()):
        if isinstance(option, msgspec.inspect.StructType):
            return option
    return None
