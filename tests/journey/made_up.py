"""Recordings nobody made: three movements that a small network tells apart, so that journeys need no download."""

from __future__ import annotations

import numpy as np

from appliance.demo.recordings import PERIOD, Recording

MOVEMENTS = {"PEN": (0.5, 0.2), "ABD": (1.5, -0.8), "ROW": (3.0, 0.9)}  # Hz, offset


def recordings(
    subjects: tuple[int, ...], samples: int = 1200, seed: int = 3, side: str = "right"
) -> tuple[Recording, ...]:
    """One recording a subject and movement; phases and noise differ, the movement does not. A left wrist is a right one
    in the mirror, turned: a network that knows right ones takes it for something else."""
    rng = np.random.default_rng(seed)
    mirror, turned = (1.0, 0.0) if side == "right" else (-1.0, 1.4)
    made = []
    for subject in subjects:
        for movement, (hertz, offset) in MOVEMENTS.items():
            t = np.arange(samples) * PERIOD
            phases = rng.uniform(0, 2 * np.pi, 6)
            waves = np.sin(2 * np.pi * hertz * t[:, None] + phases) * np.linspace(0.5, 1.0, 6) + offset
            noisy = waves + rng.normal(0, 0.15, waves.shape)
            name = f"{side[0]}{len(made):03d}"
            made.append(Recording(name, subject, side, movement, np.round(mirror * noisy + turned, 4)))
    return tuple(made)


def windows(recorded: tuple[Recording, ...], size: int = 100, step: int = 50) -> int:
    """Complete windows in the parts the core never sees."""
    return sum((len(r.samples) - r.split - size) // step + 1 for r in recorded)
