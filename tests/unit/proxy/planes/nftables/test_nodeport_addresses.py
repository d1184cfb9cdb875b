"""Where node ports answer in nftables mode."""

import pytest

from svcplane.base.net import Family
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.planes.nftables.plan import nodeport_ips

HERE = ("127.0.0.1", "172.30.0.11", "10.244.1.1")
HERE6 = ("::1", "fd00:30::b")


@pytest.mark.parametrize(
    ("family", "chosen", "here", "answer"),
    [
        (Family.IPV4, (), HERE, ()),
        (Family.IPV4, ("172.30.0.0/16",), HERE, ("172.30.0.11",)),
        (Family.IPV4, ("10.244.1.0/24", "127.0.0.0/8"), HERE, ("10.244.1.1",)),
        (Family.IPV4, ("127.0.0.0/8",), HERE, ()),
        (Family.IPV4, ("0.0.0.0/0",), HERE, ("172.30.0.11", "10.244.1.1")),
        (Family.IPV6, ("::/0",), HERE6, ("fd00:30::b",)),
    ],
)
def test_chosen_addresses_but_never_loopback(
    family: Family, chosen: tuple[str, ...], here: tuple[str, ...], answer: tuple[str, ...]
) -> None:
    assert nodeport_ips(NodeConfig("node1", family, nodeport_addresses=chosen), here) == answer
