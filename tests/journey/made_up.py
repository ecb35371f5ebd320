"""Recordings nobody made: three movements that a small network tells apart, so that journeys need no download."""

from __future__ import annotations

import numpy as np

from appliance.demo.recordings import PERIOD, Recording

MOVEMENTS = {"PEN": (0.5, 0.2), "ABD": (1.5, -0.8), "ROW": (3.0, 0.9)}  # Hz, offset


def recordings(subjects: tuple[int, ...], samples: int = 1200, seed: int = 3) -> tuple[Recording, ...]:
    """One recording a subject and movement, right wrist; phases and noise differ, the movement does not."""
    rng = np.random.default_rng(seed)
    made = []
    for subject in subjects:
        for movement, (hertz, offset) in MOVEMENTS.items():
            t = np.arange(samples) * PERIOD
            phases = rng.uniform(0, 2 * np.pi, 6)
            waves = np.sin(2 * np.pi * hertz * t[:, None] + phases) * np.linspace(0.5, 1.0, 6) + offset
            noisy = waves + rng.normal(0, 0.15, waves.shape)
            made.append(Recording(f"r{len(made):03d}", subject, "right", movement, np.round(noisy, 4)))
    return tuple(made)


def windows(recorded: tuple[Recording, ...], size: int = 100, step: int = 50) -> int:
    """Complete windows in the parts the core never sees."""
    return sum((len(r.samples) - r.split - size) // step + 1 for r in recorded)
