"""Protobuf bodies, encoded here by hand from the field numbers of generated.proto."""

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from svcplane.api import codec, protobuf
from svcplane.api.resources import NAMESPACES, PODS, SERVICES


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    names = (field(1, api_version) if api_version else b"") + (field(2, kind) if kind else b"")
    return b"k8s\x00" + field(1, names) + field(2, raw) + field(3, "") + field(4, "")


def meta(name: str, *more: bytes) -> bytes:
    return field(1, field(1, name) + field(8, b"") + b"".join(more))


def test_namespace_with_labels_and_zero_time_becomes_the_tree_that_json_gives() -> None:
    body = envelope("Namespace", meta("demo", field(11, field(1, "a") + field(2, "b"))) + field(2, b"") + field(3, b""))
    decoded = codec.decode(body, protobuf.MEDIA_TYPE, NAMESPACES)
    assert decoded.problems == []
    assert decoded.tree["metadata"] == {"name": "demo", "labels": {"a": "b"}}
    assert (decoded.tree["apiVersion"], decoded.tree["kind"]) == ("v1", "Namespace")


def test_service_ports_keep_numeric_and_named_targets() -> None:
    number = field(2, "TCP") + field(3, 80) + field(4, field(1, 0) + field(2, 8080) + field(3, ""))
    named = field(2, "UDP") + field(3, 53) + field(4, field(1, 1) + field(2, 0) + field(3, "dns"))
    spec = field(1, number) + field(1, named) + field(2, field(1, "app") + field(2, "web"))
    tree = protobuf.decode(envelope("Service", meta("web") + field(2, spec)))
    assert tree["spec"]["selector"] == {"app": "web"}
    assert [port["targetPort"] for port in tree["spec"]["ports"]] == [8080, "dns"]
    assert [port["port"] for port in tree["spec"]["ports"]] == [80, 53]


def test_messages_that_json_shows_inline_are_lifted() -> None:
    probe = field(1, field(2, field(1, "/ready") + field(2, field(1, 0) + field(2, 8080)))) + field(2, 3)
    container = field(1, "c") + field(2, "image") + field(11, probe)
    volume = field(1, "v") + field(2, field(2, field(1, "Memory")))
    tree = protobuf.decode(envelope("Pod", meta("p") + field(2, field(1, volume) + field(2, container))))
    assert tree["spec"]["volumes"] == [{"name": "v", "emptyDir": {"medium": "Memory"}}]
    read = tree["spec"]["containers"][0]["readinessProbe"]
    assert read == {"httpGet": {"path": "/ready", "port": 8080}, "initialDelaySeconds": 3}
    assert codec.convert(tree, PODS).problems == []


def test_negative_number_is_sign_extended() -> None:
    assert protobuf.decode(envelope("DeleteOptions", field(1, -1)))["gracePeriodSeconds"] == -1


def test_unknown_field_number_is_passed_over() -> None:
    tree = protobuf.decode(envelope("Service", meta("web") + field(900, "x") + field(901, 5)))
    assert tree["metadata"]["name"] == "web"
    assert set(tree) == {"metadata", "kind", "apiVersion"}


def test_message_of_another_kind_is_refused_as_json_is() -> None:
    with pytest.raises(Exception, match="cannot be handled as a Service"):
        codec.decode(envelope("Pod", meta("p")), protobuf.MEDIA_TYPE, SERVICES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        envelope("Nonsense", b""),
        envelope("Service", b"\x0a\xff"),
        envelope("Service", b"\x0f"),
        envelope("Service", field(1, 5)),
        envelope("Service", field(1, field(1, b"\xff\xfe"))),
    ],
)
def test_malformed_body_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        protobuf.decode(body)


@given(hs.binary(max_size=200))
def test_arbitrary_bytes_give_a_tree_or_a_value_error(raw: bytes) -> None:
    try:
        tree = protobuf.decode(envelope("Pod", raw))
    except ValueError:
        return
    assert tree["kind"] == "Pod"


def test_time_out_of_range_is_a_value_error() -> None:
    created = field(1, field(8, field(1, 1 << 60)))
    with pytest.raises(ValueError, match="out of range"):
        protobuf.decode(envelope("Namespace", created))
