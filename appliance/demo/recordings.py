"""The demo's data: smartwatch recordings (50 Hz, accelerometer and gyroscope, both wrists, 7 exercises).

Source: PyPI package seglearn 1.2.5 (BSD-3-Clause, (c) David M. Burns), Burns et al. 2018, Physiol. Meas. 39
075007. The array in it is a pickle, and "no pickle" is our promise: so the file is pinned by its digest and read by
an unpickler that knows four harmless names and refuses everything else. Only this module ever reads it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from _codecs import encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from appliance.errors import Trouble

MEMBER = "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
PERIOD = 0.02  # seconds between two samples
SEEN = 0.75  # the first three quarters of each recording go to the core, the rest only ever to the devices
FIRST_TS = 1_788_000_000.0  # an arbitrary day: the recordings carry no wall-clock time
PAUSE = 60.0  # seconds between two recordings

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("_codecs", "encode"): encode,
}


class BadRecordings(Trouble):
    """The data package is missing, changed, or wants to do more than be an array."""

    exit_code = 3


@dataclass(frozen=True)
class Recording:
    """One set of repetitions by one person with one arm: `samples` is (n, 6) float64."""

    name: str
    subject: int
    side: str
    exercise: str
    samples: npt.NDArray[np.float64]

    @property
    def split(self) -> int:
        """Index of the first sample the core never sees."""
        return int(len(self.samples) * SEEN)


Part = Literal["first", "last"]  # three quarters, a quarter


@dataclass(frozen=True)
class Stretch:
    """A piece of a recording: `samples` is (n, 6)."""

    exercise: str
    samples: npt.NDArray[np.float64]


def stretches(recordings: Sequence[Recording], part: Part, rng: np.random.Generator) -> Iterator[Stretch]:
    """Whole first or last parts of these recordings without end: each once in a random order, then drawn with
    repetition (block bootstrap).

    The recordings are far too short for the statistics of drift and rollouts; whoever shows a result of this says so.
    """
    yield from passes(1, recordings, part, rng)
    while True:
        yield _piece(recordings[int(rng.integers(len(recordings)))], part)


def passes(count: int, recordings: Sequence[Recording], part: Part, rng: np.random.Generator) -> Iterator[Stretch]:
    """Whole first or last parts of these recordings, each exactly `count` times: all once in a random order, then all
    again."""
    for _ in range(count):
        for i in rng.permutation(len(recordings)):
            yield _piece(recordings[int(i)], part)


def at_least(samples: int, endless: Iterator[Stretch]) -> Iterator[Stretch]:
    """The first whole stretches that together have so many samples."""
    total = 0
    while total < samples:
        stretch = next(endless)
        total += len(stretch.samples)
        yield stretch


def _piece(recording: Recording, part: Part) -> Stretch:
    samples = recording.samples[recording.split :] if part == "last" else recording.samples[: recording.split]
    return Stretch(recording.exercise, samples)


class _OnlyArrays(pickle.Unpickler):
    """Admits what an array of numbers needs; any other name ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise BadRecordings(f"the data file asks for {module}.{name}: it is not what it was; refused") from None


def read(wheel: Path) -> tuple[Recording, ...]:
    """The recordings in the pinned wheel; raises BadRecordings."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BadRecordings(f"{wheel}: {error}; remove it and run `make demo` again") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise BadRecordings(f"{wheel}: the recordings have changed; remove it and run `make demo` again")
    return parse(data)


def parse(data: bytes) -> tuple[Recording, ...]:
    """The recordings in the bytes of the .npy file."""
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    table = _OnlyArrays(stream, encoding="latin1").load().item()
    return tuple(
        Recording(
            f"r{i:03d}",
            int(table["subject"][i]),
            "right" if table["side"][i] == 1 else "left",
            str(table["y_labels"][int(table["y"][i])]),
            np.asarray(samples, np.float64),
        )
        for i, samples in enumerate(table["X"])
    )


def write_csv(recordings: tuple[Recording, ...], folder: Path) -> int:
    """One CSV a recording, with what the core may see of it; returns the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    start, rows = FIRST_TS, 0
    for recording in recordings:
        seen = recording.samples[: recording.split]
        lines = ["recording,subject,side,exercise,ts," + ",".join(CHANNELS)]
        who = f"{recording.name},{recording.subject},{recording.side},{recording.exercise}"
        lines += [
            f"{who},{start + i * PERIOD:.2f}," + ",".join(repr(float(v)) for v in row) for i, row in enumerate(seen)
        ]
        (folder / f"{recording.name}.csv").write_text("\n".join(lines) + "\n")
        start += len(seen) * PERIOD + PAUSE
        rows += len(seen)
    return rows
