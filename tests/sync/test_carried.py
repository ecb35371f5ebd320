"""Bundles: who signed them, whom they are for, what may be said in them; and the names of files in a folder."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import carried, codec, roles, topics
from sync.carried import Bundle, Word, bundles, limit_of, opened, topic_of
from sync.errors import Malformed, Untrusted
from sync.names import BadName, DeviceId, Digest, TenantId, TrustFile

TENANT, DEVICE, OTHER = TenantId("acme"), DeviceId("press-1"), DeviceId("press-2")
KEY, STRANGER = roles.new_signing_key(), roles.new_signing_key()
PUBLIC = [roles.signer(KEY).public_key]


def word(topic: str, text: str = "x") -> Word:
    return Word(topic, msgspec.Raw(codec.encode({"text": text})))


def one(*words: Word, key: bytes = KEY, device: DeviceId = DEVICE) -> bytes:
    (envelope,) = bundles(TENANT, device, 1, 7.0, words, key)
    return envelope


def test_what_was_said_arrives_in_order() -> None:
    said = (word("reported"), word("up/event", "a"), word("up/why", "b"))
    found = opened(one(*said), TENANT, DEVICE, PUBLIC, "up")
    assert (found.words, found.ts, found.epoch) == (said, 7.0, 1)
    assert topic_of(found, found.words[1]) == topics.up(TENANT, DEVICE, "event")  # type: ignore[arg-type]


def test_much_is_said_in_several_bundles_and_nothing_in_one() -> None:
    words = [word("up/event", "x" * 50_000) for _ in range(25)]
    parts = bundles(TENANT, DEVICE, 1, 7.0, words, KEY)
    assert len(parts) == 3 and max(map(len, parts)) < carried.LIMIT
    assert [w for part in parts for w in opened(part, TENANT, DEVICE, PUBLIC, "up").words] == words
    assert len(bundles(TENANT, DEVICE, 1, 7.0, [], KEY)) == 1


def test_one_word_of_the_largest_size_still_fits() -> None:
    assert len(one(word("up/sample", "x" * codec.LIMIT))) < carried.LIMIT


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (one(word("up/event"), key=STRANGER), "no valid signature"),
        (one(word("up/event"), device=OTHER), "a bundle of acme/press-2"),
        (one(word("desired")), "speaks on desired"),
        (one(word("ack/event")), "speaks on ack/event"),
        (roles.sign(Bundle(TENANT, DEVICE, 1, 7.0, ()), "application/json", KEY), "envelope holds"),
    ],
)
def test_a_bundle_that_is_not_the_devices_is_refused(envelope: bytes, why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        opened(envelope, TENANT, DEVICE, PUBLIC, "up")


@pytest.mark.parametrize("topic", ["", "..", "up/../desired", "up/Event", "up/event/x", "/reported"])
def test_a_word_on_no_topic_of_ours_is_refused(topic: str) -> None:
    with pytest.raises(Malformed):
        opened(one(word(topic)), TENANT, DEVICE, PUBLIC, "up")


def test_downwards_only_what_the_core_says() -> None:
    assert opened(one(word("ack/event"), word("labels")), TENANT, DEVICE, PUBLIC, "down").words
    with pytest.raises(Untrusted, match="speaks on reported"):
        opened(one(word("reported")), TENANT, DEVICE, PUBLIC, "down")


D = Digest("a" * 64)


@pytest.mark.parametrize(
    "name",
    ["d/press-1/desired", "d/press-1/down", "d/press-1/up/0", "d/press-1/up/999", "trust/index",
     "trust/1.root.json", f"blob/{D}/0", f"enrol/{'0' * 24}/request", f"enrol/{'0' * 24}/answer"],
)  # fmt: skip
def test_names_that_may_lie_in_a_folder(name: str) -> None:
    assert limit_of(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "d", "d/press-1", "d/press-1/reported", "d/press-1/status", "d/press-1/up", "d/press-1/up/00",
     "d/press-1/up/1000", "d/press-1/up/-1", "d/press-1/up/\u0661", "d/../desired", "d/Press/down", "d/a\nb/down",
     "trust/..", "trust/.", "trust/a/b", f"blob/{D}", f"blob/{D}/x", f"blob/{D[:-1]}/0", "enrol/x/request",
     f"enrol/{'0' * 24}/token", "core/status", "/etc/passwd", "d/press-1/desired\n", "d/press-1/ack/event"],
)  # fmt: skip
def test_names_that_may_not(name: str) -> None:
    assert limit_of(name) is None


@given(st.text(max_size=80))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    if limit_of(name) is not None:
        assert not name.startswith("/") and not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


@given(st.from_regex(r"[A-Za-z0-9._%-]{1,20}", fullmatch=True))
def test_every_trust_file_has_its_place_but_those_that_mean_another(file: str) -> None:
    try:
        TrustFile(file)
    except BadName:
        return
    assert (limit_of(f"trust/{file}") is None) is (file in (".", ".."))
