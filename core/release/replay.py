"""Makes predictions of the field again: the graph that served, on the inputs it was given, on this machine.

A graph is a function of its inputs, so the numbers are the same on a CPU of the same class; kernels of another class
round differently, which the golden tolerance of the variant bounds. Whatever lies beyond was not said by this release.
A row of several that were asked together is given to the graph with as many others, at its place, for which kernel
computes it depends on that. The others are those of its request, where all of them are there; else copies of the row,
and then a graph whose rows depend on one another, as by a scale that is taken from all of them, proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import msgspec
import numpy as np
import numpy.typing as npt
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from core.release.graphs import open_session
from sync import golden
from sync.errors import Malformed, SyncError
from sync.golden import Arrays
from sync.manifest import Manifest, Variant
from sync.names import Digest, ModelName
from sync.remembered import Remembered, given, pack, size, unpack


class Outcome(StrEnum):
    """How a prediction that was made again compares with the one that was served."""

    EQUAL = "equal"  # every number
    CLOSE = "within-tolerance"  # every number is within the golden tolerance of the variant
    DIFFERENT = "different"
    NO_INPUTS = "no-inputs"  # they stayed on the device, or not all that it rests on are here
    NOT_HERE = "not-here"  # the release, or the file of its variant, is not on this core


class Replayed(msgspec.Struct, frozen=True):
    """One prediction and what came of it. `worst` is the largest difference of a number, `text` why there is none;
    `cells` were compared (numbers, and the class that was named), `off` of them are beyond the tolerance."""

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
    cells: int = 0
    off: int = 0


class Unreplayable(Exception):
    """Why one cannot be made again."""

    def __init__(self, outcome: Outcome, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome


Manifests = Callable[[ModelName, int], Manifest | None]
Contents = Callable[[Digest], bytes]  # of an artifact, by its plaintext digest; raises SyncError
LARGEST = 16 * 1024 * 1024  # bytes of the rows that are given to a graph at once
_ROW = 64  # bytes that a row counts as at least
_Array = npt.NDArray[np.generic]
# Of a run; onnxruntime's own share no base below Exception.
_ORT_REFUSALS: tuple[type[Exception], ...] = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.NotImplemented, ort_errors.RuntimeException,
    RuntimeError, ValueError,
)  # fmt: skip
_UNOPENED = (*_ORT_REFUSALS, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf)


class Replay:
    """Makes predictions again one by one; a graph is opened once, also one that does not open. `manifests` gives the
    signed manifest of a release, `contents` what the core keeps of it."""

    def __init__(self, manifests: Manifests, contents: Contents) -> None:
        self._manifests, self._contents = manifests, contents
        self._opened: dict[tuple[ModelName, int, str], _Graph | Unreplayable] = {}

    def all(self, found: Sequence[Remembered]) -> list[Replayed]:
        """Each of them, in order, with the rows that were asked together beside one another."""
        requests: dict[_Request, dict[int, Remembered]] = {}
        for one in found:
            if one.basis.rows > 1 and one.has_inputs:
                requests.setdefault(_request(one), {})[one.basis.row] = one
        return [self.again(one, requests.get(_request(one), {})) for one in found]

    def again(self, one: Remembered, beside: Mapping[int, Remembered] = MappingProxyType({})) -> Replayed:
        """What this release says to the same inputs now; `beside` has the rows of the same request by their number, as
        far as they are known. Never raises for what a file can hold."""
        said = one.prediction
        told = Replayed(
            said.id, said.model, said.release or 0, said.ts, said.entity, said.value, Outcome.NO_INPUTS
        )  # fmt: skip
        if not one.has_inputs:
            return msgspec.structs.replace(told, text="the device gave no inputs with it")
        try:
            return self._graph(one).compare(one, beside, told)
        except Unreplayable as error:
            return msgspec.structs.replace(told, outcome=error.outcome, text=str(error))

    def opens(self, one: Remembered) -> bool:
        """Whether what served it is here and opens; the graph is not run."""
        try:
            self._graph(one)
        except Unreplayable:
            return False
        return True

    def _graph(self, one: Remembered) -> _Graph:
        said = one.prediction
        place = said.model, said.release or 0, one.basis.artifact
        if place not in self._opened:
            self._opened[place] = self._look(*place)
        found = self._opened[place]
        if isinstance(found, Unreplayable):
            raise Unreplayable(found.outcome, str(found))  # a new one: a traceback grows each time it is raised
        return found

    def _look(self, model: ModelName, number: int, artifact: str) -> _Graph | Unreplayable:
        manifest = self._manifests(model, number)
        if manifest is None:
            return Unreplayable(Outcome.NOT_HERE, f"there is no release {model} {number} on this core")
        try:
            return _open(manifest, artifact, self._contents)
        except Unreplayable as error:
            return Unreplayable(error.outcome, str(error))  # without the frames that hold the files


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
    except _UNOPENED as error:
        raise Unreplayable(Outcome.NOT_HERE, f"its graph does not open on this core: {error}") from error


class _Graph:
    """One variant, opened."""

    def __init__(self, manifest: Manifest, variant: Variant, model: bytes, vectors: golden.Golden) -> None:
        self._manifest, self._variant = manifest, variant
        self._session = open_session(model)
        expected = vectors.expected.get(variant.precision)
        self._tolerance = expected.tolerance if expected else 0.0

    def compare(self, one: Remembered, beside: Mapping[int, Remembered], told: Replayed) -> Replayed:
        whole = len(beside) == one.basis.rows
        outputs = self._run(one, beside if whole else {})
        found = self._outputs(one, outputs, told) if one.outputs else self._value(one, outputs, told)
        if found.outcome is Outcome.DIFFERENT and one.basis.rows > 1 and not whole:
            text = f"it was one of {one.basis.rows} rows of a request, and not all of them are here"
            raise Unreplayable(Outcome.NO_INPUTS, f"{text}; among copies of itself it comes out otherwise")
        return msgspec.structs.replace(found, tolerance=self._tolerance, precision=self._variant.precision)

    def _value(self, one: Remembered, outputs: Arrays, told: Replayed) -> Replayed:
        """The class with its probabilities, or the number, beside what is said now."""
        classes, said = self._manifest.classes, one.prediction
        if not classes and not isinstance(said.value, float):
            text = f"release {self._manifest.number} gives a number, {said.value!r} is none"
            raise Unreplayable(Outcome.DIFFERENT, text)
        first = np.ravel(next(iter(outputs.values())))
        if first.dtype.kind not in "biuf" or first.size != (len(classes) or 1):
            text = f"release {self._manifest.number} gives {first.dtype}[{first.size}] for {len(classes)} classes"
            raise Unreplayable(Outcome.DIFFERENT, text)
        numbers = first.astype(np.float64)
        served = np.array(said.probabilities if classes else [said.value], np.float64)
        again = classes[int(np.argmax(numbers))] if classes else float(numbers[0])
        alike = numbers.size == served.size
        apart = np.abs(numbers - served) if alike else np.full(numbers.size, np.inf)
        worst = float(apart.max())
        misnamed = bool(classes) and not (alike and said.value == classes[int(np.argmax(served))])
        off = int((~(apart <= self._tolerance)).sum()) + misnamed
        outcome = Outcome.DIFFERENT if off else Outcome.CLOSE
        if worst == 0 and again == said.value:
            outcome = Outcome.EQUAL
        cells = numbers.size + bool(classes)
        return msgspec.structs.replace(told, outcome=outcome, again=again, worst=worst, cells=cells, off=off)

    def _outputs(self, one: Remembered, outputs: Arrays, told: Replayed) -> Replayed:
        """All that the graph said, beside what it says now; only numbers with a fraction may be off."""
        cells = sum(array.size for array in outputs.values())
        if pack(outputs) == one.outputs:
            return msgspec.structs.replace(told, outcome=Outcome.EQUAL, worst=0.0, cells=cells)
        try:
            served = {name: unpack(name, tensor) for name, tensor in one.outputs.items()}
        except Malformed as error:
            raise Unreplayable(Outcome.DIFFERENT, f"what it said is nothing: {error}") from error
        alike = served.keys() == outputs.keys() and all(_alike(served[name], outputs[name]) for name in outputs)
        apart = [_apart(served[name], outputs[name]) for name in outputs] if alike else []
        worst = max((float(each.max(initial=0.0)) for each in apart), default=0.0) if alike else np.inf
        off = sum(int((~(each <= self._tolerance)).sum()) for each in apart) if alike else cells
        outcome = Outcome.DIFFERENT if off or not alike else Outcome.CLOSE
        return msgspec.structs.replace(told, outcome=outcome, worst=worst, cells=cells, off=off)

    def _run(self, one: Remembered, beside: Mapping[int, Remembered]) -> Arrays:
        """What the graph says to its inputs, by output, in one row."""
        names = [node.name for node in self._session.get_outputs()]
        try:
            outputs = dict(zip(names, self._session.run(None, self._inputs(one, beside)), strict=True))
        except _ORT_REFUSALS as error:
            text = f"release {self._manifest.number} says nothing to its inputs: {error}"
            raise Unreplayable(Outcome.DIFFERENT, text) from error
        row, rows = one.basis.row, one.basis.rows
        if rows == 1:
            return outputs
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            raise Unreplayable(Outcome.DIFFERENT, f"release {self._manifest.number} does not say something of each row")
        return {name: array[row : row + 1] for name, array in outputs.items()}

    def _inputs(self, one: Remembered, beside: Mapping[int, Remembered]) -> Arrays:
        """The graph's inputs, as the device gave them."""
        row, rows = one.basis.row, one.basis.rows
        untold = {lookup.name for lookup in self._manifest.lookups} - one.basis.lookups.keys() - one.inputs.keys()
        if untold and not one.basis.artifact:
            text = f"an older agent remembered it, without what its tables gave: {', '.join(sorted(untold))}"
            raise Unreplayable(Outcome.NO_INPUTS, text)
        try:
            own = given(one, self._manifest.inputs)
            if rows == 1:
                return own
            if not 0 <= row < rows or any(array.shape[:1] != (1,) for array in own.values()):
                raise Malformed(f"it is no row {row} of {rows}")
            if max(size(own), _ROW) * rows > LARGEST:
                text = f"it was one of {rows} rows of a request, more than are made again at once"
                raise Unreplayable(Outcome.NO_INPUTS, text)
            return _together(own, rows, {n: given(each, self._manifest.inputs) for n, each in beside.items()})
        except (Malformed, ValueError) as error:
            text = f"its inputs are not those of release {self._manifest.number}: {error}"
            raise Unreplayable(Outcome.DIFFERENT, text) from error


def _together(own: Arrays, rows: int, beside: Mapping[int, Arrays]) -> Arrays:
    """So many rows, those `beside` at their places, all others copies of `own`; raises Malformed where they differ in
    shape."""
    together = {name: np.repeat(array, rows, axis=0) for name, array in own.items()}
    for n, each in beside.items():
        for name, array in together.items():
            if not 0 <= n < rows or each[name].shape != own[name].shape:
                raise Malformed(f"row {n} is none of the {rows}")
            array[n : n + 1] = each[name]
    return together


_Request = tuple[ModelName, int | None, str, int, str]


def _request(one: Remembered) -> _Request:
    """What the rows of one request have in common."""
    said, basis = one.prediction, one.basis
    return said.model, said.release, said.id.removesuffix(f"-{basis.row}"), basis.rows, basis.artifact


def _alike(served: _Array, again: _Array) -> bool:
    """Whether two arrays differ at most in numbers with a fraction."""
    if (served.dtype, served.shape) != (again.dtype, again.shape):
        return False
    return again.dtype.kind == "f" or bool((served == again).all())


def _apart(served: _Array, again: _Array) -> npt.NDArray[np.float64]:
    """By how much each number with a fraction is off."""
    if again.dtype.kind != "f":
        return np.zeros(0)
    return np.asarray(np.abs(again.astype(np.float64) - served.astype(np.float64)))
