"""A person with a watch, on the in-memory device: streams from one wrist or the other, and knows what was done."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from appliance.demo.recordings import CHANNELS, PERIOD, Part, Recording, Stretch, at_least, stretches
from sync.messages import Prediction
from tests.journey.memory import Box

BATCH = 250  # readings of one message
BREAK = 5.0  # seconds of event time between two stretches


class Wearing:
    """`truth` is what each sample was, by event time; streams may be sent for ever, the time goes on."""

    def __init__(self, box: Box, recordings: tuple[Recording, ...], start: float, seed: int, wrist: str = "") -> None:
        self.box, self.side, self.truth = box, "right", dict[float, str]()
        self.part: Part = "last"
        self.recordings, self._ts, self._rng = recordings, start, np.random.default_rng(seed)
        self.wrist = wrist or box.name
        self._told = len(box.answers)

    def wear(self, side: str, part: Part = "last") -> None:
        self.side, self.part = side, part

    def stream(self, samples: int) -> None:
        """At least so many samples, as whole stretches in a random order, in batches."""
        for stretch in at_least(samples, self._endless()):
            self._send(stretch)

    def answers(self, since: int = 0) -> list[Prediction]:
        """Answered windows, from the number `since` on."""
        return [a for a in self.box.answers[since:] if a.quality == "ok" and a.entity == self.wrist]

    def right(self, answers: list[Prediction]) -> float:
        """Share of these whose class is the true one."""
        return sum(self.truth[a.ts] == a.value for a in answers) / max(1, len(answers))

    def label(self) -> int:
        """Says what every answered window was that was not labelled yet; returns how many were taken."""
        fresh = self.box.answers[self._told :]
        self._told = len(self.box.answers)
        answered = [a for a in fresh if a.quality == "ok" and a.entity == self.wrist]
        return sum(self.box.rooms.label(a.id, self.truth[a.ts]) is None for a in answered)

    def _endless(self) -> Iterator[Stretch]:
        return stretches([r for r in self.recordings if r.side == self.side], self.part, self._rng)

    def _send(self, stretch: Stretch) -> None:
        moments = [round(self._ts + i * PERIOD, 3) for i in range(len(stretch.samples))]
        self.truth |= dict.fromkeys(moments, stretch.exercise)
        rows = [dict(zip(CHANNELS, row, strict=True)) for row in stretch.samples.tolist()]
        for i in range(0, len(rows), BATCH):
            self.box.feel_many(moments[i : i + BATCH], rows[i : i + BATCH], self.wrist)
        self._ts = moments[-1] + BREAK
