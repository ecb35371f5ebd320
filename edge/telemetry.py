"""Has this device's world changed since its release was committed? One detector a model, fed with every reading.

The baseline is the device's own: its first drift windows after commit, so a new release starts anew. Rows wait until
they fill a drift window, so that most readings cost next to nothing. Detectors are kept sealed, one file a model, which
is due every `KEEP_EVERY` windows and at an alarm, and written by `write_down`, away from whoever answers; a kill costs
the windows since then, which can only delay an alarm, or tell it once more. A file that cannot be read is the same as
none, and reported.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from edge.kept import Kept
from sync.detector import Detector, State, Status, Verdict, watch
from sync.errors import SyncError
from sync.manifest import Manifest
from sync.names import ModelName
from sync.reports import DriftReport
from sync.sketch import MAX_STREAMS, Sketch, Stream, pack, unpack
from sync.windows import Rows

KEEP_EVERY = 20  # drift windows between two checkpoints
TOGETHER = 4  # full drift windows the detector is shown at once, where rows come faster than ...
SOON = 1.0  # seconds of event time, after which it is shown a full window at once

Alarm = Callable[[ModelName, DriftReport], None]


@dataclass
class _Watched:
    """One committed release under watch."""

    number: int
    window: int  # rows of a drift window
    streams: tuple[str, ...]
    detector: Detector
    report: DriftReport
    kept: int = 0  # windows at the last checkpoint
    over: int = 0  # rows since the last finished window ...
    waiting: list[Rows] = field(default_factory=list)  # ... and of these, those the detector has not seen
    shown: float = -math.inf  # event time when it saw rows last
    due: bool = False  # for a checkpoint


class _State(msgspec.Struct, frozen=True):
    number: int
    state: State
    report: DriftReport
    over: int = 0


class Telemetry:
    """The detectors of one device. Thread-safe; `alarm` is called once a release, on the feeding thread."""

    def __init__(self, kept: Kept, alarm: Alarm) -> None:
        self._kept, self._alarm = kept, alarm
        self._watched: dict[ModelName, _Watched] = {}
        self._lock = threading.Lock()

    def watch(self, manifest: Manifest) -> None:
        """From now on this committed release is watched; where it was watched before, that is continued. By a rule that
        cannot work none is, and it serves all the same."""
        if manifest.drift is None or manifest.drift.complaint() or not streams_of(manifest):
            return
        with self._lock:
            current = self._watched.get(manifest.model)
            if current is None or current.number != manifest.number:
                self._watched[manifest.model] = self._restore(manifest) or self._begin(manifest)

    def observe(self, model: ModelName, ts: float, rows: npt.ArrayLike) -> None:
        """Rows (n, streams) of a model, in the order they came; nothing if it is not watched, or in another layout."""
        came = np.asarray(rows, np.float32)
        with self._lock:
            watched = self._watched.get(model)
            if watched is None or came.ndim != 2 or came.shape[1] != len(watched.streams):
                return
            watched.waiting.append(came)
            watched.over += len(came)
            if watched.over < watched.window:
                return
            if watched.over < TOGETHER * watched.window and abs(ts - watched.shown) < SOON:
                return
            watched.shown = ts
            alarmed = self._judged(watched)
            report = watched.report
        if alarmed:
            self._alarm(model, report)

    def report(self, model: ModelName) -> DriftReport | None:
        """What is known of this model's drift; None where nothing is watched."""
        watched = self._watched.get(model)
        return watched.report if watched else None

    def newest(self, model: ModelName, release: int) -> tuple[tuple[str, ...], Sketch] | None:
        """The streams of a release that is watched, and the counters of their newest finished drift window."""
        with self._lock:
            watched = self._watched.get(model)
            sketch = watched.detector.newest() if watched is not None and watched.number == release else None
            return (watched.streams, sketch) if watched is not None and sketch is not None else None

    def write_down(self) -> None:
        """Checkpoints the detectors for which that is due; one thread at a time calls it, often."""
        with self._lock:
            due = {model: self._content(watched) for model, watched in self._watched.items() if watched.due}
        for model, content in due.items():  # whoever answers does not wait for the disk
            self._kept.save(model, content)

    def close(self) -> None:
        """A last checkpoint of everything."""
        with self._lock:
            alarmed = {model: watched for model, watched in self._watched.items() if self._judged(watched)}
            for watched in self._watched.values():
                watched.due = True
        self.write_down()
        for model, watched in alarmed.items():
            self._alarm(model, watched.report)

    def _judged(self, watched: _Watched) -> bool:
        """Shows the detector all that waits; true for the release's first alarm."""
        waiting, watched.waiting, watched.over = watched.waiting, [], watched.over % watched.window
        verdicts = watched.detector.push(np.concatenate(waiting)) if waiting else ()
        noted = [self._note(watched, verdict) for verdict in verdicts]
        watched.due = watched.due or any(noted) or watched.report.windows - watched.kept >= KEEP_EVERY
        return any(noted)

    def _note(self, watched: _Watched, verdict: Verdict) -> bool:
        """Folds one verdict into the report; true for the release's first alarm, which stays."""
        old = watched.report
        first = verdict.status is Status.ALARM and old.since is None
        streams = tuple(one.stream for one in verdict.drifted) if first else old.streams
        watched.report = DriftReport(
            status=Status.ALARM.value if first or old.since is not None else verdict.status.value,
            windows=verdict.window + 1,
            statistic=verdict.statistic,
            streams=streams,
            since=watched.shown if first else old.since,
        )
        return first

    def _begin(self, manifest: Manifest) -> _Watched:
        assert manifest.drift is not None
        names = streams_of(manifest)
        detector = watch(tuple(Stream(name, "numeric") for name in names), manifest.drift)
        report = DriftReport(Status.NOT_CALIBRATED.value)
        return _Watched(manifest.number, manifest.drift.window, names, detector, report)

    def _restore(self, manifest: Manifest) -> _Watched | None:
        content = self._kept.load(manifest.model)
        if content is None:
            return None
        try:
            kept = unpack(_State, content)
            detector = Detector(kept.state)
        except (SyncError, ValueError) as error:
            self._kept.lost(manifest.model, error)
            return None
        if kept.number != manifest.number:
            return None
        window, streams = kept.state.rule.window, tuple(one.name for one in kept.state.streams)
        return _Watched(kept.number, window, streams, detector, kept.report, kept.report.windows, kept.over)

    def _content(self, watched: _Watched) -> bytes:
        watched.kept, watched.due = watched.report.windows, False
        return pack(_State(watched.number, watched.detector.state(), watched.report, watched.over))


def streams_of(manifest: Manifest) -> tuple[str, ...]:
    """What is watched of a model: the channels of its windows, or without windows the columns of its one float32 input,
    as `input[3]`; nothing where there is neither, or too much."""
    if manifest.window is not None:
        return manifest.window.channels
    if len(manifest.inputs) != 1 or manifest.inputs[0].datatype != "FP32" or len(manifest.inputs[0].shape) != 2:
        return ()
    name, width = manifest.inputs[0].name, manifest.inputs[0].shape[1]
    return tuple(f"{name}[{i}]" for i in range(width)) if width <= MAX_STREAMS else ()
