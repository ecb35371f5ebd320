"""Documents survive the way to bytes and back; everything else is Malformed, never another exception."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import codec, messages, reports
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
    assert codec.decode(messages.Ack, b'{"epoch":1,"n":2,"v":9,"new":{"deep":[1]}}') == messages.Ack(1, 2, 9)


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


def test_a_stranger_cannot_be_encoded() -> None:
    with pytest.raises(NotImplementedError):
        codec.encode(object())


def test_plain_builtins_for_pages() -> None:
    event = messages.DeviceEvent("disk-full", "the disk is full", ModelName("watch"))
    plain = codec.builtins(event)
    assert plain["model"] == "watch"
    assert type(plain["model"]) is str
    assert Kind("event") == messages.EVENT
