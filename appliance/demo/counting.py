"""What a watch sent and what came back, window by window: the only place where the demo's figures are made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sync.messages import Prediction


@dataclass(frozen=True)
class Expected:
    """One complete window that was sent: the event time of its last sample, and what it really was."""

    end: float
    label: str


@dataclass
class Count:
    """All that one watch sent and got back; answers are kept by the event time of their window."""

    sent: int = 0
    expected: list[Expected] = field(default_factory=list)
    mqtt: dict[float, list[Prediction]] = field(default_factory=dict)
    http: dict[float, tuple[float, ...]] = field(default_factory=dict)
    http_errors: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def answered(self) -> int:
        """Windows with a prediction of quality `ok`."""
        return sum(1 for got in self.mqtt.values() if any(p.quality == "ok" for p in got))

    def lost(self) -> list[Expected]:
        """Complete windows without an answer."""
        return [e for e in self.expected if e.end not in self.mqtt]

    def twice(self) -> list[float]:
        """Windows that were answered under different ids."""
        return [end for end, got in self.mqtt.items() if len({p.id for p in got}) > 1]

    def right(self) -> int:
        """Windows whose served class is the true one."""
        return sum(1 for e in self.expected if any(p.value == e.label for p in self.mqtt.get(e.end, ())))

    def of_release(self, number: int) -> list[bool]:
        """Whether each window that this release answered was right, in the order they were sent."""
        served = ((e, got[0]) for e in self.expected if (got := self.mqtt.get(e.end)))
        return [first.value == e.label for e, first in served if first.release == number]

    def differing(self) -> list[float]:
        """Windows on which MQTT and HTTP do not say exactly the same."""
        return [
            e.end
            for e in self.expected
            if e.end in self.mqtt and e.end in self.http and not _same(self.mqtt[e.end][0], self.http[e.end])
        ]


def _same(prediction: Prediction, numbers: tuple[float, ...]) -> bool:
    """Whether HTTP's output tensor is the same distribution and names the same class."""
    if prediction.probabilities != numbers:
        return False
    return prediction.value == prediction.classes[int(np.argmax(numbers))]
