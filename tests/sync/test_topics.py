"""Topics: what is built is parsed back, the rest is refused, and rules let a device reach itself alone."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import topics
from sync.names import BadName, DeviceId, Digest, Kind, TenantId, TrustFile
from sync.topics import Address, device_may, matches, parse

TENANT, DEVICE = TenantId("acme"), DeviceId("pump-7")
DIGEST = Digest("ab" * 32)
LEVEL = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)

BUILT = {
    topics.desired(TENANT, DEVICE): Address(TENANT, "desired", device=DEVICE),
    topics.reported(TENANT, DEVICE): Address(TENANT, "reported", device=DEVICE),
    topics.status(TENANT, DEVICE): Address(TENANT, "status", device=DEVICE),
    topics.up(TENANT, DEVICE, Kind("event")): Address(TENANT, "up", device=DEVICE, kind=Kind("event")),
    topics.ack(TENANT, DEVICE, Kind("event")): Address(TENANT, "ack", device=DEVICE, kind=Kind("event")),
    topics.trust(TENANT, TrustFile("index")): Address(TENANT, "trust", file=TrustFile("index")),
    topics.blob(TENANT, DIGEST, 12): Address(TENANT, "blob", digest=DIGEST, index=12),
    topics.core_status(TENANT): Address(TENANT, "core-status"),
    "falaj/1/acme/d/pump-7/labels": Address(TENANT, "labels", device=DEVICE),
    "falaj/1/acme/d/pump-7/cmd/logs": Address(TENANT, "cmd", device=DEVICE, kind=Kind("logs")),
}


@pytest.mark.parametrize("topic", BUILT)
def test_every_topic_is_parsed_back(topic: str) -> None:
    assert parse(topic) == BUILT[topic]


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "falaj/1/acme",
        "falaj/2/acme/core/status",
        "other/1/acme/core/status",
        "falaj/1/acme/core/status/x",
        "falaj/1/Acme/core/status",
        "falaj/1/acme/d/pump-7",
        "falaj/1/acme/d/pump-7/secret",
        "falaj/1/acme/d/../desired",
        "falaj/1/acme/d/+/desired",
        "falaj/1/acme/blob/short/0",
        f"falaj/1/acme/blob/{'ab' * 32}/-1",
        f"falaj/1/acme/blob/{'ab' * 32}/١",
        "falaj/1/acme/trust/a/b",
    ],
)
def test_what_is_not_ours_is_refused(topic: str) -> None:
    with pytest.raises(BadName):
        parse(topic)


@given(st.text(max_size=60))
def test_parsing_never_fails_in_another_way(text: str) -> None:
    with contextlib.suppress(BadName):
        parse(f"falaj/1/{text}")


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/#", "a", True),  # MQTT 5, 4.7.1.2: '#' matches the parent too
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/b/c", "a/b", False),
    ],
)
def test_filters_match_as_the_standard_says(pattern: str, topic: str, expected: bool) -> None:
    assert matches(pattern, topic) is expected


@given(tenant=LEVEL, device=LEVEL, other_tenant=LEVEL, other=LEVEL)
def test_a_device_writes_below_itself_alone(tenant: str, device: str, other_tenant: str, other: str) -> None:
    tenant_id, device_id = TenantId(tenant), DeviceId(device)
    for topic in (
        topics.reported(TenantId(other_tenant), DeviceId(other)),
        topics.status(TenantId(other_tenant), DeviceId(other)),
        topics.up(TenantId(other_tenant), DeviceId(other), Kind("event")),
    ):
        own = (tenant, device) == (other_tenant, other)
        assert device_may("write", tenant_id, device_id, topic) is own


@given(tenant=LEVEL, device=LEVEL, other_tenant=LEVEL, other=LEVEL)
def test_a_device_reads_its_own_orders_alone(tenant: str, device: str, other_tenant: str, other: str) -> None:
    own = (tenant, device) == (other_tenant, other)
    topic = topics.desired(TenantId(other_tenant), DeviceId(other))
    assert device_may("read", TenantId(tenant), DeviceId(device), topic) is own


@pytest.mark.parametrize(
    "topic", ["falaj/1/acme/d/pump-7/desired", "falaj/1/acme/trust/index", "falaj/1/acme/core/status", "x"]
)
def test_no_device_writes_what_the_core_says(topic: str) -> None:
    assert not device_may("write", TENANT, DEVICE, topic)


def test_a_device_hears_labels() -> None:
    assert "falaj/1/acme/d/pump-7/labels" in topics.device_subscriptions(TENANT, DEVICE)


def test_what_a_device_subscribes_to_it_may_read() -> None:
    for pattern in topics.device_subscriptions(TENANT, DEVICE):
        assert device_may("read", TENANT, DEVICE, pattern.replace("+", "event"))


def test_the_core_hears_all_a_device_may_write() -> None:
    heard = topics.core_subscriptions(TENANT)
    for action, pattern in topics.DEVICE_RULES:
        if action == "write":
            topic = f"{topics.tenant_root(TENANT)}/{pattern.format(device=DEVICE)}".replace("+", "event")
            assert any(matches(p, topic) for p in heard), topic
