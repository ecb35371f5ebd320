"""What a project file (`falaj.toml`) may say: sources, contracts, feature views, models. Stable across releases.

The hall's part that people write. Unknown keys are refused where the file is read (`appliance.settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec

from sync.features import Unit, WindowSpec
from sync.manifest import Binding, Drift, Lookup, LookupColumn, Profile, Requires, Uplink, Variable
from sync.names import DeviceId, LookupName, ModelName, SiteId
from sync.reports import Evidence

Value = str | int | float
_T = TypeVar("_T")

# What rows of samples always have beside time and channels (`core.ingest.samples`), ...
SAMPLE_COLUMNS = ("prediction", "device", "entity", "label")
SAMPLE_BATCH = "batch"  # ... and what is added to them: it rises with every batch of a device
_Name = TypeVar("_Name", bound=str)


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all tables of the file: a misspelt key is an error, never ignored."""


class Column(_Part, frozen=True, kw_only=True):
    """One column of a contract; `min` and `max` are inclusive, `values` is the closed list of allowed values."""

    type: Literal["float32", "float64", "int64", "string"]
    min: float | None = None
    max: float | None = None
    values: tuple[Value, ...] | None = None
    nullable: bool = False


class Contract(_Part, frozen=True, kw_only=True):
    """What rows of a source must look like. More columns than named here are an error too: rename is not add."""

    columns: dict[str, Column]


class Source(_Part, frozen=True, kw_only=True):
    """Where rows come from; `time` is the event-time column (seconds).

    `files`: CSV files, `path` is a glob relative to the project file. `samples`: predictions that devices send up by
    the uplink policy of `model`, one row of the contract for each row of their windows (`core.ingest.samples`).
    """

    kind: Literal["files", "samples"]
    path: str = ""
    model: ModelName | None = None
    contract: str
    time: str


class Range(_Part, frozen=True, kw_only=True):
    """What a column of a lookup may hold: finite numbers, `min` and `max` inclusive."""

    min: float | None = None
    max: float | None = None


class LookupSource(_Part, frozen=True, kw_only=True):
    """A table of values by entity: a file, CSV or Parquet, relative to the project file, with one row a key. Its
    versions go to the devices whose release asks for it; `sync.manifest.Lookup` says what `stale` and `default` mean.
    """

    path: str
    key: str
    columns: dict[str, Range]
    ttl_hours: float
    stale: Literal["answer", "abstain"] = "abstain"
    default: dict[str, float] | None = None

    def accepted(self, name: LookupName) -> Lookup:
        """What a release that is trained with this table accepts; raises ValueError for what makes no sense."""
        columns = tuple(LookupColumn(column, rule.min, rule.max) for column, rule in self.columns.items())
        default = None if self.default is None else tuple(self.default[column] for column in self.columns)
        return Lookup(name, columns, self.ttl_hours * 3600, self.stale, default)


class Word(_Part, frozen=True, kw_only=True):
    """A variable of a model's bindings: text that is one level of a topic, or a number from `min` to `max`."""

    default: str | float
    min: float | None = None
    max: float | None = None


class Config(_Part, frozen=True, kw_only=True):
    """The values of variables: for all devices, for those of a site, for one; the narrowest counts."""

    variables: dict[str, str | float] = {}
    sites: dict[SiteId, dict[str, str | float]] = {}
    devices: dict[DeviceId, dict[str, str | float]] = {}


class View(_Part, frozen=True, kw_only=True):
    """A feature view: windows over the rows of one entity, labelled by a column that is constant in a window.

    `samples` names a source of that kind: its labelled windows, as devices saw them, are windows of this view too.
    `units` makes the model's units of the numbers in the rows, as a binding's do of what sensors send; samples have
    them already.
    """

    source: str
    samples: str | None = None
    entity: str
    label: str
    window: WindowSpec
    units: dict[str, Unit] = {}
    lookups: tuple[LookupName, ...] = ()  # whose values of the entity the model is given beside each window


class Training(_Part, frozen=True, kw_only=True):
    """How a recipe is run; the defaults suit the small networks of `core.training.networks`."""

    recipe: Literal["cnn1d"] = "cnn1d"
    seed: int = 7
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 5e-3
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1  # more are faster, and give other weights


class ModelGates(_Part, frozen=True, kw_only=True):
    """Start values of the gates; fewer than `min_rows` held-out rows make the quality gate INCONCLUSIVE."""

    min_accuracy: float
    min_rows: int = 100
    parity: float = 1e-4  # largest absolute difference of probabilities, torch against the graph
    int8_speedup: float = 1.10  # int8 must be at least this much faster than fp32 ...
    int8_margin: float = 0.005  # ... and lose at most this much accuracy


class Rollout(_Part, frozen=True, kw_only=True):
    """How a release reaches the fleet: the canary devices first, then the rest in one stage.

    Under `labels` or `agreement` the canary devices run it in shadow first, until the pairs of all of them decide
    with this `margin` (a net share of blocks of `block` input windows; 0: ten times as many as the incumbent's errors
    came in a row when it was judged, and 50 at least). A first release has no incumbent to be compared with: it is
    judged by guardrails.

    `ab`: on the canary devices it answers `share` of the entities and request keys, until labels of its answers say
    that it is better than the incumbent, or worse by more than `margin`; a key's word is its first `per_key` labels.
    A shadow or a split that has not decided after `days` is paused; `shadow_share` of a core is what a shadow may take.
    """

    kind: Literal["canary", "ab"] = "canary"
    share: float = 0.2
    per_key: int = 1
    days: float = 30.0
    shadow_share: float = 0.25
    evidence: Evidence = "guardrails"
    margin: float = 0.02
    block: int = 0
    canary: tuple[DeviceId, ...]
    soak_answers: int = 20
    max_errors: int = 0

    def __post_init__(self) -> None:
        if not 0.0001 <= self.share <= 0.9999 or not 1 <= self.per_key <= 20:
            raise ValueError("rollout: share is from 0.0001 to 0.9999, per_key from 1 to 20")
        if self.days < 0 or not 0 < self.shadow_share <= 1:
            raise ValueError("rollout: days is 0 (any number) or more, shadow_share above 0 and up to 1")


class Retraining(_Part, frozen=True, kw_only=True):
    """When the core trains anew by itself: so many devices with a standing drift alarm, and so many labelled samples
    that no training has used yet; at most once in `every_hours`."""

    devices: int = 1
    samples: int = 200
    every_hours: float = 24.0


class Model(_Part, frozen=True, kw_only=True):
    """One model: its data (`fit`, `gate` and `calibrate` are stretches of each entity's recording, as fractions), its
    gates, what it may cost a device, where it listens, what may leave a device, and how it is rolled out.

    `samples`: whether labelled samples of the view are learned from beside its rows (`add`), instead of them
    (`only`), or not at all (`none`). The gate judges rows and samples, unless it is `none`.
    """

    view: str
    samples: Literal["none", "add", "only"] = "add"
    where: dict[str, Value | tuple[Value, ...]] = {}
    fit: tuple[float, float] = (0.0, 0.6)
    gate: tuple[float, float] = (0.6, 0.75)
    calibrate: tuple[float, float] | None = None  # what makes probabilities honest; without it they are as they come
    training: Training = Training()
    gates: ModelGates
    profile: Profile = Profile()
    drift: Drift | None = None  # without it the devices do not watch for drift
    metadata: dict[str, str] = {}  # written into the graph: owner, purpose, licence, ...
    bindings: tuple[Binding, ...] = ()
    variables: dict[str, Word] = {}  # written {name} in the bindings
    uplink: Uplink = Uplink()  # what rows may leave a device; none unless said
    retraining: Retraining | None = None  # without it only people start a training
    requires: Requires = Requires()  # what a device must be to run it; any unless said
    major: Annotated[int, msgspec.Meta(ge=1)] = 1  # of what it answers: other classes need a higher one
    rollout: Rollout


class Project(_Part, frozen=True, kw_only=True):
    """The whole file."""

    sources: dict[str, Source] = {}
    contracts: dict[str, Contract] = {}
    views: dict[str, View] = {}
    models: dict[ModelName, Model] = {}
    lookups: dict[LookupName, LookupSource] = {}
    config: Config = Config()


class UnknownPart(LookupError):
    """The order names something the project does not declare; the message lists what it does."""

    code = "not-declared"


def declared(what: str, name: _Name, table: Mapping[_Name, _T]) -> _T:
    """What the project declares under this name; raises UnknownPart."""
    if name not in table:
        known = ", ".join(sorted(table)) or "none"
        raise UnknownPart(f"{what} {name!r} is not in the project file; declared are: {known}")
    return table[name]


def accepted(project: Project, view: View) -> tuple[Lookup, ...]:
    """What a model of this view is given beside its windows, in order. Raises UnknownPart."""
    return tuple(declared("lookup", name, project.lookups).accepted(name) for name in view.lookups)


def variables(model: Model) -> tuple[Variable, ...]:
    """The words of a model's bindings, as its release declares them."""
    return tuple(Variable(name, word.default, word.min, word.max) for name, word in sorted(model.variables.items()))
