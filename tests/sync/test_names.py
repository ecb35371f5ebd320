"""Names: what is accepted enters topics, paths and tables; everything else fails at birth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.names import BadName, DeviceId, Digest, Kind, ModelName, Name, TenantId, TrustFile

GOOD = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(GOOD)
def test_a_good_name_is_the_same_text(text: str) -> None:
    for kind in (TenantId, DeviceId, ModelName, Kind):
        assert kind(text) == text


@given(st.text(max_size=70))
def test_no_accepted_name_can_leave_its_level_of_a_topic_or_path(text: str) -> None:
    try:
        name = TenantId(text)
    except BadName:
        return
    assert not set(name) & set("/+#.\\\0\n $~") and 1 <= len(name.encode()) <= 63


@pytest.mark.parametrize("text", ["", "-a", "A", "a_b", "a/b", "a.b", "..", "+", "#", "a\n", "é", "a" * 64, "a b"])
def test_bad_names_are_refused_with_what_would_be_accepted(text: str) -> None:
    with pytest.raises(BadName, match="it must be 1 to 63"):
        DeviceId(text)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_digest_is_64_lowercase_hex_digits(text: str) -> None:
    with pytest.raises(BadName):
        Digest(text)


def test_a_digest_of_the_right_shape_is_accepted() -> None:
    assert Digest("0123456789abcdef" * 4)


@pytest.mark.parametrize("text", ["1.root.json", "model.watch.json", "a%2Fb.json", "a" * 128])
def test_trust_files_are_accepted(text: str) -> None:
    assert TrustFile(text) == text


@pytest.mark.parametrize("text", ["", "a/b", "a b", "a" * 129, "a+", "a#"])
def test_no_trust_file_can_be_a_filter_or_leave_its_folder(text: str) -> None:
    with pytest.raises(BadName):
        TrustFile(text)


def test_something_that_is_no_text_is_refused_like_a_bad_name() -> None:
    with pytest.raises(BadName):
        Name(7)  # type: ignore[arg-type]
