"""The people of act two: each wears a watch, streams from one wrist or the other, and says later what was done.

A watch streams in the background, open loop. Between two phases it is still for a moment, so that every window that
was completed can be seen to be answered; the event time goes on through all phases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from appliance.demo.counting import Count
from appliance.demo.field import Away, Watch
from appliance.demo.fleet import Device, StoryFailed
from appliance.demo.recordings import Part, Recording, Stretch, at_least, passes, stretches
from sync.names import ModelName

LABEL_EVERY = 0.5  # seconds between two deliveries of labels
SETTLE = 30.0  # seconds for answers that are still on their way
PATIENCE = 30.0  # seconds a device may be away before somebody who labels complains


class Wearer:
    """One person, one watch, one device."""

    def __init__(
        self, device: Device, model: ModelName, recordings: tuple[Recording, ...], start: float, seed: tuple[int, ...]
    ) -> None:
        self.device, self.name = device, device.name
        self.side = "right"
        self.part: Part = "last"
        self.windows = self.labels = 0  # of all phases that ended
        self._recordings, self._ts = recordings, start
        self._rng = np.random.default_rng(seed)
        self._watch = Watch(device, model, ())
        self._stop = threading.Event()
        self._hands = ThreadPoolExecutor(2, f"wearer-{device.name}")
        self._busy: list[Future[None]] = []

    @property
    def count(self) -> Count:
        """All that was sent and came back in this phase."""
        return self._watch.count

    def connect(self) -> None:
        self._watch.connect()

    def wear(self, side: str, part: Part) -> None:
        """From the next phase on the watch is on this wrist, in this part of its recordings."""
        self.side, self.part = side, part

    def begin(
        self, rate: float, *, samples: int | None = None, rounds: int | None = None, labels: bool = False
    ) -> None:
        """Streams `rate` batches a second: at least `samples` readings, or every stretch `rounds` times, or until
        `end`. With `labels` someone says what each answered window was, a moment later, all the time."""
        self._watch.count = Count()
        self._stop.clear()
        drawn = self._drawn(rounds) if samples is None else at_least(samples, self._drawn(rounds))
        self._busy = [self._hands.submit(self._stream, drawn, rate)]
        if labels:
            self._busy.append(self._hands.submit(self._annotate))

    def finish(self) -> Count:
        """Until all `samples` or `rounds` are sent and answered; see `end`."""
        wait(self._busy[:1])
        return self.end()

    def end(self) -> Count:
        """Ends the phase; raises StoryFailed unless every complete window was answered, once."""
        self._stop.set()
        for work in self._busy:
            work.result()
        self._watch.settle(SETTLE)
        count = self._watch.count
        if count.lost() or count.twice() or count.other:
            lost, twice, other = len(count.lost()), len(count.twice()), len(count.other)
            raise StoryFailed(f"{self.name}: {lost} windows lost, {twice} answered twice, {other} refused")
        self.windows += len(count.expected)
        return count

    def tell_labels(self, count: Count) -> int:
        """What every window of a phase really was; returns how many were told."""
        told = self._watch.tell_labels(count, count.expected)
        self.labels += told
        return told

    def close(self) -> None:
        self._stop.set()
        self._hands.shutdown()
        self._watch.close()

    def _drawn(self, rounds: int | None) -> Iterator[Stretch]:
        own = tuple(r for r in self._recordings if r.side == self.side)
        if rounds is None:
            return stretches(own, self.part, self._rng)
        return passes(rounds, own, self.part, self._rng)

    def _stream(self, drawn: Iterator[Stretch], rate: float) -> None:
        self._ts = self._watch.stream(self._ts, drawn, rate, self._stop)

    def _annotate(self) -> None:
        """Labels in the order of the windows; one whose answer is still on its way waits for the next delivery, and so
        do all while the device is away."""
        known, taken = 0, time.monotonic()
        while not self._stop.wait(LABEL_EVERY):
            count = self._watch.count
            answered = known
            while answered < len(count.expected) and count.expected[answered].end in count.mqtt:
                answered += 1
            try:
                self.labels += self._watch.tell_labels(count, count.expected[known:answered])
            except Away:
                if time.monotonic() - taken > PATIENCE:
                    raise
                continue
            known, taken = answered, time.monotonic()
