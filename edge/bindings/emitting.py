"""Which predictions of an entity are told: the emit rules of a binding. Pure; what is remembered of an entity is small
and is kept with its windows, so that a window that comes again after a kill is judged as it was before.
"""

from __future__ import annotations

import msgspec

from sync.bindings import Binding, When
from sync.messages import Prediction

_ANSWERED = ("ok", "stale")


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of one entity at one binding.

    `ts` is the event time of the prediction that was told last, `said` what it said as far as the rule looks at it.
    `holds` and `turning` are the condition's: whether it holds, and of the newest predictions which spoke for the
    opposite.
    """

    ts: float
    said: tuple[str, str | float | None]
    holds: bool = False
    turning: tuple[bool, ...] = ()


def decide(binding: Binding, before: Told | None, prediction: Prediction) -> tuple[Told, bool]:
    """What is remembered from now on, and whether this prediction is told. The first of an entity is."""
    holds, turning = _condition(binding.when, before, prediction)
    said = _said(binding, prediction, holds)
    tell = before is None or said != before.said or _due(binding.every, before.ts, prediction.ts)
    ts = prediction.ts if before is None or tell else before.ts
    return Told(ts, said, holds, turning), tell


def _said(binding: Binding, prediction: Prediction, holds: bool) -> tuple[str, str | float | None]:
    if binding.emit == "on-change":
        return prediction.quality, prediction.value
    if binding.emit == "when":  # that nobody answers is told as well: an alarm that cannot come is news
        return "answered" if prediction.quality in _ANSWERED else "unanswered", float(holds)
    return "", None


def _due(every: float | None, last: float, ts: float) -> bool:
    """Also where a sensor's clock was set back: else nothing would be told until it has caught up."""
    return every is not None and not 0 <= ts - last < every


def _condition(when: When | None, before: Told | None, prediction: Prediction) -> tuple[bool, tuple[bool, ...]]:
    holds, turning = (before.holds, before.turning) if before is not None else (False, ())
    figure = _figure(when, prediction) if when is not None else None
    if when is None or figure is None:
        return holds, turning
    below = when.above if when.below is None else when.below
    turning = (*turning, figure <= below if holds else figure > when.above)[-when.within :]
    return (not holds, ()) if sum(turning) >= when.of else (holds, turning)


def _figure(when: When, prediction: Prediction) -> float | None:
    """What is compared; None where nobody answered, or where the answer has no such figure."""
    if prediction.quality not in _ANSWERED:
        return None
    if not when.label:
        return prediction.value if isinstance(prediction.value, int | float) else None
    if when.label not in prediction.classes:
        return None
    return prediction.probabilities[prediction.classes.index(when.label)]
