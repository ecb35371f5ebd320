"""Tables by entity and variables of a device: canonical bytes, what a release accepts, and how bindings are filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sync import lookups
from sync.bindings import When
from sync.errors import Malformed, Unfit
from sync.features import Unit
from sync.lookups import Config, Index, Table
from sync.manifest import Binding, Lookup, LookupColumn, Variable
from sync.names import LookupName

MACHINES = LookupName("machines")
ACCEPTED = Lookup(MACHINES, (LookupColumn("age", 0.0, 100.0), LookupColumn("power")), 3600.0)
ROWS = {"press-2": (7.0, 0.5), "press-1": (3.0, 1.5)}
TABLE = lookups.table(MACHINES, ("age", "power"), ROWS, 5.0)

_numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.dictionaries(st.text(max_size=8), st.tuples(_numbers, _numbers), max_size=8), st.randoms())
def test_the_same_rows_always_give_the_same_bytes_and_come_back(rows: dict[str, Any], chance: Any) -> None:
    made = lookups.table(MACHINES, ("age", "power"), rows, 5.0)
    shuffled = list(rows.items())
    chance.shuffle(shuffled)
    data = lookups.encode(made)
    assert data == lookups.encode(lookups.table(MACHINES, ("age", "power"), dict(shuffled), 5.0))
    assert lookups.decode(data) == made
    index = Index(made)
    for key, row in rows.items():
        vector = index.vector(key, ACCEPTED)
        assert vector is not None and vector.shape == (1, 2) and vector.dtype == np.float32
        assert vector[0].tolist() == [float(np.float32(n)) for n in row]


def test_an_entity_without_a_row_gets_the_default_if_there_is_one() -> None:
    assert Index(TABLE).vector("press-9", ACCEPTED) is None
    found = Index(TABLE).vector("press-9", replace(ACCEPTED, default=(1.0, 2.0)))
    assert found is not None and found.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_a_value_that_32_bits_do_not_hold_is_refused(value: float) -> None:
    with pytest.raises(Malformed):
        lookups.table(MACHINES, ("age",), {"a": (value,)}, 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"\xff", b"\x93\x01", bytes(lookups.LIMIT + 1),
        lookups.encode(replace(TABLE, keys=("b", "a"))),
        lookups.encode(replace(TABLE, keys=("a", "a"))),
        lookups.encode(replace(TABLE, values=TABLE.values[:-1])),
        lookups.encode(replace(TABLE, columns=())),
        lookups.encode(replace(TABLE, values=np.full((2, 2), np.nan, "<f4").tobytes())),
        lookups.encode(Table("No Name", ("a",), (), b"")),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bytes_that_are_no_canonical_table_are_refused(bad: bytes) -> None:
    with pytest.raises(Malformed):
        lookups.decode(bad)


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        (replace(ACCEPTED, name=LookupName("others")), "others takes"),
        (replace(ACCEPTED, columns=ACCEPTED.columns[:1]), "takes age"),
        (replace(ACCEPTED, columns=ACCEPTED.columns[::-1]), "takes power, age"),
        (replace(ACCEPTED, columns=(LookupColumn("age", 4.0), LookupColumn("power"))), "'press-1' is 3, allowed is at"),
        (replace(ACCEPTED, columns=(LookupColumn("age"), LookupColumn("power", None, 1.0))), "at most 1"),
    ],
)
def test_a_release_takes_only_what_its_owner_declared(accepted: Lookup, said: str) -> None:
    lookups.check(TABLE, ACCEPTED)
    with pytest.raises(Unfit, match=said):
        lookups.check(TABLE, accepted)


LINE, LIMIT = Variable("line", "a"), Variable("limit", 0.8, 0.0, 1.0)
BINDING = Binding("plant/{line}/{entity}/vib", "out/{line}/{entity}")


def test_variables_of_a_binding_are_filled_by_the_config_or_by_their_defaults() -> None:
    both = (LINE, LIMIT)
    assert lookups.filled(BINDING, both, Config({"line": "seven", "other": 1.0})).topic == "plant/seven/{entity}/vib"
    assert lookups.filled(BINDING, both, Config({})).output == "out/a/{entity}"
    assert lookups.filled(BINDING, (), Config({"line": "seven"})) == BINDING
    whole = replace(
        BINDING, emit="when", when=When(0.8, "fault", of=2, within=3), units={"x": Unit(2.0)}, no_model=0.0, every=5.0
    )
    assert replace(lookups.filled(whole, both, Config({})), topic=whole.topic, output=whole.output) == whole


@pytest.mark.parametrize("value", ["#", "+", "a/b", "", "$SYS", "{entity}", "x" * 65, "ä", 7.0])
def test_no_config_widens_a_topic(value: str | float) -> None:
    config = Config({"line": value})
    with pytest.raises(Unfit, match="line"):
        lookups.check_config(config, (LINE,))
    assert lookups.filled(BINDING, (LINE,), config).topic == "plant/a/{entity}/vib", "and none of it is used"


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf"), "much"])
def test_a_number_stays_within_what_the_owner_allowed(value: str | float) -> None:
    lookups.check_config(Config({"limit": 1.0}), (LIMIT,))
    with pytest.raises(Unfit, match="limit"):
        lookups.check_config(Config({"limit": value}), (LIMIT,))


@pytest.mark.parametrize(
    "wrong", [{"columns": ()}, {"ttl": 0.0}, {"default": (1.0,)}, {"columns": (LookupColumn("a"), LookupColumn("a"))}]
)
def test_a_declaration_that_makes_no_sense_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lookup machines"):
        Lookup(**({"name": MACHINES, "columns": ACCEPTED.columns, "ttl": 1.0} | wrong))
