"""The skew meter: what devices served, made again from their samples, and counted by cell.

A cell is one number of an answer: each probability and the class that was named, or the one number of a model without
classes. It mismatches where it lies beyond the golden tolerance of the variant that served (`core.release.replay`), a
class where it is not that of the largest probability that was served. What goes in is the window as the device cut it:
that the device cut it rightly, this cannot see.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.handoffs import Skew
from core.release.replay import Outcome, Replay, Replayed
from sync.messages import Prediction
from sync.names import DeviceId, ModelName
from sync.remembered import Remembered
from sync.samples import Sample

ROWS = 64  # of a request: one of more is not made again here, for a device may say any number
_COMPARED = frozenset((Outcome.EQUAL, Outcome.CLOSE, Outcome.DIFFERENT))


def compare(model: ModelName, served: Iterable[tuple[DeviceId, Sample]], replay: Replay) -> tuple[Skew, ...]:
    """The counts of each device and release; of releases that are not here nothing is said."""
    found: dict[tuple[DeviceId, int], Skew] = {}
    for device, sample in served:
        one = remembered(model, sample)
        if not one.has_inputs or not replay.opens(one):  # it may name releases that never were
            continue
        key = device, sample.release
        more = (
            counted(device, replay.again(one)) if one.basis.rows <= ROWS else Skew(device, sample.release, unchecked=1)
        )
        found[key] = added(found.get(key, Skew(device, sample.release)), more)
    return tuple(found.values())


def counted(device: DeviceId, done: Replayed) -> Skew:
    """One prediction that was made again. One that its release cannot have said is one cell at least."""
    if done.outcome not in _COMPARED:
        return Skew(device, done.release, unchecked=1)
    wrong = done.outcome is Outcome.DIFFERENT
    cells, off = max(done.cells, 1), max(done.off, int(wrong)) if wrong else 0
    return Skew(device, done.release, 1, cells, off, 0, done.prediction if off else "")


def added(one: Skew, more: Skew) -> Skew:
    """The sum of two counts of the same device and release."""
    return Skew(
        one.device, one.number, one.predictions + more.predictions, one.cells + more.cells,
        one.mismatching + more.mismatching, one.unchecked + more.unchecked, one.example or more.example,
    )  # fmt: skip


def remembered(model: ModelName, sample: Sample) -> Remembered:
    """A sample as the device remembered it."""
    said = Prediction(
        sample.id, model, sample.ts, "ok", sample.value, sample.probabilities, entity=sample.entity,
        release=sample.release,
    )  # fmt: skip
    return Remembered(said, sample.shape, sample.window, sample.label, sample.arrived, basis=sample.basis)
