"""Makes predictions of the field again: the graph that served, on the inputs it was given, on this machine.

A graph is a function of its inputs, so the numbers are the same on a CPU of the same class; kernels of another class
round differently, which the golden tolerance of the variant bounds. Whatever lies beyond was not said by this release.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec
import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from core.release.graphs import open_session
from sync import golden
from sync.errors import Malformed, SyncError
from sync.features import check_shape
from sync.golden import Arrays
from sync.manifest import Manifest, Variant
from sync.names import Digest, ModelName
from sync.remembered import Remembered


class Outcome(StrEnum):
    """How a prediction that was made again compares with the one that was served."""

    EQUAL = "equal"  # every number
    CLOSE = "within-tolerance"  # every number is within the golden tolerance of the variant
    DIFFERENT = "different"
    NO_INPUTS = "no-inputs"  # they stayed on the device
    NOT_HERE = "not-here"  # the release, or the file of its variant, is not on this core


class Replayed(msgspec.Struct, frozen=True):
    """One prediction and what came of it. `worst` is the largest difference of a number, `text` why there is none."""

    prediction: str
    model: ModelName
    release: int
    ts: float
    entity: str
    served: str | float | None
    outcome: Outcome
    again: str | float | None = None
    worst: float | None = None
    tolerance: float | None = None
    precision: str = ""
    text: str = ""


class Unreplayable(Exception):
    """Why one cannot be made again."""

    def __init__(self, outcome: Outcome, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome


Manifests = Callable[[ModelName, int], Manifest | None]
Contents = Callable[[Digest], bytes]  # of an artifact, by its plaintext digest; raises SyncError
_Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
# Of a run; onnxruntime's own share no base below Exception.
_ORT_REFUSALS: tuple[type[Exception], ...] = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.NotImplemented, ort_errors.RuntimeException,
    RuntimeError, ValueError,
)  # fmt: skip


class Replay:
    """Makes predictions again one by one; a graph is opened once. `manifests` gives the signed manifest of a release,
    `contents` what the core keeps of it."""

    def __init__(self, manifests: Manifests, contents: Contents) -> None:
        self._manifests, self._contents = manifests, contents
        self._opened: dict[tuple[ModelName, int, str], _Graph] = {}

    def again(self, one: Remembered) -> Replayed:
        """What this release says to the same inputs now. Never raises for what a file can hold."""
        said = one.prediction
        told = Replayed(
            said.id, said.model, said.release or 0, said.ts, said.entity, said.value, Outcome.NO_INPUTS
        )  # fmt: skip
        if not one.window:
            return msgspec.structs.replace(told, text="the device gave no inputs with it")
        try:
            return self._graph(one).compare(one, told)
        except Unreplayable as error:
            return msgspec.structs.replace(told, outcome=error.outcome, text=str(error))

    def _graph(self, one: Remembered) -> _Graph:
        said = one.prediction
        place = said.model, said.release or 0, one.basis.artifact
        if place not in self._opened:
            manifest = self._manifests(said.model, said.release or 0)
            if manifest is None:
                raise Unreplayable(Outcome.NOT_HERE, f"there is no release {said.model} {said.release} on this core")
            self._opened[place] = _open(manifest, one.basis.artifact, self._contents)
        return self._opened[place]


def _open(manifest: Manifest, artifact: str, contents: Contents) -> _Graph:
    found = [variant for variant in manifest.variants if artifact in ("", variant.blob.plain)]
    if len(found) != 1:
        text = f"release {manifest.number} has no variant {artifact[:12]}" if artifact else "its variant is not known"
        raise Unreplayable(Outcome.NOT_HERE, text)
    try:
        vectors = golden.decode(contents(manifest.golden.plain))
        return _Graph(manifest, found[0], contents(found[0].blob.plain), vectors)
    except SyncError as error:
        raise Unreplayable(Outcome.NOT_HERE, f"its files are not whole on this core: {error}") from error


class _Graph:
    """One variant, opened."""

    def __init__(self, manifest: Manifest, variant: Variant, model: bytes, vectors: golden.Golden) -> None:
        self._manifest, self._variant = manifest, variant
        self._session = open_session(model)
        expected = vectors.expected.get(variant.precision)
        self._tolerance = expected.tolerance if expected else 0.0

    def compare(self, one: Remembered, told: Replayed) -> Replayed:
        classes, said = self._manifest.classes, one.prediction
        if not classes and not isinstance(said.value, float):
            text = f"release {self._manifest.number} gives a number, {said.value!r} is none"
            raise Unreplayable(Outcome.DIFFERENT, text)
        numbers = self._run(one)
        served = np.array(said.probabilities if classes else [said.value], np.float64)
        again = classes[int(np.argmax(numbers))] if classes else float(numbers[0])
        worst = float(np.abs(numbers.astype(np.float64) - served).max()) if numbers.size == served.size else np.inf
        if worst == 0 and again == said.value:
            outcome = Outcome.EQUAL
        elif worst <= self._tolerance and (not classes or said.value == classes[int(np.argmax(served))]):
            outcome = Outcome.CLOSE
        else:
            outcome = Outcome.DIFFERENT
        return msgspec.structs.replace(
            told, outcome=outcome, again=again, worst=worst, tolerance=self._tolerance,
            precision=self._variant.precision,
        )  # fmt: skip

    def _run(self, one: Remembered) -> _Numbers:
        """What the graph says to its inputs, in one row."""
        inputs = self._inputs(one)
        try:
            return np.ravel(self._session.run(None, inputs)[0])
        except _ORT_REFUSALS as error:
            text = f"release {self._manifest.number} says nothing to its inputs: {error}"
            raise Unreplayable(Outcome.DIFFERENT, text) from error

    def _inputs(self, one: Remembered) -> Arrays:
        """The graph's inputs, as the device gave them: what no table filled is the window. All that devices remember is
        FP32."""
        try:
            given = {name: _floats(found.vector, (1, -1)) for name, found in one.basis.lookups.items()}
            for spec in self._manifest.inputs:
                given.setdefault(spec.name, _floats(one.window, (1, *one.shape)))
                check_shape(spec, given[spec.name].shape)
                if spec.datatype != "FP32":
                    raise Malformed(f"input {spec.name!r} takes {spec.datatype}, which no device remembers")
        except (Malformed, ValueError, OverflowError) as error:
            text = f"its inputs are not those of release {self._manifest.number}: {error}"
            raise Unreplayable(Outcome.DIFFERENT, text) from error
        return {spec.name: given[spec.name] for spec in self._manifest.inputs}


def _floats(raw: bytes, shape: tuple[int, ...]) -> _Numbers:
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
