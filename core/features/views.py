"""Feature views: the rows of a snapshot, seen as labelled windows, split in time.

A view has a hash of everything that gives its windows their meaning; (hash, snapshot) names a dataset, and
the same pair gives the same content digest. Fit and gate rows are stretches of each entity's own recording,
so a gate window never shares a row with a fit window. `field` adds what devices saw and sent up.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.features import field
from core.features.lookups import Joined
from core.handoffs import Dataset, Learned, Split
from core.project import SAMPLE_BATCH, SAMPLE_COLUMNS, Contract, Model, Source, Value, View
from sync import codec
from sync.arrays import in_units
from sync.manifest import Lookup
from sync.names import Digest
from sync.windows import cut

ALONE = Joined((), {})  # windows without anything beside them
KERNEL = 1  # rises when sync.windows starts to cut other windows from the same rows


@dataclass(frozen=True)
class _Cut:
    """Windows (n, size, channels), each with its label, its stream, its entity and the time of its last row."""

    x: npt.NDArray[np.float32]
    labels: list[str]
    streams: list[str]
    entities: list[str]
    ends: list[float]

    def take(self, x: npt.NDArray[np.float32], kept: npt.NDArray[np.intp]) -> _Cut:
        labels, streams, entities = ([part[i] for i in kept] for part in (self.labels, self.streams, self.entities))
        return _Cut(x, labels, streams, entities, [self.ends[i] for i in kept])


class ViewError(ValueError):
    """A view that does not fit its rows; the message names the column or value to change."""

    code = "view-unusable"


class TooFewRows(ValueError):
    """A class, or all of them, has no windows to learn from or to judge by; the message says which and
    where.
    """

    code = "too-few-rows"


@dataclass(frozen=True)
class _Rows:
    """Selected rows in order of (entity, time); labels as text."""

    entity: npt.NDArray[np.str_]
    time: npt.NDArray[np.float64]
    label: npt.NDArray[np.str_]
    values: npt.NDArray[np.float32]


def view_hash(
    view: View,
    source: Source,
    contract: Contract,
    samples: tuple[Source, Contract] | None = None,
    accepted: tuple[Lookup, ...] = (),
) -> str:
    """SHA-256 of the view's definition: schema, time, source, entity, label, window and the kernel's version, and the
    same of its samples and lookups where they are used.

    Where the files of the source lie does not count: moving them changes no row.
    """
    described = codec.builtins(view)
    name, lookups = described.pop("samples"), described.pop("lookups")
    if not view.units:
        del described["units"]
    parts: tuple[object, ...] = (KERNEL, described, source.kind, source.time, contract.columns)
    if lookups:
        parts += (lookups, codec.builtins(accepted))
    if samples is not None:
        parts += (name, samples[0].time, samples[1].columns)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def columns(view: View, source: Source, contract: Contract, model: Model) -> tuple[str, ...]:
    """The columns of the rows that `build` reads, each once; raises ViewError for one the contract does not have."""
    return _named((source.time, view.entity, view.label, *view.window.channels, *model.where), source, contract)


def sample_columns(view: View, source: Source, contract: Contract) -> tuple[str, ...]:
    """The columns of the samples that `build` reads, each once; raises ViewError for one the contract does not have."""
    return (*_named((source.time, *SAMPLE_COLUMNS, *view.window.channels), source, contract), SAMPLE_BATCH)


def _named(wanted: tuple[str, ...], source: Source, contract: Contract) -> tuple[str, ...]:
    for name in wanted:
        if name not in contract.columns:
            near = difflib.get_close_matches(name, list(contract.columns), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ViewError(f"column {name!r} is not in contract {source.contract!r}{hint}")
    return tuple(dict.fromkeys(wanted))


def build(
    view: View,
    view_hash: str,
    snapshot: str,
    table: pa.Table,
    model: Model,
    time: str,
    samples: tuple[pa.Table, str] | None = None,
    joined: Joined = ALONE,
) -> Dataset:
    """The dataset of `model`: its `where` rows of `table`, in windows; `time` names the event-time column.

    Rows without entity or label are left out; windows with a hole or a value that is not finite are
    dropped; a window never spans a change of label. `samples` are those that came up from devices, with the name of
    their event-time column: whether they are learned from beside the rows or instead of them says the model, `where`
    says nothing of them. `joined` are the lookups; a window whose entity has no values is left out. Raises TooFewRows
    and ViewError.
    """
    rows = _select(view, table, model.where, time)
    classes = _classes(table.schema.field(view.label).type, rows.label)
    stretches = _stretches_of(model)
    found = {name: _windows(view, rows, stretch) for name, stretch in stretches.items()}
    learned = Learned()
    if samples is not None:
        seen, learned = _seen(view, model, classes, samples, found)
        found = _joined(found, seen, only=model.samples == "only")
    wide = {name: one.take(*joined.widen(one.x, one.entities, one.ends)) for name, one in found.items()}
    for name in ("fit", "gate"):
        _require(name, stretches[name], classes, wide[name].labels, len(wide[name].x))
    splits = {name: _split(classes, one) for name, one in wide.items()}
    digest, window = _digest(view, classes, splits.values()), joined.spec(view.window)
    return Dataset(
        view_hash, snapshot, digest, classes, window, splits["fit"], splits["gate"], learned, joined.accepted,
        splits.get("calibrate"),
    )  # fmt: skip


def _stretches_of(model: Model) -> dict[str, tuple[float, float]]:
    stretches = {"fit": model.fit, "gate": model.gate}
    return stretches if model.calibrate is None else {**stretches, "calibrate": model.calibrate}


def _seen(
    view: View, model: Model, classes: tuple[str, ...], samples: tuple[pa.Table, str], rows: dict[str, _Cut]
) -> tuple[dict[str, _Cut], Learned]:
    """The samples of all stretches; a window that the rows have is theirs.

    A label that no row has is left out and counted: one device must not be able to end every training to come. Nor
    does one outweigh the others, where there are several.
    """
    seen = field.windows(view, *samples, known=(window for one in rows.values() for window in one.x))
    usual = np.isin(seen.label, classes)
    strange, seen = seen.take(np.flatnonzero(~usual)), seen.take(np.flatnonzero(usual))
    spec = view.window
    stretches = _stretches_of(model)
    parts = field.split(seen, stretches.values(), (spec.size - 1) * spec.period, spec.period)
    kept = dict(zip(stretches, map(field.capped, parts), strict=True))
    (fit, surplus), (gate, _) = kept["fit"], kept["gate"]
    learned = Learned(*map(field.by_device, (fit, gate, strange, surplus)))
    return {name: _cut_of(part) for name, (part, _) in kept.items()}, learned


def _cut_of(seen: field.Seen) -> _Cut:
    entities = [str(stream).partition("/")[2] for stream in seen.stream]
    return _Cut(seen.x, seen.label.tolist(), seen.stream.tolist(), entities, seen.end.tolist())


def _joined(rows: dict[str, _Cut], seen: dict[str, _Cut], *, only: bool) -> dict[str, _Cut]:
    """Rows first, then samples; with `only` nothing is learned from rows, yet they judge."""
    both = {
        name: _Cut(
            np.concatenate((one.x, seen[name].x)), one.labels + seen[name].labels, one.streams + seen[name].streams,
            one.entities + seen[name].entities, one.ends + seen[name].ends,
        )
        for name, one in rows.items()
    }  # fmt: skip
    return {**both, "fit": seen["fit"]} if only else both


def _select(view: View, table: pa.Table, where: dict[str, Value | tuple[Value, ...]], time: str) -> _Rows:
    keep = pc.and_(pc.is_valid(table.column(view.entity)), pc.is_valid(table.column(view.label)))
    for name, wanted in where.items():
        column = table.column(name)
        values = list(wanted) if isinstance(wanted, tuple) else [wanted]
        try:
            allowed = pa.array(values, column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ViewError(f"where.{name} = {values}: the column holds {column.type}: {error}") from error
        keep = pc.and_(keep, pc.is_in(column, value_set=allowed))
    chosen = table.filter(keep)
    entity = _text(chosen.column(view.entity))
    seconds = np.asarray(chosen.column(time), np.float64)
    order = np.lexsort((seconds, entity))
    channels = [np.asarray(chosen.column(c)).astype(np.float32) for c in view.window.channels]
    values_ = in_units(np.stack(channels, axis=1), view.window.channels, view.units)
    return _Rows(entity[order], seconds[order], _text(chosen.column(view.label))[order], values_[order])


def _text(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    return np.asarray(pc.cast(column, pa.string()).to_pylist(), np.str_)


def _classes(kind: pa.DataType, labels: npt.NDArray[np.str_]) -> tuple[str, ...]:
    """Numbers in order of size, names in order of letters."""
    names = sorted(set(labels.tolist()))
    return tuple(names if pa.types.is_string(kind) else sorted(names, key=float))


def _windows(view: View, rows: _Rows, stretch: tuple[float, float]) -> _Cut:
    spec = view.window
    values, labels, entities, ends = [], [], [], []
    for start, stop in _stretches(rows, stretch):
        for window in cut(spec, rows.time[start:stop], rows.values[start:stop]):
            if window.complete and np.isfinite(window.values).all():
                values.append(window.values)
                labels.append(str(rows.label[start]))
                entities.append(str(rows.entity[start]))
                ends.append(window.end)
    empty = np.empty((0, spec.size, len(spec.channels)), np.float32)
    return _Cut(np.stack(values) if values else empty, labels, entities, entities, ends)


def _stretches(rows: _Rows, stretch: tuple[float, float]) -> Iterator[tuple[int, int]]:
    """The stretch of each entity's rows, cut where the label changes, as index ranges."""
    for first, last in _runs(rows.entity, 0, len(rows.entity)):
        count = last - first
        start, stop = first + int(count * stretch[0]), first + int(count * stretch[1])
        yield from _runs(rows.label, start, stop)


def _runs(values: npt.NDArray[np.str_], start: int, stop: int) -> list[tuple[int, int]]:
    if start >= stop:
        return []
    part = values[start:stop]
    cuts = start + 1 + np.flatnonzero(part[1:] != part[:-1])
    edges = [start, *(int(c) for c in cuts), stop]
    return list(itertools.pairwise(edges))


def _require(name: str, stretch: tuple[float, float], classes: tuple[str, ...], labels: list[str], n: int) -> None:
    if len(classes) < 2:
        raise TooFewRows(f"the rows chosen have {len(classes)} classes, a classifier needs 2; widen `where`")
    lacking = [c for c in classes if c not in set(labels)]
    if lacking:
        raise TooFewRows(
            f"no complete window of class {', '.join(lacking)} in `{name}` = [{stretch[0]:g}, "
            f"{stretch[1]:g}] ({n} windows in all); take in longer recordings or widen `{name}` or `where`"
        )


def _split(classes: tuple[str, ...], one: _Cut) -> Split:
    index = {name: i for i, name in enumerate(classes)}
    return Split(one.x, np.array([index[c] for c in one.labels], np.int64), np.array(one.streams, np.str_))


def _digest(view: View, classes: tuple[str, ...], splits: Iterable[Split]) -> Digest:
    found = hashlib.sha256(msgspec.json.encode((view.window, classes)))
    for split in splits:
        found.update(msgspec.json.encode((split.x.shape, split.entity.tolist())))
        found.update(split.x.astype("<f4").tobytes())
        found.update(split.y.astype("<i8").tobytes())
    return Digest(found.hexdigest())
