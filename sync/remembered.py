"""What a device remembers of a prediction: enough to make it again, on the core, to the last bit.

The graph of a release is a function of its inputs: a window, and the vectors that tables gave for the entity. Which
release, which variant of it and which versions of tables and config were in force stands beside them.
"""

from __future__ import annotations

import msgspec

from sync.messages import Prediction

NOTABLE = frozenset(
    ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
)  # what kernels of ONNX Runtime are chosen by: two CPUs alike in these compute alike


class Looked(msgspec.Struct, frozen=True):
    """What a table gave for an entity: its version (0: not known), and the row, float32, little endian."""

    version: int
    vector: bytes


class Basis(msgspec.Struct, frozen=True):
    """What an answer rests on besides its window: the variant that gave it (plaintext digest; empty: not known), the
    version of the config in force (0: none), and by graph input what tables gave."""

    artifact: str = ""
    config: int = 0
    lookups: dict[str, Looked] = {}


NO_BASIS = Basis()


class Remembered(msgspec.Struct, frozen=True):
    """One prediction with its input window: float32, little endian, row-major, of `shape`. `arrived` is the device's
    clock when it was made (0: not known), `labelled` when its label came."""

    prediction: Prediction
    shape: tuple[int, ...]
    window: bytes
    label: str | None = None
    arrived: float = 0.0
    labelled: float | None = None
    basis: Basis = NO_BASIS


def cpu_class(machine: str, flags: frozenset[str]) -> str:
    """A CPU as far as its arithmetic is concerned, in words: `x86_64 avx2 fma`."""
    return " ".join((machine, *sorted(flags & NOTABLE)))
