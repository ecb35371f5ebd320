"""What a device may tell when it is asked: answers always, inputs as they were signed, within the bytes there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.disclosing import MOST, ROOM, Open, disclose, withhold, without_inputs
from sync import answers, codec, roles
from sync.answers import Predictions
from sync.commands import PART, PARTS
from sync.messages import Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.remembered import Basis, Looked, Remembered, pack

A, B = ModelName("press"), ModelName("saw")
ALL = Open(frozenset({1, 2}), 1e9)


def one(number: int, model: ModelName = A, release: int = 1, size: int = 16) -> Remembered:
    said = Prediction(f"{number:032x}", model, float(number), "ok", "fault", (1.0,), ("fault",), "w1", release)
    return Remembered(
        said, (size, 1), b"\x3f" * 4 * size, basis=Basis("d" * 64, 1, {"machines": Looked(5, b"\x3f" * 8)})
    )


def asked(number: int, model: ModelName = A, release: int = 1, size: int = 16) -> Remembered:
    """One that a program asked with inputs of its own, whose answer repeats them."""
    told = pack({"picture": np.full((1, size), 0x3F, np.uint8), "who": np.array([["?" * size]], np.object_)})
    said = Prediction(f"{number:032x}", model, float(number), "ok", None, entity="w1", release=release)
    return Remembered(said, (), b"", basis=Basis("d" * 64, row=1, rows=4), inputs=told, outputs=told)


def windows(found: Sequence[Remembered]) -> list[bool]:
    return [each.has_inputs for each in found]


def test_without_a_signed_word_no_input_leaves() -> None:
    told = disclose([one(1), one(2, B)], {})
    assert windows(told.predictions) == [False, False] and told.withheld == (A, B) and not told.spent
    bare = told.predictions[0]
    assert (bare.prediction, bare.shape, bare.basis.artifact) == (one(1).prediction, (), "d" * 64)
    assert bare.basis.lookups == {"machines": Looked(5, b"")}, "which version it was is no reading; its numbers are one"
    assert b"\\u003f" not in codec.encode(bare) and b"Pz8/" not in codec.encode(bare)


def test_nothing_of_what_a_program_asked_with_leaves_unsigned_nor_what_the_graph_made_of_it() -> None:
    told = disclose([asked(1), asked(2, B), asked(3, release=3)], {A: Open(frozenset({1}), 1e9)})
    assert windows(told.predictions) == [True, False, False] and told.withheld == (A, B)
    assert told.predictions[0] == asked(1) and told.spent == {A: len(codec.encode(asked(1)))}
    bare = told.predictions[1]
    assert (bare.prediction, bare.inputs, bare.outputs) == (asked(2, B).prediction, {}, {})
    text = codec.encode(bare)
    assert not any(word in text for word in (b"Pz8/", b"??", b"picture", b"who"))
    assert windows(withhold(told, {A}).predictions) == [False] * 3


def test_no_field_is_forgotten_when_inputs_are_withheld() -> None:
    """Whoever adds one says here whether it may leave: what was said, by what, when, and what it really was."""
    assert Remembered.__struct_fields__ == (
        "prediction", "shape", "window", "label", "arrived", "labelled", "basis", "inputs", "outputs",
    )  # fmt: skip
    assert Basis.__struct_fields__ == ("artifact", "config", "lookups", "row", "rows")
    full = replace(one(1), inputs=asked(1).inputs, outputs=asked(1).outputs)
    emptied = {name for name in Remembered.__struct_fields__ if not getattr(without_inputs(full), name)}
    assert {"shape", "window", "inputs", "outputs"} <= emptied and not without_inputs(full).has_inputs


def test_inputs_leave_for_the_releases_that_were_signed_so_and_no_others() -> None:
    told = disclose([one(1), one(2, release=3), one(3, B)], {A: ALL})
    assert windows(told.predictions) == [True, False, False] and told.withheld == (A, B)
    assert set(told.spent) == {A}


def test_a_budget_is_never_exceeded_and_goes_to_the_newest() -> None:
    size = len(codec.encode(one(1)))
    told = disclose([one(n) for n in range(1, 6)], {A: Open(frozenset({1}), 2 * size)})
    assert windows(told.predictions) == [False, False, False, True, True] and told.spent == {A: 2 * size}
    assert told.withheld == (A,) and not told.more


def test_a_model_whose_budget_refuses_keeps_its_inputs_and_no_other_does() -> None:
    told = withhold(disclose([one(1), one(2, B)], {A: ALL, B: ALL}), {B})
    assert windows(told.predictions) == [True, False] and told.withheld == (B,) and set(told.spent) == {A}


def test_of_what_does_not_fit_the_newest_are_told() -> None:
    size = len(codec.encode(without_inputs(one(1))))
    told = disclose([one(n) for n in range(1, 6)], {}, 3 * size)
    assert [each.prediction.ts for each in told.predictions] == [3.0, 4.0, 5.0] and told.more


def test_what_is_not_told_costs_nothing() -> None:
    """The older one's inputs would be within the budget, and do not fit."""
    size = len(codec.encode(one(1)))
    told = disclose([one(1), one(2)], {A: ALL}, 1.5 * size)
    assert windows(told.predictions) == [True] and told.more and told.spent == {A: size}
    told = disclose([one(1, B), one(2)], {A: ALL}, size)
    assert told.more and told.withheld == (), "of what is not told nothing is kept back either"


ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 200), st.booleans()), max_size=30)


@given(ROWS, st.integers(0, 20_000), st.integers(0, 9000))
def test_whatever_is_remembered_the_bounds_hold(rows: list[tuple[int, int, bool]], room: int, left: int) -> None:
    made = [(asked if by_name else one, release, size) for release, size, by_name in rows]
    found = [make(n, release=release, size=size) for n, (make, release, size) in enumerate(made)]
    told = disclose(found, {A: Open(frozenset({1, 2}), left)}, room)
    assert sum(len(codec.encode(each)) for each in told.predictions) <= room
    assert told.spent.get(A, 0) == sum(len(codec.encode(each)) for each in told.predictions if each.has_inputs) <= left
    assert all(each.prediction.release in (1, 2) for each in told.predictions if each.has_inputs)
    ids = [each.prediction.id for each in told.predictions]
    assert ids == [each.prediction.id for each in found][len(found) - len(ids) :]
    assert told.more == (len(ids) < len(found))


def test_a_full_answer_of_noise_fits_its_parts() -> None:
    """Twice in base64, and packed: DEFLATE wins back at least the outer one."""
    noise = np.random.default_rng(1)
    found = [replace(one(n, size=500), window=noise.bytes(2000)) for n in range(MOST)]
    told = disclose(found, {A: ALL})
    assert told.more and sum(len(codec.encode(each)) for each in told.predictions) > 0.98 * ROOM
    document = Predictions(TenantId("t"), DeviceId("d"), 0, "1", "cpu", 0, 1, 0, 1, told.predictions, True)
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert len(answers.seal(document, roles.new_signing_key(), public, bytes(32))) <= PART * PARTS
