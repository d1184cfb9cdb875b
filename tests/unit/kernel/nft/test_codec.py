"""nf_tables messages: what is encoded decodes to the same objects."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as s

from svcplane.base.net import Family
from svcplane.kernel.netlink import codec as netlink
from svcplane.kernel.nft import codec
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import DetectLocal, NodeConfig
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.planes.nftables.layout import Layout, interval_elements, sets
from svcplane.proxy.planes.nftables.plan import skeleton

TABLE = o.TableName(Family.IPV4, "t")


def body_of(message: bytes) -> bytes:
    """The attributes of the single message."""
    ((_, _, _, body),) = netlink.messages(message)
    return body[4:]


def config(family: Family) -> NodeConfig:
    cidr = "10.0.0.0/8" if family is Family.IPV4 else "fd00::/8"
    return NodeConfig("n", family, DetectLocal.CLUSTER_CIDR, (cidr,))


def all_classes() -> list[tuple[n.Context, n.Class]]:
    return [
        (context, n.Class(kind, timeout, slots))
        for context in n.Context
        for kind in n.Kind
        for timeout in (0, 10800)
        for slots in (1, 3)
    ]


@pytest.mark.parametrize("family", list(Family))
def test_rule_encoded_and_decoded_is_the_same(family: Family) -> None:
    wanted = skeleton(config(family), all_classes(), guarded=True)
    seen = 0
    for chain, rules in wanted.rules.items():
        for rule in rules:
            (message,) = codec.encode_change(TABLE, o.AddRule(chain, rule), 1)
            assert codec.decode_rule(body_of(message)) == ("t", chain, rule)
            seen += 1
    assert seen > 100


@pytest.mark.parametrize("family", list(Family))
def test_set_encoded_and_decoded_is_the_same(family: Family) -> None:
    for spec in sets(family).values():
        assert codec.decode_set(codec.encode_set("t", spec, 1)) == ("t", spec)


def test_chain_encoded_and_decoded_is_the_same() -> None:
    for chain, _ in Layout(config(Family.IPV4)).base_chains() + Layout(config(Family.IPV4)).regular_chains():
        (message,) = codec.encode_change(TABLE, o.AddChain(chain), 1)
        assert codec.decode_chain(body_of(message)) == ("t", chain)


def test_elements_with_everything_decode_to_the_same() -> None:
    elements = [
        o.Element(b"abcd", b"efgh"),
        o.Element(b"abce", None, "a comment"),
        o.Element(b"abcf", o.Verdict(o.Code.GOTO, "chain")),
        o.Element(b"abcg", None, interval_end=True),
        o.Element(b"abch", b"efgh", "ns/svc:port", timeout_ms=10_800_000),
    ]
    spec = o.Set("s", (o.DataType.MARK,), (o.DataType.MARK,))
    (message,) = codec.encode_change(TABLE, o.AddElements(spec, tuple(elements)), 1)
    assert list(codec.decode_elements(body_of(message))) == elements


word = s.binary(min_size=4, max_size=4)
alike = s.tuples(word, word).map(lambda pair: o.Element(*pair))
other = (
    s.tuples(s.binary(min_size=8, max_size=8), word).map(lambda pair: o.Element(*pair))
    | s.tuples(word, s.none() | s.just(o.Verdict(o.Code.DROP)), s.sampled_from(["", "a"])).map(lambda p: o.Element(*p))
    | word.map(lambda key: o.Element(key, key, timeout_ms=1000))
)


@given(s.lists(alike, max_size=5), s.lists(alike | other, max_size=2))
def test_elements_that_are_alike_decode_as_any_do(first: list[o.Element], rest: list[o.Element]) -> None:
    spec = o.Set("s", (o.DataType.MARK,), (o.DataType.MARK,))
    elements = (*first, *rest)
    decoded = [
        element
        for message in codec.encode_change(TABLE, o.AddElements(spec, elements), 1)
        for element in codec.decode_elements(body_of(message))
    ]
    assert decoded == list(elements)


def test_element_list_too_long_for_one_attribute_is_split() -> None:
    spec = o.Set("s", (o.DataType.MARK,), (o.DataType.MARK,))
    elements = tuple(o.Element(struct.pack("=I", number), b"data") for number in range(5000))
    messages = list(codec.encode_change(TABLE, o.AddElements(spec, elements), 1))
    assert len(messages) > 1
    decoded = [element for message in messages for element in codec.decode_elements(body_of(message))]
    assert decoded == list(elements)


def test_comment_longer_than_the_kernel_takes_is_cut_at_a_character() -> None:
    raw = codec.user_comment("ä" * 200)
    assert len(raw) <= 130
    assert codec.comment_of(raw) == "ä" * 63


def test_unknown_expression_decodes_to_unknown() -> None:
    assert codec.decode_expression("quota", {}) == o.Unknown("quota")
    assert codec.decode_expression("payload", {1: b"\0\0\0\1"}) == o.Unknown("payload")


@pytest.mark.parametrize(
    ("cidrs", "expected"),
    [
        ((), []),
        (("10.0.0.0/9", "10.128.0.0/9"), ["00000000-", "0a000000+", "0b000000-"]),
        (("0.0.0.0/0",), ["00000000+"]),
        (("255.255.255.255/32", "10.0.0.0/8", "10.1.0.0/16"), ["00000000-", "0a000000+", "0b000000-", "ffffffff+"]),
    ],
)
def test_ranges_are_merged_and_closed(cidrs: tuple[str, ...], expected: list[str]) -> None:
    found = [f"{e.key.hex()}{'-' if e.interval_end else '+'}" for e in interval_elements(cidrs, Family.IPV4)]
    assert found == expected
