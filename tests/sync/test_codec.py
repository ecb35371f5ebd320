"""Documents survive the way to bytes and back; everything else is Malformed, never another exception."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import codec, golden, lookups, messages, reports
from sync.errors import Malformed
from sync.names import DeviceId, Digest, Kind, ModelName, TenantId

NAME = st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True)
DIGEST = st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(Digest)
MOMENT = st.floats(min_value=0, max_value=4e9, allow_nan=False)
NUMBER = st.integers(min_value=0, max_value=2**53)

releases = st.builds(reports.Release, number=NUMBER, manifest=DIGEST, artifact=DIGEST)
orders = st.builds(
    messages.ModelOrder,
    manifest=DIGEST,
    number=NUMBER,
    keys=st.dictionaries(DIGEST, st.text(max_size=8), max_size=2),
)
assignments = st.builds(
    messages.Assignment,
    tenant=NAME.map(TenantId),
    device=NAME.map(DeviceId),
    epoch=NUMBER,
    seq=NUMBER,
    ts=MOMENT,
    expires=MOMENT,
    models=st.dictionaries(NAME.map(ModelName), orders, max_size=3),
)
reported = st.builds(
    messages.Reported,
    tenant=NAME.map(TenantId),
    device=NAME.map(DeviceId),
    epoch=NUMBER,
    seq=NUMBER,
    ts=MOMENT,
    boot=st.text(max_size=8),
    seen=NUMBER,
    models=st.dictionaries(
        NAME.map(ModelName),
        st.builds(reports.ModelReport, phase=NAME, since=MOMENT, serving=st.none() | releases),
        max_size=2,
    ),
    have=st.lists(DIGEST, max_size=3).map(tuple),
    missing=st.dictionaries(DIGEST, st.lists(NUMBER, max_size=3).map(tuple), max_size=2),
)
simple = st.one_of(
    st.builds(messages.Ack, epoch=NUMBER, n=NUMBER),
    st.builds(messages.TrustIndex, files=st.lists(st.text(max_size=8), max_size=3).map(tuple)),
    st.builds(messages.CoreStatus, state=st.sampled_from(["online", "stopped", "offline"]), ts=MOMENT),
    st.builds(messages.DeviceEvent, code=NAME, text=st.text(max_size=20), model=st.none() | NAME.map(ModelName)),
    st.builds(messages.Prediction, id=NAME, model=NAME.map(ModelName), ts=MOMENT, quality=st.just("warming")),
)


SMALLEST = {
    messages.Assignment: {
        "tenant": "a", "device": "b", "epoch": 1, "seq": 1, "ts": 0.0, "expires": 1.0, "models": {},
    },
    messages.ModelOrder: {"manifest": "0" * 64, "number": 1, "keys": {}},
    messages.Ack: {"epoch": 1, "n": 1},
    messages.Record: {"epoch": 1, "n": 1, "ts": 0.0, "boot": "b", "body": {}},
    messages.Reported: {
        "tenant": "a", "device": "b", "epoch": 1, "seq": 1, "ts": 0.0, "boot": "b", "seen": 1, "models": {},
    },
    reports.Release: {"number": 1, "manifest": "0" * 64, "artifact": "0" * 64},
}  # fmt: skip


@given(assignments | reported | simple)
def test_a_document_comes_back_as_it_was(document: msgspec.Struct) -> None:
    payload = codec.encode(document)
    again = codec.decode(type(document), payload, limit=2**20)
    assert again == document
    assert codec.encode(again) == payload


@given(assignments | reported | simple)
def test_plain_values_become_the_document_again(document: msgspec.Struct) -> None:
    plain = msgspec.json.decode(codec.encode(document))
    assert codec.typed(type(document), plain) == document
    assert codec.typed(type(document), codec.builtins(document)) == document


def test_plain_values_are_checked_too() -> None:
    with pytest.raises(Malformed, match="model"):
        codec.typed(messages.Prediction, {"id": "x", "model": "../watch", "ts": 1.0, "quality": "ok"})


@given(st.binary(max_size=200))
def test_foreign_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(messages.Assignment, payload)


def test_names_are_checked_and_typed_on_arrival() -> None:
    ack = codec.decode(messages.TrustIndex, b'{"files":["1.root.json"]}')
    assert ack.files == ("1.root.json",)
    payload = codec.encode(messages.Prediction("x", ModelName("watch"), 1.0, "ok"))
    assert isinstance(codec.decode(messages.Prediction, payload).model, ModelName)
    with pytest.raises(Malformed, match="model"):
        codec.decode(messages.Prediction, payload.replace(b'"watch"', b'"../watch"'))


def test_unknown_fields_are_tolerated() -> None:
    assert codec.decode(messages.Ack, b'{"epoch":1,"n":2,"v":1,"new":{"deep":[1]}}') == messages.Ack(1, 2)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"epoch":"1","n":2}',
        b'{"epoch":1,"n":2',
        b'{"epoch":1,"n":1.5}',
        b"[" * 5000,
        b"\xff",
    ],
)
def test_wrong_documents_are_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode(messages.Ack, payload)


def test_a_document_beyond_the_limit_is_not_even_read() -> None:
    with pytest.raises(Malformed, match="more than the 65536 allowed"):
        codec.decode(messages.Ack, b" " * (codec.LIMIT + 1))


def test_the_message_names_the_field() -> None:
    with pytest.raises(Malformed, match=r"Ack: .*\$\.n"):
        codec.decode(messages.Ack, b'{"epoch":1,"n":"x"}')


@pytest.mark.parametrize("way", [codec.encode, codec.builtins], ids=["encode", "builtins"])
def test_a_stranger_cannot_be_encoded(way: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"no complex$"):
        way({"inner": [1 + 1j]})


def test_plain_builtins_for_pages() -> None:
    event = messages.DeviceEvent("disk-full", "the disk is full", ModelName("watch"))
    plain = codec.builtins(event)
    assert plain["model"] == "watch"
    assert type(plain["model"]) is str
    assert Kind("event") == messages.EVENT


@pytest.mark.parametrize("number", [-1, -(10**30), 2**63, 10**30])
@pytest.mark.parametrize(
    ("kind", "field"),
    [(messages.Assignment, "seq"), (messages.Assignment, "epoch"), (messages.ModelOrder, "retry"),
     (messages.ModelOrder, "floor"), (messages.ModelOrder, "number"), (messages.Ack, "n"), (messages.Record, "n"),
     (messages.Reported, "seen"), (reports.Release, "number")],
)  # fmt: skip
def test_a_count_that_no_column_holds_is_malformed(kind: type, field: str, number: int) -> None:
    with pytest.raises(Malformed, match=rf"\$\.{field}"):
        codec.decode(kind, codec.encode({**SMALLEST[kind], field: number}))


@pytest.mark.parametrize("kind", [messages.Ack, messages.Assignment, messages.Record, messages.Reported])
def test_a_document_of_a_later_version_is_refused_and_the_reason_says_what_to_do(kind: type) -> None:
    """What a reader may leave unread is a field; a higher `v` says that the rest means something else."""
    assert codec.decode(kind, codec.encode({**SMALLEST[kind], "v": 1, "new": True})).v == 1  # type: ignore[attr-defined]
    later = {**SMALLEST[kind], "v": 2}
    with pytest.raises(Malformed, match=f"{kind.__name__}: it is of version 2, .* knows 1: update falaj"):
        codec.decode(kind, codec.encode(later))
    if kind is not messages.Record:  # its body is JSON as it came
        with pytest.raises(Malformed, match="version 2"):
            codec.typed(kind, later)


@pytest.mark.parametrize(
    ("decode", "later"),
    [(golden.decode, golden.Golden({}, {}, v=2)), (lookups.decode_config, lookups.Config({}, v=2))],
    ids=["golden vectors", "config"],
)
def test_so_is_one_that_travels_sealed(decode: Callable[[bytes], object], later: msgspec.Struct) -> None:
    with pytest.raises(Malformed, match="version 2"):
        decode(msgspec.msgpack.encode(later))


def test_a_document_without_versions_is_read_whatever_it_says_of_one() -> None:
    assert codec.decode(reports.Release, codec.encode({**SMALLEST[reports.Release], "v": 9})).number == 1
