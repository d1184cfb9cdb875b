"""Facts and settings -> the configuration of each family."""

from dataclasses import replace

import pytest

from svcplane.api.core import Node, NodeAddress, NodeSpec, NodeStatus
from svcplane.base.net import Family
from svcplane.proxy.model import DetectLocal
from svcplane.proxy.settings import Facts, Settings, gather, node_configs

LOCAL = {
    Family.IPV4: ("127.0.0.1", "169.254.0.1", "192.0.2.7"),
    Family.IPV6: ("::1", "fe80::1", "2001:db8::7"),
}
NODE = Node(
    spec=NodeSpec(pod_cidrs=["10.244.1.0/24", "fd00:1::/64"]),
    status=NodeStatus(
        addresses=[
            NodeAddress(type="Hostname", address="n1"),
            NodeAddress(type="ExternalIP", address="203.0.113.1"),
            NodeAddress(type="InternalIP", address="192.0.2.1"),
        ]
    ),
)


def test_the_node_names_its_ips_and_the_host_fills_in_a_family() -> None:
    facts = gather(NODE, LOCAL, ["10.96.0.0/16"])
    assert facts == Facts(("192.0.2.1", "2001:db8::7"), ("10.244.1.0/24", "fd00:1::/64"), ("10.96.0.0/16",))


def test_without_a_node_the_first_address_that_others_can_reach_counts() -> None:
    assert gather(None, LOCAL, ()).node_ips == ("192.0.2.7", "2001:db8::7")


@pytest.mark.parametrize(("bind", "first"), [("192.0.2.99", "192.0.2.99"), ("0.0.0.0", "192.0.2.1"), ("", "192.0.2.1")])
def test_a_bind_address_comes_first(bind: str, first: str) -> None:
    assert gather(NODE, LOCAL, (), bind).node_ips[0] == first


@pytest.mark.parametrize(
    ("mode", "chosen", "primary_only", "four", "six"),
    [
        ("nftables", (), True, (), ()),
        ("iptables", (), False, (), ()),
        ("ipvs", (), False, (), ()),
        ("userspace", (), False, (), ()),
        ("iptables", ("primary",), True, (), ()),
        ("nftables", ("192.0.2.0/24",), False, ("192.0.2.0/24",), ()),
        ("nftables", ("0.0.0.0/0", "2001:db8::/32"), False, (), ("2001:db8::/32",)),
    ],
)
def test_where_node_ports_answer(
    mode: str, chosen: tuple[str, ...], primary_only: bool, four: tuple[str, ...], six: tuple[str, ...]
) -> None:
    configs = node_configs(Settings("n1", mode, nodeport_addresses=chosen), gather(NODE, LOCAL, ()))
    assert [config.nodeport_primary_only for config in configs.values()] == [primary_only] * 2
    assert [config.nodeport_addresses for config in configs.values()] == [four, six]


def test_a_family_without_a_cidr_cannot_tell_pods() -> None:
    settings = Settings("n1", cluster_cidrs=("10.244.0.0/16",))
    configs = node_configs(settings, gather(NODE, LOCAL, ()))
    assert configs[Family.IPV4].detect_local is DetectLocal.CLUSTER_CIDR
    assert configs[Family.IPV6].detect_local is DetectLocal.NONE
    by_node = node_configs(replace(settings, detect_local=DetectLocal.NODE_CIDR), gather(NODE, LOCAL, ()))
    assert by_node[Family.IPV4].local_cidrs == ("10.244.1.0/24",)
    assert by_node[Family.IPV6].local_cidrs == ("fd00:1::/64",)
