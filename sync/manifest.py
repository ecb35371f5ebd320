"""What a release is. The manifest is the TUF target: one identity, signed once, listing all that travels.

It is plain on the broker, so it never contains a reading (golden vectors are a sealed blob of their own).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from sync.bindings import Binding as Binding
from sync.errors import Malformed
from sync.features import TensorSpec, WindowSpec
from sync.names import Count, Digest, LookupName, ModelName, TenantId

VERSION = 1
CHUNK_LIMIT = 1 << 20  # bytes of a chunk, which is one message: a broker and a small box take it
LIMIT = 256 * 1024  # bytes of a manifest: 64 MiB in 96 KiB chunks needs about 50 KB of hashes

LEAST_BASELINE = 80  # drift windows: below 40 for calibration a detector must say "not calibrated"

_LEARNED = frozenset({"number", "created", "variants", "golden", "lineage"})  # what each training makes anew

_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,2}")

Precision = Literal["fp32", "int8-static", "int8-dynamic"]


class Blob(msgspec.Struct, frozen=True):
    """One sealed blob as it lies on the broker: its digest names the topics, each chunk has its own hash."""

    plain: Digest  # of what is inside: the identity in quarantine, evidence and `have`
    sealed: Digest  # of the sealed bytes: the identity on the wire
    length: Count  # bytes of the sealed blob
    chunk: int  # bytes of every chunk but the last
    hashes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.chunk <= CHUNK_LIMIT:
            raise ValueError(f"blob: a chunk has from 1 to {CHUNK_LIMIT} bytes, not {self.chunk}")
        if not 0 < -(-self.length // self.chunk) == len(self.hashes):
            raise ValueError(f"blob: {self.length} bytes in chunks of {self.chunk} are not {len(self.hashes)} hashes")


class Variant(msgspec.Struct, frozen=True):
    """One way to compute the model; the agent takes the first whose `needs` its CPU flags satisfy."""

    precision: Precision
    needs: tuple[str, ...]
    blob: Blob


class Profile(msgspec.Struct, frozen=True):
    """What a device may spend on this model: p99 of one answer in milliseconds, memory in MiB."""

    p99_ms: float = 50.0
    rss_mb: int = 256


class Drift(msgspec.Struct, frozen=True):
    """How a device watches its streams for drift (`sync.detector`).

    `window` rows a drift window, `baseline` windows after commit before it decides, `alarm` the level: while nothing
    changes, on average at least so many windows to an alarm, if the baseline is long enough (docs/adr/0013). `material`
    is the debiased PSI over the newest `recent` windows above which a change matters. `turns` fixes how many detectors
    are interleaved; None lets the calibration scores choose it.
    """

    window: int = 50
    baseline: int = 960
    alarm: float = 1_000_000.0
    material: float = 0.05
    turns: int | None = None
    recent: int = 24

    def complaint(self) -> str:
        """Why no detector can work by it; empty if one can. It is asked where a project is applied and a detector
        begins, not where a document is read: what was stored before there was such a rule must open still."""
        if not 1 <= self.window <= 0xFFFF or not 1 <= self.recent <= 1000:
            return "a drift window has 1 to 65,535 rows, the effect is measured over 1 to 1,000 windows"
        if self.baseline < LEAST_BASELINE:
            return f"a baseline of {self.baseline} windows is too short; give {LEAST_BASELINE} or more"
        if not self.alarm > 1 or (self.turns is not None and not 1 <= self.turns <= 256):
            return "the alarm level is above 1, turns are 1 to 256 or left to the calibration"
        return ""


class Uplink(msgspec.Struct, frozen=True):
    """Which rows may leave a device, signed by the release's owner: a hacked core cannot ask for more.

    `labelled`: predictions that were given a label; `sampled`: of all predictions a share of `share`, chosen by their
    ids. `when` = `alarm`: only predictions since the standing drift alarm. `daily_bytes` caps what is sealed in a UTC
    day. `data_class` and `region` are written on every batch. `asked`: inputs of predictions that a person asks for by
    a signed command may leave as well, within the same bytes; without it the answer has none.
    """

    policy: Literal["none", "labelled", "sampled"] = "none"
    when: Literal["always", "alarm"] = "always"
    share: float = 0.01
    daily_bytes: int = 1_000_000
    data_class: str = "internal"
    region: str = ""
    asked: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.daily_bytes < 0:
            raise ValueError("uplink: share is from 0 to 1, daily_bytes is 0 or more")


class Requires(msgspec.Struct, frozen=True):
    """What a device must be to run this release, signed by its owner: no assignment can send it anywhere else.

    `labels` must all be among the device's own: those of its settings, and those that its owner's list gave it when it
    joined (`all_labels`); no assignment changes them. `agent` is the oldest version of the agent that can run it (`1`,
    `1.2` or `1.2.3`; empty: any).
    """

    labels: tuple[str, ...] = ()
    agent: str = ""

    def __post_init__(self) -> None:
        if self.agent and not _VERSION.fullmatch(self.agent):
            raise ValueError(f"requires: {self.agent!r} is no version like 1, 1.2 or 1.2.3")


class LookupColumn(msgspec.Struct, frozen=True):
    """One column of a lookup: a finite number, from `min` to `max` inclusive where they are given."""

    name: str
    min: float | None = None
    max: float | None = None


class Lookup(msgspec.Struct, frozen=True):
    """A graph input that is filled from a table by entity: `name`, FP32, [-1, columns].

    It says which tables this release accepts, signed by its owner; which version is in force says the assignment. A
    table is fresh for `ttl` seconds after its source was read; then the release answers with quality `stale`, or
    abstains. `default` stands for an entity without a row; without it the release abstains.
    """

    name: LookupName
    columns: tuple[LookupColumn, ...]
    ttl: float
    stale: Literal["answer", "abstain"] = "abstain"
    default: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.columns or len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError(f"lookup {self.name}: columns must be named, each once")
        if not self.ttl > 0:
            raise ValueError(f"lookup {self.name}: ttl is more than 0 seconds")
        if self.default is not None and len(self.default) != len(self.columns):
            raise ValueError(f"lookup {self.name}: default has one number a column")


class Variable(msgspec.Struct, frozen=True):
    """A word in a binding, written `{name}`, that differs from device to device: text is one level of a topic, a
    number lies between `min` and `max`. `default` holds where no config says otherwise."""

    name: str
    default: str | float
    min: float | None = None
    max: float | None = None


class Lineage(msgspec.Struct, frozen=True):
    """Where it comes from: enough to ask the core for the rest. Metrics are named figures of the scorecard."""

    snapshot: str
    view: str
    recipe: str
    seed: int
    metrics: dict[str, float]
    reason: str  # why this precision was chosen, in words
    override: str = ""  # who let it pass against a gate's word, and why


class Manifest(msgspec.Struct, frozen=True):
    """One release of one model of one tenant. `number` rises per (tenant, model) and is never reused."""

    tenant: TenantId
    model: ModelName
    number: Count
    created: float
    variants: tuple[Variant, ...]
    golden: Blob
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...]
    window: WindowSpec | None
    bindings: tuple[Binding, ...]
    profile: Profile
    lineage: Lineage
    drift: Drift | None = None
    uplink: Uplink = Uplink()
    requires: Requires = Requires()
    lookups: tuple[Lookup, ...] = ()
    variables: tuple[Variable, ...] = ()
    major: int = 1  # rises when what it answers means something else: other classes
    v: int = VERSION


def target_path(model: ModelName, number: int) -> str:
    """The TUF target path of a release; with consistent snapshots its file is `{digest}.manifest`."""
    return f"{model}/{number}/manifest"


def role_of(model: ModelName) -> str:
    """The delegated TUF role that signs a model's releases; the dot keeps it apart from the top-level roles."""
    return f"model.{model}"


def auto_role_of(model: ModelName) -> str:
    """The role that `role_of(model)` may delegate to, by which the core itself signs releases of the model."""
    return f"auto.{model}"


def terms_of(payload: bytes) -> Digest:
    """The digest of all that a manifest (its bytes) says besides what was learned: of what it answers and hears, what
    may leave the device and what it may cost. Fields of later versions are part of it. Raises Malformed."""
    try:
        document = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"manifest: {error}") from error
    terms = {name: said for name, said in document.items() if name not in _LEARNED}
    return Digest(hashlib.sha256(msgspec.json.encode(terms, order="sorted")).hexdigest())


def all_labels(own: Collection[str], given: Collection[str]) -> frozenset[str]:
    """What a device is: by its own settings, and by what it was given when it joined. Of `word=value` its own value
    counts, where it has one."""
    words = {label.partition("=")[0] for label in own}
    return frozenset((*own, *(label for label in given if label.partition("=")[0] not in words)))


def unfit(requires: Requires, labels: Collection[str], agent: str) -> str:
    """Why a device with these labels and this version of the agent may not run it; empty if it may."""
    lacking = [label for label in requires.labels if label not in labels]
    if lacking:
        given = ", ".join(sorted(labels)) or "none"
        return f"it is for devices labelled {', '.join(lacking)}; labels of this one: {given}"
    if requires.agent and _version(agent) < _version(requires.agent):
        return f"it takes an agent of version {requires.agent} or newer; this one is {agent}"
    return ""


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers, three of them: what comes behind (`.dev1`, `rc1`) does not count."""
    found = _VERSION.match(text)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    return (*numbers, 0, 0, 0)[:3]


def choose(manifest: Manifest, cpu_flags: frozenset[str], refused: Collection[Digest] = ()) -> Variant:
    """The variant for this CPU: the first, in the publisher's order, whose needs are met and that was not `refused`
    (plaintext digests).

    The last variant needs nothing, so that there is always one; a manifest without such a variant is refused
    by raising ValueError.
    """
    for variant in manifest.variants:
        if cpu_flags.issuperset(variant.needs) and variant.blob.plain not in refused:
            return variant
    raise ValueError(f"release {manifest.model} {manifest.number} has no variant for this CPU")
